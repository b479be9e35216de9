//! The desired state of the data path: what the configuration and the facts about the node come to.
//!
//! Invariant: the same configuration, ids, facts and conditions give the same state, whatever the maps hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use kplb_common::{
    backend::{Backend, BackendState, Location},
    clock::Clock,
    endpoint,
    fence::{Fencing, Vip},
    flow_state::FlowState,
    gate::{self, GATE_WORDS, Gate},
    maglev::{NO_BACKEND, Ring},
    net::{Address as _, Be16, Ip4, Ip6, Mac},
    node::{LIFETIMES, Node, Vlan},
    service::{ForwardingMode, LocalClients, Service, WhenEmpty},
};

use crate::{
    config::{BackendConfig, Config, FlowsConfig, Protocol, ServiceConfig},
    ids::Ids,
    maglev::{Member, Rings},
};

/// What the agent knows of the node and its neighbourhood.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeFacts {
    /// MAC address of the interface.
    pub mac: Mac,
    /// The interface's own IPv4 address, source of NATed flows; never a VIP that was put there.
    pub ipv4: Option<Ipv4Addr>,
    /// The interface's own global IPv6 address, source of NATed flows; never a VIP that was put there.
    pub ipv6: Option<Ipv6Addr>,
    /// Every address of this host, on any interface.
    pub local: BTreeSet<IpAddr>,
    /// MAC address of the next hop towards each backend's address, where it is known.
    pub macs: BTreeMap<IpAddr, Mac>,
}

/// What a backend is used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Condition {
    /// How much of its weight counts for its share of new flows, 0 to [`FULL_SHARE`].
    pub share: u32,
    /// What becomes of the flows it has; of one with a share: [`BackendState::Serving`].
    pub state: BackendState,
}

/// All of a backend's weight.
pub const FULL_SHARE: u32 = 1024;

/// What backends and services are used for at the moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conditions {
    /// By place among the backends of all services.
    pub backends: Vec<Condition>,
    /// What becomes of a new flow while there is nobody to give it to, by place of the service in the configuration.
    pub when_empty: Vec<WhenEmpty>,
}

impl Conditions {
    /// Every backend is used for everything.
    pub fn all_active(config: &Config) -> Self {
        let n_backends = config.services.iter().map(|service| service.backends.len()).sum();
        Self {
            backends: vec![Condition { share: FULL_SHARE, state: BackendState::Serving }; n_backends],
            when_empty: vec![WhenEmpty::Refuse; config.services.len()],
        }
    }
}

/// The content of every map that the agent writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Desired {
    /// `NODE`.
    pub node: Node,
    /// `GATE`.
    pub gate: Arc<Gate>,
    /// `VIPS4` and `VIPS6`.
    pub vips: BTreeMap<IpAddr, Vip>,
    /// `SERVICES4` and `SERVICES6`.
    pub services: BTreeMap<Endpoint, Service>,
    /// `BACKENDS`, without the absent ones.
    pub backends: BTreeMap<u16, Backend>,
    /// `RINGS`, by service id.
    pub rings: BTreeMap<u16, Arc<Ring>>,
}

/// An address, port and protocol of either family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
}

/// An endpoint as a key of the map of its family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndpointKey {
    /// IPv4.
    V4(endpoint::Endpoint<Ip4>),
    /// IPv6.
    V6(endpoint::Endpoint<Ip6>),
}

impl Endpoint {
    /// Where clients reach a service.
    pub fn of(service: &ServiceConfig) -> Self {
        Self { address: service.vip, protocol: service.protocol }
    }

    /// The key of this endpoint in the map of its family.
    pub fn key(&self) -> EndpointKey {
        let port = Be16::from_host(self.address.port());
        let protocol = self.protocol.number();
        match self.address.ip() {
            IpAddr::V4(v4) => EndpointKey::V4(endpoint::Endpoint::new(v4.into(), port, protocol)),
            IpAddr::V6(v6) => EndpointKey::V6(endpoint::Endpoint::new(v6.into(), port, protocol)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.protocol)
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "global IPv6",
        })
    }
}

