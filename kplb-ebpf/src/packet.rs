//! Bytes of a packet: the only place that touches packet memory.
//!
//! A header is handed out only after the check that the verifier demands, and by its type. The overlays' fields are in
//! memory order (`Be16`, `Ip4`…) and as wide as the loads that they should become; their layout is checked against
//! `network-types`, whose own byte arrays would compile to a load for each byte.
//!
//! [`Packet`] is what differs between the hooks. A variant for another hook implements it, and nothing else.

use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{
        bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    programs::{TcContext, XdpContext},
};
use kplb_common::{
    checksum,
    flow::Deltas,
    net::{Be16, Be32, Ip4, Ip6, Mac},
    trace::SNAPSHOT_WORDS,
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

/// What the pipeline needs of a packet, whatever hook it is at.
pub trait Packet {
    /// The context that the kernel called the program with.
    type Context: EbpfContext;

    /// For the log.
    fn context(&self) -> &Self::Context;

    /// The identifier of the outermost VLAN tag, host order, if the hardware or the kernel keeps it apart from the frame's
    /// bytes; zero if not, or if there is none.
    fn tag_apart(&self) -> u16;

    /// Length of the frame in bytes, with what is not in linear memory.
    fn length(&self) -> usize;

    /// First byte in linear memory.
    fn start(&self) -> usize;

    /// End of the linear memory.
    fn end(&self) -> usize;

    /// Brings as much of the first `length` bytes into linear memory as there is. Headers must be fetched again
    /// afterwards.
    fn gather(&self, length: usize);

    /// Copies the first `length` bytes of the frame, which are at least one and at most as many as there is room for. Says
    /// whether it could.
    ///
    /// # Minimum kernel version
    /// At XDP: 5.18
    fn copy_start(&self, to: *mut [u64; SNAPSHOT_WORDS], length: u32) -> bool;

    /// Applies deltas to the TCP or UDP checksum that lies `offset` bytes into the frame. Headers must be fetched again
    /// afterwards.
    fn update_l4_checksum(&self, offset: usize, which: L4Checksum, deltas: Deltas);

    /// The header that begins `offset` bytes into the frame, or none if it is not wholly in linear memory.
    ///
    /// The caller must not hold two references to the same bytes at once.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "packet memory is not part of the packet handle")]
    fn header<H: Header>(&self, offset: usize) -> Option<&mut H> {
        let start = self.start();
        if start + offset + size_of::<H>() > self.end() {
            return None;
        }
        // SAFETY: within the packet by the check above, which the verifier insists on; every bit pattern is a valid
        // `H`. The address may be less aligned than `H`: BPF has no such demand where the verifier accepts the load.
        Some(unsafe { &mut *((start + offset) as *mut H) })
    }
}

/// Loads a packet pointer from the context.
///
/// Volatile, or LLVM loads it in the caller and passes it to a function as a 32-bit number, which it then widens: "pointer
/// arithmetic on pkt_end prohibited", says the verifier.
///
/// # Safety
/// `field` must be a field of the context that this program was called with.
#[inline(always)]
unsafe fn load(field: *const u32) -> usize {
    // SAFETY: the caller's promise.
    unsafe { field.read_volatile() as usize }
}

/// The identifier in the control information of a VLAN tag.
pub const TAG_IDENTIFIER: u16 = 0x0fff;

/// Which checksum to update.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum L4Checksum {
    Tcp,
    /// Zero means none.
    Udp,
}

/// A packet at XDP.
pub struct XdpPacket(XdpContext);

impl XdpPacket {
    #[inline(always)]
    pub fn new(ctx: XdpContext) -> Self {
        Self(ctx)
    }
}

impl Packet for XdpPacket {
    type Context = XdpContext;

    #[inline(always)]
    fn context(&self) -> &XdpContext {
        &self.0
    }

    /// XDP is not told: a tag that the hardware has taken off is as good as none. The agent makes it leave them.
    #[inline(always)]
    fn tag_apart(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: the context is the one this program was called with.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the context is the one this program was called with.
        unsafe { load(&raw const (*self.0.ctx).data) }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        unsafe { load(&raw const (*self.0.ctx).data_end) }
    }

