//! Bytes of a packet: the only place that touches packet memory.
//!
//! A header is handed out only after the check that the verifier demands, and by its type.
//!
//! [`Packet`] is what differs between the hooks. A variant for another hook implements it, and nothing else.

mod headers;
mod skb;
mod xdp;

use aya_ebpf::EbpfContext;
use kplb_common::{flow::Deltas, trace::SNAPSHOT_WORDS};

pub use self::{
    headers::{
        Arp, Discovery, Ethernet, Extension, Fragment, Header, Icmp, Ipv4, Ipv4Option, Ipv6, Ports, Rest, Tag, Tcp,
        Udp, Word,
    },
    skb::SkbPacket,
    xdp::XdpPacket,
};
use crate::family::Family;

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

    /// Bytes of an IP packet, or of what follows its IPv6 header, of which the header claims so many. One that is too long for
    /// its header to say claims none, and is as long as can be said: the slow path's business.
    fn claimed_length(&self, claimed: u16) -> u16;

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

    /// Applies deltas to the TCP or UDP checksum that lies `offset` bytes into the frame, behind a header of family `F`.
    /// Headers must be fetched again afterwards.
    fn update_l4_checksum<F: Family>(&self, offset: usize, which: L4Checksum, deltas: Deltas);

    /// Whether the TCP checksum that lies `offset` bytes into the frame is still to be finished: then it is only the sum of
    /// the pseudo-header, and whoever sends the frame adds all from the TCP header on. What the checksum was is lost.
    /// Headers must be fetched again afterwards.
    fn awaits_checksum(&self, offset: usize) -> bool;

    /// Cuts off what comes after the first `length` bytes, if it must not be sent with them: a frame may keep it as padding.
    /// Says whether the frame can be sent. Headers must be fetched again afterwards.
    fn cut(&self, length: usize) -> bool;

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
