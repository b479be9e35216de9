//! What time it is.

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    programs::XdpContext,
};
use kplb_common::{clock::Reading, node::Node};

use crate::packet::{Packet as _, XdpPacket};

/// The time of the data path: see [`kplb_common::clock`]. Lifetimes of seconds do not notice how coarse it is.
///
/// # Minimum kernel version
/// 5.6; the call is none, but a load, where programs are compiled (5576b991e9c1).
#[inline(always)]
pub fn now_ns(node: &Node) -> u64 {
    // SAFETY: takes nothing, and only reads a number.
    node.clock.at(unsafe { bpf_jiffies64() })
}

/// The monotonic clock as of the last tick, where no [`Node`] is at hand.
///
/// # Minimum kernel version
/// 5.11
#[inline(always)]
pub fn monotonic_ns() -> u64 {
    // SAFETY: takes nothing, and only reads the clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Writes a [`Reading`] to the beginning of the packet.
#[inline(always)]
pub fn tell(ctx: XdpContext) {
    let packet = XdpPacket::new(ctx);
    let Some(reading) = packet.header::<Reading>(0) else { return };
    reading.now_ns = monotonic_ns();
    // SAFETY: as in `now_ns`.
    reading.ticks = unsafe { bpf_jiffies64() };
}