/// Why this node cannot serve the configuration.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// Packets for backends behind the wire need a source address of their family.
    #[error(
        "service `{service}` has backends on other hosts, but the interface has no {family} address to send from: add one"
    )]
    NoNodeAddress {
        /// The service's name.
        service: String,
        /// The family that is missing.
        family: Family,
    },
    /// The node's own traffic would be taken for the service's.
    #[error("service `{service}`: VIP {vip} is the interface's own address: choose an address that no host has")]
    VipIsNodeAddress {
        /// The service's name.
        service: String,
        /// The VIP.
        vip: IpAddr,
    },
}

/// The desired state of the data path on a node; `conditions` are those of this configuration's backends and services,
/// `rings` those of the last call.
///
/// # Errors
/// When this node cannot serve the configuration.
pub fn desired(
    config: &Config,
    ids: &Ids,
    facts: &NodeFacts,
    conditions: &Conditions,
    rings: &mut Rings,
) -> Result<Desired, ModelError> {
    let mut desired = Desired::empty();
    desired.node = node(config, facts);
    let fenced_vips = config.fenced_vips();
    let mut places = 0..;
    let mut gate = [0; GATE_WORDS];
    for (place, service) in config.services.iter().enumerate() {
        check(service, facts)?;
        let service_id = ids.service(place);
        let mut members = Vec::with_capacity(service.backends.len());
        let mut local_backend = NO_BACKEND;
        // In this order: the other way round would take a place for the backend that ends the list.
        for (backend, place) in service.backends.iter().zip(places.by_ref()) {
            let id = ids.backend(place);
            open_gate(&mut gate, &Endpoint { address: backend.address, protocol: service.protocol });
            let Condition { share, state } = conditions.backends[place];
            let weight = u32::from(backend.weight) * share;
            let is_preferred = weight > 0
                && service.local_clients == LocalClients::PreferLocal
                && location(backend, facts) == Location::Local;
            if is_preferred && local_backend == NO_BACKEND {
                local_backend = id;
            }
            desired.backends.insert(id, self::backend(backend, service_id, facts, state));
            members.push(Member { address: backend.address, weight, id });
        }
        desired.rings.insert(service_id, rings.get(service_id, service.seed, members));
        let address = service.vip.ip();
        let fencing = if fenced_vips.contains(&address) { Fencing::Fenced } else { Fencing::Open };
        desired.vips.insert(address, Vip::new(fencing));
        let endpoint = Endpoint::of(service);
        open_gate(&mut gate, &endpoint);
        desired.services.insert(
            endpoint,
            Service {
                seed: service.seed,
                id: service_id,
                persistence: service.persistence as u8,
                forwarding: ForwardingMode::Nat as u8,
                when_empty: conditions.when_empty[place] as u8,
                local_clients: service.local_clients as u8,
                local_backend,
            },
        );
    }
    desired.gate = gate.into();
    Ok(desired)
}

impl Desired {
    /// The maps as they are created: nothing is served.
    pub fn empty() -> Self {
        Self {
            node: Node {
                lifetimes_ns: [0; LIFETIMES],
                clock: Clock::default(),
                ipv6: Ip6::default(),
                ipv4: Ip4::default(),
                nat_port_first: 0,
                nat_port_last: 0,
                mac: Mac::default(),
                vlan: Vlan::NONE,
                _pad: [0; 3],
            },
            gate: Arc::new([0; GATE_WORDS]),
            vips: BTreeMap::new(),
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            rings: BTreeMap::new(),
        }
    }
}

/// Opens the gate for an endpoint.
pub(crate) fn open_gate(gate: &mut Gate, endpoint: &Endpoint) {
    match endpoint.key() {
        EndpointKey::V4(key) => gate::open(gate, &key),
        EndpointKey::V6(key) => gate::open(gate, &key),
    }
}

fn node(config: &Config, facts: &NodeFacts) -> Node {
    Node {
        lifetimes_ns: lifetimes_ns(&config.flows),
        clock: Clock::default(),
        ipv6: facts.ipv6.map(Ip6::from).unwrap_or_default(),
        ipv4: facts.ipv4.map(Ip4::from).unwrap_or_default(),
        nat_port_first: *config.node.nat_ports.start(),
        nat_port_last: *config.node.nat_ports.end(),
        mac: facts.mac,
        vlan: config.node.vlan,
        _pad: [0; 3],
    }
}

