//! What differs between IPv4 and IPv6, so that all else is written once.

use aya_ebpf::maps::HashMap;
use kplb_common::{
    checksum,
    endpoint::Endpoint,
    fence::Vip,
    net::{Address, Be16, Be32, ICMP, ICMPV6, Ip4, Ip6, TCP, UDP},
    node::Node,
    service::Service,
    verdict::DropReason,
};

use crate::{
    maps::{self, Draft, FlowTable},
    packet::{Byte, Ethernet, Header, Ipv4, Ipv6, Packet},
    parse::Refusal,
};

/// Hops that a packet made here may travel; the default TTL of RFC 1700.
const OWN_HOPS: u8 = 64;

/// An IP version.
pub trait Family {
    type Address: Address;
    type Header: Header;

    /// Where TCP or UDP begins in the frame.
    const L4_OFFSET: usize;

    /// Checks that the packet can be a whole TCP or UDP one, and returns which, and the bytes of the IP packet with its
    /// header.
    fn check<P: Packet>(packet: &P, ip: &Self::Header) -> Result<(u8, u16), Refusal>;

    fn source(ip: &Self::Header) -> &Self::Address;

    fn destination(ip: &Self::Header) -> &Self::Address;

    /// Replaces the addresses.
    fn set_addresses(ip: &mut Self::Header, source: &Self::Address, destination: &Self::Address, delta: u16);

    fn hops(ip: &Self::Header) -> u8;

    /// Takes away a hop; there must be one.
    fn take_hop(ip: &mut Self::Header);

    /// Makes the header that of a packet made here, addresses swapped, with `length` bytes of TCP.
    fn answer(ip: &mut Self::Header, length: u16);

    /// Bytes of the IP packet, header included, as it claims; none of a fragment.
    fn whole_length(ip: &Self::Header) -> Option<usize>;

    /// What an ICMP error quotes: bytes of the IP header, and whether TCP or UDP follows it; none if it is neither.
    fn quoted(ip: &Self::Header) -> Option<(usize, u8)>;

    /// The checksum of the header. Where there is none, it is one that never changes.
    fn checksum(ip: &Self::Header) -> u16;

    /// Whether an ICMP message of this type is an error about a packet, and not for this host alone.
    fn is_error(kind: u8) -> bool;

    /// Whether the ICMP checksum covers the addresses of the IP header.
    const ICMP_COVERS_ADDRESSES: bool;

    fn node_address(node: &Node) -> Self::Address;

    fn vips() -> &'static HashMap<Self::Address, Vip>;
    fn services() -> &'static HashMap<Endpoint<Self::Address>, Service>;
    fn flows() -> &'static FlowTable<Self::Address>;
    fn half_open() -> &'static FlowTable<Self::Address>;
    fn draft() -> Option<&'static mut Draft<Self::Address>>;
}

/// Whether the frame holds all of an IP packet of `length` bytes.
#[inline(always)]
fn holds<P: Packet>(packet: &P, length: usize) -> bool {
    let end = size_of::<Ethernet>() + length;
    // The linear memory suffices for nearly all packets; only then ask the kernel for the rest.
    packet.start() + end <= packet.end() || end <= packet.length()
}

const IMPOSSIBLE: Refusal = Refusal::IfForVip(DropReason::Malformed);

/// IPv4 (RFC 791).
pub enum V4 {}

/// More fragments, or an offset: all but the reserved and the don't-fragment bit.
const IPV4_FRAGMENT: u16 = 0x3fff;
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;
const IPV4_DONT_FRAGMENT: u16 = 0x4000;

impl Family for V4 {
    type Address = Ip4;
    type Header = Ipv4;

    const L4_OFFSET: usize = size_of::<Ethernet>() + size_of::<Ipv4>();

    #[inline(always)]
    fn check<P: Packet>(packet: &P, ip: &Ipv4) -> Result<(u8, u16), Refusal> {
        let is_ours = ip.protocol == TCP || ip.protocol == UDP;
        if ip.version_ihl != 0x45 {
            return Err(match (ip.version_ihl >> 4, ip.version_ihl & 0xf) {
                (4, 5..) if !is_ours => Refusal::NotOurs,
                (4, 5..) => Refusal::IfForVip(DropReason::IpOptions),
                _ => IMPOSSIBLE,
            });
        }
        if !is_ours {
            return Err(if ip.protocol == ICMP { Refusal::Icmp } else { Refusal::NotOurs });
        }
        if ip.fragment.to_wire() & IPV4_FRAGMENT.to_be() != 0 {
            return Err(Refusal::IfForVip(DropReason::Fragment));
        }
        let length = ip.total_length.to_host();
        if usize::from(length) < size_of::<Ipv4>() || !holds(packet, usize::from(length)) {
            return Err(IMPOSSIBLE);
        }
        Ok((ip.protocol, length))
    }

