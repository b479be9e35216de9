//! Swapping rings.
//!
//! Each swap waits until no program is left that may use the old ring (`maybe_wait_bpf_programs` in the kernel's
//! kernel/bpf/syscall.c), tens of milliseconds long. Those of many services are made side by side, and so wait together.

use std::{os::fd::AsFd as _, sync::Arc, thread};

use anyhow::Context as _;
use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use kplb_common::maglev::Ring;

/// A thread each.
const MAX_SWAPS_AT_ONCE: usize = 32;

/// Builds each ring aside, and swaps it in whole. Of several failures, one is told.
pub(super) fn swap_in(rings: &MapData, new: &[(u16, Arc<Ring>)]) -> anyhow::Result<()> {
    if let [(service, ring)] = new {
        return swap_in_one(rings, *service, ring);
    }
    new.chunks(MAX_SWAPS_AT_ONCE).try_for_each(|new| {
        thread::scope(|scope| {
            let swaps: Vec<_> =
                (new.iter()).map(|(service, ring)| scope.spawn(move || swap_in_one(rings, *service, ring))).collect();
            let results: Vec<_> = swaps.into_iter().map(|swap| swap.join().expect("a swap does not panic")).collect();
            results.into_iter().collect()
        })
    })
}

fn swap_in_one(rings: &MapData, service: u16, ring: &Ring) -> anyhow::Result<()> {
    let mut inner = Array::<MapData, Ring>::create(1, 0).context("create a ring")?;
    inner.set(0, ring, 0).context("fill a ring")?;
    let rings = MapData::from_fd(rings.fd().as_fd().try_clone_to_owned().context("clone a descriptor")?)?;
    let mut rings: ArrayOfMaps<_, Array<MapData, Ring>> = Map::ArrayOfMaps(rings).try_into()?;
    rings.set(u32::from(service), &inner, 0).with_context(|| format!("swap in the ring of service {service}"))
}
