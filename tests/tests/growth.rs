//! What the benchmarks of growth and of memory measure is there.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Result, ensure};
use aya::maps::MapInfo;
use kplb_common::{abi::LAYOUT_VERSION, maglev::Ring};
use kplb_tests::{
    bench::Shape,
    cluster::{self, Persistence},
    growth,
    kernel_maps::{self, Holder},
    lab::{Lab, LabOptions},
    testbed::Ingress,
};

#[test]
fn memory_grows_by_a_ring_for_each_service() -> Result<()> {
    let of = |n_services| growth::memory(Shape { n_services, n_backends: 1, max_flows: 1024 });
    let rings = (of(9)? - of(1)?) * f64::from(1 << 20) / size_of::<Ring>() as f64;
    // The kernel adds a header to each, and rounds up.
    ensure!((8.0..8.5).contains(&rings), "eight services more take {rings} rings");
    Ok(())
}

#[test]
fn an_agents_maps_are_all_that_it_pins_and_its_rings() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let configuration = cluster::unchecked(&cluster::configuration([node], Persistence::Client));
    let n_services = configuration.matches("[[service]]").count();
    let mut agent = cluster::start_agent(node, &configuration)?;
    let maps = kernel_maps::of_process(agent.process().pid())?;
    let pins = PathBuf::from(format!("/sys/fs/bpf/kplb/v{LAYOUT_VERSION}/eth0/maps"));
    let pinned: BTreeSet<u32> = node.namespace().run(|| {
        let id = |entry: std::io::Result<fs::DirEntry>| anyhow::Ok(MapInfo::from_pin(entry?.path())?.id());
        fs::read_dir(&pins)?.map(id).collect::<Result<_>>()
    })?;
    ensure!(!pinned.is_empty(), "nothing is pinned");
    let of = |holder| maps.iter().filter(move |map| map.holder == holder).map(|map| map.id);
    let missing: Vec<&u32> = pinned.iter().filter(|id| !of(Holder::Descriptor).any(|held| held == **id)).collect();
    ensure!(missing.is_empty(), "{missing:?} of {pinned:?} are not among {maps:?}");
    ensure!(of(Holder::Outer).count() == n_services, "not a ring for each of {n_services} services: {maps:?}");
    agent.stop()
}

#[test]
fn every_ring_changes_with_a_reload() -> Result<()> {
    let milliseconds = growth::reload(3, 2)?;
    ensure!(milliseconds > 0.0, "it took no time");
    let error = growth::reload(3, 1).expect_err("a single backend has its ring in any case");
    ensure!(format!("{error:#}").contains("0 of 3 rings"), "{error:#}");
    Ok(())
}

#[test]
fn first_packets_open_flows() -> Result<()> {
    for ingress in [Ingress::Xdp, Ingress::Tc] {
        // It is an error if one of them does not.
        growth::openings(ingress, Shape { n_services: 2, n_backends: 1, max_flows: 1024 })?;
    }
    Ok(())
}

#[test]
fn rings_are_swapped_in() -> Result<()> {
    ensure!(growth::ring_swap(2, 3)? > 0.0, "it took no time");
    ensure!(growth::ring_fill::<1021>()? > 0.0, "it took no time");
    Ok(())
}
