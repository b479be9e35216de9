//! How an agent and its data path are: what `kplb status` shows, and its stable JSON form.
//!
//! Fields are only ever added. What the maps count goes on when an agent takes over from another; resets and what the
//! election counts begin at zero with each agent, and the latter may when its settings change.

mod table;
mod text;
mod unattended;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use kplb_common::{flow::Direction, stats::BackendStats};
use serde::{Deserialize, Serialize};
pub(crate) use table::Table;
pub(crate) use text::period;
pub use text::{VerdictFilter, text};
pub use unattended::unattended;

use crate::{
    dataplane::{FlowTableSizes, Mode},
    election::ElectionReport,
};

/// How one agent is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// The interface it is attached to.
    pub interface: String,
    /// Where in the receive path the program at ingress runs: `native`, `tc` or `generic`.
    pub mode: String,
    /// Why there.
    pub mode_reason: String,
    /// What that costs.
    #[serde(default)]
    pub mode_cost: String,
    /// The agent's process id; `null`: there is no agent, and all that follows is what the pinned maps tell.
    pub pid: Option<u32>,
    /// The agent's version; without one, that of the `kplb` that reads.
    pub version: String,
    /// How long the agent has run, in seconds; 0 without one.
    pub uptime_seconds: u64,
    /// How many configurations the data path has followed: one at each start of an agent, one at each reload; 0 without an
    /// agent.
    #[serde(default)]
    pub generation: u64,
    /// The node as the data path sees it.
    pub node: NodeStatus,
    /// The services, in the order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// Packets by verdict name, all verdicts.
    pub verdicts: BTreeMap<String, u64>,
    /// Live IPv4 flows.
    pub flows_v4: FlowsStatus,
    /// Live IPv6 flows.
    pub flows_v6: FlowsStatus,
    /// Flows that there is room for, of each address family.
    #[serde(default)]
    pub flow_limits: FlowLimits,
    /// Resets that the agent has sent to the ends of idle flows that are over.
    #[serde(default)]
    pub resets: ResetsStatus,
    /// The election of the node that holds the VIPs; `null`: this node holds them, and no other kplb does; or there is no
    /// agent.
    pub election: Option<ElectionReport>,
    /// What the agent has said lately, the oldest first; not more than some dozens.
    #[serde(default)]
    pub events: Vec<EventStatus>,
}

impl Status {
    /// The place of the program at ingress in words.
    pub fn title(&self) -> String {
        Mode::from_name(&self.mode).map_or_else(|| format!("{} program", self.mode), |mode| mode.title().to_owned())
    }
}

/// Something that the agent has said.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct EventStatus {
    /// How long ago, in seconds.
    pub age_seconds: f64,
    /// `error`, `warn` or `info`.
    pub level: String,
    /// Its words.
    pub text: String,
}

/// The node as the data path sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NodeStatus {
    /// MAC address of the interface.
    pub mac: String,
    /// IPv4 source address of NATed flows; `null` when the interface has none that is fit.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 source address of NATed flows; `null` when the interface has none that is fit.
    pub ipv6: Option<Ipv6Addr>,
    /// The VLAN that is served on the interface, as `42` or, of a VLAN in a VLAN, `100.42`.
    pub vlan: Option<String>,
    /// First source port of NATed flows.
    pub nat_port_first: u16,
    /// Last source port of NATed flows.
    pub nat_port_last: u16,
}

/// A service and its backends.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServiceStatus {
    /// Name; its VIP, port and protocol, without an agent.
    pub name: String,
    /// VIP and port.
    pub vip: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Which flows keep to one backend: those of a `client`, or each `connection` for itself.
    pub persistence: String,
    /// Where clients on this node are led: `prefer-local`, `hash` or `off`; `off`, too, where this kernel or its control
    /// groups do not allow it.
    pub local_clients: String,
    /// The sum of its backends' flows.
    pub flows: FlowsStatus,
    /// The sum of its backends' traffic.
    pub traffic: Traffic,
    /// The backends, in the order of the configuration.
    pub backends: Vec<BackendStatus>,
}

/// A backend.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BackendStatus {
    /// Name.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
    /// What it is used for: `checking`, `active`, `draining`, `down` or `maintenance`.
    pub state: String,
    /// For how long, in seconds.
    pub state_seconds: f64,
    /// What was decided by hand: `drain` or `maintenance`; `removed`, if the configuration has it no more, and only the flows
    /// that it has keep it.
    pub by_hand: Option<String>,
    /// The last check; `null` before the first, and for a backend that is not checked.
    pub check: Option<CheckStatus>,
    /// `local` or `remote`.
    pub location: String,
    /// MAC address of its next hop; `null` for a local backend, and while it is not resolved.
    pub next_hop: Option<String>,
    /// Its part of the service's ring, 0 to 1.
    pub ring_share: f64,
    /// The flows it has now.
    pub flows: FlowsStatus,
    /// Its traffic.
    pub traffic: Traffic,
}

/// A check of a backend.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CheckStatus {
    /// How far it came, as HAProxy names it: `L7OK`, `L4CON`…
    pub code: String,
    /// What was wrong, or the HTTP status, in words.
    pub words: String,
    /// Whether a backend with this outcome may have new flows.
    pub is_good: bool,
    /// How long it took, in milliseconds.
    pub latency_ms: f64,
    /// How long ago it ended, in seconds.
    pub age_seconds: f64,
}

/// Traffic counters.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Traffic {
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets from clients.
    pub packets_to_backend: u64,
    /// Bytes of IP packets from clients.
    pub bytes_to_backend: u64,
    /// Packets to clients.
    pub packets_to_client: u64,
    /// Bytes of IP packets to clients.
    pub bytes_to_client: u64,
}

/// Live flows.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FlowsStatus {
    /// Flows whose client has proved that it is there.
    pub established: u64,
    /// Flows whose client has not.
    pub half_open: u64,
    /// Flows that have ended and are remembered for a while.
    pub closing: u64,
}

/// Flows that there is room for, of one address family.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FlowLimits {
    /// Established and closing ones.
    pub max: u32,
    /// Half-open ones.
    pub max_half_open: u32,
}

impl From<FlowTableSizes> for FlowLimits {
    fn from(sizes: FlowTableSizes) -> Self {
        Self { max: sizes.max_flows, max_half_open: sizes.max_half_open }
    }
}

/// Resets that the agent has sent; those that the data path answers with are among the verdicts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ResetsStatus {
    /// Flows whose client was told.
    pub to_clients: u64,
    /// Flows whose backend was told.
    pub to_backends: u64,
}

impl FlowsStatus {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.established += other.established;
        self.half_open += other.half_open;
        self.closing += other.closing;
    }
}

impl From<BackendStats> for Traffic {
    fn from(stats: BackendStats) -> Self {
        let (forward, reverse) = (Direction::ToBackend as usize, Direction::ToClient as usize);
        Self {
            flows_opened: stats.flows,
            packets_to_backend: stats.packets[forward],
            bytes_to_backend: stats.bytes[forward],
            packets_to_client: stats.packets[reverse],
            bytes_to_client: stats.bytes[reverse],
        }
    }
}

impl Traffic {
    /// Adds another's counters.
    pub fn add(&mut self, other: &Self) {
        self.flows_opened += other.flows_opened;
        self.packets_to_backend += other.packets_to_backend;
        self.bytes_to_backend += other.bytes_to_backend;
        self.packets_to_client += other.packets_to_client;
        self.bytes_to_client += other.bytes_to_client;
    }
}
