//! `cargo xtask bench growth`: how what kplb costs grows with services, backends and flows.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use kplb_common::maglev::RING_SIZE;
use kplb_tests::{
    bench::Shape,
    growth::{self, Curve, table},
    plot::{self, Axes, Line},
    testbed::Ingress,
};

const SERVICES: [u32; 4] = [1, 10, 100, 1000];
const BACKENDS: [u32; 4] = [1, 10, 100, 1000];
const FLOWS: [u32; 7] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];
/// Sizes of a ring: prime numbers. kplb has one of them.
const SLOTS: [u32; 4] = [1021, 4093, RING_SIZE as u32, 65_537];
/// Room for flows where there are few.
const FEW: u32 = 65_536;

/// Milliseconds to build a ring of so many slots, which are one of [`SLOTS`], for ten backends.
fn ring_of(n_slots: u32) -> f64 {
    match n_slots {
        1021 => growth::ring_build::<1021>(10),
        4093 => growth::ring_build::<4093>(10),
        65_537 => growth::ring_build::<65_537>(10),
        _ => growth::ring_build::<RING_SIZE>(10),
    }
}

/// Measures how costs grow.
#[derive(Parser)]
struct Arguments {
    /// Where to write the figures and the plots.
    #[arg(long, default_value = "target/growth")]
    directory: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { directory } = Arguments::parse();
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let shape = |n_services: u32, n_backends: u32| -> Result<Shape> {
        Ok(Shape { n_services: n_services.try_into()?, n_backends: n_backends.try_into()?, max_flows: FEW })
    };
    // A backend has no more flows than there are NAT ports; and a table that is full to its last entry has already lost some,
    // as each processor keeps a few free ones for itself.
    let room = |n_flows: u32| Shape { n_services: 1, n_backends: 100, max_flows: (n_flows + n_flows / 8).max(FEW) };
    let mut plots: Vec<(&str, &str, Vec<Curve>)> = Vec::new();
    let mut time = Vec::new();
    for (name, ingress) in [("XDP", Ingress::Xdp), ("TC", Ingress::Tc)] {
        let what = format!("ns a packet, {name}");
        time.push(Curve::measure(&what, "services", &SERVICES, |n| growth::packets(ingress, shape(n, 1)?, 1))?);
        time.push(Curve::measure(&what, "backends", &BACKENDS, |n| growth::packets(ingress, shape(1, n)?, 1))?);
        time.push(Curve::measure(&what, "flows", &FLOWS, |n| growth::packets(ingress, room(n), n))?);
    }
    plots.push(("packets", "ns a packet", time));
    plots.push((
        "memory",
        "MiB",
        vec![
            Curve::measure("MiB of maps", "services", &SERVICES, |n| growth::memory(shape(n, 1)?, 0))?,
            Curve::measure("MiB of maps", "backends", &BACKENDS, |n| growth::memory(shape(1, n)?, 0))?,
            Curve::measure("MiB of maps", "flows that there is room for", &FLOWS, |n| {
                growth::memory(Shape::usual(n), 0)
            })?,
        ],
    ));
    plots.push((
        "rings",
        "ms",
        vec![
            Curve::measure("ms to build a ring", "backends", &BACKENDS, |n| {
                Ok(growth::ring_build::<RING_SIZE>(n.try_into()?))
            })?,
            Curve::measure("ms to build a ring", "slots", &SLOTS, |n| Ok(ring_of(n)))?,
            Curve::measure("ms to swap rings in", "services", &SERVICES, |n| growth::ring_swap(n.try_into()?))?,
        ],
    ));
    plots.push((
        "agent",
        "ms",
        vec![
            Curve::measure("ms until it serves", "services", &SERVICES, |n| growth::start(n.try_into()?, 1))?,
            Curve::measure("ms until it serves", "backends", &BACKENDS, |n| growth::start(1, n.try_into()?))?,
            Curve::measure("ms of a reload", "services", &SERVICES, |n| growth::reload(n.try_into()?, 2))?,
            Curve::measure("ms of a reload", "backends", &BACKENDS, |n| growth::reload(1, n.max(2).try_into()?))?,
        ],
    ));
    let all: Vec<Curve> = plots.iter().flat_map(|(_, _, curves)| curves.clone()).collect();
    println!("{}", table(&all));
    for (name, unit, curves) in &plots {
        for of in ["services", "backends", "flows", "slots"] {
            let curves: Vec<&Curve> = curves.iter().filter(|curve| curve.of.starts_with(of)).collect();
            if !curves.is_empty() {
                let path = directory.join(format!("{name}-{of}.svg"));
                let axes = Axes { x: (curves[0].of, f64::to_string), y: unit };
                let lines: Vec<_> =
                    curves.iter().map(|curve| Line { name: &curve.what, points: &curve.points }).collect();
                plot::curves(&path, &format!("kplb: {unit}, by {of}"), &axes, &lines)?;
            }
        }
    }
    fs::write(directory.join("growth.json"), serde_json::to_string_pretty(&all)?)?;
    println!("figures and plots: {}", directory.display());
    Ok(())
}
