//! What the agent reads from the kernel, decoded from route netlink messages and stripped of all else.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use kplb_common::{
    net::Mac,
    node::{MAX_TAGS, Vlan},
};
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Its address, if it is an Ethernet interface.
    pub mac: Option<Mac>,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether its wire is connected.
    pub has_carrier: bool,
    /// The XDP program on it.
    pub xdp: Option<XdpProgram>,
    /// What kind of virtual interface it is, as `ip link` users know it; none if it is a device of its own.
    pub kind: Option<String>,
    /// If it is the interface of a VLAN on another one.
    pub vlan: Option<VlanLink>,
}

impl Link {
    /// The ids of the XDP programs on it.
    pub fn programs(&self) -> &[u32] {
        self.xdp.as_ref().map(|xdp| &xdp.ids[..]).unwrap_or_default()
    }
}

/// What makes an interface that of a VLAN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VlanLink {
    /// Index of the interface that carries its frames.
    pub lower: u32,
    /// The VLAN's identifier.
    pub identifier: u16,
}

/// An XDP program that is attached to an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct XdpProgram {
    /// Program ids; several when the interface has one per mode.
    pub ids: Vec<u32>,
    /// The mode, as `ip link` users know it.
    pub mode: &'static str,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InterfaceAddress {
    /// Index of the interface that has it.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its subnet's prefix.
    pub prefix_length: u8,
    /// Whether new traffic should come from it.
    pub suitability: Suitability,
}

/// Whether new traffic should come from an address.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Suitability {
    /// An ordinary address.
    Primary,
    /// A further address of the same subnet (IPv4), or a temporary one (IPv6).
    Secondary,
    /// Not yet known to be unique; an ordinary address soon.
    Tentative,
    /// Deprecated, or not unique.
    Unsuitable,
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    /// To an interface, and there to a gateway or to the destination itself.
    Via {
        /// Index of the interface.
        interface: u32,
        /// The gateway; `None` when the destination is on the link.
        gateway: Option<IpAddr>,
    },
    /// To this node.
    Local,
    /// Nowhere.
    Unreachable,
}

/// An entry of the ARP or neighbour discovery cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Neighbour {
    /// Index of the interface behind which the neighbour is.
    pub interface: u32,
    /// The neighbour's IP address.
    pub address: IpAddr,
    /// Its MAC address, where the kernel has one that it would use.
    pub mac: Option<Mac>,
    /// Who looks after the entry.
    pub upkeep: Upkeep,
}

/// Who looks after a neighbour entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Upkeep {
    /// The kernel, while there is traffic.
    OnDemand,
    /// The kernel, always (`NTF_EXT_MANAGED`).
    Managed,
    /// Nobody: it is as an administrator set it.
    Permanent,
}

impl Link {
    /// Decodes a link.
    pub fn decode(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            is_up: message.header.flags.contains(LinkFlags::Up),
            has_carrier: message.header.flags.contains(LinkFlags::LowerUp),
            xdp: None,
            kind: None,
            vlan: None,
        };
        let (mut lower, mut identifier) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(address) if message.header.link_layer_type == LinkLayerType::Ether => {
                    link.mac = mac(address);
                }
                LinkAttribute::Xdp(xdp) => link.xdp = XdpProgram::decode(xdp),
                LinkAttribute::Link(index) => lower = Some(*index),
                LinkAttribute::LinkInfo(infos) => {
                    identifier = infos.iter().find_map(vlan_identifier);
                    link.kind = infos.iter().find_map(kind);
                }
                _ => {}
            }
        }
        link.vlan = lower.zip(identifier).map(|(lower, identifier)| VlanLink { lower, identifier });
        link
    }

    /// The interface of a VLAN on the one with this index: of its innermost tag, on that of the outer one.
    pub fn of_vlan(links: &[Self], lower: u32, vlan: Vlan) -> Option<&Self> {
        let mut lower = lower;
        let mut found = None;
        for identifier in vlan.identifiers() {
            let link = links.iter().find(|link| link.vlan == Some(VlanLink { lower, identifier }))?;
            lower = link.index;
            found = Some(link);
        }
        found
    }
}