    #[inline(always)]
    fn source(ip: &Ipv4) -> &Ip4 {
        &ip.source
    }

    #[inline(always)]
    fn destination(ip: &Ipv4) -> &Ip4 {
        &ip.destination
    }

    #[inline(always)]
    fn set_addresses(ip: &mut Ipv4, source: &Ip4, destination: &Ip4, delta: u16) {
        ip.source = *source;
        ip.destination = *destination;
        ip.checksum = checksum::update(ip.checksum, delta);
    }

    #[inline(always)]
    fn hops(ip: &Ipv4) -> u8 {
        ip.ttl
    }

    #[inline(always)]
    fn take_hop(ip: &mut Ipv4) {
        ip.ttl -= 1;
        ip.checksum = checksum::update(ip.checksum, checksum::TTL_DECREMENT);
    }

    #[inline(always)]
    fn answer(ip: &mut Ipv4, length: u16) {
        let (source, destination) = (ip.destination, ip.source);
        *ip = Ipv4 {
            version_ihl: 0x45,
            tos: 0,
            total_length: Be16::from_host(size_of::<Ipv4>() as u16 + length),
            id: Be16::from_host(0),
            fragment: Be16::from_host(IPV4_DONT_FRAGMENT),
            ttl: OWN_HOPS,
            protocol: TCP,
            checksum: 0,
            source,
            destination,
        };
        let sum = u64::from(u16::from_ne_bytes([ip.version_ihl, ip.tos]))
            + u64::from(ip.total_length.to_wire())
            + u64::from(ip.fragment.to_wire())
            + u64::from(u16::from_ne_bytes([ip.ttl, ip.protocol]))
            + source.sum()
            + destination.sum();
        ip.checksum = !checksum::fold(sum);
    }

    #[inline(always)]
    fn whole_length(ip: &Ipv4) -> Option<usize> {
        (ip.fragment.to_wire() & IPV4_FRAGMENT.to_be() == 0).then_some(usize::from(ip.total_length.to_host()))
    }

    /// A router may have cut the packet up: its first fragment has the ports.
    #[inline(always)]
    fn quoted(ip: &Ipv4) -> Option<(usize, u8)> {
        let header_length = usize::from(ip.version_ihl & 0xf) * 4;
        let is_sound = ip.version_ihl >> 4 == 4 && header_length >= size_of::<Ipv4>();
        let has_ports =
            (ip.protocol == TCP || ip.protocol == UDP) && ip.fragment.to_wire() & IPV4_FRAGMENT_OFFSET.to_be() == 0;
        (is_sound && has_ports).then_some((header_length, ip.protocol))
    }

    #[inline(always)]
    fn checksum(ip: &Ipv4) -> u16 {
        ip.checksum
    }

    /// Destination unreachable, time exceeded, parameter problem (RFC 792). A redirect is for this host alone; source
    /// quench is to be ignored (RFC 6633, section 3).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    const ICMP_COVERS_ADDRESSES: bool = false;

    #[inline(always)]
    fn node_address(node: &Node) -> Ip4 {
        node.ipv4
    }

    #[inline(always)]
    fn vips() -> &'static HashMap<Ip4, Vip> {
        &maps::VIPS4
    }

    #[inline(always)]
    fn services() -> &'static HashMap<Endpoint<Ip4>, Service> {
        &maps::SERVICES4
    }

    #[inline(always)]
    fn flows() -> &'static FlowTable<Ip4> {
        &maps::FLOWS4
    }

    #[inline(always)]
    fn half_open() -> &'static FlowTable<Ip4> {
        &maps::HALF_OPEN4
    }

    #[inline(always)]
    fn draft() -> Option<&'static mut Draft<Ip4>> {
        maps::draft(&maps::DRAFT4)
    }
}

/// IPv6 (RFC 8200).
pub enum V6 {}

