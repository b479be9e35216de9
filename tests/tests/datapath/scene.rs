//! The node, services and backends that the cases play on, in either family.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use kplb::{dataplane::FlowTableSizes, model::NodeFacts, plan::Operation};
use kplb_common::{
    backend::Backend,
    net::{Mac, TCP, UDP},
    service::Persistence,
};
use kplb_tests::{reference::Tuple, testbed::Ingress};

/// The node's MAC address.
pub const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// Where the client's frames come from.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// Source ports of NATed flows: few, so that they can be exhausted.
pub const NAT_PORTS: RangeInclusive<u16> = 20_000..=20_039;
/// A client port that NATed flows keep.
pub const KEPT_PORT: u16 = 20_005;
/// A client port that they do not.
pub const OTHER_PORT: u16 = 40_000;

/// Room for flows that no case runs out of.
pub const AMPLE: FlowTableSizes = FlowTableSizes { max_flows: 4096, max_half_open: 4096 };

const NODE: u16 = 11;
const CLIENT: u16 = 101;
const VIP: u16 = 100;

/// A service with its backends: the last part of the address, port, weight.
pub struct Service {
    /// Port of the VIP.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    pub persistence: Persistence,
    pub backends: &'static [(u16, u16, u16)],
}

const fn service(port: u16, protocol: u8, backends: &'static [(u16, u16, u16)]) -> Service {
    Service { port, protocol, persistence: Persistence::Client, backends }
}

const SERVICES: [Service; 10] = [
    service(6443, TCP, &[(12, 8443, 1)]),
    service(53, UDP, &[(12, 5353, 1)]),
    service(6444, TCP, &[(NODE, 8443, 1)]),
    service(54, UDP, &[(NODE, 5353, 1)]),
    service(6445, TCP, &[(13, 8443, 1)]),
    service(55, UDP, &[(13, 5353, 1)]),
    service(6446, TCP, &[(14, 8443, 0)]),
    service(56, UDP, &[(14, 5353, 0)]),
    service(6447, TCP, FOUR),
    Service { persistence: Persistence::Connection, ..service(6448, TCP, FOUR_MORE) },
];

const FOUR: &[(u16, u16, u16)] = &[(21, 8447, 1), (22, 8447, 1), (23, 8447, 1), (24, 8447, 1)];
const FOUR_MORE: &[(u16, u16, u16)] = &[(21, 8448, 1), (22, 8448, 1), (23, 8448, 1), (24, 8448, 1)];

/// What a service is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One backend behind the wire.
    Remote,
    /// One backend on the node.
    Local,
    /// One backend whose MAC address is not known.
    Unresolved,
    /// No backend of weight.
    Empty,
    /// Four backends, each client with its own. TCP only.
    ByClient,
    /// Four backends, each connection for itself. TCP only.
    ByConnection,
}

/// Each program at ingress, with each family.
pub fn everywhere() -> impl Iterator<Item = (Ingress, Family)> {
    [Ingress::Xdp, Ingress::Tc].into_iter().flat_map(|ingress| [Family::V4, Family::V6].map(|family| (ingress, family)))
}

/// Where the cases play.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The address of the segment that ends so.
    pub fn ip(self, last: u16) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(0xc612_0000 + u32::from(last)).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, last).into(),
        }
    }

    /// Port of a client on the segment.
    pub fn at(self, last: u16, port: u16) -> SocketAddr {
        (self.ip(last), port).into()
    }

    pub fn node(self) -> IpAddr {
        self.ip(NODE)
    }

    /// Bytes of the Ethernet and IP headers.
    pub fn l4_offset(self) -> usize {
        match self {
            Self::V4 => 34,
            Self::V6 => 54,
        }
    }

    /// The services as `kplb.toml` has them.
    pub fn configuration(self, nat_ports: RangeInclusive<u16>) -> String {
        let mut text = format!("[node]\nnat_ports = \"{}-{}\"\n", nat_ports.start(), nat_ports.end());
        for service in &SERVICES {
            let protocol = if service.protocol == TCP { "tcp" } else { "udp" };
            let persistence = match service.persistence {
                Persistence::Client => "client",
                Persistence::Connection => "connection",
            };
            text += &format!(
                "[[service]]\nvip = \"{}\"\nprotocol = \"{protocol}\"\npersistence = \"{persistence}\"\nseed = {SEED}\n",
                self.at(VIP, service.port)
            );
            for (last, port, weight) in service.backends {
                let address = self.at(*last, *port);
                text += &format!("[[service.backend]]\naddress = \"{address}\"\nweight = {weight}\n");
            }
        }
        text
    }

    /// The node.
    pub fn facts(self) -> NodeFacts {
        NodeFacts {
            mac: Mac::new(NODE_MAC),
            ipv4: (self == Self::V4).then_some(Ipv4Addr::new(198, 18, 0, 11)),
            ipv6: (self == Self::V6).then_some(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, NODE)),
            local: [self.node()].into(),
            macs: [12, 14, 21, 22, 23, 24].map(|last| (self.ip(last), Mac::new(mac(last)))).into(),
        }
    }
}

