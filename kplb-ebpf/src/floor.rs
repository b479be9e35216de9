//! What any XDP program costs: the floors that benchmarks hold kplb's programs against; and what tests need of the kernel.
//!
//! Invariant: nothing here is part of what kplb loads in service; benchmarks and tests alone load this object.

#![no_std]
#![no_main]

use core::ptr;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::generated::{bpf_l4_csum_replace, bpf_redirect, bpf_skb_vlan_push},
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{TcContext, XdpContext},
};
use kplb_common::checksum;

/// Bytes of a frame that [`floor_restore`] can put back.
const FRAME: usize = 128;

/// A frame to put back before each run, and how to vary it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Template {
    /// The frame's first bytes.
    frame: [u8; FRAME],
    /// How many bytes of the frame to put back: a multiple of eight, at most [`FRAME`].
    length: u32,
    /// Where in the frame the 16-bit number is (a source port, the end of an address) that differs from run to run.
    vary_at: u32,
    /// The numbers run from the frame's own on, this many, a power of two; one: always the same frame.
    n_variants: u32,
    /// Runs so far.
    run: u32,
    /// Where in the frame the TCP checksum is, for [`floor_feed`].
    checksum_at: u32,
}

#[map]
static TEMPLATE: Array<Template> = Array::with_max_entries(1, 0);

/// The program to measure, in its first slot; while that is empty, the cost of restoring is measured alone.
#[map]
static MEASURED: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The same for programs of TC: such a map has programs of one kind.
#[map]
static MEASURED_TC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// A program that does nothing.
#[xdp(frags)]
fn floor_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// A program that parses Ethernet, IPv4 and TCP, swaps the MAC addresses and sends the frame back.
#[xdp(frags)]
fn floor_swap(ctx: XdpContext) -> u32 {
    swap(Frame::of_xdp(&ctx)).map_or(xdp_action::XDP_PASS, |()| xdp_action::XDP_TX)
}

/// Where a frame begins and ends.
#[derive(Clone, Copy)]
struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    fn of_xdp(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    #[inline(always)]
    fn of_tc(ctx: &TcContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }
}

#[inline(always)]
fn at<T>(frame: Frame, offset: usize) -> Option<*mut T> {
    (frame.start + offset + size_of::<T>() <= frame.end).then_some((frame.start + offset) as *mut T)
}

