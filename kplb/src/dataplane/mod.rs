//! The programs and maps in the kernel: the only place that touches them.
//!
//! Invariant: what is half done is undone. A [`Dataplane`] that fails to load or attach leaves no program, map or pin of
//! its own, and those of a [`Predecessor`] as they were; one that is attached outlives its process, by its pins, until it
//! is taken over, or taken away by [`Dataplane::detach`] or [`take_away`].

mod attach;
mod batch;
mod counters;
mod kernel;
mod leases;
mod local;
mod mode;
mod object;
mod pinned;
mod pins;
mod predecessor;
mod records;
mod rings;
mod syscall;
mod tracing;
mod trial;

use anyhow::Context as _;
pub use attach::{
    Attached, ClassicFilter, ClassicFilters, Side, detach_classic, has_tc_links, own_filters, tcx_programs,
};
use aya::{Ebpf, maps::Map};
pub use counters::Counters;
pub use kernel::{Dataplane, FlowTableSizes, LoadOptions};
pub use leases::{Leases, boottime_now_ns, monotonic_now_ns};
pub use mode::{Mode, ModeChoice, NativeXdp};
pub use object::{FLOOR_OBJECT, OBJECT, build};
pub use pinned::{FlowFamily, FlowTables, PinnedMaps, from_ip, pinned_interfaces, protocol, to_ip};
pub use pins::pin_directory;
pub use predecessor::{Layout, Predecessor, Present, TcProgram, Traces, attached_mode, take_away};
pub use records::{Reports, Sighting};

/// A map of the object as the type that it has.
fn open<'a, T>(ebpf: &'a Ebpf, name: &str) -> anyhow::Result<T>
where
    T: TryFrom<&'a Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
    T::try_from(map).with_context(|| format!("the map {name} is of another type"))
}
pub use tracing::{REQUEST_LIFETIME, Tracing};
pub use trial::{Trial, chooses_errors, trial};
