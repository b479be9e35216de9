//! Backends that fail, in every way they can, and what clients notice of it.
//!
//! Each of [`cases`] plays one failure on a lab of its own, checks what must be true whatever the machine's speed, and
//! returns what it has measured. Tests run them once; `cargo xtask bench failover` several times, for the figures.

mod background;
mod crowd;
mod scene;

pub mod cases;

use std::{fmt, time::Duration};

use anyhow::{Result, ensure};

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

    /// Makes sure that what must never happen has not happened: a number is not a matter of the machine's speed.
    ///
    /// # Errors
    /// If it has.
    pub fn check(&self) -> Result<()> {
        let Self { name, value, reach } = self;
        if let (Value::Count(n), Some(Value::Count(reach))) = (value, reach) {
            ensure!(n <= reach, "{name}: {n}, and not at most {reach}");
        }
        Ok(())
    }

    fn within(self, reach: Duration) -> Self {
        Self { reach: Some(Value::Time(reach)), ..self }
    }

    fn at_most(self, reach: usize) -> Self {
        Self { reach: Some(Value::Count(reach)), ..self }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Time(time) if *time < Duration::from_secs(1) => write!(f, "{:.1} ms", time.as_secs_f64() * 1000.0),
            Self::Time(time) => write!(f, "{:.2} s", time.as_secs_f64()),
        }
    }
}
