//! Keeping a flow's two entries true: time, state, the client's MAC address, and the move to the flow table.

use aya_ebpf::bindings::BPF_ANY;
use kplb_common::{
    backend::Location,
    client::Client,
    flow::{Direction, Flow, FlowKey},
    flow_state::{self, ACK, FlowState, PSH},
    net::{Address, TCP},
    node::Node,
    report::Symptom,
    silence,
};

use crate::{
    family::Family,
    layout::{Layout, Plain, Walked},
    lookup::find,
    maps::{self, FlowTable},
    packet::{Ethernet, Packet, Tcp},
    parse::Parsed,
    report::{report, report_client},
    rewrite,
};

/// A live entry and the table it is in.
pub struct Tracked<A: 'static> {
    pub flow: &'static mut Flow<A>,
    table: Table,
}

enum Table {
    Flows,
    HalfOpen,
}

/// The bytes of TCP options at most.
const MAX_TCP_OPTIONS: usize = 40;

/// Notes that the flow lives. Writing only what changes spares the other processors' caches.
#[inline(always)]
pub fn touch<A>(flow: &mut Flow<A>, now_ns: u64) {
    if flow.last_seen_ns != now_ns {
        flow.last_seen_ns = now_ns;
    }
}

/// Notes the acknowledgement number of an established flow's packet: should the flow be ended, a reset of the packet's
/// sender must stand there.
#[inline(always)]
pub fn note_acknowledged<F: Family, P: Packet>(
    packet: &P,
    parsed: &Parsed<F::Address, impl Layout>,
    flow: &mut Flow<F::Address>,
) {
    if parsed.is_tcp()
        && parsed.shape.flags & ACK != 0
        && let Some(tcp) = packet.header::<Tcp>(parsed.layout.l4::<F>())
    {
        let acknowledged = tcp.acknowledgement.to_host();
        if flow.acknowledged != acknowledged {
            flow.acknowledged = acknowledged;
        }
    }
}

/// Whether a packet has something to say that calls for an answer. What of TCP has data shows without a look at where its
/// header ends: it pushes, or is longer than any mere acknowledgement. Of datagrams, those to a client call for none.
#[inline(always)]
fn asks<F: Family>(parsed: &Parsed<F::Address, Plain>, flow: &Flow<F::Address>) -> bool {
    if !parsed.is_tcp() {
        return flow.direction != Direction::ToClient as u8;
    }
    let longest_mere = size_of::<F::Header>() + size_of::<Tcp>() + MAX_TCP_OPTIONS;
    parsed.shape.flags & PSH != 0 || usize::from(parsed.shape.ip_length) > longest_mere
}

/// Notes what an end of an established flow says, and looks now and then whether it does so in vain. To be called before
/// the packet's time is noted.
#[inline(always)]
pub fn listen<F: Family, P: Packet>(
    packet: &P,
    parsed: &Parsed<F::Address, Plain>,
    flow: &mut Flow<F::Address>,
    now_ns: u64,
) {
    if !asks::<F>(parsed, flow) {
        return;
    }
    let is_new_period = silence::is_new_period(flow.last_seen_ns, now_ns);
    if !parsed.is_tcp() {
        if is_new_period {
            look_up_other::<F>(parsed.key.protocol, flow, flow.sequence, now_ns);
        }
    } else if let Some(tcp) = packet.header::<Tcp>(F::L4_OFFSET) {
        let sequence = tcp.sequence.to_host();
        if is_new_period || silence::is_not_after(sequence, flow.sequence) {
            look_up_other::<F>(parsed.key.protocol, flow, sequence, now_ns);
        } else {
            flow.sequence = sequence;
        }
    }
}