impl Link {
    /// Whether it is the interface with this index, or one of a VLAN on it, or of one on that.
    pub fn is_on(&self, links: &[Self], index: u32) -> bool {
        let mut link = Some(self);
        // The interfaces of VLANs are stacked on others: not in a circle, and not deeper than tags are counted.
        for _ in 0..=MAX_TAGS {
            match link {
                Some(link) if link.index == index => return true,
                Some(Self { vlan: Some(vlan), .. }) => link = links.iter().find(|lower| lower.index == vlan.lower),
                _ => return false,
            }
        }
        false
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    let LinkInfo::Kind(kind) = info else { return None };
    Some(kind.to_string())
}

fn vlan_identifier(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(identifier) => Some(*identifier),
        _ => None,
    })
}

impl fmt::Display for XdpProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.ids.iter().map(ToString::to_string).collect();
        write!(f, "an XDP program (id {}, {} mode)", ids.join(", "), self.mode)
    }
}

impl XdpProgram {
    fn decode(attributes: &[LinkXdp]) -> Option<Self> {
        let mode = attributes.iter().find_map(|attribute| match attribute {
            LinkXdp::Attached(XdpAttached::None) => None,
            LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
            LinkXdp::Attached(XdpAttached::Hardware) => Some("offloaded"),
            LinkXdp::Attached(_) => Some("more than one"),
            _ => None,
        })?;
        let mut ids: Vec<u32> = attributes
            .iter()
            .filter_map(|attribute| match attribute {
                LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                    Some(*id)
                }
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Some(Self { ids, mode })
    }
}

impl InterfaceAddress {
    /// Whether it stands for itself alone, as VIPs do, and not for a subnet.
    pub const fn is_host_only(&self) -> bool {
        self.prefix_length == host_prefix(self.address)
    }

    /// Decodes an address; `None` for one that is neither IPv4 nor IPv6.
    pub fn decode(message: &AddressMessage) -> Option<Self> {
        // The header has room for the first eight flags only; the attribute has all.
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut local, mut address) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link IFA_ADDRESS is the other end.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let suitability = if flags.intersects(AddressFlags::Deprecated | AddressFlags::Dadfailed) {
            Suitability::Unsuitable
        } else if flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic) {
            Suitability::Tentative
        } else if flags.contains(AddressFlags::Secondary) {
            Suitability::Secondary
        } else {
            Suitability::Primary
        };
        Some(Self {
            interface: message.header.index,
            address: local.or(address)?,
            prefix_length: message.header.prefix_len,
            suitability,
        })
    }
}

/// The addresses that the kernel removes together with this one, unless it is told to promote one of them: the secondary
/// ones of its subnet (`__inet_del_ifa` in the kernel's net/ipv4/devinet.c).
pub fn dependents(entry: &AddressMessage, entries: &[AddressMessage]) -> Vec<IpAddr> {
    let is_secondary = |entry: &AddressMessage| entry.header.flags.contains(AddressHeaderFlags::Secondary);
    // The same bit of an IPv6 address means that it is a temporary one.
    if entry.header.family != AddressFamily::Inet || is_secondary(entry) {
        return Vec::new();
    }
    let Some(primary) = InterfaceAddress::decode(entry) else { return Vec::new() };
    let secondaries = entries.iter().filter(|other| is_secondary(other)).filter_map(InterfaceAddress::decode);
    secondaries
        .filter(|other| {
            other.interface == primary.interface
                && other.prefix_length == primary.prefix_length
                && shares_prefix(other.address, primary.address, primary.prefix_length)
        })
        .map(|other| other.address)
        .collect()
}

impl Route {
    /// Decodes the answer to a route lookup.
    pub fn decode(message: &RouteMessage) -> Self {
        match message.header.kind {
            RouteType::Local => return Self::Local,
            RouteType::Unicast => {}
            _ => return Self::Unreachable,
        }
        let (mut interface, mut gateway) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
                RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
                // An IPv4 route through an IPv6 gateway (RFC 5549).
                RouteAttribute::Via(via) => gateway = via_address(via),
                _ => {}
            }
        }
        interface.map_or(Self::Unreachable, |interface| Self::Via { interface, gateway })
    }
}

