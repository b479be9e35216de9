//! The health of the backends: checks of each, and what follows from them.
//!
//! ```text
//!   watch ----- probe ----> backend        every interval, faster in doubt, at once when someone else was refused
//!     | outcome
//!   board ( fsm for each backend, what was decided by hand, slow start, drain timeout )
//!     | conditions
//!   model -> plan -> dataplane
//! ```
//!
//! [`outcome`], [`fsm`] and [`board`] are pure; [`probe`] and [`watch`] are the edge.

pub mod outcome;

pub mod board;
pub mod fsm;

pub mod probe;
pub mod watch;
