//! The live flows of a data path: what `kplb flows` shows, and its stable JSON form.
//!
//! Fields are only ever added. All of it is read from the maps, so it needs no agent.

mod collect;
mod decode;
mod filter;
mod text;

use std::net::SocketAddr;

pub use collect::{Collection, count};
pub use decode::{FlowRecord, Phase, client_key, decode, idle_ns, reply_key, state_name};
pub use filter::{FlowFilter, StateFilter};
use serde::{Deserialize, Serialize};
pub use text::{counts_text, flows_text};

use crate::directory::Directory;

/// The flows of one interface.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FlowsReport {
    /// The interface.
    pub interface: String,
    /// Whether an agent has given the names of services and backends; without, addresses stand for them.
    pub has_agent: bool,
    /// How many flows are asked for and live, listed or cut off.
    pub total: u64,
    /// Those that are listed, by service, then by client.
    pub flows: Vec<FlowReport>,
}

/// A flow.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FlowReport {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The client.
    pub client: SocketAddr,
    /// The service's name.
    pub service: String,
    /// VIP and port.
    pub vip: SocketAddr,
    /// The backend's name.
    pub backend: String,
    /// The backend's address and port.
    pub backend_address: SocketAddr,
    /// Address and port of this node that the backend talks to; `null`: the backend is on this node, and talks to the
    /// client's.
    pub nat: Option<SocketAddr>,
    /// `syn-sent`, `syn-acked`, `established`, `fin-from-client`, `fin-from-backend`, `closing`, `udp-unreplied`,
    /// `udp-replied` or `udp-assured`.
    pub state: String,
    /// How long ago the last packet of either direction came, in seconds.
    pub idle_seconds: f64,
    /// How long ago the client's last packet came.
    pub client_idle_seconds: f64,
    /// How long ago the backend's last packet came, or the flow changed its state; `null`: that is not known.
    pub backend_idle_seconds: Option<f64>,
}

/// The flows of one interface, counted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CountsReport {
    /// The interface.
    pub interface: String,
    /// See [`FlowsReport::has_agent`].
    pub has_agent: bool,
    /// How many flows are asked for and live.
    pub total: u64,
    /// By service and backend, those without a flow included.
    pub backends: Vec<CountReport>,
}

/// The flows of one backend of a service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CountReport {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// The backend's address and port.
    pub backend_address: SocketAddr,
    /// Flows whose client has proved that it is there.
    pub established: u64,
    /// Flows whose client has not.
    pub half_open: u64,
    /// Flows that have ended and are remembered for a while.
    pub closing: u64,
}

const NS_PER_SECOND: f64 = 1e9;

impl FlowReport {
    /// A flow, with names and in seconds; `backend_idle_ns`: see [`Self::backend_idle_seconds`].
    pub fn new(record: &FlowRecord, backend_idle_ns: Option<u64>, directory: &Directory) -> Self {
        let seconds = |ns: u64| ns as f64 / NS_PER_SECOND;
        let service = record.service();
        Self {
            protocol: record.protocol.name().to_owned(),
            client: record.client,
            service: directory.service(&service),
            vip: record.vip,
            backend: directory.backend(&service, record.backend),
            backend_address: record.backend,
            nat: record.nat,
            state: state_name(record.state).to_owned(),
            idle_seconds: seconds(backend_idle_ns.map_or(record.idle_ns, |ns| ns.min(record.idle_ns))),
            client_idle_seconds: seconds(record.idle_ns),
            backend_idle_seconds: backend_idle_ns.map(seconds),
        }
    }
}
