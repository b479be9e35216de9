//! ICMP errors about packets of flows: translated, and sent on to whoever sent the packet.
//!
//! ```text
//! Ethernet | IP: reporter -> sender | ICMP | IP: sender -> receiver | ports, what is quoted of the rest
//!            outer                           quoted
//! ```
//!
//! The quoted packet is one that kplb has rewritten. Had its receiver answered it instead, the answer would be of the
//! flow's other direction: so that entry is looked up, and what it makes of an answer is what becomes of the error. Its
//! outer addresses become those that the answer would get; the quoted ones are the same the other way round, which
//! restores what the sender has sent (RFC 5508, section 4.2).
//!
//! So the backend learns of it from this node, and the client from the VIP, whoever has reported it: neither may have a
//! way to the other's network, or take packets from there. Only a backend on this node, which sees its clients, sees
//! their routers, too.
//!
//! An error changes nothing about a flow: it proves nothing, and may be made up by anyone who knows the addresses. What
//! to make of it is up to the end that gets it (RFC 5927, section 4).
//!
//! Left to the kernel: errors that are fragments, or quote other than the first one of a datagram.

use kplb_common::{
    checksum,
    endpoint::Endpoint,
    flow::{Direction, Flow, FlowKey},
    fragment, gate,
    net::{Address as _, TCP},
    node::Node,
    verdict::{DropReason, ForwardReason, PassReason, Verdict},
};

use crate::{
    clock::now_ns,
    emit::Outcome,
    family::{Family, holds},
    layout::{Layout, Quoted, Walked},
    lookup::{find, may_be_ours},
    maps,
    packet::{Icmp, Packet, Ports, Tcp, Udp, Word},
    reset, rewrite,
};

const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);

/// Bytes that every error quotes of what follows the IP header (RFC 792; RFC 4443, section 3: many more).
const LEAST_QUOTED: usize = 8;

/// Where the quoted packet begins in the frame.
#[inline(always)]
fn quotation<F: Family>(layout: &Walked) -> usize {
    layout.l4::<F>() + size_of::<Icmp>()
}

/// Where the IP packet ends in the frame.
#[inline(always)]
fn end<F: Family>(layout: &Walked, outer: &F::Header) -> usize {
    layout.l3() + F::length(outer)
}

/// An ICMP packet that came in.
#[inline(never)]
pub fn ingress<F: Family, P: Packet>(packet: &P, node: &Node, layout: &Walked) -> Outcome {
    let Some(quoted) = maps::quoted() else { return NOT_OURS.into() };
    let Some(key) = answer::<F, P>(packet, layout, quoted) else { return NOT_OURS.into() };
    let Some(gate) = maps::gate() else { return NOT_OURS.into() };
    let protocol = key.protocol as u8;
    if !may_be_ours::<F>(gate, node, &key, protocol) {
        return NOT_OURS.into();
    }
    let Some(flow) = find_any::<F>(&key, node) else {
        // Of this node's own packets any can have been to a backend, from any port.
        let service = Endpoint::new(key.destination, key.destination_port, protocol);
        return match maps::get(F::services(), &service) {
            Some(_) => Verdict::Drop(DropReason::IcmpUnknownFlow),
            None => NOT_OURS,
        }
        .into();
    };
    let way = match rewrite::way::<F, P>(packet, layout, flow) {
        Ok(way) => way,
        Err(Verdict::Reset(reason)) => return Verdict::Drop(reset::instead(reason)).into(),
        Err(verdict) => return verdict.into(),
    };
    if way.ends_here() {
        translate::<F, P>(packet, layout, quoted, flow, Reporter::Kept);
        return Verdict::Forward(ForwardReason::IcmpToLocalBackend).into();
    }
    let of_hop = rewrite::set_out::<F, P>(packet, layout, node, &way);
    if let Some(outer) = packet.header::<F::Header>(layout.l3()) {
        F::mend(outer, of_hop);
    }
    translate::<F, P>(packet, layout, quoted, flow, Reporter::Replaced);
    // Read again, and not by `way`: of that, Linux 6.1 takes two values for one, and then has one reason for both.
    // SAFETY: an entry of the table, which stays readable until the program ends.
    let direction = unsafe { (&raw const flow.direction).read_volatile() };
    let is_reply = direction == Direction::ToClient as u8;
    let reason = if is_reply { ForwardReason::IcmpToClient } else { ForwardReason::IcmpToBackend };
    Verdict::Forward(reason).into()
}

