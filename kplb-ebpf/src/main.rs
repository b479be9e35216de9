//! kplb's BPF programs: the entry points, and nothing else.
//!
//! ```text
//! parse -> is it ours? -> flow lookup -> hit:  rewrite -> send
//!      \                              \-> miss: service -> ring slot -> backend -> open flow -> rewrite -> send
//!       \-> asks who has a VIP, or says so? -> fence
//! ```
//!
//! Invariant: every packet ends in exactly one verdict, which [`emit`] counts once and turns into an action.

#![no_std]
#![no_main]

mod emit;
mod packet;

mod pipeline;

mod family;
mod fence;
mod parse;

mod lookup;
mod open;
mod track;

mod reset;
mod rewrite;

mod report;
mod sweep;

mod maps;

use aya_ebpf::{
    bindings::xdp_action,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::packet::{SkbPacket, XdpPacket};

/// Ingress of the interface: packets of clients, and the replies of backends behind the wire.
///
/// # Minimum kernel version
/// 5.18: `xdp.frags`, without which a program is refused on interfaces with a large MTU.
#[xdp(frags)]
fn kplb_xdp(ctx: XdpContext) -> u32 {
    emit::xdp(pipeline::ingress(&XdpPacket::new(ctx)))
}

/// Egress of the interface: the replies of a backend on this node, which never pass XDP, and what the kernel says of VIPs.
///
/// # Minimum kernel version
/// 4.1; attached by TCX from 6.6 on.
#[classifier]
fn kplb_tc(ctx: TcContext) -> i32 {
    emit::tc(pipeline::egress(&SkbPacket::new(ctx)))
}

/// Goes through the flow tables when the agent runs it; attached to nothing.
///
/// # Minimum kernel version
/// 5.13, for `bpf_for_each_map_elem`.
#[xdp]
fn kplb_sweep(_ctx: XdpContext) -> u32 {
    sweep::run();
    xdp_action::XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
