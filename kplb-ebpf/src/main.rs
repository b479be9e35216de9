//! kplb's BPF programs: the entry points, and nothing else.
//!
//! ```text
//! parse -> is it ours? -> flow lookup -> hit:  rewrite -> send
//!      \                              \-> miss: service -> ring slot -> backend -> open flow -> rewrite -> send
//!      |\-> asks who has a VIP, or says so? -> fence
//!       \-> an ICMP error? -> flow of the packet that it is about -> translate -> send
//! ```
//!
//! Invariant: every packet ends in exactly one verdict, which [`emit`] counts once and turns into an action.

#![no_std]
#![no_main]

mod emit;
mod packet;

mod pipeline;

mod family;
mod layout;
mod parse;
mod vlan;
mod walk;

mod fence;
mod fragment;
mod icmp;

mod clock;
mod lookup;
mod open;
mod track;

mod reset;
mod rewrite;

mod report;
mod sweep;

mod trace;

mod sock;

mod maps;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, SockContext, TcContext, XdpContext},
};
use kplb_common::trace::Hook;

use crate::packet::{SkbPacket, XdpPacket};

/// Ingress of the interface: packets of clients, and the replies of backends behind the wire.
///
/// # Minimum kernel version
/// 5.18: `xdp.frags`, without which a program is refused on interfaces with a large MTU.
#[xdp(frags)]
fn kplb_xdp(ctx: XdpContext) -> u32 {
    trace::around(&XdpPacket::new(ctx), Hook::Ingress, pipeline::ingress, emit::xdp)
}

/// The same, where the driver has no native XDP: packets as the network stack has put them together, which stay so.
///
/// # Minimum kernel version
/// 4.5; attached by TCX from 6.6 on.
#[classifier]
fn kplb_tc_ingress(ctx: TcContext) -> i32 {
    let packet = SkbPacket::new(ctx);
    trace::around(&packet, Hook::Ingress, pipeline::ingress, |outcome| emit::tc_ingress(&packet, outcome))
}

/// Egress of the interface: the replies of a backend on this node, which never come in, and what the kernel says of VIPs.
/// What [`kplb_tc_ingress`] has sent is decided.
///
/// # Minimum kernel version
/// 4.1; attached by TCX from 6.6 on.
#[classifier]
fn kplb_tc(ctx: TcContext) -> i32 {
    if SkbPacket::was_sent_back(&ctx) {
        return TC_ACT_UNSPEC;
    }
    trace::around(&SkbPacket::new(ctx), Hook::Egress, pipeline::egress, emit::tc_egress)
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

/// Tells the agent that runs it what time it is, in its packet; attached to nothing.
///
/// # Minimum kernel version
/// 5.11, for `bpf_ktime_get_coarse_ns`.
#[xdp]
fn kplb_clock(ctx: XdpContext) -> u32 {
    clock::tell(ctx);
    xdp_action::XDP_PASS
}

/// A client on this node connects.
///
/// # Minimum kernel version
/// 4.17; of all that follow: 5.8, for the two of `getpeername`.
#[cgroup_sock_addr(connect4)]
fn kplb_connect4(ctx: SockAddrContext) -> i32 {
    sock::connect4(&ctx)
}

/// See [`kplb_connect4`].
#[cgroup_sock_addr(connect6)]
fn kplb_connect6(ctx: SockAddrContext) -> i32 {
    sock::connect6(&ctx)
}

/// A client on this node sends from a socket that is not connected.
#[cgroup_sock_addr(sendmsg4)]
fn kplb_sendmsg4(ctx: SockAddrContext) -> i32 {
    sock::sendmsg4(&ctx)
}

/// See [`kplb_sendmsg4`].
#[cgroup_sock_addr(sendmsg6)]
fn kplb_sendmsg6(ctx: SockAddrContext) -> i32 {
    sock::sendmsg6(&ctx)
}

/// A client on this node asks from whom a datagram came.
#[cgroup_sock_addr(recvmsg4)]
fn kplb_recvmsg4(ctx: SockAddrContext) -> i32 {
    sock::recvmsg4(&ctx)
}

/// See [`kplb_recvmsg4`].
#[cgroup_sock_addr(recvmsg6)]
fn kplb_recvmsg6(ctx: SockAddrContext) -> i32 {
    sock::recvmsg6(&ctx)
}

/// A client on this node asks to whom it is connected.
#[cgroup_sock_addr(getpeername4)]
fn kplb_getpeer4(ctx: SockAddrContext) -> i32 {
    sock::getpeername4(&ctx)
}

/// See [`kplb_getpeer4`].
#[cgroup_sock_addr(getpeername6)]
fn kplb_getpeer6(ctx: SockAddrContext) -> i32 {
    sock::getpeername6(&ctx)
}

/// A socket on this node is closed.
///
/// # Minimum kernel version
/// 5.9
#[cgroup_sock(sock_release)]
fn kplb_release(ctx: SockContext) -> i32 {
    sock::release(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
