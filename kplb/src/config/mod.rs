//! The configuration: text or flags in, a checked [`Config`] or every problem found out.
//!
//! Invariant: a [`Config`] breaks no rule of this module. What depends on the node (its addresses, its interface) is
//! checked by [`crate::model`].
//!
//! ```text
//! text ---- read ----\
//!                     +-> draft (values with their places) -- check --> Config
//! flags -- from_flags /
//! ```

mod check;
mod draft;
mod health;
mod metrics;
mod problem;
mod read;
pub(crate) mod value;
mod vrrp;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use kplb_common::{
    net,
    node::Vlan,
    service::{LocalClients, Persistence},
};

pub use self::{
    health::{
        CheckConfig, CheckKind, ClientCertificate, INTERVAL_RANGE, JITTER_RANGE, STREAK_RANGE, Statuses, TIMEOUT_RANGE,
    },
    metrics::MetricsConfig,
    problem::{Place, Problem, Problems},
    vrrp::{ADVERT_RANGE, DELAY_RANGE, NOTIFY_TIMEOUT_RANGE, NotifyConfig, REPEAT_RANGE, VrrpConfig},
};

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The node the data path runs on.
    pub node: NodeConfig,
    /// The flow tables.
    pub flows: FlowsConfig,
    /// The election of the node that holds the VIPs; none: this node holds them, and no other kplb does.
    pub vrrp: Option<VrrpConfig>,
    /// Where metrics are served; none: nowhere.
    pub metrics: Option<MetricsConfig>,
    /// At least one service, in the order of the text; no two with the same VIP, port and protocol, none with the same
    /// name.
    pub services: Vec<ServiceConfig>,
}

/// Table `[node]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// Source ports of NATed flows, from 1024 up; not empty.
    pub nat_ports: RangeInclusive<u16>,
    /// The VLAN of the VIPs on the interface, which is a trunk then.
    pub vlan: Vlan,
}

/// Table `[flows]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowsConfig {
    /// Flows per address family, within [`FLOWS_RANGE`]; each takes two entries of its table.
    pub max: u32,
    /// Half-open flows per address family, within [`FLOWS_RANGE`]; each takes two entries of its table.
    pub max_half_open: u32,
    /// How long a flow lives without a packet until its client has proved that it is there, within [`LIFETIME_RANGE`].
    pub half_open_lifetime: Duration,
    /// How long an established TCP flow lives without a packet, within [`LIFETIME_RANGE`].
    pub established_lifetime: Duration,
    /// How long a TCP flow that both sides have closed, or one has reset, lives on without a packet, within
    /// [`LIFETIME_RANGE`].
    pub closing_lifetime: Duration,
    /// How long an assured UDP flow lives without a packet, within [`LIFETIME_RANGE`].
    pub udp_lifetime: Duration,
}

/// Table `[[service]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Unique name; `VIP:port/protocol` unless given.
    pub name: String,
    /// VIP and port that clients connect to.
    pub vip: SocketAddr,
    /// Protocol of the service and of its backends.
    pub protocol: Protocol,
    /// Which flows keep to one backend.
    pub persistence: Persistence,
    /// Where clients on this node are led.
    pub local_clients: LocalClients,
    /// Key of the hashes that place backends and clients on the ring; the same on every node.
    pub seed: u64,
    /// What becomes of established flows when a backend goes down.
    pub on_down: OnDown,
    /// How long a draining backend keeps its flows, within [`PERIOD_RANGE`]; for ever if there is none.
    pub drain_timeout: Option<Duration>,
    /// How long it takes a backend that comes back to have its whole share of new flows, within [`PERIOD_RANGE`]; at
    /// once if there is none.
    pub slow_start: Option<Duration>,
    /// At least one backend, in the order of the text; all of the VIP's family, no two with the same address and port
    /// or the same name.
    pub backends: Vec<BackendConfig>,
}

