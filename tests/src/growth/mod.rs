//! How what kplb costs grows with what there is of everything.

mod agent;
mod curve;
mod kernel;

pub use self::{
    agent::{reload, start},
    curve::{Curve, table},
    kernel::{memory, packets, ring_build, ring_swap},
};
