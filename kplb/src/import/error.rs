//! Why an import has nothing to print.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::finding::Place;
use crate::config::Problems;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file that was named could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line cannot be read.
    #[error("{place}: {message}: {hint}")]
    Syntax {
        /// The line.
        place: Place,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// More than an import takes.
    #[error("{place}: {what}: an import takes {limit} at most")]
    TooMuch {
        /// Where it became too much.
        place: Place,
        /// What is too much.
        what: &'static str,
        /// How much would do.
        limit: usize,
    },
    /// There is nothing in it that kplb could do.
    #[error("{message}: {hint}")]
    Nothing {
        /// What is missing.
        message: String,
        /// What to do.
        hint: String,
    },
    /// What came out is no configuration. That would be a mistake of the import.
    #[error("what was made of it is not right, and was not printed; please report this:\n{0}")]
    Unfit(#[from] Problems),
    /// What came out says something else than was meant. That would be a mistake, too.
    #[error("what was made of it says something else than it should, and was not printed; please report this")]
    Unlike,
}

impl ImportError {
    pub(super) fn syntax(place: &Place, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Syntax { place: place.clone(), message: message.into(), hint: hint.into() }
    }

    pub(super) fn too_much(place: &Place, what: &'static str, limit: usize) -> Self {
        Self::TooMuch { place: place.clone(), what, limit }
    }

    pub(super) fn nothing(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Nothing { message: message.into(), hint: hint.into() }
    }
}
