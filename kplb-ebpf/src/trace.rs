//! Telling of packets one by one, while somebody asks for them.
//!
//! Invariant: whatever becomes of it changes neither a verdict nor a packet. While nobody asks, a packet costs a load and
//! a test before it is looked at, and the same once its verdict is known.
//!
//! What a packet was before it is rewritten, nobody knows afterwards: so its beginning is put aside as it comes, whoever it
//! is of. Only with a verdict that is asked for is it looked at again.

use core::ptr;

use kplb_common::{
    net::{Address as _, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, Ip6},
    node::MAX_TAGS,
    trace::{Hook, SNAPSHOT_BYTES, SNAPSHOT_WORDS, TraceAddresses, TraceEvent, TraceRequest},
    verdict::{PassReason, Verdict},
};

use crate::{
    clock::monotonic_ns,
    emit::Outcome,
    maps::{self, Traced},
    packet::{Ethernet, Ipv4, Ipv6, Packet, Tag},
};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Decides about a packet, carries that out, and tells of it if it is asked for.
#[inline(always)]
pub fn around<P: Packet, A>(
    packet: &P,
    hook: Hook,
    decide: impl FnOnce(&P) -> Outcome,
    carry_out: impl FnOnce(Outcome) -> A,
) -> A {
    let Some(request) = maps::trace_request() else {
        // Never, but the verifier cannot know.
        return carry_out(Verdict::Pass(PassReason::NotOurs).into());
    };
    if is_on(request) {
        begin(packet, hook);
    }
    let outcome = decide(packet);
    // First: from here on nothing depends on the verdict any more, or the verifier would follow what comes now for each.
    let action = carry_out(outcome);
    // SAFETY: a local variable. Volatile, or LLVM works it out of the verdict only when it is returned.
    let action = unsafe { (&raw const action).read_volatile() };
    if is_on(request)
        && let Some(traced) = maps::traced(hook)
    {
        traced.verdict = outcome.index();
        end(packet, hook);
    }
    action
}

/// Whether somebody has asked, be it long ago.
#[inline(always)]
fn is_on(request: *const TraceRequest) -> bool {
    // SAFETY: a value of a map, valid until the program ends. Volatile, as its reader writes it at any time.
    unsafe { (&raw const (*request).until_ns).read_volatile() != 0 }
}

/// Puts a packet aside as it comes. Whoever asked and is gone is forgotten by the first packet after his time.
#[inline(never)]
fn begin<P: Packet>(packet: &P, hook: Hook) {
    let (Some(request), Some(traced)) = (maps::trace_request(), maps::traced(hook)) else { return };
    traced.kept = 0;
    // SAFETY: a value of a map, valid until the program ends. A request that is made anew at this moment is lost, and
    // made again.
    unsafe {
        if (*request).until_ns < monotonic_ns() {
            (*request).until_ns = 0;
            return;
        }
    }
    let length = packet.length();
    let kept = if length > SNAPSHOT_BYTES { SNAPSHOT_BYTES as u32 } else { length as u32 };
    if kept == 0 || !packet.copy_start(&raw mut traced.before, bounded(kept)) {
        return;
    }
    note_addresses(packet, &mut traced.came);
    traced.kept = kept;
}

/// Tells of a packet that was put aside, if it is asked for.
#[inline(never)]
fn end<P: Packet>(packet: &P, hook: Hook) {
    let (Some(request), Some(traced)) = (maps::trace_request(), maps::traced(hook)) else { return };
    let (kept, verdict) = (traced.kept, traced.verdict);
    traced.kept = 0;
    // SAFETY: a value of a map, valid until the program ends, of integers for which any value will do.
    let request = unsafe { &*request };
    if kept == 0 || !request.takes_verdict(verdict) {
        return;
    }
    note_addresses(packet, &mut traced.went);
    if !request.takes_addresses(&traced.came, &traced.went) || is_passed_over(request, traced) {
        return;
    }
    let Some(counts) = maps::trace_counts() else { return };
    if is_over_rate(request) {
        counts.over_rate += 1;
    } else if tell(packet, hook, verdict, traced, kept) {
        counts.told += 1;
    } else {
        counts.lost += 1;
    }
}

