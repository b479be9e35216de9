//! What grows in the kernel: time for a packet, memory, rings.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData};
use kplb::{maglev, plan::Operation};

use super::N_ROUNDS;
use crate::{
    bench::{Family, Floor, Scene, Shape, Traffic},
    figure::median,
    kernel_maps,
    testbed::{Ingress, Testbed},
};

/// Packets of a measurement of established flows.
const N_PACKETS: u32 = 200_000;
/// The most flows that one measurement's packets can be of: numbers of ports.
const MAX_VARIANTS: u32 = 1 << 16;
/// Packets of a measurement of those that open flows: every port as often. Each begins with the first port, which is not to be
/// one of those that the one before has ended with.
const N_OPENINGS: u32 = 3 * MAX_VARIANTS;

/// Nanoseconds for a packet of established flows, as many as there are.
///
/// # Errors
/// If the kernel refuses.
pub fn packets(ingress: Ingress, shape: Shape, n_flows: u32) -> Result<f64> {
    let scene = Scene::load(ingress, Family::V4, shape)?;
    scene.establish(n_flows)?;
    // Not one more than there are flows: all are to be known.
    let n_variants = (1 << n_flows.max(1).ilog2()).min(MAX_VARIANTS);
    time(&scene, ingress, Traffic::ToBackend, n_variants, N_PACKETS)
}

/// Nanoseconds for a client's first packet, which opens a flow: it asks for its service, and that one's ring.
///
/// # Errors
/// If the kernel refuses, or they open no flows.
pub fn openings(ingress: Ingress, shape: Shape) -> Result<f64> {
    let scene = Scene::load(ingress, Family::V4, shape)?;
    // From every port. There is room for fewer flows that nobody has acknowledged, so one whose turn comes again is new again.
    let time = time(&scene, ingress, Traffic::Opening, MAX_VARIANTS, N_OPENINGS)?;
    let (n_opened, n_packets) = (scene.n_opened()?, u64::from(N_OPENINGS) * N_ROUNDS as u64);
    // Each processor has a list of entries that another one does not clear (`local_list` in kernel/bpf/bpf_lru_list.c): if this
    // thread is moved, some flows stay.
    ensure!(n_packets - n_opened <= n_packets / 50, "{n_packets} packets have opened {n_opened} flows");
    Ok(time)
}

fn time(scene: &Scene, ingress: Ingress, traffic: Traffic, n_variants: u32, n_packets: u32) -> Result<f64> {
    let mut floor = Floor::load(ingress)?;
    let (frame, vary_at) = scene.frame(traffic)?;
    let mut times = Vec::new();
    for _ in 0..N_ROUNDS {
        let restored =
            scene.forwarding(|| floor.time_restored(Some(scene.program()?), &frame, vary_at, n_variants, n_packets))?;
        let alone = floor.time_restored(None, &frame, vary_at, n_variants, n_packets)?;
        times.push((restored.as_secs_f64() - alone.as_secs_f64()) * 1e9);
    }
    Ok(median(times))
}

/// Mebibytes that the kernel has for the maps, the services' rings included.
///
/// # Errors
/// If the kernel does not tell.
pub fn memory(shape: Shape) -> Result<f64> {
    let scene = Scene::load(Ingress::Xdp, Family::V4, shape)?;
    let maps = kernel_maps::of_process(std::process::id())?;
    drop(scene);
    Ok(kernel_maps::mebibytes(&maps))
}

/// Milliseconds to build a ring of `N` slots, a prime number, for so many backends: the median of several.
pub fn ring_build<const N: usize>(n_backends: u16) -> f64 {
    let members = members(n_backends);
    median([0; N_ROUNDS].map(|_| {
        let start = Instant::now();
        std::hint::black_box(maglev::build_of_size::<N>(1, &members));
        start.elapsed().as_secs_f64() * 1e3
    }))
}

/// Milliseconds to make a map for a ring of `N` slots and to fill it, which is what of a swap is the longer the larger the ring
/// is; the median of several.
///
/// # Errors
/// If the kernel refuses.
pub fn ring_fill<const N: usize>() -> Result<f64> {
    let ring: &[u16; N] = &maglev::build_of_size(1, &members(10));
    let fill = |_| {
        let start = Instant::now();
        Array::<MapData, [u16; N]>::create(1, 0)?.set(0, ring, 0)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    Ok(median((0..N_ROUNDS).map(fill).collect::<Result<Vec<_>>>()?))
}

fn members(n_backends: u16) -> Vec<maglev::Member> {
    let member = |id| maglev::Member {
        address: SocketAddr::from((Ipv4Addr::from(0xc612_0000 + u32::from(id)), 6443)),
        weight: 1,
        id,
    };
    (0..n_backends).map(member).collect()
}

/// Milliseconds to swap the rings of so many services in, each of so many backends: the median of several.
///
/// # Errors
/// If the kernel refuses.
pub fn ring_swap(n_services: u16, n_backends: u16) -> Result<f64> {
    let scene = Scene::load(Ingress::Xdp, Family::V4, Shape { n_services, n_backends, max_flows: 1024 })?;
    let mut testbed: Testbed = scene.into_testbed();
    let rings: Vec<Operation> = (testbed.desired().rings.iter())
        .map(|(service, ring)| Operation::SetRing { service: *service, ring: Arc::clone(ring) })
        .collect();
    let mut times = Vec::new();
    for _ in 0..N_ROUNDS {
        let start = Instant::now();
        testbed.apply_all(&rings).context("swap rings")?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(times))
}
