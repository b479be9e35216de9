//! What differs between IPv4 and IPv6, so that all else is written once.

use aya_ebpf::maps::{HashMap, LruHashMap};
use kplb_common::{
    checksum,
    endpoint::Endpoint,
    fence::Vip,
    fragment::{FragmentKey, Fragments},
    net::{Address, Be16, Be32, ICMP, Ip4, Ip6, TCP, UDP},
    node::Node,
    service::Service,
    verdict::{PassReason, Verdict},
};

use crate::{
    emit::Outcome,
    layout::{Quoted, Walked},
    maps::{self, Draft, FlowTable},
    packet::{Ethernet, Fragment, Header, Ipv4, Ipv6, Packet, Rest},
    parse::{Parsed, Refusal},
    walk,
};

/// Hops that a packet made here may travel; the default TTL of RFC 1700.
const OWN_HOPS: u8 = 64;

/// Whether an IP header has a checksum of its own.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum HeaderChecksum {
    /// So the sum of all its words is always the same.
    Own,
    None,
}

/// An IP version.
pub trait Family {
    type Address: Address;
    type Header: Header;

    /// Where TCP or UDP begins in a frame with the plain layout.
    const L4_OFFSET: usize;

    /// What a packet of the family's ICMP is for the pipeline.
    const ICMP: Refusal;

    /// Whether its header has a checksum.
    const HEADER_CHECKSUM: HeaderChecksum;

    /// Checks that the packet has the plain layout and can be a whole TCP or UDP one, and returns which, and the bytes of
    /// the IP packet with its header. If not, it is left undecided, or is surely not ours.
    fn check_plain<P: Packet>(packet: &P, ip: &Self::Header) -> Result<(u8, u16), Outcome>;

    /// Goes through all headers up to that of TCP, UDP or ICMP, and fills in where they lie and what they say.
    fn walk<P: Packet>(packet: &P, parsed: &mut Parsed<Self::Address, Walked>) -> Result<(), Refusal>;

    fn source(ip: &Self::Header) -> &Self::Address;

    fn destination(ip: &Self::Header) -> &Self::Address;

    /// Replaces the addresses; the checksum is still to be mended.
    fn set_addresses(ip: &mut Self::Header, source: &Self::Address, destination: &Self::Address);

    fn hops(ip: &Self::Header) -> u8;

    /// Takes away a hop; there must be one. Returns by what the checksum is still to be mended for it: with all else, as each
    /// step would wait for the one before.
    fn take_hop(ip: &mut Self::Header) -> u16;

    /// Mends the checksum of the header by a delta. Where there is none, nothing is to be done.
    fn mend(ip: &mut Self::Header, delta: u16);

    /// Makes the header that of a packet made here, addresses swapped, with `length` bytes of TCP.
    fn answer(ip: &mut Self::Header, length: u16);

    /// What an ICMP error quotes, whose IP header begins `at` bytes into the frame: none if it is neither TCP nor UDP, or
    /// not their beginning.
    fn walk_quoted<P: Packet>(packet: &P, at: usize) -> Option<Quoted>;

    /// Bytes of the IP packet, header included, as it claims.
    fn length(ip: &Self::Header) -> usize;

    /// The checksum of the header. Where there is none, it is one that never changes.
    fn checksum(ip: &Self::Header) -> u16;

    /// Whether an ICMP message of this type is an error about a packet, and not for this host alone.
    fn is_error(kind: u8) -> bool;

    /// Whether the ICMP checksum covers the addresses of the IP header.
    const ICMP_COVERS_ADDRESSES: bool;

    /// Whether fragments of one datagram all name its protocol.
    const FRAGMENTS_NAME_PROTOCOL: bool;

    fn node_address(node: &Node) -> Self::Address;

    fn vips() -> &'static HashMap<Self::Address, Vip>;
    fn services() -> &'static HashMap<Endpoint<Self::Address>, Service>;
    fn flows() -> &'static FlowTable<Self::Address>;
    fn half_open() -> &'static FlowTable<Self::Address>;
    fn walked() -> Option<&'static mut Parsed<Self::Address, Walked>>;
    fn draft() -> Option<&'static mut Draft<Self::Address>>;
    fn fragments() -> &'static LruHashMap<FragmentKey<Self::Address>, Fragments>;
}

/// Whether the frame reaches as far as `end`.
#[inline(always)]
pub fn holds<P: Packet>(packet: &P, end: usize) -> bool {
    // The linear memory suffices for nearly all packets; only then ask the kernel for the rest. Lengths and not addresses
    // are compared, as the verifier of kernels before 6.8 knows no bound of a number whose bytes were swapped, and allows
    // no such one to be added to an address.
    end <= packet.end().wrapping_sub(packet.start()) || end <= packet.length()
}

