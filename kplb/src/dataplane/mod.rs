//! The programs and maps in the kernel: the only place that touches them.
//!
//! Invariant: what is half done is undone. A [`Dataplane`] that fails to load or attach leaves no program, map or pin;
//! one that is attached outlives its process, by its pins, until [`Dataplane::detach`] or [`remove_pins`].

mod attach;
mod counters;
mod kernel;
mod leases;
mod local;
mod object;
mod pins;
mod records;
mod rings;

pub use attach::{Attached, ModeChoice, XdpMode};
pub use counters::Counters;
pub use kernel::{Dataplane, FlowTableSizes, LoadOptions};
pub use leases::{Leases, boottime_now_ns};
pub use object::{FLOOR_OBJECT, OBJECT};
pub use pins::{pin_directory, remove_pins};
pub use records::{Reports, Sighting};
