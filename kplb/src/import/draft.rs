//! A configuration that is to be printed, and what is to be said beside it.

use crate::config::Config;

/// A configuration with its comments.
pub(super) struct Draft {
    pub(super) config: Config,
    /// At the top.
    pub(super) heading: Vec<String>,
    /// Above the table `[vrrp]`.
    pub(super) vrrp: VrrpNotes,
    /// Of each service, in their order.
    pub(super) services: Vec<ServiceNotes>,
}

/// What is said of the election.
#[derive(Default)]
pub(super) struct VrrpNotes {
    /// Above it.
    pub(super) heading: Vec<String>,
    /// Of the list of peers.
    pub(super) peers: Option<String>,
    /// Behind it: what is left to be done by hand.
    pub(super) ending: Vec<String>,
}

/// What is said of a service.
pub(super) struct ServiceNotes {
    /// Where it comes from.
    pub(super) origin: String,
    /// The name that was chosen, if one was.
    pub(super) is_named: bool,
    pub(super) persistence: Option<String>,
    /// Of each backend, in their order.
    pub(super) backends: Vec<BackendNotes>,
}

/// What is said of a backend.
pub(super) struct BackendNotes {
    pub(super) is_named: bool,
    pub(super) note: Option<String>,
}
