//! Backends that fail, in every way they can, and what clients notice of it.
//!
//! Each of [`cases`] plays one failure on a lab of its own, checks what must be true whatever the machine's speed, and
//! returns what it has measured. Tests run them once; `cargo xtask bench failover` several times, for the figures.

mod crowd;
mod scene;

pub mod background;
pub mod cases;

pub use crate::figure::{Figure, Value};
