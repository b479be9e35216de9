//! What a node is like for kplb, and what to do about it: `kplb doctor`.
//!
//! ```text
//! the node, the segment -- gather --> Facts -- examine --> findings -- text --> people
//! ```
//!
//! Invariant: nothing on the node changes. Programs are loaded and let go, but attached to nothing; the segment is asked as
//! any host asks.
//!
//! Strict reverse path filters (`rp_filter`) are no finding: what kplb sends on never passes them, and what it passes up
//! comes by the interface that its clients are behind.

mod backends;
mod conflicts;
mod facts;
mod gather;
mod host;
mod interface;
mod segment;
mod text;
mod times;

use serde::Serialize;

pub use self::{
    facts::Facts,
    gather::{Options, gather},
    text::text,
};

/// How bad something is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, but not as well as it could, or not always.
    Warning,
    /// It does not work, or does harm.
    Error,
}

impl Level {
    /// The level as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a word that stays the same, such as `nat-ports`.
    pub topic: &'static str,
    /// What was found.
    pub what: String,
    /// What to do about it; `null`: nothing.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(topic: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, topic, what: what.into(), advice: None }
    }

    fn note(topic: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Note, ..Self::ok(topic, what) }
    }

    fn warning(topic: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..Self::ok(topic, what) }
    }

    fn error(topic: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Error, ..Self::warning(topic, what, advice) }
    }
}

/// What a node is like.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Report {
    /// The interface that was looked at; `null`: none.
    pub interface: Option<String>,
    /// The configuration that was read; `null`: there is none.
    pub configuration: Option<String>,
    /// Whether no finding is an error.
    pub is_fit: bool,
    /// What was found, the node first, then what is around it.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings are of this level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

/// What the facts come to.
pub fn examine(facts: &Facts) -> Report {
    let groups = [
        host::findings(&facts.host),
        interface::findings(facts),
        conflicts::findings(facts),
        segment::findings(facts),
        backends::findings(facts),
        times::findings(facts),
    ];
    let findings: Vec<Finding> = groups.into_iter().flatten().collect();
    Report {
        interface: facts.interface.as_ref().map(|interface| interface.name.clone()),
        configuration: facts.configuration.path().map(|path| path.display().to_string()),
        is_fit: findings.iter().all(|finding| finding.level < Level::Error),
        findings,
    }
}

#[cfg(test)]
mod tests;
