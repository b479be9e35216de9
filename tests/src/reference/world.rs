//! The node and the services that programs and model are compared on.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use kplb::{
    config::Protocol,
    model::{Desired, Endpoint, NodeFacts},
};
use kplb_common::net::{Address as _, Ip4, Mac};

/// MAC address of the node.
pub const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];

/// First and last port of NATed flows: few enough to be taken now and then.
pub const NAT_PORTS: (u16, u16) = (20_000, 20_063);

type BackendRow = (u8, u16, u16);
type ServiceRow = (u16, &'static str, &'static str, &'static [BackendRow]);

/// Port, protocol, persistence and backends (last byte of the address, port, weight) of each service; all but the last
/// of the first VIP. Backend 11 is on the node, the MAC address of 14 is not known.
const SERVICES: &[ServiceRow] = &[
    (6443, "tcp", "client", &[(11, 6443, 1), (12, 6443, 1), (13, 6443, 1)]),
    (443, "tcp", "connection", &[(12, 8443, 4), (13, 8443, 0), (14, 8443, 1), (15, 8443, 2)]),
    (53, "udp", "connection", &[(11, 53, 1), (12, 53, 1), (13, 5353, 1)]),
    (123, "udp", "client", &[(15, 123, 1), (14, 123, 1), (11, 1123, 1)]),
    (6444, "tcp", "connection", &[(11, 6443, 2), (12, 6443, 1)]),
    (80, "tcp", "connection", &[(13, 80, 0)]),
    (80, "udp", "connection", &[(13, 80, 0)]),
    (6443, "tcp", "connection", &[(11, 6443, 1), (13, 6443, 1)]),
];

/// An IPv4 address of the test network.
pub fn ip4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, last))
}

/// An IPv6 address of the test network.
pub fn ip6(last: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, u16::from(last)))
}

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

/// The configuration, for both families, on an interface of this VLAN: identifiers in brackets, or none.
pub fn configuration(vlan: &str) -> String {
    let vlan = if vlan.is_empty() { String::new() } else { format!("vlan = {vlan}\n") };
    let mut text = format!(
        "[node]\n{vlan}nat_ports = \"{}-{}\"\n[flows]\nhalf_open_lifetime = \"20h\"\nestablished_lifetime = \"20h\"\n\
         closing_lifetime = \"20h\"\nudp_lifetime = \"20h\"\n",
        NAT_PORTS.0, NAT_PORTS.1
    );
    for ip in [ip4, ip6] {
        for (i, (port, protocol, persistence, backends)) in SERVICES.iter().enumerate() {
            let vip = SocketAddr::new(ip(if i == SERVICES.len() - 1 { 110 } else { 100 }), *port);
            text += &format!(
                "[[service]]\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\npersistence = \"{persistence}\"\nseed = {}\n",
                40 + i
            );
            for (last, port, weight) in *backends {
                let address = SocketAddr::new(ip(*last), *port);
                text += &format!("[[service.backend]]\naddress = \"{address}\"\nweight = {weight}\n");
            }
        }
    }
    text
}

/// The node.
pub fn facts() -> NodeFacts {
    let known = [12, 13, 15];
    NodeFacts {
        mac: Mac::new(NODE_MAC),
        ipv4: Some(Ipv4Addr::new(198, 18, 0, 11)),
        ipv6: Some(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 11)),
        local: [ip4(11), ip6(11)].into(),
        macs: known.iter().flat_map(|&last| [(ip4(last), mac(last)), (ip6(last), mac(last))]).collect(),
    }
}

/// An endpoint and its protocol's number.
pub fn address_and_protocol(endpoint: &Endpoint) -> (SocketAddr, u8) {
    let protocol: Protocol = endpoint.protocol;
    (endpoint.address, protocol.number())
}

/// The addresses and protocols' numbers of the backends, each once.
pub fn backends(desired: &Desired) -> Vec<(SocketAddr, u8)> {
    let mut all = BTreeSet::new();
    for (endpoint, service) in &desired.services {
        for backend in desired.backends.values().filter(|backend| backend.service == service.id) {
            let address: IpAddr = match endpoint.address {
                SocketAddr::V4(_) => Ipv4Addr::from(Ip4::from_wide(&backend.address)).into(),
                SocketAddr::V6(_) => Ipv6Addr::from(backend.address).into(),
            };
            all.insert((SocketAddr::new(address, backend.port.to_host()), endpoint.protocol.number()));
        }
    }
    all.into_iter().collect()
}
