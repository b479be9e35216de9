//! `cargo xtask soak`: mixed load for a long time, with faults at random, and what must be true all the time.
//!
//! ```text
//!   seed -> plan (fault) -> inject, undo (stage) ---> episodes --+
//!                                                                |-> excuse: explained?
//!   clients (load) -> ledger: what succeeded, what failed -------+        masters: one?
//!   watch: who has the VIPs, memory, descriptors ----------------+        growth: bounded?
//!   peek: the flow tables, entry by entry -----------------------+        tables, flows: two halves, and as many as
//!   census: what clients hold and held --------------------------+        the load makes?
//! ```
//!
//! Invariant: a failure counts as explained only by a fault that was there, for as long as kplb may take to deal with it,
//! and only for what that fault can break. Between faults nothing may fail. Nothing at all explains what is wrong: another
//! node's answer, other bytes (integrity).

pub mod busy;
pub mod excuse;
pub mod fault;

pub mod census;
pub mod integrity;
pub mod ledger;
pub mod load;

pub mod inject;
pub mod stage;

pub mod growth;
pub mod masters;
pub mod watch;

pub mod flows;
pub mod peek;
pub mod tables;

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

/// The same of flows that are half open, and of those that have ended.
pub const SHORT_LIFETIME: Duration = Duration::from_secs(5);

/// When clients give up who says nothing.
pub const STALL: Duration = Duration::from_secs(6);
