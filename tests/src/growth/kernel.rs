//! What grows in the kernel: time for a packet, memory, rings.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use kplb::{maglev, plan::Operation};

use crate::{
    bench::{Family, Floor, Scene, Shape, Traffic},
    figure::median,
    testbed::{Ingress, Testbed},
};

/// Packets of a measurement, of which there are [`N_ROUNDS`].
const N_PACKETS: u32 = 200_000;
const N_ROUNDS: usize = 5;
/// The most flows that one measurement's packets can be of.
const MAX_VARIANTS: u32 = 1 << 16;

/// Nanoseconds for a packet of established flows, as many as there are.
///
/// # Errors
/// If the kernel refuses.
pub fn packets(ingress: Ingress, shape: Shape, n_flows: u32) -> Result<f64> {
    let scene = Scene::load(ingress, Family::V4, shape)?;
    scene.establish(n_flows)?;
    let mut floor = Floor::load(ingress)?;
    let (frame, vary_at) = scene.frame(Traffic::ToBackend)?;
    // Not one more than there are flows: all are to be known.
    let n_variants = (1 << n_flows.max(1).ilog2()).min(MAX_VARIANTS);
    let mut times = Vec::new();
    for _ in 0..N_ROUNDS {
        let restored =
            scene.forwarding(|| floor.time_restored(Some(scene.program()?), &frame, vary_at, n_variants, N_PACKETS))?;
        let alone = floor.time_restored(None, &frame, vary_at, n_variants, N_PACKETS)?;
        times.push((restored.as_secs_f64() - alone.as_secs_f64()) * 1e9);
    }
    Ok(median(times))
}

/// Mebibytes that the kernel has locked for the maps.
///
/// # Errors
/// If the kernel does not tell.
pub fn memory(shape: Shape, n_flows: u32) -> Result<f64> {
    let scene = Scene::load(Ingress::Xdp, Family::V4, shape)?;
    scene.establish(n_flows)?;
    // By id: several descriptors can be of one map.
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // The one of this very listing is gone.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    drop(scene);
    Ok(maps.values().sum::<u64>() as f64 / f64::from(1 << 20))
}

/// Milliseconds to build a ring of `N` slots, a prime number, for so many backends: the median of several.
pub fn ring_build<const N: usize>(n_backends: u16) -> f64 {
    let member = |id| maglev::Member {
        address: SocketAddr::from((Ipv4Addr::from(0xc612_0000 + u32::from(id)), 6443)),
        weight: 1,
        id,
    };
    let members: Vec<_> = (0..n_backends).map(member).collect();
    median([0; N_ROUNDS].map(|_| {
        let start = Instant::now();
        std::hint::black_box(maglev::build_of_size::<N>(1, &members));
        start.elapsed().as_secs_f64() * 1e3
    }))
}

/// Milliseconds to swap the rings of so many services in.
///
/// # Errors
/// If the kernel refuses.
pub fn ring_swap(n_services: u16) -> Result<f64> {
    let scene = Scene::load(Ingress::Xdp, Family::V4, Shape { n_services, n_backends: 1, max_flows: 1024 })?;
    let mut testbed: Testbed = scene.into_testbed();
    let rings: Vec<Operation> = (testbed.desired().rings.iter())
        .map(|(service, ring)| Operation::SetRing { service: *service, ring: Arc::clone(ring) })
        .collect();
    let start = Instant::now();
    testbed.apply_all(&rings).context("swap rings")?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
