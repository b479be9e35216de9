//! Whether the kernel takes the programs: they are loaded, and let go again. Nothing is pinned or attached.

use anyhow::Context as _;
use aya::EbpfLoader;
use kplb_common::abi::{self, map};

use super::{
    local,
    object::{self, OBJECT},
};

/// Enough to be a table.
const ENTRIES: u32 = 1024;

/// What came of it.
#[derive(Debug)]
pub struct Trial {
    /// Of the programs on the interface.
    pub forwarding: anyhow::Result<()>,
    /// Of those at sockets of clients on this node.
    pub sockets: anyhow::Result<()>,
}

/// Loads the programs with small tables, and lets them go.
///
/// # Errors
/// If the kernel takes not even the maps, or the process may not.
pub fn trial() -> anyhow::Result<Trial> {
    let chooses_errors = u8::from(chooses_errors());
    let mut loader = EbpfLoader::new();
    loader.override_global(abi::CHOOSES_ERRORS, &chooses_errors, true);
    for name in [map::FLOWS4, map::FLOWS6, map::HALF_OPEN4, map::HALF_OPEN6] {
        loader.map_max_entries(name, ENTRIES);
    }
    let mut ebpf = loader.load(OBJECT).context("load the BPF object")?;
    let programs = [abi::XDP_PROGRAM, abi::TC_INGRESS_PROGRAM, abi::TC_PROGRAM, abi::SWEEP_PROGRAM, abi::CLOCK_PROGRAM];
    let forwarding = programs.into_iter().try_for_each(|name| object::load_program(&mut ebpf, name));
    Ok(Trial { forwarding, sockets: local::load(&mut ebpf) })
}

/// Whether clients on this node can be told in so many words that they are refused.
///
/// # Minimum kernel version
/// 6.1
pub fn chooses_errors() -> bool {
    local::chooses_errors()
}