fn lifetimes_ns(flows: &FlowsConfig) -> [u64; LIFETIMES] {
    let mut lifetimes_ns = [0; LIFETIMES];
    for state in FlowState::ALL {
        let lifetime = match state {
            FlowState::SynSent | FlowState::SynAcked | FlowState::UdpUnreplied | FlowState::UdpReplied => {
                flows.half_open_lifetime
            }
            // A half-closed connection may go on for as long as an open one.
            FlowState::Established | FlowState::FinFromClient | FlowState::FinFromBackend => flows.established_lifetime,
            FlowState::Closing => flows.closing_lifetime,
            FlowState::UdpAssured => flows.udp_lifetime,
        };
        lifetimes_ns[state as usize] = nanoseconds(lifetime);
    }
    lifetimes_ns
}

/// Centuries fit.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn check(service: &ServiceConfig, facts: &NodeFacts) -> Result<(), ModelError> {
    let vip = service.vip.ip();
    let (family, address) = match vip {
        IpAddr::V4(_) => (Family::V4, facts.ipv4.map(IpAddr::V4)),
        IpAddr::V6(_) => (Family::V6, facts.ipv6.map(IpAddr::V6)),
    };
    let has_remote = service.backends.iter().any(|backend| location(backend, facts) == Location::Remote);
    match address {
        Some(address) if address == vip => Err(ModelError::VipIsNodeAddress { service: service.name.clone(), vip }),
        None if has_remote => Err(ModelError::NoNodeAddress { service: service.name.clone(), family }),
        _ => Ok(()),
    }
}

fn location(backend: &BackendConfig, facts: &NodeFacts) -> Location {
    if facts.local.contains(&backend.address.ip()) { Location::Local } else { Location::Remote }
}