/// An ICMP packet that is about to leave: ours if it is an error about a packet to a backend on this node.
#[inline(never)]
pub fn egress<F: Family, P: Packet>(packet: &P, node: &Node, layout: &Walked) -> Outcome {
    let Some(quoted) = maps::quoted() else { return NOT_OURS.into() };
    let Some(key) = answer::<F, P>(packet, layout, quoted) else { return NOT_OURS.into() };
    let Some(gate) = maps::gate() else { return NOT_OURS.into() };
    if !gate::may_pass(gate, &key.source, key.source_port, key.protocol as u8) {
        return NOT_OURS.into();
    }
    match find_any::<F>(&key, node) {
        Some(flow) if rewrite::is_local_reply(flow) => {
            if let Err(reason) = rewrite::serving(flow.backend) {
                return Verdict::Drop(reset::instead(reason)).into();
            }
            translate::<F, P>(packet, layout, quoted, flow, Reporter::Replaced);
            Verdict::Forward(ForwardReason::IcmpToClientLocal).into()
        }
        _ => NOT_OURS.into(),
    }
}

/// The 5-tuple of answers to the packet that an error is about; none if it is no error about TCP or UDP, not whole, or not
/// for whoever sent the packet.
#[inline(always)]
fn answer<F: Family, P: Packet>(packet: &P, layout: &Walked, quoted: &mut Quoted) -> Option<FlowKey<F::Address>> {
    if !F::is_error(packet.header::<Icmp>(layout.l4::<F>())?.kind) {
        return None;
    }
    let at = quotation::<F>(layout);
    if walk_quoted::<F, P>(packet, at, quoted) == 0 {
        return None;
    }
    let l4 = usize::from(quoted.l4);
    packet.gather(l4 + size_of::<Tcp>());
    let sent = packet.header::<F::Header>(at)?;
    let outer = packet.header::<F::Header>(layout.l3())?;
    let ports = packet.header::<Ports>(l4)?;
    let end = end::<F>(layout, outer);
    let is_whole = l4 + LEAST_QUOTED <= end && holds(packet, end);
    (is_whole && F::destination(outer) == F::source(sent)).then(|| FlowKey {
        source: *F::destination(sent),
        destination: *F::source(sent),
        source_port: ports.destination,
        destination_port: ports.source,
        protocol: u32::from(quoted.protocol),
    })
}

/// Fills in what is quoted `at` bytes into the frame; zero if it is neither TCP nor UDP. Not inlined for the reason that
/// [`crate::parse::walk`] has.
#[inline(never)]
fn walk_quoted<F: Family, P: Packet>(packet: &P, at: usize, quoted: &mut Quoted) -> u32 {
    match F::walk_quoted(packet, at & usize::from(u8::MAX)) {
        Some(walked) => {
            *quoted = walked;
            1
        }
        None => 0,
    }
}

/// The flow with this key, in either table.
#[inline(always)]
fn find_any<F: Family>(key: &FlowKey<F::Address>, node: &Node) -> Option<&'static Flow<F::Address>> {
    let now = now_ns(node);
    find(F::flows(), key, node, now).or_else(|| find(F::half_open(), key, node, now)).map(|flow| &*flow)
}

/// Whether whom an error comes from is to be seen by whom it goes to.
#[derive(Clone, Copy)]
enum Reporter {
    Kept,
    Replaced,
}