/// Looks whether who says something now, with this sequence number if it is a TCP segment, does so in vain, and tells the
/// agent. Notes the number.
///
/// A function of its own: it is called for few packets, and the fast path has no stack to spare.
#[inline(never)]
fn look_up_other<F: Family>(protocol: u32, flow: &mut Flow<F::Address>, sequence: u32, now_ns: u64) {
    let (asked_ns, asked) = (flow.last_seen_ns, flow.sequence);
    flow.sequence = sequence;
    // The kernel looks after the way to this node's own backends, and from them.
    if flow.location == Location::Local as u8 {
        return;
    }
    let Some(other) = maps::flow(F::flows(), &flow.opposite(protocol)) else { return };
    let (is_unanswered, repeats) = if protocol == u32::from(TCP) {
        (silence::is_not_after(other.acknowledged, asked), silence::is_not_after(sequence, asked))
    } else {
        // What came within the same tick may have been an answer.
        (asked_ns > other.last_seen_ns, false)
    };
    // What the other end says meanwhile is no answer to who repeats himself: it may be in vain as well.
    let silent_since_ns = if repeats { asked_ns.min(other.last_seen_ns) } else { other.last_seen_ns };
    if !is_unanswered || !silence::is_silent(silent_since_ns, now_ns) {
        return;
    }
    if flow.direction == Direction::ToClient as u8 {
        report_client(flow.backend, Client::new(&flow.destination), flow.client_mac, now_ns);
    } else {
        report(flow.backend, Symptom::Silent, now_ns);
    }
}

/// The flow of a packet in either table.
#[inline(always)]
pub fn find_any<F: Family>(key: &FlowKey<F::Address>, node: &Node, now_ns: u64) -> Option<Tracked<F::Address>> {
    Some(match find(F::flows(), key, node, now_ns) {
        Some(flow) => Tracked { flow, table: Table::Flows },
        None => Tracked { flow: find(F::half_open(), key, node, now_ns)?, table: Table::HalfOpen },
    })
}

/// As [`find_any`], but a packet that could as well open a flow, a SYN or a datagram, finds none that has ended or whose
/// backend is not serving: those make way for a new one.
#[inline(always)]
pub fn find_current<F: Family>(
    parsed: &Parsed<F::Address, Walked>,
    node: &Node,
    now_ns: u64,
) -> Option<Tracked<F::Address>> {
    let tracked = find_any::<F>(&parsed.key, node, now_ns)?;
    if may_open(parsed) && is_over(tracked.flow) {
        forget::<F>(&parsed.key, tracked.flow);
        return None;
    }
    Some(tracked)
}

#[inline(always)]
fn may_open<A>(parsed: &Parsed<A, Walked>) -> bool {
    !parsed.is_tcp() || flow_state::opens(parsed.shape.flags)
}

#[inline(always)]
fn is_over<A>(flow: &Flow<A>) -> bool {
    flow.state == FlowState::Closing as u8
        || flow.direction == Direction::ToBackend as u8 && rewrite::serving(flow.backend).is_err()
}

/// Removes both entries of a flow from wherever they are.
#[inline(never)]
fn forget<F: Family>(key: &FlowKey<F::Address>, flow: &Flow<F::Address>) {
    let opposite = flow.opposite(key.protocol);
    for table in [F::flows(), F::half_open()] {
        maps::remove(table, key);
        maps::remove(table, &opposite);
    }
}

