//! How what kplb costs grows with what there is of everything.

mod agent;
mod curve;
mod kernel;

pub use self::{
    agent::{reload, start},
    curve::{Curve, table},
    kernel::{memory, openings, packets, ring_build, ring_fill, ring_swap},
};

/// How often each is measured; the median counts.
const N_ROUNDS: usize = 5;
