//! Fragments that have no ports: they go where the first one of their datagram went.
//!
//! The first fragment is a packet like any other: it finds or opens its flow, and is sent on. Then, and only then, its
//! datagram is remembered. What follows is looked up by addresses and identification, and has no say in the state of the
//! flow. What comes before the first is not kept back, but dropped: whoever sends fragments out of order, or what is in
//! between, is rare, and TCP and applications send again.
//!
//! A bit for each eight bytes tells what has come already, so that no fragment can put something else in the place of
//! what was there (RFC 5722; RFC 3128). Two processors that take fragments of one datagram at the same moment may both
//! miss what the other one notes; then it is up to the receiver, which looks for itself.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_loop;
use kplb_common::{
    flow::FlowKey,
    fragment::{FragmentKey, Fragments, LIFETIME_NS, RECEIVED_WORDS, UNIT, bits},
    node::Node,
    verdict::{DropReason, PassReason, Verdict},
};

use crate::{
    clock::now_ns,
    emit::Outcome,
    family::Family,
    layout::{Layout, Walked},
    maps,
    packet::Packet,
    parse::{self, Parsed},
    reset, rewrite,
    track::{self, Tracked},
};

const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);

/// What tells the datagram of a fragment from others.
#[inline(always)]
fn key<F: Family>(source: &F::Address, destination: &F::Address, id: u32, protocol: u32) -> FragmentKey<F::Address> {
    let protocol = if F::FRAGMENTS_NAME_PROTOCOL { protocol } else { 0 };
    FragmentKey { source: *source, destination: *destination, id, protocol }
}

/// Remembers the datagram of a first fragment if that has been sent on; `now_ns` is of the data path's clock.
///
/// It takes the place of one with the same identification, or makes it be forgotten: whoever sends fast goes round in
/// 65,536 of them within seconds.
#[inline(never)]
pub fn first<F: Family>(parsed: &Parsed<F::Address, Walked>, outcome: Outcome, now_ns: u64) {
    let FlowKey { source, destination, source_port, destination_port, protocol } = &parsed.key;
    let key = key::<F>(source, destination, parsed.layout.id, *protocol);
    if !outcome.is_forward() {
        maps::forget_fragments(F::fragments(), &key);
        return;
    }
    let Some(draft) = maps::fragments_draft() else { return };
    draft.first_seen_ns = now_ns;
    draft.source_port = *source_port;
    draft.destination_port = *destination_port;
    draft.protocol = *protocol;
    if maps::store_fragments(F::fragments(), &key, draft) == 0
        && let Some(fragments) = maps::fragments(F::fragments(), &key)
    {
        // In the entry and not in the draft, whose bits stay clear.
        let _ = take_note(fragments, &parsed.layout);
    }
}

/// Whether a part of a datagram has come already.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Seen {
    No,
    Partly,
}

/// What a fragment brings, to be noted.
struct Note<'f> {
    fragments: &'f mut Fragments,
    /// Where it begins in the datagram, in units.
    first: usize,
    n_units: usize,
    /// Bits that were set already.
    seen: u64,
}

/// Notes what a fragment brings.
///
/// By `bpf_loop`, whose body the verifier goes through once and not for each word.
///
/// # Minimum kernel version
/// 5.17
#[inline(always)]
fn take_note(fragments: &mut Fragments, layout: &Walked) -> Seen {
    let first = usize::from(layout.offset);
    let n_units = usize::from(layout.length).div_ceil(UNIT);
    let n_words = (first + n_units).div_ceil(64) - first / 64;
    let mut note = Note { fragments, first, n_units, seen: 0 };
    // SAFETY: the callback takes what it is given here, and the helper calls it only while this function runs.
    unsafe { bpf_loop(n_words as u32, note_word as *mut c_void, ptr::from_mut(&mut note).cast(), 0) };
    if note.seen == 0 { Seen::No } else { Seen::Partly }
}

/// Notes what falls in one word.
unsafe extern "C" fn note_word(nth: u32, note: *mut c_void) -> i64 {
    // SAFETY: `take_note` passes a `Note`.
    let Note { fragments, first, n_units, seen } = unsafe { &mut *note.cast::<Note<'_>>() };
    let word = *first / 64 + nth as usize;
    let bits = bits(word, *first, *n_units);
    // No fragment reaches beyond the last word (`walk`); the verifier is told so by the mask.
    let received = &mut fragments.received[word & (RECEIVED_WORDS - 1)];
    *seen |= *received & bits;
    *received |= bits;
    0
}

/// Which hook a fragment is at.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Course {
    In,
    Out,
}

/// A fragment that is not the first; its 5-tuple is filled in.
#[inline(never)]
pub fn later<F: Family, P: Packet>(
    packet: &P,
    node: &Node,
    parsed: &mut Parsed<F::Address, Walked>,
    course: Course,
) -> Outcome {
    let layout = &parsed.layout;
    let Some(ip) = packet.header::<F::Header>(layout.l3()) else { return NOT_OURS.into() };
    let key = key::<F>(F::source(ip), F::destination(ip), layout.id, u32::from(parsed.shape.protocol));
    let now = now_ns(node);
    let known = maps::fragments(F::fragments(), &key)
        .filter(|fragments| now.wrapping_sub(fragments.first_seen_ns).cast_signed() <= LIFETIME_NS.cast_signed());
    let Some(fragments) = known else {
        return match course {
            Course::In => parse::if_for_vip::<F, P>(packet, layout, Verdict::Drop(DropReason::FragmentUnknown).into()),
            Course::Out => NOT_OURS.into(),
        };
    };
    parsed.key = FlowKey {
        source: key.source,
        destination: key.destination,
        source_port: fragments.source_port,
        destination_port: fragments.destination_port,
        protocol: fragments.protocol,
    };
    parsed.shape.protocol = fragments.protocol as u8;
    let Some(Tracked { flow, .. }) = track::find_any::<F>(&parsed.key, node, now) else {
        return Verdict::Drop(DropReason::UnknownFlow).into();
    };
    let way = match course {
        Course::In => rewrite::way::<F, P>(packet, layout, flow).map(Some),
        Course::Out if !rewrite::is_local_reply(flow) => Err(NOT_OURS),
        Course::Out => rewrite::serving(flow.backend).map(|_| None).map_err(Verdict::Reset),
    };
    let way = match way {
        Ok(way) => way,
        Err(Verdict::Reset(reason)) => return Verdict::Drop(reset::instead(reason)).into(),
        Err(verdict) => return verdict.into(),
    };
    if take_note(fragments, layout) == Seen::Partly {
        return Verdict::Drop(DropReason::FragmentOverlap).into();
    }
    track::touch(flow, now);
    match way {
        Some(way) => rewrite::send::<F, P>(packet, parsed, node, flow, way),
        None => rewrite::reverse_local::<F, P>(packet, parsed, flow),
    }
    .into()
}