fn via_address(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteVia::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

impl Neighbour {
    /// Decodes a neighbour entry; `None` for one that is neither IPv4 nor IPv6.
    pub fn decode(message: &NeighbourMessage) -> Option<Self> {
        if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
            return None;
        }
        let (mut address, mut link_layer, mut managed) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
                NeighbourAttribute::LinkLayerAddress(bytes) => link_layer = mac(bytes),
                NeighbourAttribute::ExtFlags(flags) => managed = flags.contains(NeighbourExtFlags::Managed),
                _ => {}
            }
        }
        let state = message.header.state;
        let is_valid = !matches!(state, NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed);
        Some(Self {
            interface: message.header.ifindex,
            address: address?,
            mac: link_layer.filter(|mac| is_valid && *mac != Mac::UNRESOLVED),
            upkeep: match state {
                NeighbourState::Permanent | NeighbourState::Noarp => Upkeep::Permanent,
                _ if managed => Upkeep::Managed,
                _ => Upkeep::OnDemand,
            },
        })
    }
}

/// Length of the prefix that holds one address.
pub const fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS as u8,
        IpAddr::V6(_) => Ipv6Addr::BITS as u8,
    }
}

/// Whether two addresses are of one subnet.
pub fn shares_prefix(a: IpAddr, b: IpAddr, prefix_length: u8) -> bool {
    let (a, b, bits) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), Ipv4Addr::BITS),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), Ipv6Addr::BITS),
        _ => return false,
    };
    let rest = bits.saturating_sub(prefix_length.into());
    u128::checked_shr(a ^ b, rest).unwrap_or(0) == 0
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac::new)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::InfoKind;

    use super::*;

    fn neighbour(state: NeighbourState, attributes: Vec<NeighbourAttribute>) -> Option<Neighbour> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes = attributes;
        Neighbour::decode(&message)
    }

    fn destination() -> NeighbourAttribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet([198, 18, 0, 11].into()))
    }

    #[test]
    fn only_a_valid_neighbour_has_a_mac() {
        let mac = [2, 0, 0, 0, 0, 1];
        let attributes = vec![destination(), NeighbourAttribute::LinkLayerAddress(mac.into())];
        for (state, expected) in [
            (NeighbourState::Reachable, Some(Mac::new(mac))),
            (NeighbourState::Stale, Some(Mac::new(mac))),
            (NeighbourState::Probe, Some(Mac::new(mac))),
            (NeighbourState::Permanent, Some(Mac::new(mac))),
            (NeighbourState::Incomplete, None),
            (NeighbourState::Failed, None),
        ] {
            let decoded = neighbour(state, attributes.clone()).expect("an IPv4 neighbour");
            assert_eq!((decoded.mac, decoded.interface), (expected, 7), "{state}");
        }
        assert_eq!(neighbour(NeighbourState::Reachable, Vec::new()), None);
    }

    fn link(index: u32, vlan: Option<(u32, u16)>) -> Link {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some((lower, identifier)) = vlan {
            let data = InfoData::Vlan(vec![InfoVlan::Id(identifier)]);
            let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)];
            message.attributes = vec![LinkAttribute::Link(lower), LinkAttribute::LinkInfo(info)];
        }
        Link::decode(&message)
    }

    #[test]
    fn interfaces_of_vlans() {
        let links = [
            link(2, None),
            link(3, None),
            link(4, Some((2, 42))),
            link(5, Some((3, 42))),
            link(6, Some((2, 100))),
            link(7, Some((6, 42))),
            link(8, Some((99, 7))),
        ];
        let found = |lower, vlan| Link::of_vlan(&links, lower, Vlan(vlan)).map(|link| link.index);
        assert_eq!(found(2, [42, 0]), Some(4));
        assert_eq!(found(3, [42, 0]), Some(5));
        assert_eq!(found(2, [100, 42]), Some(7));
        assert_eq!(found(2, [42, 100]), None);
        assert_eq!(found(3, [100, 0]), None);
        assert_eq!(found(2, [0, 0]), None, "without tags it is the interface itself");

        let on =
            |index| links.iter().filter(|link| link.is_on(&links, index)).map(|link| link.index).collect::<Vec<_>>();
        assert_eq!(on(2), [2, 4, 6, 7]);
        assert_eq!(on(3), [3, 5]);
        assert_eq!(on(6), [6, 7]);
    }

    #[test]
    fn upkeep_of_neighbours() {
        let managed = vec![destination(), NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed)];
        for (state, attributes, expected) in [
            (NeighbourState::Stale, vec![destination()], Upkeep::OnDemand),
            (NeighbourState::Stale, managed, Upkeep::Managed),
            (NeighbourState::Permanent, vec![destination()], Upkeep::Permanent),
        ] {
            assert_eq!(neighbour(state, attributes).map(|n| n.upkeep), Some(expected));
        }
    }

    #[test]
    fn suitability_of_addresses() {
        let suitability = |flags| {
            let mut message = AddressMessage::default();
            message.attributes = vec![AddressAttribute::Local([198, 18, 0, 11].into()), AddressAttribute::Flags(flags)];
            InterfaceAddress::decode(&message).expect("an address").suitability
        };
        assert_eq!(suitability(AddressFlags::Permanent), Suitability::Primary);
        assert_eq!(suitability(AddressFlags::Secondary), Suitability::Secondary);
        assert_eq!(suitability(AddressFlags::Deprecated), Suitability::Unsuitable);
        assert_eq!(suitability(AddressFlags::Tentative), Suitability::Tentative);
        assert_eq!(suitability(AddressFlags::Tentative | AddressFlags::Dadfailed), Suitability::Unsuitable);
        assert_eq!(suitability(AddressFlags::Tentative | AddressFlags::Optimistic), Suitability::Primary);
    }

    #[test]
    fn what_the_kernel_removes_together() {
        let entry = |text: &str, flags: AddressHeaderFlags| {
            let (address, prefix_length) = text.split_once('/').expect("a prefix");
            let address: IpAddr = address.parse().expect("an address");
            let mut message = AddressMessage::default();
            message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            message.header.prefix_len = prefix_length.parse().expect("a prefix length");
            message.header.flags = flags;
            message.header.index = 2;
            message.attributes = vec![AddressAttribute::Local(address)];
            message
        };
        let (primary, secondary) = (AddressHeaderFlags::empty(), AddressHeaderFlags::Secondary);
        let mut entries = vec![
            entry("198.18.0.100/24", primary),
            entry("198.18.0.11/24", secondary),
            entry("198.18.0.12/25", secondary),
            entry("198.18.1.13/24", secondary),
            entry("198.18.0.14/24", primary),
            entry("2001:2::100/64", primary),
            entry("2001:2::11/64", secondary),
        ];
        assert_eq!(dependents(&entries[0], &entries), [IpAddr::from([198, 18, 0, 11])]);
        for (n, other) in entries.iter().enumerate().skip(1).filter(|(n, _)| *n != 4) {
            assert_eq!(dependents(other, &entries), Vec::<IpAddr>::new(), "entry {n}");
        }
        entries[1].header.index = 3;
        assert_eq!(dependents(&entries[0], &entries), Vec::<IpAddr>::new(), "of another interface");
    }

    #[test]
    fn prefixes() {
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        assert!(shares_prefix(ip("198.18.0.1"), ip("198.18.0.200"), 24));
        assert!(!shares_prefix(ip("198.18.0.1"), ip("198.18.1.1"), 24));
        assert!(shares_prefix(ip("198.18.0.1"), ip("1.1.1.1"), 0));
        assert!(shares_prefix(ip("2001:2::1"), ip("::"), 0));
        assert!(!shares_prefix(ip("2001:2::1"), ip("2001:2::2"), 128));
        assert!(!shares_prefix(ip("2001:2::1"), ip("198.18.0.1"), 0));
    }

    #[test]
    fn routes() {
        let route = |kind, attributes: Vec<RouteAttribute>| {
            let mut message = RouteMessage::default();
            message.header.kind = kind;
            message.attributes = attributes;
            Route::decode(&message)
        };
        let gateway = RouteAttribute::Gateway(RouteAddress::Inet([198, 18, 0, 1].into()));
        assert_eq!(route(RouteType::Local, vec![RouteAttribute::Oif(1)]), Route::Local);
        assert_eq!(route(RouteType::BlackHole, Vec::new()), Route::Unreachable);
        assert_eq!(route(RouteType::Unicast, vec![RouteAttribute::Oif(3)]), Route::Via { interface: 3, gateway: None });
        assert_eq!(
            route(RouteType::Unicast, vec![RouteAttribute::Oif(3), gateway]),
            Route::Via { interface: 3, gateway: Some([198, 18, 0, 1].into()) }
        );
    }

    #[test]
    fn xdp_programs() {
        assert_eq!(XdpProgram::decode(&[LinkXdp::Attached(XdpAttached::None)]), None);
        let native = [LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(12), LinkXdp::DrvProgId(12)];
        assert_eq!(XdpProgram::decode(&native), Some(XdpProgram { ids: vec![12], mode: "native" }));
    }
}
