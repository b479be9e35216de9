//! The headers of packets, as overlays of their bytes.
//!
//! Their fields are in memory order (`Be16`, `Ip4`…) and as wide as the loads that they should become; their layout is
//! checked against `network-types`, whose own byte arrays would compile to a load for each byte.

use core::mem::offset_of;

use kplb_common::{
    clock::Reading,
    net::{Be16, Be32, Ip4, Ip6, Mac},
};
use network_types::{
    arp::ArpHdr,
    eth::EthHdr,
    icmp::{Icmpv4Hdr, Icmpv6Hdr},
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

/// A header that may be read from any bytes.
///
/// # Safety
/// The type must be `repr(C)`, without padding, and valid for every bit pattern.
pub unsafe trait Header {}

/// Ethernet II.
#[repr(C)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
    pub ethertype: Be16,
}

/// IPv4 without options.
#[repr(C)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_length: Be16,
    pub id: Be16,
    pub fragment: Be16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: Ip4,
    pub destination: Ip4,
}

/// IPv6 without extension headers.
#[repr(C)]
pub struct Ipv6 {
    pub version_class_label: Be32,
    pub payload_length: Be16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: Ip6,
    pub destination: Ip6,
}

/// The ports, where TCP and UDP have them.
#[repr(C)]
pub struct Ports {
    pub source: Be16,
    pub destination: Be16,
}

/// TCP without options.
#[repr(C)]
pub struct Tcp {
    pub source: Be16,
    pub destination: Be16,
    pub sequence: Be32,
    pub acknowledgement: Be32,
    /// Header length in words, in the upper half.
    pub data_offset: u8,
    pub flags: u8,
    pub window: Be16,
    pub checksum: u16,
    pub urgent: Be16,
}

/// UDP.
#[repr(C)]
pub struct Udp {
    pub source: Be16,
    pub destination: Be16,
    pub length: Be16,
    pub checksum: u16,
}

/// ARP of Ethernet and IPv4 (RFC 826). The protocol addresses do not lie at multiples of their size.
#[repr(C, packed(2))]
pub struct Arp {
    pub hardware: Be16,
    pub protocol: Be16,
    /// Bytes of a hardware address.
    pub hardware_length: u8,
    /// Bytes of a protocol address.
    pub protocol_length: u8,
    pub operation: Be16,
    pub sender_mac: Mac,
    pub sender: Ip4,
    pub target_mac: Mac,
    pub target: Ip4,
}

/// Neighbour solicitation or advertisement without options (RFC 4861, sections 4.3 and 4.4).
#[repr(C)]
pub struct Discovery {
    /// The ICMPv6 type.
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    /// Of an advertisement; reserved in a solicitation.
    pub flags: u32,
    pub target: Ip6,
}

/// ICMP and ICMPv6 (RFC 792; RFC 4443, section 2.1), with the four bytes that depend on the type.
#[repr(C)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    pub rest: u32,
}

/// What follows the ethertype of a VLAN tag (IEEE 802.1Q-2022, section 9.3).
#[repr(C)]
pub struct Tag {
    /// Priority, drop eligibility, and the identifier in the lower twelve bits.
    pub control: Be16,
    /// Of what the tag is on.
    pub ethertype: Be16,
}

/// What the walked IPv6 extension headers have in common, and what only a routing header has (RFC 8200, section 4).
#[repr(C)]
pub struct Extension {
    /// Number of the next header.
    pub next: u8,
    /// Its length in units of eight bytes, without the first.
    pub length: u8,
    pub kind: u8,
    /// Hops that are still to be visited.
    pub segments_left: u8,
    pub rest: u32,
}

/// IPv6 fragment header (RFC 8200, section 4.5).
#[repr(C)]
pub struct Fragment {
    /// Number of the next header.
    pub next: u8,
    pub reserved: u8,
    /// The offset in the upper thirteen bits; whether more follow in the lowest.
    pub offset_and_more: Be16,
    pub id: Be32,
}

impl Fragment {
    /// Where the lower half of the identification lies in the header.
    pub const LOWER_ID: usize = offset_of!(Self, id) + size_of::<Word>();