const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);

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

    const ICMP: Refusal = Refusal::ICMP;

    const HEADER_CHECKSUM: HeaderChecksum = HeaderChecksum::Own;

    #[inline(always)]
    fn check_plain<P: Packet>(packet: &P, ip: &Ipv4) -> Result<(u8, u16), Outcome> {
        if ip.protocol != TCP && ip.protocol != UDP {
            let is_surely_not_ours = ip.version_ihl == 0x45 && ip.protocol != ICMP;
            return Err(if is_surely_not_ours { NOT_OURS.into() } else { Outcome::UNDECIDED });
        }
        let length = ip.total_length.to_host();
        let is_plain = ip.version_ihl == 0x45
            && ip.fragment.to_wire() & IPV4_FRAGMENT.to_be() == 0
            && usize::from(length) >= size_of::<Ipv4>()
            && holds(packet, size_of::<Ethernet>() + usize::from(length));
        if is_plain { Ok((ip.protocol, length)) } else { Err(Outcome::UNDECIDED) }
    }

    #[inline(always)]
    fn walk<P: Packet>(packet: &P, parsed: &mut Parsed<Ip4, Walked>) -> Result<(), Refusal> {
        walk::ipv4(packet, &mut parsed.layout, &mut parsed.shape)
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
    fn set_addresses(ip: &mut Ipv4, source: &Ip4, destination: &Ip4) {
        ip.source = *source;
        ip.destination = *destination;
    }

    #[inline(always)]
    fn hops(ip: &Ipv4) -> u8 {
        ip.ttl
    }

    #[inline(always)]
    fn take_hop(ip: &mut Ipv4) -> u16 {
        ip.ttl -= 1;
        checksum::TTL_DECREMENT
    }

    #[inline(always)]
    fn mend(ip: &mut Ipv4, delta: u16) {
        ip.checksum = checksum::update(ip.checksum, delta);
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

    /// A router may have cut the packet up: its first fragment has the ports.
    #[inline(always)]
    fn walk_quoted<P: Packet>(packet: &P, at: usize) -> Option<Quoted> {
        packet.gather(at + size_of::<Self::Header>());
        let ip = packet.header::<Ipv4>(at)?;
        let header_length = usize::from(ip.version_ihl & 0xf) * 4;
        let is_sound = ip.version_ihl >> 4 == 4 && header_length >= size_of::<Ipv4>();
        let has_ports =
            (ip.protocol == TCP || ip.protocol == UDP) && ip.fragment.to_wire() & IPV4_FRAGMENT_OFFSET.to_be() == 0;
        (is_sound && has_ports).then_some(Quoted { protocol: ip.protocol, l4: (at + header_length) as u8, id_at: 0 })
    }

    #[inline(always)]
    fn length(ip: &Ipv4) -> usize {
        usize::from(ip.total_length.to_host())
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

    const FRAGMENTS_NAME_PROTOCOL: bool = true;

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
    fn walked() -> Option<&'static mut Parsed<Ip4, Walked>> {
        maps::walked(&maps::WALKED4)
    }

    #[inline(always)]
    fn draft() -> Option<&'static mut Draft<Ip4>> {
        maps::draft(&maps::DRAFT4)
    }

    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragmentKey<Ip4>, Fragments> {
        &maps::FRAGMENTS4
    }
}

/// IPv6 (RFC 8200).
pub enum V6 {}

impl Family for V6 {
    type Address = Ip6;
    type Header = Ipv6;

    const L4_OFFSET: usize = size_of::<Ethernet>() + size_of::<Ipv6>();

    const ICMP: Refusal = Refusal::ICMPV6;

    const HEADER_CHECKSUM: HeaderChecksum = HeaderChecksum::None;

    #[inline(always)]
    fn check_plain<P: Packet>(packet: &P, ip: &Ipv6) -> Result<(u8, u16), Outcome> {
        let length = size_of::<Ipv6>() + usize::from(ip.payload_length.to_host());
        let is_plain = (ip.next_header == TCP || ip.next_header == UDP)
            && ip.version_class_label.to_host() >> 28 == 6
            && length <= usize::from(u16::MAX)
            && holds(packet, size_of::<Ethernet>() + length);
        if is_plain { Ok((ip.next_header, length as u16)) } else { Err(Outcome::UNDECIDED) }
    }

    #[inline(always)]
    fn walk<P: Packet>(packet: &P, parsed: &mut Parsed<Ip6, Walked>) -> Result<(), Refusal> {
        walk::ipv6(packet, &mut parsed.layout, &mut parsed.shape)
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
    fn set_addresses(ip: &mut Ipv6, source: &Ip6, destination: &Ip6) {
        ip.source = *source;
        ip.destination = *destination;
    }

    #[inline(always)]
    fn hops(ip: &Ipv6) -> u8 {
        ip.hop_limit
    }

    #[inline(always)]
    fn take_hop(ip: &mut Ipv6) -> u16 {
        ip.hop_limit -= 1;
        0
    }

    #[inline(always)]
    fn mend(_ip: &mut Ipv6, _delta: u16) {}

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

    /// Only the sender makes fragments of IPv6, so those that are quoted have been renumbered here.
    #[inline(always)]
    fn walk_quoted<P: Packet>(packet: &P, at: usize) -> Option<Quoted> {
        packet.gather(at + size_of::<Self::Header>());
        let ip = packet.header::<Ipv6>(at)?;
        if ip.version_class_label.to_host() >> 28 != 6 {
            return None;
        }
        let chain = walk::chain(packet, ip.next_header, at + size_of::<Ipv6>()).ok()?;
        if chain.protocol != TCP && chain.protocol != UDP {
            return None;
        }
        let mut id_at = 0;
        if chain.fragment_at != 0 {
            let fragment = packet.header::<Fragment>(chain.fragment_at)?;
            if fragment.offset() != 0 {
                return None;
            }
            if matches!(fragment.rest(), Rest::More) {
                id_at = chain.fragment_at + Fragment::LOWER_ID;
            }
        }
        Some(Quoted { protocol: chain.protocol, l4: chain.at as u8, id_at: id_at as u8 })
    }

    #[inline(always)]
    fn length(ip: &Ipv6) -> usize {
        size_of::<Ipv6>() + usize::from(ip.payload_length.to_host())
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

    const FRAGMENTS_NAME_PROTOCOL: bool = false;

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
    fn walked() -> Option<&'static mut Parsed<Ip6, Walked>> {
        maps::walked(&maps::WALKED6)
    }

    #[inline(always)]
    fn draft() -> Option<&'static mut Draft<Ip6>> {
        maps::draft(&maps::DRAFT6)
    }

    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragmentKey<Ip6>, Fragments> {
        &maps::FRAGMENTS6
    }
}