/// Moves the flow on by a packet, which has been rewritten already.
#[inline(always)]
pub fn advance<F: Family, P: Packet>(
    packet: &P,
    parsed: &Parsed<F::Address, Walked>,
    tracked: Tracked<F::Address>,
    now_ns: u64,
) {
    let Tracked { flow, table } = tracked;
    touch(flow, now_ns);
    let direction =
        if flow.direction == Direction::ToClient as u8 { Direction::ToClient } else { Direction::ToBackend };
    let before = flow.state();
    let mut sequence = 0;
    let after = if parsed.is_tcp() {
        let Some(tcp) = packet.header::<Tcp>(parsed.layout.l4::<F>()) else { return };
        let acknowledgement = tcp.acknowledgement.to_host();
        sequence = tcp.sequence.to_host();
        // At or after the number, in sequence space (RFC 9293, 3.4).
        let acknowledges = acknowledgement.wrapping_sub(flow.acknowledged) < 1 << 31;
        let after = flow_state::next_tcp(before, direction, parsed.shape.flags, acknowledges);
        if matches!((before, after), (FlowState::SynSent, FlowState::SynAcked)) {
            flow.acknowledged = sequence.wrapping_add(1);
        } else if matches!(table, Table::Flows) || after.is_assured() {
            note_acknowledged::<F, P>(packet, parsed, flow);
        }
        if let Some(symptom) = Symptom::of(before, direction, parsed.shape.flags) {
            report(flow.backend, symptom, now_ns);
        }
        after
    } else {
        flow_state::next_udp(before, direction)
    };
    if after as u8 == before as u8 {
        return;
    }
    flow.state = after as u8;
    match table {
        Table::HalfOpen if after.is_assured() => promote::<F>(&parsed.key, flow, sequence),
        Table::HalfOpen => tell_opposite(F::half_open(), &parsed.key, flow, Acknowledged::Same),
        Table::Flows => tell_opposite(F::flows(), &parsed.key, flow, Acknowledged::Own),
    }
}

/// Moves both entries of a flow to the flow table. The other one is made from this one, so it is right even if it was
/// evicted; `sequence` is where the client's packet stands, and so what the backend has acknowledged, or is about to.
#[inline(never)]
fn promote<F: Family>(key: &FlowKey<F::Address>, flow: &Flow<F::Address>, sequence: u32) {
    let opposite = flow.opposite(key.protocol);
    let mut mirror = *flow;
    mirror.turn(key);
    mirror.acknowledged = sequence;
    // Only when both are in place do the half-open ones go; until then they serve.
    if maps::store(F::flows(), &opposite, &mirror, BPF_ANY) == 0 && maps::store(F::flows(), key, flow, BPF_ANY) == 0 {
        maps::remove(F::half_open(), &opposite);
        maps::remove(F::half_open(), key);
    }
}

/// Whether both entries of a flow have one acknowledgement number: while it is half open.
#[derive(Clone, Copy)]
enum Acknowledged {
    Same,
    Own,
}

/// Tells the other direction's entry of a change of state or, if it was evicted, makes it anew.
#[inline(never)]
fn tell_opposite<A: Address>(table: &FlowTable<A>, key: &FlowKey<A>, flow: &Flow<A>, acknowledged: Acknowledged) {
    let opposite = flow.opposite(key.protocol);
    if let Some(entry) = maps::flow(table, &opposite) {
        entry.state = flow.state;
        entry.last_seen_ns = flow.last_seen_ns;
        if matches!(acknowledged, Acknowledged::Same) {
            entry.acknowledged = flow.acknowledged;
        }
        return;
    }
    let mut mirror = *flow;
    mirror.turn(key);
    // Without room the next packet that changes the state tries again.
    let _ = maps::store(table, &opposite, &mirror, BPF_ANY);
}

/// Lets both entries know the MAC address that the client's frames now come from: it has a new card, or is behind
/// another router.
#[inline(always)]
pub fn follow_client<F: Family, P: Packet>(packet: &P, protocol: u32, flow: &mut Flow<F::Address>) {
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return };
    let mac = ethernet.source;
    if flow.client_mac == mac {
        return;
    }
    flow.client_mac = mac;
    tell_mac::<F>(protocol, flow);
}

#[inline(never)]
fn tell_mac<F: Family>(protocol: u32, flow: &Flow<F::Address>) {
    let opposite = flow.opposite(protocol);
    for table in [F::flows(), F::half_open()] {
        if let Some(entry) = maps::flow(table, &opposite) {
            entry.client_mac = flow.client_mac;
        }
    }
}