/// Next header numbers of extension headers (RFC 8200, section 4; IANA "IPv6 Extension Header Types").
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// Why a packet with this next header, neither TCP nor UDP, is not for the pipeline.
#[inline(always)]
fn refuse_next_header<P: Packet>(packet: &P, next_header: u8) -> Refusal {
    use extension::{AUTHENTICATION, DESTINATION, FRAGMENT, HIP, HOP_BY_HOP, MOBILITY, ROUTING, SHIM6};

    match next_header {
        // A fragment of what? The kernel answers echo requests of any size.
        FRAGMENT => match packet.header::<Byte>(V6::L4_OFFSET) {
            Some(Byte(TCP | UDP)) => Refusal::IfForVip(DropReason::Fragment),
            Some(_) => Refusal::NotOurs,
            None => IMPOSSIBLE,
        },
        HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6 => {
            Refusal::IfForVip(DropReason::ExtensionHeader)
        }
        ICMPV6 => Refusal::Icmpv6,
        _ => Refusal::NotOurs,
    }
}

impl Family for V6 {
    type Address = Ip6;
    type Header = Ipv6;

    const L4_OFFSET: usize = size_of::<Ethernet>() + size_of::<Ipv6>();

    #[inline(always)]
    fn check<P: Packet>(packet: &P, ip: &Ipv6) -> Result<(u8, u16), Refusal> {
        if ip.version_class_label.to_host() >> 28 != 6 {
            return Err(IMPOSSIBLE);
        }
        if ip.next_header != TCP && ip.next_header != UDP {
            return Err(refuse_next_header(packet, ip.next_header));
        }
        let length = size_of::<Ipv6>() + usize::from(ip.payload_length.to_host());
        if length > usize::from(u16::MAX) || !holds(packet, length) {
            return Err(IMPOSSIBLE);
        }
        Ok((ip.next_header, length as u16))
    }

    #[inline(always)]
    fn source(ip: &Ipv6) -> &Ip6 {
        &ip.source
    }

    #[inline(always)]
    fn destination(ip: &Ipv6) -> &Ip6 {
        &ip.destination
    }

    #[inline(always)]
    fn set_addresses(ip: &mut Ipv6, source: &Ip6, destination: &Ip6, _delta: u16) {
        ip.source = *source;
        ip.destination = *destination;
    }

    #[inline(always)]
    fn hops(ip: &Ipv6) -> u8 {
        ip.hop_limit
    }

    #[inline(always)]
    fn take_hop(ip: &mut Ipv6) {
        ip.hop_limit -= 1;
    }

    #[inline(always)]
    fn answer(ip: &mut Ipv6, length: u16) {
        let (source, destination) = (ip.destination, ip.source);
        *ip = Ipv6 {
            version_class_label: Be32::from_host(6 << 28),
            payload_length: Be16::from_host(length),
            next_header: TCP,
            hop_limit: OWN_HOPS,
            source,
            destination,
        };
    }

    #[inline(always)]
    fn whole_length(ip: &Ipv6) -> Option<usize> {
        Some(size_of::<Ipv6>() + usize::from(ip.payload_length.to_host()))
    }

    /// No packet of ours has an extension header, and routers insert none (RFC 8200, section 4).
    #[inline(always)]
    fn quoted(ip: &Ipv6) -> Option<(usize, u8)> {
        let is_sound = ip.version_class_label.to_host() >> 28 == 6;
        (is_sound && (ip.next_header == TCP || ip.next_header == UDP)).then_some((size_of::<Ipv6>(), ip.next_header))
    }

    #[inline(always)]
    fn checksum(_ip: &Ipv6) -> u16 {
        0
    }

    /// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443, section 3).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    /// RFC 4443, section 2.3.
    const ICMP_COVERS_ADDRESSES: bool = true;

    #[inline(always)]
    fn node_address(node: &Node) -> Ip6 {
        node.ipv6
    }

    #[inline(always)]
    fn vips() -> &'static HashMap<Ip6, Vip> {
        &maps::VIPS6
    }

    #[inline(always)]
    fn services() -> &'static HashMap<Endpoint<Ip6>, Service> {
        &maps::SERVICES6
    }

    #[inline(always)]
    fn flows() -> &'static FlowTable<Ip6> {
        &maps::FLOWS6
    }

    #[inline(always)]
    fn half_open() -> &'static FlowTable<Ip6> {
        &maps::HALF_OPEN6
    }

    #[inline(always)]
    fn draft() -> Option<&'static mut Draft<Ip6>> {
        maps::draft(&maps::DRAFT6)
    }
}