/// An address as backends in the maps have it.
pub fn wide(address: IpAddr) -> Ip6 {
    match address {
        IpAddr::V4(v4) => Ip4::from(v4).widen(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn backend(backend: &BackendConfig, service: u16, facts: &NodeFacts, state: BackendState) -> Backend {
    let ip = backend.address.ip();
    let location = location(backend, facts);
    let mac = match location {
        Location::Remote => facts.macs.get(&ip).copied().unwrap_or(Mac::UNRESOLVED),
        // Its packets do not leave the node.
        Location::Local => Mac::UNRESOLVED,
    };
    Backend {
        mac,
        port: Be16::from_host(backend.address.port()),
        address: wide(ip),
        service,
        state: state as u8,
        location: location as u8,
        _pad: 0,
    }
}

#[cfg(test)]
mod tests {
    use kplb_common::{gate::may_pass, net::TCP};

    use super::*;
    use crate::config;

    const NODE: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

    /// A service of each family, an IPv4 one with a backend without weight, and one that shares a server.
    const TEXT: &str = r#"
        [node]
        nat_ports = "20000-20999"
        [flows]
        half_open_lifetime = "1s"
        established_lifetime = "2s"
        closing_lifetime = "3s"
        udp_lifetime = "4s"
        [[service]]
        vip = "198.18.0.100:6443"
        seed = 7
        backend = [{ address = "198.18.0.11:6443" }, { address = "198.18.0.12:6443", weight = 0 }]
        [[service]]
        vip = "[2001:2::100]:53"
        protocol = "udp"
        persistence = "connection"
        backend = [{ address = "[2001:2::12]:53" }]
        [[service]]
        vip = "198.18.0.100:443"
        backend = [{ address = "198.18.0.11:6443" }]
    "#;

    fn active(config: &Config, facts: &NodeFacts) -> Result<Desired, ModelError> {
        desired(config, &Ids::in_order(config), facts, &Conditions::all_active(config), &mut Rings::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn endpoint(text: &str, protocol: Protocol) -> Endpoint {
        Endpoint { address: text.parse().expect("an address and port"), protocol }
    }

    fn config() -> Config {
        config::parse(TEXT, "test").expect("valid")
    }

    fn facts() -> NodeFacts {
        NodeFacts {
            mac: NODE,
            ipv4: Some(Ipv4Addr::new(198, 18, 0, 11)),
            ipv6: Some("2001:2::11".parse().expect("an address")),
            local: ["127.0.0.1", "198.18.0.11", "198.18.0.100", "2001:2::11"].map(ip).into(),
            macs: [(ip("198.18.0.12"), PEER)].into(),
        }
    }

    #[test]
    fn every_map_is_filled() {
        let desired = active(&config(), &facts()).expect("possible");
        let (vip4, vip6) = ("198.18.0.100:6443", "[2001:2::100]:53");
        let open = Vip::new(Fencing::Open);
        assert_eq!(desired.vips, [(ip("198.18.0.100"), open), (ip("2001:2::100"), open)].into());

        let service = |id, seed, persistence, local_backend| Service {
            seed,
            id,
            persistence,
            local_backend,
            ..Service::default()
        };
        let services = [
            (endpoint(vip4, Protocol::Tcp), service(0, 7, 0, 0)),
            (endpoint(vip6, Protocol::Udp), service(1, 0, 1, NO_BACKEND)),
            (endpoint("198.18.0.100:443", Protocol::Tcp), service(2, 0, 0, 3)),
        ];
        assert_eq!(desired.services, services.into());

        // Port, address, MAC address, location: of this host, of a known peer, of one whose MAC address is not known.
        let v4 = |last| Ip4::from(Ipv4Addr::new(198, 18, 0, last)).widen();
        let v6 = Ip6::from("2001:2::12".parse::<Ipv6Addr>().expect("an address"));
        let backend = |address, port, mac, service, location: Location| Backend {
            mac,
            port: Be16::from_host(port),
            address,
            service,
            state: BackendState::Serving as u8,
            location: location as u8,
            _pad: 0,
        };
        let backends = [
            (0, backend(v4(11), 6443, Mac::UNRESOLVED, 0, Location::Local)),
            (1, backend(v4(12), 6443, PEER, 0, Location::Remote)),
            (2, backend(v6, 53, Mac::UNRESOLVED, 1, Location::Remote)),
            (3, backend(v4(11), 6443, Mac::UNRESOLVED, 2, Location::Local)),
        ];
        assert_eq!(desired.backends, backends.into());

        assert_eq!(desired.rings.len(), 3);
        for (service, backend) in [(0, 0), (1, 2), (2, 3)] {
            assert!(desired.rings[&service].iter().all(|&id| id == backend), "ring of service {service}");
        }
        let mut words = desired.gate.iter();
        assert_eq!(words.by_ref().map(|word| word.count_ones()).sum::<u32>(), 6, "a bit for each endpoint");
        let vip = Ip4::from(Ipv4Addr::new(198, 18, 0, 100));
        assert!(may_pass(&desired.gate, &vip, Be16::from_host(443), TCP));
        assert!(!may_pass(&desired.gate, &vip, Be16::from_host(22), TCP));
    }

    #[test]
    fn the_node_is_described() {
        let node = active(&config(), &facts()).expect("possible").node;
        assert_eq!(node.mac, NODE);
        assert_eq!(Ipv4Addr::from(node.ipv4), Ipv4Addr::new(198, 18, 0, 11));
        assert_eq!(IpAddr::V6(node.ipv6.into()), ip("2001:2::11"));
        assert_eq!((node.nat_port_first, node.nat_port_last), (20_000, 20_999));
        let seconds = FlowState::ALL.map(|state| node.lifetimes_ns[state as usize] / 1_000_000_000);
        // SynSent, SynAcked, Established, FinFromClient, FinFromBackend, Closing, UdpUnreplied, UdpReplied, UdpAssured.
        assert_eq!(seconds, [1, 1, 2, 2, 2, 3, 1, 1, 4]);
    }

    #[test]
    fn without_backends_of_weight_the_ring_is_empty() {
        let text = TEXT.replace("\"198.18.0.11:6443\" }, ", "\"198.18.0.11:6443\", weight = 0 }, ");
        let config = config::parse(&text, "test").expect("valid");
        let desired = active(&config, &facts()).expect("possible");
        assert!(desired.rings[&0].iter().all(|&id| id == NO_BACKEND));
        assert_eq!(desired.backends.len(), 4);
    }

    #[test]
    fn conditions_are_followed() {
        let config = config();
        let mut conditions = Conditions::all_active(&config);
        conditions.backends[0] = Condition { share: 0, state: BackendState::Down };
        conditions.when_empty[0] = WhenEmpty::Wait;
        let desired =
            desired(&config, &Ids::in_order(&config), &facts(), &conditions, &mut Rings::default()).expect("possible");
        let states: Vec<u8> = desired.backends.values().map(|backend| backend.state).collect();
        assert_eq!(states, [BackendState::Down as u8, 1, 1, 1]);
        // The other one has no weight.
        assert!(desired.rings[&0].iter().all(|&id| id == NO_BACKEND));
        let waits: Vec<bool> = desired.services.values().map(Service::waits_when_empty).collect();
        assert_eq!(waits.iter().filter(|waits| **waits).count(), 1);
        assert!(desired.services[&endpoint("198.18.0.100:6443", Protocol::Tcp)].waits_when_empty());
    }

    /// Clients on this node are led to its own backend while that takes new flows, unless they are not to be.
    #[test]
    fn the_nodes_own_backend_is_preferred_while_it_is_active() {
        let preferred = |config: &Config, conditions: &Conditions| {
            let desired =
                desired(config, &Ids::in_order(config), &facts(), conditions, &mut Rings::default()).expect("possible");
            let service = desired.services[&endpoint("198.18.0.100:6443", Protocol::Tcp)];
            (service.local_clients, service.local_backend)
        };
        let active = Conditions::all_active(&config());
        assert_eq!(preferred(&config(), &active), (LocalClients::PreferLocal as u8, 0));
        for state in [BackendState::Serving, BackendState::Down] {
            let mut conditions = active.clone();
            conditions.backends[0] = Condition { share: 0, state };
            assert_eq!(preferred(&config(), &conditions).1, NO_BACKEND);
        }
        for (word, number) in [("hash", LocalClients::Hash), ("off", LocalClients::Off)] {
            let text = TEXT.replacen("seed = 7", &format!("seed = 7\nlocal_clients = '{word}'"), 1);
            let config = config::parse(&text, "test").expect("valid");
            assert_eq!(preferred(&config, &active), (number as u8, NO_BACKEND));
        }
        let config = config::parse(&TEXT.replacen("11:6443\" }", "11:6443\", weight = 0 }", 1), "test").expect("valid");
        assert_eq!(preferred(&config, &active).1, NO_BACKEND);
    }

    /// Half of the share is half of the weight.
    #[test]
    fn a_share_is_a_part_of_the_weight() {
        let text = "[[service]]\nvip = '198.18.0.100:1'\nbackend = [{ address = '198.18.0.11:1', weight = 2 }, \
                    { address = '198.18.0.12:1', weight = 2 }]";
        let config = config::parse(text, "test").expect("valid");
        let mut conditions = Conditions::all_active(&config);
        conditions.backends[0].share = FULL_SHARE / 2;
        let desired =
            desired(&config, &Ids::in_order(&config), &facts(), &conditions, &mut Rings::default()).expect("possible");
        let share = crate::maglev::share(&desired.rings[&0], 0);
        assert!((share - 1.0 / 3.0).abs() < 0.001, "{share}");
    }

    #[test]
    fn nodes_that_cannot_serve() {
        let no_ipv6 = NodeFacts { ipv6: None, ..facts() };
        let error = active(&config(), &no_ipv6).expect_err("no source address");
        let service = "[2001:2::100]:53/udp".to_owned();
        assert_eq!(error, ModelError::NoNodeAddress { service, family: Family::V6 });

        // Nothing is sent to a backend on this host.
        let mut all_local = no_ipv6;
        all_local.local.insert(ip("2001:2::12"));
        assert!(active(&config(), &all_local).is_ok());

        let no_ipv4 = NodeFacts { ipv4: None, ..facts() };
        assert!(matches!(active(&config(), &no_ipv4), Err(ModelError::NoNodeAddress { family: Family::V4, .. })));

        let is_vip = NodeFacts { ipv4: Some(Ipv4Addr::new(198, 18, 0, 100)), ..facts() };
        let service = "198.18.0.100:6443/tcp".to_owned();
        assert_eq!(active(&config(), &is_vip), Err(ModelError::VipIsNodeAddress { service, vip: ip("198.18.0.100") }));
    }
}
