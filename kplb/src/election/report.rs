//! How the election is, for `kplb status`; part of its stable JSON form.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// How the election is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ElectionReport {
    /// By how much its thread woke too late, last, in microseconds.
    pub delay_last_us: f64,
    /// The same, at its worst.
    pub delay_worst_us: f64,
    /// The virtual routers, one for each address family.
    pub routers: Vec<RouterReport>,
}

/// How a virtual router is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RouterReport {
    /// Whether its VIPs are IPv4 addresses; IPv6 addresses otherwise.
    pub is_ipv4: bool,
    /// Of the protocol.
    pub version: u8,
    /// Its id on the segment.
    pub router_id: u8,
    /// Of this node.
    pub priority: u8,
    /// Time between this node's adverts as master, in seconds.
    pub interval: f64,
    /// Where this node's adverts come from.
    pub address: IpAddr,
    /// `initialize`, `backup` or `master`.
    pub state: String,
    /// For how long, in seconds; `null` before the start.
    pub state_seconds: Option<f64>,
    /// What keeps this node from being master.
    pub faults: Vec<String>,
    /// Who is master, as far as this node knows.
    pub master: Option<IpAddr>,
    /// The other nodes.
    pub peers: Vec<PeerReport>,
    /// Changes of state.
    pub transitions: u64,
    /// Adverts sent.
    pub adverts_sent: u64,
    /// Adverts that could not be sent.
    pub send_errors: u64,
    /// Adverts received that counted.
    pub adverts_received: u64,
    /// How often this node, as a backup, ran too late to judge the master.
    pub relistened: u64,
    /// Adverts received that did not count, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Adverts received that counted, but were odd, by what was.
    pub remarks: BTreeMap<String, u64>,
    /// For how long this node may still answer for the VIPs, in seconds; 0: no longer. `null`: it never could.
    pub lease_seconds: Option<f64>,
}

/// Another node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PeerReport {
    /// Where its adverts come from.
    pub address: IpAddr,
    /// In its last advert; 0: it gave up. `null`: none was heard.
    pub priority: Option<u8>,
    /// How long ago that was, in seconds.
    pub heard_seconds: Option<f64>,
}