    /// What is looked at is always in the first fragment of a packet in several: no interface's are so small.
    #[inline(always)]
    fn gather(&self, _length: usize) {}

    #[inline(always)]
    fn copy_start(&self, to: *mut [u64; SNAPSHOT_WORDS], length: u32) -> bool {
        // SAFETY: the context is the one this program was called with, and the caller has so much room, which the verifier
        // insists on.
        unsafe { bpf_xdp_load_bytes(self.0.ctx, 0, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn update_l4_checksum(&self, offset: usize, which: L4Checksum, deltas: Deltas) {
        let delta = checksum::sum(deltas.addresses, deltas.ports);
        let Some(field) = self.header::<Word>(offset) else { return };
        field.0 = match which {
            L4Checksum::Tcp => checksum::update(field.0, delta),
            L4Checksum::Udp => checksum::update_udp(field.0, delta),
        };
    }
}

/// Bytes of the longest headers that are read of every packet. Not those of neighbour discovery: to fetch its last bytes
/// would cost every IPv6 segment with nothing but a TCP header in linear memory, and the kernel's own is there as a whole
/// (`ndisc_alloc_skb` in `net/ipv6/ndisc.c`).
const HEADERS: usize = size_of::<Ethernet>() + size_of::<Ipv6>() + size_of::<Tcp>();

/// A packet at TC.
pub struct SkbPacket(TcContext);

impl SkbPacket {
    /// Makes sure that the headers are in linear memory.
    #[inline(always)]
    pub fn new(ctx: TcContext) -> Self {
        let packet = Self(ctx);
        packet.gather(HEADERS);
        packet
    }
}

/// To `bpf_l4_csum_replace`: the change is one of the pseudo-header too, so it counts where the hardware will finish
/// the checksum (`include/uapi/linux/bpf.h`).
const BPF_F_PSEUDO_HDR: u64 = 1 << 4;
/// To `bpf_l4_csum_replace`: zero means none.
const BPF_F_MARK_MANGLED_0: u64 = 1 << 5;

impl Packet for SkbPacket {
    type Context = TcContext;

    #[inline(always)]
    fn context(&self) -> &TcContext {
        &self.0
    }

    #[inline(always)]
    fn tag_apart(&self) -> u16 {
        // SAFETY: the context is the one this program was called with.
        let (is_present, control) = unsafe { ((*self.0.skb.skb).vlan_present, (*self.0.skb.skb).vlan_tci) };
        if is_present == 0 { 0 } else { control as u16 & TAG_IDENTIFIER }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the context is the one this program was called with.
        unsafe { load(&raw const (*self.0.skb.skb).data) }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        unsafe { load(&raw const (*self.0.skb.skb).data_end) }
    }

    #[inline(always)]
    fn gather(&self, length: usize) {
        let ctx = &self.0;
        if self.start() + length > self.end() {
            let length = if ctx.len() < length as u32 { ctx.len() } else { length as u32 };
            // SAFETY: the context is the one this program was called with. A failure leaves the headers where they
            // are, and the bounds checks find out.
            unsafe { bpf_skb_pull_data(ctx.skb.skb, length) };
        }
    }

    #[inline(always)]
    fn copy_start(&self, to: *mut [u64; SNAPSHOT_WORDS], length: u32) -> bool {
        // SAFETY: the context is the one this program was called with, and the caller has so much room, which the verifier
        // insists on.
        unsafe { bpf_skb_load_bytes(self.0.skb.skb.cast(), 0, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn update_l4_checksum(&self, offset: usize, which: L4Checksum, deltas: Deltas) {
        let zero_is_none = match which {
            L4Checksum::Tcp => 0,
            L4Checksum::Udp => BPF_F_MARK_MANGLED_0,
        };
        let replace = |delta: u16, flags: u64| {
            // SAFETY: the context is the one this program was called with. Size 0 in the flags: the value is a delta.
            unsafe { bpf_l4_csum_replace(self.0.skb.skb, offset as u32, 0, u64::from(delta), flags | zero_is_none) }
        };
        // Not one call: while the hardware is to finish the checksum, the field holds the pseudo-header's sum only.
        replace(deltas.addresses, BPF_F_PSEUDO_HDR);
        replace(deltas.ports, 0);
    }
}