/// Of every service.
pub const SEED: u64 = 7;

/// The MAC address of a server behind the wire.
pub fn mac(last: u16) -> [u8; 6] {
    [2, 0, 0, 0, 3, last as u8]
}

/// Where a flow's backend is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    Remote,
    Local,
}

/// A flow: who talks with whom, and what each of them sees.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub protocol: u8,
    pub client: SocketAddr,
    pub client_mac: [u8; 6],
    pub vip: SocketAddr,
    /// What the backend sees as its client.
    pub nat: SocketAddr,
    pub backend: SocketAddr,
    pub backend_id: u16,
    pub backend_mac: [u8; 6],
    pub place: Place,
}

impl Flow {
    /// The flow of a client that keeps its port, to the first backend of a service.
    pub fn new(family: Family, protocol: u8, kind: Kind) -> Self {
        let (port, last, backend_port, backend_id) = first_backend(protocol, kind);
        let client = family.at(CLIENT, KEPT_PORT);
        let place = if kind == Kind::Local { Place::Local } else { Place::Remote };
        Self {
            protocol,
            client,
            client_mac: CLIENT_MAC,
            vip: family.at(VIP, port),
            nat: if place == Place::Local { client } else { (family.node(), KEPT_PORT).into() },
            backend: family.at(last, backend_port),
            backend_id,
            backend_mac: mac(last),
            place,
        }
    }

    /// The flow of another client address and port, seen as `nat_port` by the backend.
    pub fn of_client(self, client: SocketAddr, nat_port: u16) -> Self {
        let nat = match self.place {
            Place::Remote => (self.nat.ip(), nat_port).into(),
            Place::Local => client,
        };
        Self { client, nat, ..self }
    }

    /// The flow to another backend of its service, counted from the first.
    pub fn to_backend_number(self, number: u16, family: Family) -> Self {
        let last = 21 + number;
        let backend = family.at(last, self.backend.port());
        Self { backend, backend_id: self.backend_id + number, backend_mac: mac(last), ..self }
    }

    /// The client's packets as they come in.
    pub fn forward(&self) -> Tuple {
        Tuple { source: self.client, destination: self.vip, protocol: self.protocol }
    }

    /// The backend's packets before they are rewritten.
    pub fn reply(&self) -> Tuple {
        Tuple { source: self.backend, destination: self.nat, protocol: self.protocol }
    }

    /// Sets the backend's MAC address.
    pub fn set_backend_mac(&self, family: Family, mac: [u8; 6]) -> Operation {
        let desired = crate::desired(family);
        let backend = Backend { mac: Mac::new(mac), ..desired.backends[&self.backend_id] };
        Operation::SetBackend { id: self.backend_id, backend }
    }
}

/// VIP's port; last part of the address, port and id of the first backend.
fn first_backend(protocol: u8, kind: Kind) -> (u16, u16, u16, u16) {
    let mut id = 0;
    let wanted = match (kind, protocol) {
        (Kind::Remote, TCP) => 6443,
        (Kind::Remote, _) => 53,
        (Kind::Local, TCP) => 6444,
        (Kind::Local, _) => 54,
        (Kind::Unresolved, TCP) => 6445,
        (Kind::Unresolved, _) => 55,
        (Kind::Empty, TCP) => 6446,
        (Kind::Empty, _) => 56,
        (Kind::ByClient, _) => 6447,
        (Kind::ByConnection, _) => 6448,
    };
    for service in &SERVICES {
        let (last, port, _) = service.backends[0];
        if service.port == wanted {
            return (service.port, last, port, id);
        }
        id += service.backends.len() as u16;
    }
    unreachable!("every kind has a service")
}
