//! What keeps an agent from serving, and what to do about it.

use thiserror::Error;

/// Something that keeps an agent from serving.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{what}; {advice}")]
pub(crate) struct Obstacle {
    /// What is in the way.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) advice: String,
}

impl Obstacle {
    pub(crate) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: advice.into() }
    }
}
