//! Packets at TC.

use aya_ebpf::{
    helpers::generated::{
        bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data,
    },
    programs::TcContext,
};
use kplb_common::{flow::Deltas, trace::SNAPSHOT_WORDS};

use super::{Ethernet, Ipv4, Ipv6, L4Checksum, Packet, TAG_IDENTIFIER, Tcp, Word, load};
use crate::family::{Family, HeaderChecksum};

/// Bytes of the headers that nearly every packet has. Not those of IPv6: to fetch the last bytes of those would cost every
/// IPv4 segment with nothing but its headers in linear memory.
const HEADERS: usize = size_of::<Ethernet>() + size_of::<Ipv4>() + size_of::<Tcp>();

/// The longest length that a header can claim, with the IPv6 header in it.
const LONGEST_CLAIMED: usize = u16::MAX as usize - size_of::<Ipv6>();

/// In `tc_index` of what [`SkbPacket::send_back`] sends: it is on its way, and the program at egress has nothing to decide
/// about it. Nothing else has used that field since the kernel's dsmark, tcindex and their kind went (6.3), and they only
/// while somebody configures them on the interface.
const SENT_BACK: u32 = 0x6b70;

/// A packet at TC.
///
/// It may be of many segments, which stay together; what is beyond its headers is mostly not in linear memory; its checksum
/// may be for the hardware to finish; and its outermost VLAN tag is apart.
pub struct SkbPacket(TcContext);

impl SkbPacket {
    /// Makes sure that the headers are in linear memory.
    #[inline(always)]
    pub fn new(ctx: TcContext) -> Self {
        let packet = Self(ctx);
        packet.gather(HEADERS);
        packet
    }

    /// The action that sends the packet out by the interface that it came in by.
    #[inline(always)]
    pub fn send_back(&self) -> i32 {
        let skb = self.0.skb.skb;
        // SAFETY: the context is the one this program was called with.
        unsafe {
            (*skb).tc_index = SENT_BACK;
            bpf_redirect((*skb).ifindex, 0) as i32
        }
    }

    /// Whether a packet at egress is one that was sent back. It is none any more, once that is known.
    #[inline(always)]
    pub fn was_sent_back(ctx: &TcContext) -> bool {
        let skb = ctx.skb.skb;
        // SAFETY: the context is the one this program was called with.
        unsafe {
            let was_sent_back = (*skb).tc_index == SENT_BACK;
            if was_sent_back {
                (*skb).tc_index = 0;
            }
            was_sent_back
        }
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

    /// Where it is allowed to (`gro_max_size`, also called BIG TCP), the kernel puts more segments together than a length of
    /// 16 bits can say.
    #[inline(always)]
    fn claimed_length(&self, claimed: u16) -> u16 {
        // By borrows in place of branches, each of which the verifier would follow through all that comes after.
        let is_none = u32::from(claimed).wrapping_sub(1) >> 31;
        let is_too_long = (LONGEST_CLAIMED as u32).wrapping_sub(self.length() as u32) >> 31;
        claimed + ((is_none & is_too_long) * LONGEST_CLAIMED as u32) as u16
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
        let n_linear = self.end().wrapping_sub(self.start());
        if n_linear < length && n_linear < self.length() {
            let length = if self.length() < length { self.length() } else { length };
            // SAFETY: the context is the one this program was called with. A failure leaves the headers where they
            // are, and the bounds checks find out.
            unsafe { bpf_skb_pull_data(self.0.skb.skb, length as u32) };
        }
    }

    #[inline(always)]
    fn copy_start(&self, to: *mut [u64; SNAPSHOT_WORDS], length: u32) -> bool {
        // SAFETY: the context is the one this program was called with, and the caller has so much room, which the verifier
        // insists on.
        unsafe { bpf_skb_load_bytes(self.0.skb.skb.cast(), 0, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn update_l4_checksum<F: Family>(&self, offset: usize, which: L4Checksum, deltas: Deltas) {
        let zero_is_none = match which {
            L4Checksum::Tcp => 0,
            L4Checksum::Udp => BPF_F_MARK_MANGLED_0,
        };
        // Not one call: while the hardware is to finish the checksum, the field holds the pseudo-header's sum only.
        self.add_to_checksum(offset, deltas.addresses, BPF_F_PSEUDO_HDR | zero_is_none);
        self.add_to_checksum(offset, deltas.ports, zero_is_none);
        if F::HEADER_CHECKSUM == HeaderChecksum::None {
            // Hardware may have summed up all from the IP header on. A change of addresses leaves that sum as it is, now
            // that the field makes up for it; the call above takes it for one that the header's own checksum makes up for.
            // SAFETY: the context is the one this program was called with. Refused where there is no such sum.
            unsafe { bpf_csum_update(self.0.skb.skb, u32::from(deltas.addresses)) };
        }
    }

    /// By trial: a change of what the pseudo-header does not cover is left out while the hardware is to finish the checksum.
    #[inline(always)]
    fn awaits_checksum(&self, offset: usize) -> bool {
        let Some(field) = self.header::<Word>(offset) else { return false };
        field.0 = 0;
        self.add_to_checksum(offset, 1, 0);
        self.header::<Word>(offset).is_some_and(|field| field.0 == 0)
    }

    /// A packet of many segments would be cut into as many when it is sent.
    #[inline(always)]
    fn cut(&self, length: usize) -> bool {
        // SAFETY: the context is the one this program was called with.
        self.length() <= length || unsafe { bpf_skb_change_tail(self.0.skb.skb, length as u32, 0) == 0 }
    }
}

impl SkbPacket {
    /// Adds a delta to the checksum that lies `offset` bytes into the frame.
    #[inline(always)]
    fn add_to_checksum(&self, offset: usize, delta: u16, flags: u64) {
        // SAFETY: the context is the one this program was called with. Size 0 in the flags: the value is a delta.
        unsafe { bpf_l4_csum_replace(self.0.skb.skb, offset as u32, 0, u64::from(delta), flags) };
    }
}