/// Whether this one is not the one in so many that is told of.
#[inline(always)]
fn is_passed_over(request: &TraceRequest, traced: &mut Traced) -> bool {
    // What is left of another request's number does not count.
    if 0 < traced.n_to_skip && traced.n_to_skip < request.sample {
        traced.n_to_skip -= 1;
        return true;
    }
    traced.n_to_skip = request.sample.wrapping_sub(1);
    false
}

/// Whether as many as are asked for were told of in this second.
#[inline(always)]
fn is_over_rate(request: &TraceRequest) -> bool {
    let Some(second) = maps::trace_second() else { return true };
    let number = monotonic_ns() / NS_PER_SECOND;
    if second.number != number {
        second.number = number;
        second.n_told = 0;
    }
    second.n_told += 1;
    second.n_told > u64::from(request.rate)
}

/// Writes an event; says whether there was room.
#[inline(always)]
fn tell<P: Packet>(packet: &P, hook: Hook, verdict: u32, traced: &Traced, kept: u32) -> bool {
    maps::push_event(|event: *mut TraceEvent| {
        // SAFETY: room in the ring for one event, of which every field is written; the exact time, as events are told
        // apart by it.
        unsafe {
            (*event).time_ns = aya_ebpf::helpers::generated::bpf_ktime_get_ns();
            (*event).length = packet.length() as u32;
            (*event).verdict = verdict as u8;
            (*event).hook = hook as u8;
            (*event).kept = kept as u8;
            (*event)._pad = 0;
            ptr::copy_nonoverlapping(&raw const traced.before, &raw mut (*event).before, 1);
            (*event).after = [0; SNAPSHOT_WORDS];
            let _ = packet.copy_start(&raw mut (*event).after, bounded(kept));
        }
    })
}

/// A number of bytes from 1 to [`SNAPSHOT_BYTES`], which it is anyway: the verifier knows nothing of a number that comes out
/// of a map, and that of kernel 6.1 does not learn from a comparison with zero that a number is one at least.
#[inline(always)]
fn bounded(kept: u32) -> u32 {
    const _: () = assert!(SNAPSHOT_BYTES.is_power_of_two());
    // SAFETY: a reference is valid. Volatile, so that the compiler knows nothing of the number either.
    let kept = unsafe { (&raw const kept).read_volatile() };
    (kept.wrapping_sub(1) & (SNAPSHOT_BYTES as u32 - 1)) + 1
}

/// Notes the addresses in a packet's IP header, if it has one behind its tags.
#[inline(always)]
fn note_addresses<P: Packet>(packet: &P, addresses: &mut TraceAddresses) {
    addresses.version = 0;
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return };
    let mut ethertype = ethernet.ethertype.to_host();
    let mut l3 = size_of::<Ethernet>();
    for _ in 0..MAX_TAGS {
        if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN {
            let Some(tag) = packet.header::<Tag>(l3) else { return };
            ethertype = tag.ethertype.to_host();
            l3 += size_of::<Tag>();
        }
    }
    if ethertype == ETHERTYPE_IPV4 {
        let Some(ip) = packet.header::<Ipv4>(l3) else { return };
        set(addresses, 4, ip.source.widen(), ip.destination.widen());
    } else if ethertype == ETHERTYPE_IPV6 {
        let Some(ip) = packet.header::<Ipv6>(l3) else { return };
        set(addresses, 6, ip.source, ip.destination);
    }
}

#[inline(always)]
fn set(addresses: &mut TraceAddresses, version: u32, source: Ip6, destination: Ip6) {
    *addresses = TraceAddresses { source, destination, version };
}