/// Replaces the addresses and ports, and mends the checksums.
///
/// In two functions that are not inlined, so that only the larger one's needs of the stack count.
#[inline(always)]
fn translate<F: Family, P: Packet>(
    packet: &P,
    layout: &Walked,
    quoted: &Quoted,
    flow: &Flow<F::Address>,
    reporter: Reporter,
) {
    let delta = restore::<F, P>(packet, layout, quoted, flow);
    readdress::<F, P>(packet, layout, flow, reporter, delta);
}

/// Makes the quoted packet what was sent; returns what that does to the ICMP checksum, which covers all of it.
///
/// The key of the entry and the quoted packet have the same words, so the entry's deltas hold for both.
#[inline(never)]
fn restore<F: Family, P: Packet>(packet: &P, layout: &Walked, quoted: &Quoted, flow: &Flow<F::Address>) -> u16 {
    let Some(outer) = packet.header::<F::Header>(layout.l3()) else { return 0 };
    let end = end::<F>(layout, outer);

    let l4 = usize::from(quoted.l4);
    let Some(sent) = packet.header::<F::Header>(quotation::<F>(layout)) else { return 0 };
    let before = F::checksum(sent);
    F::set_addresses(sent, &flow.destination, &flow.source);
    F::mend(sent, flow.address_delta);
    let of_header = checksum::delta(u64::from(before), u64::from(F::checksum(sent)));
    let mut delta = checksum::sum(flow.address_delta, of_header);

    if quoted.id_at != 0
        && let Some(id) = packet.header::<Word>(usize::from(quoted.id_at))
        && let Some(ports) = packet.header::<Ports>(l4)
    {
        let before = id.0;
        id.0 ^= fragment::renumbering(ports.source, ports.destination);
        delta = checksum::sum(delta, checksum::delta(u64::from(before), u64::from(id.0)));
    }
    if let Some(ports) = packet.header::<Ports>(l4) {
        (ports.source, ports.destination) = (flow.destination_port, flow.source_port);
        delta = checksum::sum(delta, flow.port_delta);
    }

    let is_tcp = quoted.protocol == TCP;
    let at = l4 + if is_tcp { core::mem::offset_of!(Tcp, checksum) } else { core::mem::offset_of!(Udp, checksum) };
    // Of TCP it is among what may not be quoted; what lies there then is padding of the frame.
    if at + size_of::<Word>() <= end
        && let Some(field) = packet.header::<Word>(at)
    {
        let before = field.0;
        let of_flow = checksum::sum(flow.address_delta, flow.port_delta);
        field.0 = if is_tcp { checksum::update(before, of_flow) } else { checksum::update_udp(before, of_flow) };
        delta = checksum::sum(delta, checksum::delta(u64::from(before), u64::from(field.0)));
    }
    delta
}

/// Gives the error the addresses of an answer; `delta` is what its checksum is to be mended by besides.
#[inline(never)]
fn readdress<F: Family, P: Packet>(
    packet: &P,
    layout: &Walked,
    flow: &Flow<F::Address>,
    reporter: Reporter,
    delta: u16,
) {
    let Some(outer) = packet.header::<F::Header>(layout.l3()) else { return };
    let source = match reporter {
        Reporter::Kept => *F::source(outer),
        Reporter::Replaced => flow.source,
    };
    let of_addresses =
        checksum::delta(F::source(outer).sum() + F::destination(outer).sum(), source.sum() + flow.destination.sum());
    F::set_addresses(outer, &source, &flow.destination);
    F::mend(outer, of_addresses);
    let delta = if F::ICMP_COVERS_ADDRESSES { checksum::sum(delta, of_addresses) } else { delta };
    if let Some(icmp) = packet.header::<Icmp>(layout.l4::<F>()) {
        icmp.checksum = checksum::update(icmp.checksum, delta);
    }
}