/// As [`floor_pass`], at TC.
#[classifier]
fn floor_pass_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// As [`floor_swap`], at TC.
#[classifier]
fn floor_swap_tc(ctx: TcContext) -> i32 {
    match swap(Frame::of_tc(&ctx)) {
        // SAFETY: the context is the one this program was called with.
        Some(()) => unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 },
        None => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn swap(frame: Frame) -> Option<()> {
    let macs: *mut [[u16; 3]; 2] = at(frame, 0)?;
    let ethertype: *mut u16 = at(frame, 12)?;
    let ip: *mut [u8; 20] = at(frame, 14)?;
    let tcp: *mut [u8; 20] = at(frame, 34)?;
    // SAFETY: each pointer is within the packet by the checks of `at`.
    unsafe {
        let is_ours = *ethertype == 0x0800_u16.to_be() && (*ip)[0] == 0x45 && (*ip)[9] == 6 && (*tcp)[12] >> 4 >= 5;
        if !is_ours {
            return None;
        }
        let [destination, source] = *macs;
        *macs = [source, destination];
    }
    Some(())
}

/// Puts the frame back as it was, since a rewriting program changes its own input when it is repeated, and runs the
/// program to measure.
#[xdp(frags)]
fn floor_restore(ctx: XdpContext) -> u32 {
    restore(Frame::of_xdp(&ctx));
    // SAFETY: the slot is empty or holds an XDP program; an empty slot comes back here.
    unsafe { MEASURED.tail_call(&ctx, 0) };
    xdp_action::XDP_PASS
}

/// The same for a program of TC.
#[classifier]
fn floor_restore_tc(ctx: TcContext) -> i32 {
    restore(Frame::of_tc(&ctx));
    // SAFETY: the slot is empty or holds a program of TC; an empty slot comes back here.
    unsafe { MEASURED_TC.tail_call(&ctx, 0) };
    TC_ACT_UNSPEC
}

/// Puts the frame back; returns by how much its number differs from the template's.
#[inline(always)]
fn restore(frame: Frame) -> Option<u16> {
    let template = TEMPLATE.get_ptr_mut(0)?;
    // SAFETY: the one value of the map; its only writers are this program and, before it runs, the agent.
    let template = unsafe { &mut *template };
    for chunk in 0..FRAME / 8 {
        let offset = chunk * 8;
        if offset >= template.length as usize {
            break;
        }
        let to: *mut u64 = at(frame, offset)?;
        // SAFETY: `offset` is below the frame's length; `to` is within the packet by the check of `at`.
        unsafe { *to = ptr::read(template.frame.as_ptr().add(offset).cast()) };
    }
    let number: *mut u16 = at(frame, template.vary_at as usize & 63)?;
    let variant = template.run & template.n_variants.wrapping_sub(1);
    template.run = template.run.wrapping_add(1);
    // SAFETY: within the packet by the check of `at`.
    unsafe { *number = u16::from_be(*number).wrapping_add(variant as u16).to_be() };
    Some(variant as u16)
}

/// Puts the frame back, with a checksum that is right, and sends it out by the interface that it seems to have come in by:
/// run on live frames, it feeds whatever is at the other end.
///
/// # Minimum kernel version
/// 5.18, for live frames.
#[xdp(frags)]
fn floor_feed(ctx: XdpContext) -> u32 {
    feed(Frame::of_xdp(&ctx)).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

#[inline(always)]
fn feed(frame: Frame) -> Option<()> {
    let variant = restore(frame)?;
    let checksum_at = TEMPLATE.get(0)?.checksum_at;
    let sum: *mut u16 = at(frame, checksum_at as usize & 63)?;
    // SAFETY: within the packet by the check of `at`.
    unsafe {
        // The variant is by how much the new number differs from the old one.
        *sum = checksum::update(*sum, variant.to_be());
    }
    Some(())
}

/// From which IPv4 address frames are, in memory order, that [`floor_count`] counts.
#[map]
static ARRIVING: Array<u32> = Array::with_max_entries(1, 0);

/// How many of them there were.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Drops everything, and counts what has arrived.
#[xdp(frags)]
fn floor_count(ctx: XdpContext) -> u32 {
    count(Frame::of_xdp(&ctx));
    xdp_action::XDP_DROP
}

#[inline(always)]
fn count(frame: Frame) -> Option<()> {
    let ethertype: *mut u16 = at(frame, 12)?;
    let source: *mut [u16; 2] = at(frame, 26)?;
    // SAFETY: each pointer is within the packet by the checks of `at`.
    let (ethertype, [low, high]) = unsafe { (*ethertype, *source) };
    if ethertype == 0x0800_u16.to_be() && *ARRIVING.get(0)? == u32::from(low) | u32::from(high) << 16 {
        let n = ARRIVED.get_ptr_mut(0)?;
        // SAFETY: a value of this processor's alone.
        unsafe { *n += 1 };
    }
    Some(())
}

/// Gives a packet the tag of VLAN 42 in the way in which the kernel's own VLAN interfaces do: apart from its bytes.
#[classifier]
fn floor_tag(ctx: TcContext) -> i32 {
    // SAFETY: the context is the one this program was called with.
    unsafe { bpf_skb_vlan_push(ctx.skb.skb, 0x8100_u16.to_be(), 42) };
    TC_ACT_UNSPEC
}

/// One way of [`floor_nat`], addresses in memory order.
#[repr(C)]
#[derive(Clone, Copy)]
struct Way {
    /// What is to go this way.
    source: u32,
    destination: u32,
    /// What becomes of it.
    new_source: u32,
    new_destination: u32,
    macs: [u16; 6],
    /// The sum of what that does to a checksum (RFC 1624), in its lower half.
    delta: u32,
}

/// To the backend, and back.
#[map]
static WAYS: Array<Way> = Array::with_max_entries(2, 0);

/// Sends TCP over IPv4 between one client and one backend on its way, with other addresses: what a balancer at TC must do at
/// least, without any of what it is for. It knows no flows, so ports stay as they are.
#[classifier]
fn floor_nat(ctx: TcContext) -> i32 {
    nat(&ctx).unwrap_or(TC_ACT_UNSPEC)
}

#[inline(always)]
fn nat(ctx: &TcContext) -> Option<i32> {
    const CHECKSUM: u32 = 34 + 16;
    const PSEUDO_HEADER: u64 = 1 << 4;
    let start = ctx.data();
    if start + 54 > ctx.data_end() {
        return None;
    }
    // SAFETY: within the packet by the check above.
    let (macs, ethertype, header) = unsafe {
        (&mut *(start as *mut [u16; 6]), *((start + 12) as *const u16), &mut *((start + 14) as *mut [u16; 10]))
    };
    if ethertype != 0x0800_u16.to_be() {
        return None;
    }
    let word = |at: usize| u32::from(header[at]) | u32::from(header[at + 1]) << 16;
    let (source, destination) = (word(6), word(8));
    let way = [0, 1]
        .into_iter()
        .filter_map(|n| WAYS.get(n))
        .find(|way| way.source == source && way.destination == destination)?;
    *macs = way.macs;
    let (new_source, new_destination) = (way.new_source, way.new_destination);
    (header[6], header[7]) = (new_source as u16, (new_source >> 16) as u16);
    (header[8], header[9]) = (new_destination as u16, (new_destination >> 16) as u16);
    let sum = u32::from(!header[5]) + way.delta;
    header[5] = !((sum & 0xffff) + (sum >> 16)) as u16;
    // SAFETY: the context is the one this program was called with.
    unsafe {
        bpf_l4_csum_replace(ctx.skb.skb, CHECKSUM, 0, u64::from(way.delta), PSEUDO_HEADER);
        Some(bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32)
    }
}

/// Drops all of IPv4.
#[classifier]
fn floor_drop(ctx: TcContext) -> i32 {
    const IPV4: u32 = 0x0800_u16.to_be() as u32;
    // SAFETY: the context is the one this program was called with.
    if unsafe { (*ctx.skb.skb).protocol } == IPV4 { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