    /// Where it begins in the datagram, in units of eight bytes.
    #[inline(always)]
    pub fn offset(&self) -> u16 {
        self.offset_and_more.to_host() >> 3
    }

    /// Whether more fragments follow.
    #[inline(always)]
    pub fn rest(&self) -> Rest {
        if self.offset_and_more.to_host() & 1 != 0 { Rest::More } else { Rest::None }
    }
}

/// Whether fragments of the datagram follow a fragment.
#[derive(Clone, Copy)]
pub enum Rest {
    More,
    None,
}

/// An IPv4 option (RFC 791, section 3.1), of which two kinds have no length.
#[repr(C)]
pub struct Ipv4Option {
    pub kind: u8,
    /// In bytes, these two included.
    pub length: u8,
}

/// Two bytes that are looked at as they are: a checksum, or half of an identification.
#[repr(transparent)]
pub struct Word(pub u16);

const _: () = assert!(size_of::<Ethernet>() == size_of::<EthHdr>());
const _: () = assert!(offset_of!(Ethernet, ethertype) == offset_of!(EthHdr, ether_type));
const _: () = assert!(size_of::<Ipv4>() == size_of::<Ipv4Hdr>());
const _: () = assert!(offset_of!(Ipv4, checksum) == offset_of!(Ipv4Hdr, check));
const _: () = assert!(offset_of!(Ipv4, destination) == offset_of!(Ipv4Hdr, dst_addr));
const _: () = assert!(size_of::<Ipv6>() == size_of::<Ipv6Hdr>());
const _: () = assert!(offset_of!(Ipv6, hop_limit) == offset_of!(Ipv6Hdr, hop_limit));
const _: () = assert!(offset_of!(Ipv6, destination) == offset_of!(Ipv6Hdr, dst_addr));
const _: () = assert!(size_of::<Tcp>() == size_of::<TcpHdr>());
const _: () = assert!(offset_of!(Tcp, checksum) == offset_of!(TcpHdr, check));
const _: () = assert!(size_of::<Udp>() == size_of::<UdpHdr>());
const _: () = assert!(offset_of!(Udp, checksum) == offset_of!(UdpHdr, check));
const _: () = assert!(size_of::<Arp>() == size_of::<ArpHdr>());
const _: () = assert!(offset_of!(Arp, sender) == offset_of!(ArpHdr, spa));
const _: () = assert!(offset_of!(Arp, target) == offset_of!(ArpHdr, tpa));
const _: () = assert!(size_of::<Icmp>() == size_of::<Icmpv4Hdr>());
const _: () = assert!(offset_of!(Icmp, checksum) == offset_of!(Icmpv4Hdr, check));
// `network-types` has the ICMPv6 header only, and the target after it.
const _: () = assert!(size_of::<Discovery>() == size_of::<Icmpv6Hdr>() + 16);
const _: () = assert!(offset_of!(Discovery, target) == size_of::<Icmpv6Hdr>());

// SAFETY: integers and arrays of them in `repr(C)`; the sizes are asserted above.
unsafe impl Header for Ethernet {}
// SAFETY: as above; its size is asserted where it is defined.
unsafe impl Header for Reading {}
// SAFETY: as above.
unsafe impl Header for Ipv4 {}
// SAFETY: as above.
unsafe impl Header for Ipv6 {}
// SAFETY: as above; two 16-bit numbers have no padding.
unsafe impl Header for Ports {}
// SAFETY: as above.
unsafe impl Header for Tcp {}
// SAFETY: as above.
unsafe impl Header for Udp {}
// SAFETY: as above.
unsafe impl Header for Arp {}
// SAFETY: as above.
unsafe impl Header for Discovery {}
// SAFETY: as above.
unsafe impl Header for Icmp {}
// SAFETY: as above.
unsafe impl Header for Tag {}
// SAFETY: as above.
unsafe impl Header for Extension {}
// SAFETY: as above.
unsafe impl Header for Fragment {}
// SAFETY: as above.
unsafe impl Header for Ipv4Option {}
// SAFETY: as above.
unsafe impl Header for Word {}
