//! Measuring the data path packet by packet, without a network; and how many packets a second a processor forwards.

mod floor;
mod packets;
mod report;
mod scene;

pub mod forwarding;

pub use floor::{Floor, Measured, Program};
pub use report::{Case, Measurement, measure, table};
pub use scene::{Family, Scene, Shape, Traffic};
