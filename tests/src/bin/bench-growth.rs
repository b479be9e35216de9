//! `cargo xtask bench growth`: how what kplb costs grows with services, backends and flows.

use std::{
    fs,
    path::{Path, PathBuf},
};

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

/// Milliseconds to build a ring of so many slots, one of [`SLOTS`], for ten backends.
fn build_of(n_slots: u32) -> f64 {
    match n_slots {
        1021 => growth::ring_build::<1021>(10),
        4093 => growth::ring_build::<4093>(10),
        65_537 => growth::ring_build::<65_537>(10),
        _ => growth::ring_build::<RING_SIZE>(10),
    }
}

/// Milliseconds to make and fill a map for such a ring.
fn fill_of(n_slots: u32) -> Result<f64> {
    match n_slots {
        1021 => growth::ring_fill::<1021>(),
        4093 => growth::ring_fill::<4093>(),
        65_537 => growth::ring_fill::<65_537>(),
        _ => growth::ring_fill::<RING_SIZE>(),
    }
}

/// Measures how costs grow.
#[derive(Parser)]
struct Arguments {
    /// Only what is measured whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Where to write the figures and the plots.
    #[arg(long, default_value = "target/growth")]
    directory: PathBuf,
}

/// Curves that go into one picture for each of what there is more and more of.
struct Plot {
    name: &'static str,
    unit: &'static str,
    only: String,
    curves: Vec<Curve>,
}

impl Plot {
    fn measure(
        &mut self,
        what: &str,
        of: &'static str,
        sizes: &[u32],
        cost: impl FnMut(u32) -> Result<f64>,
    ) -> Result<()> {
        if what.contains(&self.only) {
            self.curves.push(Curve::measure(what, of, sizes, cost)?);
        }
        Ok(())
    }

    fn draw(&self, directory: &Path) -> Result<()> {
        let Self { name, unit, curves, .. } = self;
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
        Ok(())
    }
}

fn main() -> Result<()> {
    let Arguments { only, directory } = Arguments::parse();
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let plot = |name, unit| Plot { name, unit, only: only.clone(), curves: Vec::new() };
    let mut plots = [plot("packets", "ns a packet"), plot("memory", "MiB"), plot("rings", "ms"), plot("agent", "ms")];
    let [packets, memory, rings, agent] = &mut plots;
    let outcome = (measure_packets(packets).and_then(|()| measure_memory(memory)))
        .and_then(|()| measure_rings(rings))
        .and_then(|()| measure_agent(agent));
    // What was measured is not lost, whatever came after it.
    let all: Vec<Curve> = plots.iter().flat_map(|plot| plot.curves.clone()).collect();
    println!("{}", table(&all));
    fs::write(directory.join("growth.json"), serde_json::to_string_pretty(&all)?)?;
    plots.iter().try_for_each(|plot| plot.draw(&directory))?;
    println!("figures and plots: {}", directory.display());
    outcome
}

fn shape(n_services: u32, n_backends: u32) -> Result<Shape> {
    Ok(Shape { n_services: n_services.try_into()?, n_backends: n_backends.try_into()?, max_flows: FEW })
}

fn measure_packets(plot: &mut Plot) -> Result<()> {
    // A backend has no more flows than there are NAT ports; and a table that is full to its last entry has already lost some,
    // as each processor keeps a few free ones for itself.
    let room = |n_flows: u32| Shape { n_services: 1, n_backends: 100, max_flows: (n_flows + n_flows / 8).max(FEW) };
    for (name, ingress) in [("XDP", Ingress::Xdp), ("TC", Ingress::Tc)] {
        let what = format!("ns a packet, {name}");
        plot.measure(&what, "services", &SERVICES, |n| growth::packets(ingress, shape(n, 1)?, 1))?;
        plot.measure(&what, "backends", &BACKENDS, |n| growth::packets(ingress, shape(1, n)?, 1))?;
        plot.measure(&what, "flows", &FLOWS, |n| growth::packets(ingress, room(n), n))?;
        // A packet of a flow that is there asks for no service and no ring; one that opens a flow does.
        let what = format!("ns a new flow, {name}");
        plot.measure(&what, "services", &SERVICES, |n| growth::openings(ingress, shape(n, 4)?))?;
        plot.measure(&what, "backends", &BACKENDS, |n| growth::openings(ingress, shape(1, n)?))?;
    }
    Ok(())
}

fn measure_memory(plot: &mut Plot) -> Result<()> {
    let what = "MiB of maps";
    plot.measure(what, "services", &SERVICES, |n| growth::memory(shape(n, 1)?))?;
    plot.measure(what, "backends", &BACKENDS, |n| growth::memory(shape(1, n)?))?;
    plot.measure(what, "flows that there is room for", &FLOWS, |n| growth::memory(Shape::usual(n)))
}

fn measure_rings(plot: &mut Plot) -> Result<()> {
    let build = "ms to build a ring";
    plot.measure(build, "backends", &BACKENDS, |n| Ok(growth::ring_build::<RING_SIZE>(n.try_into()?)))?;
    plot.measure(build, "slots", &SLOTS, |n| Ok(build_of(n)))?;
    plot.measure("ms to make a ring's map", "slots", &SLOTS, fill_of)?;
    let swap = "ms to swap rings in";
    plot.measure(swap, "services", &SERVICES, |n| growth::ring_swap(n.try_into()?, 1))?;
    plot.measure(swap, "backends", &BACKENDS, |n| growth::ring_swap(1, n.try_into()?))
}

fn measure_agent(plot: &mut Plot) -> Result<()> {
    let start = "ms until an agent serves";
    plot.measure(start, "services", &SERVICES, |n| growth::start(n.try_into()?, 1))?;
    plot.measure(start, "backends", &BACKENDS, |n| growth::start(1, n.try_into()?))?;
    // A service of a single backend has the same ring whatever that one's weight is.
    let reload = "ms of a reload";
    plot.measure(reload, "services", &SERVICES, |n| growth::reload(n.try_into()?, 2))?;
    plot.measure(reload, "backends", &BACKENDS[1..], |n| growth::reload(1, n.try_into()?))
}
