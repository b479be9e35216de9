//! Packets at XDP.

use aya_ebpf::{
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use kplb_common::{checksum, flow::Deltas, trace::SNAPSHOT_WORDS};

use super::{L4Checksum, Packet, Word, load};
use crate::family::Family;

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

    /// No frame is that long.
    #[inline(always)]
    fn claimed_length(&self, claimed: u16) -> u16 {
        claimed
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
    fn update_l4_checksum<F: Family>(&self, offset: usize, which: L4Checksum, deltas: Deltas) {
        let delta = checksum::sum(deltas.addresses, deltas.ports);
        let Some(field) = self.header::<Word>(offset) else { return };
        field.0 = match which {
            L4Checksum::Tcp => checksum::update(field.0, delta),
            L4Checksum::Udp => checksum::update_udp(field.0, delta),
        };
    }

    /// What comes in by a wire has its checksums.
    #[inline(always)]
    fn awaits_checksum(&self, _offset: usize) -> bool {
        false
    }

    /// Nothing is cut off, as some drivers cannot: no frame here is longer than any other on the wire.
    #[inline(always)]
    fn cut(&self, _length: usize) -> bool {
        true
    }
}