/// Table `[[service.backend]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// Name, unique within the service; `address:port` unless given.
    pub name: String,
    /// Address and port of the server.
    pub address: SocketAddr,
    /// Share of the clients relative to the service's other backends, 0 (no new flows) to [`MAX_WEIGHT`].
    pub weight: u16,
    /// How its health is checked; a backend that is not checked always counts as active.
    pub check: Option<CheckConfig>,
}

/// Which nodes run kplb.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Balancers {
    /// This one.
    One,
    /// Those that the backends are on, this one among them: they elect the one that holds the VIPs.
    Backends,
}

/// What becomes of established flows when their backend goes down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnDown {
    /// Both ends are told at once.
    Reset,
    /// They are left to what their ends make of it.
    Keep,
}

/// Protocol of a service.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Both protocols.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => net::TCP,
            Self::Udp => net::UDP,
        }
    }

    /// The protocol as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the configuration is, unless another place is named.
pub const DEFAULT_PATH: &str = "/etc/kplb/kplb.toml";
/// The heaviest weight.
pub const MAX_WEIGHT: u16 = 256;
/// Flows that a table can be made for: fewer cannot be spread over the processors' free lists, more is a mistake.
pub const FLOWS_RANGE: RangeInclusive<u32> = 1024..=4_194_304;
/// Lifetimes that make sense: shorter ones end flows between two packets, longer ones never end them.
pub const LIFETIME_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(30 * 24 * 60 * 60);

/// Identifiers of VLANs (IEEE 802.1Q-2022, table 9-2).
const VLAN_RANGE: RangeInclusive<u16> = 1..=4094;

/// Periods that make sense for a backend's going and coming.
pub const PERIOD_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);

impl Default for NodeConfig {
    fn default() -> Self {
        Self { nat_ports: 10_000..=32_767, vlan: Vlan::NONE }
    }
}

impl Default for FlowsConfig {
    fn default() -> Self {
        Self {
            max: 65_536,
            max_half_open: 8_192,
            half_open_lifetime: Duration::from_secs(10),
            established_lifetime: Duration::from_secs(24 * 60 * 60),
            closing_lifetime: Duration::from_secs(10),
            udp_lifetime: Duration::from_secs(2 * 60),
        }
    }
}

/// Why a configuration file could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file says something wrong.
    #[error(transparent)]
    Wrong(#[from] Problems),
}

/// Reads and checks a configuration file.
///
/// # Errors
/// When it cannot be read, or with everything that is wrong in it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text = fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.into(), source })?;
    Ok(parse(&text, &path.display().to_string())?)
}

/// Checks a configuration text; `name` is the file's in the messages.
///
/// # Errors
/// With everything that is wrong in it, in the order of the text.
pub fn parse(text: &str, name: &str) -> Result<Config, Problems> {
    let mut problems = Problems::new(Some(name.to_owned()));
    let config = read::read(text, &mut problems).and_then(|draft| check::check(draft, &mut problems));
    problems.or(config)
}

impl Config {
    /// The configuration of the flags `--vip`, `--backend` and `--elect`: a TCP service for each VIP, with every backend
    /// of the VIP's family.
    ///
    /// # Errors
    /// With everything that is wrong in the flags.
    pub fn from_flags(
        vips: &[impl AsRef<str>],
        backends: &[impl AsRef<str>],
        balancers: Balancers,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::new(None);
        let draft = draft::Draft::from_flags(vips, backends, balancers, &mut problems);
        let config = check::check(draft, &mut problems);
        problems.or(config)
    }

    /// The addresses of all services.
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        self.services.iter().map(|service| service.vip.ip()).collect()
    }

    /// Whether clients on this node are led to backends of any service.
    pub fn leads_local_clients(&self) -> bool {
        self.services.iter().any(|service| service.local_clients != LocalClients::Off)
    }

    /// Those of the VIPs that nodes elect a master for, so that this one answers for them only while it is sure to be it.
    pub fn fenced_vips(&self) -> BTreeSet<IpAddr> {
        if self.vrrp.is_some() { self.vips() } else { BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests;
