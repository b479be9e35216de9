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
//! Left to the kernel: errors that have IPv4 options, extension headers, or are fragments.

use kplb_common::{
    checksum,
    endpoint::Endpoint,
    flow::{Flow, FlowKey},
    gate,
    net::{Address as _, TCP},
    node::Node,
    verdict::{DropReason, ForwardReason, PassReason, Verdict},
};

use crate::{
    emit::Outcome,
    family::Family,
    lookup::{find, may_be_ours, now_ns},
    maps,
    packet::{Checksum, Ethernet, Icmp, Packet, Ports, Tcp, Udp},
    reset, rewrite,
};

const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);

/// Bytes that every error quotes of what follows the IP header (RFC 792; RFC 4443, section 3: many more).
const LEAST_QUOTED: usize = 8;

/// Bytes of the longest headers that are looked at: Ethernet, IP and ICMP, and in the quotation IP with options and TCP.
const HEADERS: usize = 14 + 40 + 8 + 60 + 20;

/// Where the quoted packet begins in the frame.
#[inline(always)]
fn quotation<F: Family>() -> usize {
    F::L4_OFFSET + size_of::<Icmp>()
}

/// An ICMP packet that came in.
#[inline(never)]
pub fn ingress<F: Family, P: Packet>(packet: &P, node: &Node) -> Outcome {
    let Some(key) = answer::<F, P>(packet) else { return NOT_OURS.into() };
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
    let way = match rewrite::way::<F, P>(packet, flow) {
        Ok(way) => way,
        Err(Verdict::Reset(reason)) => return Verdict::Drop(reset::instead(reason)).into(),
        Err(verdict) => return verdict.into(),
    };
    if way.ends_here() {
        translate::<F, P>(packet, flow, Reporter::Kept);
        return Verdict::Forward(ForwardReason::IcmpToLocalBackend).into();
    }
    rewrite::set_out::<F, P>(packet, node, &way);
    translate::<F, P>(packet, flow, Reporter::Replaced);
    let reason = if way.comes_from_client() { ForwardReason::IcmpToBackend } else { ForwardReason::IcmpToClient };
    Verdict::Forward(reason).into()
}

/// An ICMP packet that is about to leave: ours if it is an error about a packet to a backend on this node.
#[inline(never)]
pub fn egress<F: Family, P: Packet>(packet: &P, node: &Node) -> Outcome {
    let Some(key) = answer::<F, P>(packet) else { return NOT_OURS.into() };
    let Some(gate) = maps::gate() else { return NOT_OURS.into() };
    if !gate::may_pass(gate, &key.source, key.source_port, key.protocol as u8) {
        return NOT_OURS.into();
    }
    match find_any::<F>(&key, node) {
        Some(flow) if rewrite::is_local_reply(flow) => {
            if let Err(reason) = rewrite::serving(flow.backend) {
                return Verdict::Drop(reset::instead(reason)).into();
            }
            translate::<F, P>(packet, flow, Reporter::Replaced);
            Verdict::Forward(ForwardReason::IcmpToClientLocal).into()
        }
        _ => NOT_OURS.into(),
    }
}

/// The 5-tuple of answers to the packet that an error is about; none if it is no error about TCP or UDP, not whole, or not
/// for whoever sent the packet.
#[inline(always)]
fn answer<F: Family, P: Packet>(packet: &P) -> Option<FlowKey<F::Address>> {
    if !F::is_error(packet.header::<Icmp>(F::L4_OFFSET)?.kind) {
        return None;
    }
    packet.gather(HEADERS);
    let outer = packet.header::<F::Header>(size_of::<Ethernet>())?;
    let end = size_of::<Ethernet>() + F::whole_length(outer)?;
    let quoted = packet.header::<F::Header>(quotation::<F>())?;
    let (header_length, protocol) = F::quoted(quoted)?;
    let l4 = quotation::<F>() + header_length;
    let ports = packet.header::<Ports>(l4)?;
    let is_whole = l4 + LEAST_QUOTED <= end && end <= packet.length();
    (is_whole && F::destination(outer) == F::source(quoted)).then(|| FlowKey {
        source: *F::destination(quoted),
        destination: *F::source(quoted),
        source_port: ports.destination,
        destination_port: ports.source,
        protocol: u32::from(protocol),
    })
}

/// The flow with this key, in either table.
#[inline(always)]
fn find_any<F: Family>(key: &FlowKey<F::Address>, node: &Node) -> Option<&'static Flow<F::Address>> {
    let now = now_ns();
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
fn translate<F: Family, P: Packet>(packet: &P, flow: &Flow<F::Address>, reporter: Reporter) {
    let delta = restore::<F, P>(packet, flow);
    readdress::<F, P>(packet, flow, reporter, delta);
}

/// Makes the quoted packet what was sent; returns what that does to the ICMP checksum, which covers all of it.
///
/// The key of the entry and the quoted packet have the same words, so the entry's deltas hold for both.
#[inline(never)]
fn restore<F: Family, P: Packet>(packet: &P, flow: &Flow<F::Address>) -> u16 {
    let Some(outer) = packet.header::<F::Header>(size_of::<Ethernet>()) else { return 0 };
    let end = size_of::<Ethernet>() + F::whole_length(outer).unwrap_or(0);

    let Some(quoted) = packet.header::<F::Header>(quotation::<F>()) else { return 0 };
    let Some((header_length, protocol)) = F::quoted(quoted) else { return 0 };
    let before = F::checksum(quoted);
    F::set_addresses(quoted, &flow.destination, &flow.source, flow.address_delta);
    let of_header = checksum::delta(u64::from(before), u64::from(F::checksum(quoted)));
    let mut delta = checksum::sum(flow.address_delta, of_header);

    let l4 = quotation::<F>() + header_length;
    if let Some(ports) = packet.header::<Ports>(l4) {
        (ports.source, ports.destination) = (flow.destination_port, flow.source_port);
        delta = checksum::sum(delta, flow.port_delta);
    }

    let is_tcp = protocol == TCP;
    let at = l4 + if is_tcp { core::mem::offset_of!(Tcp, checksum) } else { core::mem::offset_of!(Udp, checksum) };
    // Of TCP it is among what may not be quoted; what lies there then is padding of the frame.
    if at + size_of::<Checksum>() <= end
        && let Some(field) = packet.header::<Checksum>(at)
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
fn readdress<F: Family, P: Packet>(packet: &P, flow: &Flow<F::Address>, reporter: Reporter, delta: u16) {
    let Some(outer) = packet.header::<F::Header>(size_of::<Ethernet>()) else { return };
    let source = match reporter {
        Reporter::Kept => *F::source(outer),
        Reporter::Replaced => flow.source,
    };
    let of_addresses =
        checksum::delta(F::source(outer).sum() + F::destination(outer).sum(), source.sum() + flow.destination.sum());
    F::set_addresses(outer, &source, &flow.destination, of_addresses);
    let delta = if F::ICMP_COVERS_ADDRESSES { checksum::sum(delta, of_addresses) } else { delta };
    if let Some(icmp) = packet.header::<Icmp>(F::L4_OFFSET) {
        icmp.checksum = checksum::update(icmp.checksum, delta);
    }
}
