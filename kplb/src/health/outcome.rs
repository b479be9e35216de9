//! What a check found, with the names that HAProxy has made known, and what it means for the backend.

use std::{fmt, time::Duration};

/// How far a check came.
///
/// Source: HAProxy's management guide, section 9.1, field `check_status`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Code {
    /// This node could not even ask.
    Sockerr,
    /// TCP: the connection was accepted.
    L4ok,
    /// TCP: refused, or nobody there to ask.
    L4con,
    /// TCP: no answer in time.
    L4tout,
    /// TLS: the handshake succeeded.
    L6ok,
    /// TLS: the handshake failed.
    L6rsp,
    /// TLS: no answer in time.
    L6tout,
    /// HTTP: the status is one of those expected.
    L7ok,
    /// HTTP: what came is no answer.
    L7rsp,
    /// HTTP: the status is another one.
    L7sts,
    /// HTTP: no answer in time.
    L7tout,
}

impl Code {
    /// The code as HAProxy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sockerr => "SOCKERR",
            Self::L4ok => "L4OK",
            Self::L4con => "L4CON",
            Self::L4tout => "L4TOUT",
            Self::L6ok => "L6OK",
            Self::L6rsp => "L6RSP",
            Self::L6tout => "L6TOUT",
            Self::L7ok => "L7OK",
            Self::L7rsp => "L7RSP",
            Self::L7sts => "L7STS",
            Self::L7tout => "L7TOUT",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a check found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// How far it came.
    pub code: Code,
    /// What it means for the backend.
    pub finding: Finding,
    /// How long it took.
    pub latency: Duration,
    /// What was wrong, or the HTTP status, in words; empty where the code says it all.
    pub words: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, words, latency, .. } = self;
        write!(f, "{code}")?;
        if !words.is_empty() {
            write!(f, " ({words})")?;
        }
        write!(f, " in {} ms", latency.as_millis())
    }
}

/// What a check means for the backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Finding {
    /// It may have new flows.
    Ready,
    /// It answers, but must not tell whether it is ready (HTTP 401 or 403): it may have new flows.
    Unjudged,
    /// It answers, and says that it is not ready: no new flows, but what flows it has it serves.
    NotReady,
    /// It said that nobody listens.
    Refused,
    /// It does not answer.
    Unreachable,
    /// Nothing: the check failed on this node.
    Unknown,
}

impl Finding {
    /// Whether the backend may have new flows.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Ready | Self::Unjudged)
    }

    /// Whether the backend is dead.
    pub const fn is_dead(self) -> bool {
        matches!(self, Self::Refused | Self::Unreachable)
    }
}
