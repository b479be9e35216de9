//! What is known of a node and its segment: read once, then judged.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::Config,
    daemon::preflight::OwnPorts,
    dataplane::Mode,
    driver::Driver,
    health::outcome::Outcome,
    netlink::{
        facts::{Snapshot, Survey},
        message::Link,
    },
    vrrp::{
        receive::{Invalid, Remark},
        settings::Settings,
    },
    who_has::question::Answer,
};

/// A fact, or why it is not known, in words.
pub(super) type Known<T> = Result<T, String>;

/// Everything.
#[derive(Clone, Debug)]
pub struct Facts {
    pub(super) host: Host,
    pub(super) configuration: Configuration,
    /// None if none was named, and none found.
    pub(super) interface: Option<Interface>,
    pub(super) own_ports: Known<Option<OwnPorts>>,
    /// The kernel's list of IPVS services.
    pub(super) ipvs: Known<String>,
    /// Processes of this network namespace that matter.
    pub(super) processes: Vec<Process>,
    pub(super) node_ips: Vec<NodeIps>,
    /// What was asked and heard; none without an interface that is up and a configuration.
    pub(super) segment: Option<Segment>,
    /// In the order of the configuration.
    pub(super) backends: Vec<Backend>,
}

/// The machine and its kernel.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// As `uname -r` has it.
    pub(super) release: String,
    /// The effective capabilities.
    pub(super) capabilities: Known<u64>,
    /// The highest real-time priority that an ordinary process may take (`RLIMIT_RTPRIO`).
    pub(super) realtime_limit: Known<u64>,
    /// Microseconds of a period in which real-time threads may run; negative: all of it.
    pub(super) realtime_runtime: Option<i64>,
    /// Bytes that an ordinary process may lock (`RLIMIT_MEMLOCK`).
    pub(super) lock_limit: Known<u64>,
    /// Where kplb pins, and whether that is on a BPF file system.
    pub(super) pin_root: PathBuf,
    pub(super) has_bpf_file_system: Known<bool>,
    /// Whether the kernel takes the programs on an interface; none: not tried.
    pub(super) forwarding: Option<Known<()>>,
    /// Whether it takes those at sockets; none: not tried.
    pub(super) sockets: Option<Known<()>>,
    /// The root of the control groups.
    pub(super) control_groups: Known<PathBuf>,
    /// Whether the kernel ends sockets on demand.
    pub(super) ends_sockets: Known<bool>,
}

/// The configuration.
#[derive(Clone, Debug)]
pub(super) enum Configuration {
    /// None was named, and there is none at the usual place.
    None,
    /// It cannot be used.
    Wrong { path: PathBuf, problem: String },
    /// It can.
    Right { path: PathBuf, config: Box<Config> },
}

impl Configuration {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Wrong { path, .. } | Self::Right { path, .. } => Some(path),
        }
    }

    pub(super) fn config(&self) -> Option<&Config> {
        match self {
            Self::Right { config, .. } => Some(config),
            Self::None | Self::Wrong { .. } => None,
        }
    }
}

/// The interface.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    /// All interfaces.
    pub(super) links: Vec<Link>,
    /// Its driver.
    pub(super) driver: Driver,
    /// Features of the hardware that are on.
    pub(super) active_features: Known<BTreeSet<String>>,
    /// The agent on it.
    pub(super) agent: Option<Agent>,
    /// Where a program runs that an agent has left.
    pub(super) left: Option<Mode>,
    /// Whether TC programs have no place there.
    pub(super) has_no_place_for_filters: bool,
    /// Whether an agent has left pins.
    pub(super) has_pins: bool,
    /// The node as an agent would see it; none without a configuration.
    pub(super) surroundings: Option<(Snapshot, Survey)>,
    /// This node's virtual routers; none without an election.
    pub(super) election: Option<Known<Vec<Settings>>>,
}

/// An agent that runs.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) pid: u32,
    /// Where in the receive path its program is, and why there.
    pub(super) mode: String,
    pub(super) mode_reason: String,
}

/// A process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    /// Its configuration, if it can be read.
    pub(super) file: Option<(PathBuf, String)>,
}

/// What a kubelet is told to be the node's addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NodeIps {
    /// Where that stands.
    pub(super) place: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// What was asked and heard on the segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// For how long adverts were listened to; none: not at all.
    pub(super) listened: Option<Duration>,
    /// Each sender and virtual router once; or why nothing can be heard.
    pub(super) adverts: Known<Vec<HeardAdvert>>,
    /// Other hosts that answer for VIPs.
    pub(super) owners: Known<Vec<Answer>>,
    /// The other nodes that are listed, and which of them answer.
    pub(super) peers: Vec<IpAddr>,
    pub(super) answers: Known<Vec<Answer>>,
}

/// An advert, and what it is to this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct HeardAdvert {
    pub(super) source: IpAddr,
    pub(super) router_id: u8,
    pub(super) priority: u8,
    /// The VIPs that it names.
    pub(super) vips: Vec<IpAddr>,
    /// Of one that counts, what is odd about it.
    pub(super) judgement: Result<Vec<Remark>, Invalid>,
}

/// A backend.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) service: String,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// What a check of it found; none: it is not checked.
    pub(super) outcome: Option<Outcome>,
}
