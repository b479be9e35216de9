//! Backends that fail, in every way they can, and what clients notice of it.
//!
//! Each of [`cases`] plays one failure on a lab of its own, checks what must be true whatever the machine's speed, and
//! returns what it has measured. Tests run them once; `cargo xtask bench failover` several times, for the figures.

mod background;
mod crowd;
mod scene;

pub mod cases;

use std::time::Duration;

/// Something that was measured.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub value: Value,
    /// What it should not exceed, if anything.
    pub reach: Option<Value>,
}

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Value {
    /// A time.
    Time(Duration),
    /// A number of things.
    Count(usize),
}

impl Figure {
    fn time(name: &'static str, value: Duration) -> Self {
        Self { name, value: Value::Time(value), reach: None }
    }

    fn count(name: &'static str, value: usize) -> Self {
        Self { name, value: Value::Count(value), reach: None }
    }

    fn within(self, reach: Duration) -> Self {
        Self { reach: Some(Value::Time(reach)), ..self }
    }

    fn at_most(self, reach: usize) -> Self {
        Self { reach: Some(Value::Count(reach)), ..self }
    }
}
