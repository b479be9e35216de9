//! The control socket of an agent: one JSON object a line, a request and its answer.
//!
//! ```text
//! -> {"command":"status"}
//! <- {"status":{...}}
//! ```

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

use crate::{health::board::Decision, status::Status};

/// What a client may ask for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Tell how things are.
    Status,
    /// Use a backend for less, or for everything again.
    Backend(BackendCommand),
    /// Read the configuration again.
    Reload,
    /// Take everything away and end. The connection is closed when that is done.
    Stop,
}

/// A decision by hand.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BackendCommand {
    /// What to do.
    pub action: BackendAction,
    /// Name of the backend.
    pub backend: String,
    /// Name of its service; every service that has a backend of this name, without.
    pub service: Option<String>,
}

/// What can be decided by hand.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendAction {
    /// No new flows.
    Drain,
    /// As its health says.
    Resume,
    /// Nothing at all.
    Maintenance,
}

impl BackendAction {
    /// What holds from then on.
    pub const fn decision(self) -> Option<Decision> {
        match self {
            Self::Drain => Some(Decision::Drain),
            Self::Resume => None,
            Self::Maintenance => Some(Decision::Maintenance),
        }
    }
}

/// A request as it is sent.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    command: Request,
}

/// What the agent answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How things are.
    Status(Box<Status>),
    /// The backends that were found, and how each is now.
    Backends(Vec<String>),
    /// The configuration was read again: what has changed, in words.
    Reloaded(Vec<String>),
    /// The agent is ending.
    Stopping {
        /// Its process id.
        pid: u32,
    },
    /// The request could not be answered.
    Error(String),
}

/// Longest line that either side takes for a request.
const MAX_REQUEST_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_strict() {
        let decode = |text| serde_json::from_str::<RequestLine>(text).ok().map(|line| line.command);
        assert_eq!(decode(r#"{"command":"status"}"#), Some(Request::Status));
        assert_eq!(decode(r#"{"command":"stop"}"#), Some(Request::Stop));
        assert_eq!(decode(r#"{"command":"reload"}"#), Some(Request::Reload));
        let drain = BackendCommand { action: BackendAction::Drain, backend: "cp1".to_owned(), service: None };
        assert_eq!(
            decode(r#"{"command":{"backend":{"action":"drain","backend":"cp1","service":null}}}"#),
            Some(Request::Backend(drain))
        );
        for wrong in ["", "{}", "[]", r#"{"command":"fly"}"#, r#"{"command":"stop","now":true}"#, r#""stop""#] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn answers_survive_the_wire() {
        for answer in
            [Answer::Stopping { pid: 7 }, Answer::Error("no".into()), Answer::Backends(vec!["cp1".to_owned()])]
        {
            let text = serde_json::to_string(&answer).expect("encodable");
            assert_eq!(serde_json::from_str::<Answer>(&text).expect("decodable"), answer);
        }
    }
}
