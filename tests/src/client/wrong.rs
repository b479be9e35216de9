//! An answer that is whole and wrong, which is worse than one that is cut off, late or missing.

use std::{error::Error, fmt};

/// The cause of an error when an answer came as a whole, by its own framing, and was not what was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wrong(String);

impl Wrong {
    /// One that is described so.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Wrong {}
