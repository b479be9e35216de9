//! `cargo xtask soak`: mixed load for a long time, with faults at random, and what must be true all the time.
//!
//! ```text
//!   seed -> plan (fault) -> inject, undo (stage) ---> episodes --+
//!                                                                |-> excuse: explained?
//!   clients (load) -> ledger: what succeeded, what failed -------+        masters: one?
//!   watch: who has the VIPs, memory, descriptors ----------------+        growth: bounded?
//! ```
//!
//! Invariant: a failure counts as explained only by a fault that was there, for as long as kplb may take to deal with it,
//! and only for what that fault can break. Between faults nothing may fail.

pub mod busy;
pub mod excuse;
pub mod fault;

pub mod ledger;
pub mod load;

pub mod inject;
pub mod stage;

pub mod growth;
pub mod masters;
pub mod watch;

pub mod report;

mod run;

use std::time::Duration;

pub use self::{
    report::Report,
    run::{Options, run},
};

/// Time between adverts: with the debug build on a busy machine, an agent that follows another at once is there before
/// the lease has ended.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// For how long flows are remembered without a packet; more than anything here says nothing.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// When clients give up who says nothing.
pub const STALL: Duration = Duration::from_secs(6);
