//! The way of a packet through kplb: the fast path, which takes one flow lookup, and where the slow one turns off.

use kplb_common::{
    endpoint::Endpoint,
    flow::FlowKey,
    flow_state,
    gate::{self, Gate},
    net::{Be16, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    node::Node,
    verdict::{PassReason, Verdict},
};

use crate::{
    emit::Outcome,
    family::{Family, V4, V6},
    fence,
    lookup::{self, find, now_ns},
    maps, open,
    packet::{Ethernet, Packet, Ports},
    parse::{self, Parsed},
    reset, rewrite, track,
};

const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);
const NOT_IP: Verdict = Verdict::Pass(PassReason::NotIp);

const IPV4: u16 = Be16::from_host(ETHERTYPE_IPV4).to_wire();
const ARP: u16 = Be16::from_host(ETHERTYPE_ARP).to_wire();
const IPV6: u16 = Be16::from_host(ETHERTYPE_IPV6).to_wire();

/// A packet that came in by the interface.
#[inline(always)]
pub fn ingress<P: Packet>(packet: &P) -> Outcome {
    let (Some(ethernet), Some(node)) = (packet.header::<Ethernet>(0), maps::node()) else { return NOT_OURS.into() };
    let ethertype = ethernet.ethertype.to_wire();
    if ethernet.destination != node.mac {
        return for_others(packet, ethertype).or_else(|| NOT_OURS.into());
    }
    match ethertype {
        IPV4 => fast_ingress::<V4, P>(packet, node).or_else(|| slow_ingress::<V4, P>(packet, node)),
        IPV6 => fast_ingress_ipv6(packet, node).or_else(|| slow_ingress::<V6, P>(packet, node)),
        ARP => fence::request(packet).or_else(|| NOT_IP.into()),
        _ => NOT_IP.into(),
    }
}

/// Frames for others reach us on a hub, or while a switch has not yet learned where the VIP went: those are not ours. But
/// so do frames for all and for many, among which are the questions who has a VIP.
#[inline(always)]
fn for_others<P: Packet>(packet: &P, ethertype: u16) -> Outcome {
    match ethertype {
        ARP => fence::request(packet),
        IPV6 => fence::solicitation(packet),
        _ => Outcome::UNDECIDED,
    }
}

/// A packet that is about to leave by the interface: ours if it is the reply of a backend on this node, or says where a
/// fenced VIP is.
#[inline(always)]
pub fn egress<P: Packet>(packet: &P) -> Outcome {
    let (Some(ethernet), Some(node)) = (packet.header::<Ethernet>(0), maps::node()) else { return NOT_OURS.into() };
    match ethernet.ethertype.to_wire() {
        IPV4 => egress_ip::<V4, P>(packet, node),
        IPV6 => egress_ipv6(packet, node),
        ARP => fence::arp_claim(packet).or_else(|| NOT_IP.into()),
        _ => NOT_IP.into(),
    }
}

/// What both hooks look at once a packet's headers have been checked: none of it is absent, but the verifier cannot know.
#[inline(always)]
fn headers_and_gate<F: Family, P: Packet>(packet: &P) -> (Option<&F::Header>, Option<&Ports>, Option<&'static Gate>) {
    let ip = packet.header::<F::Header>(size_of::<Ethernet>());
    (ip.map(|ip| &*ip), packet.header::<Ports>(F::L4_OFFSET).map(|ports| &*ports), maps::gate())
}

/// A function of its own: the stack of a program and all it calls is 512 bytes, too few for both families at once.
#[inline(never)]
fn fast_ingress_ipv6<P: Packet>(packet: &P, node: &Node) -> Outcome {
    fast_ingress::<V6, P>(packet, node)
}

/// See [`fast_ingress_ipv6`].
#[inline(never)]
fn egress_ipv6<P: Packet>(packet: &P, node: &Node) -> Outcome {
    egress_ip::<V6, P>(packet, node)
}

/// Packets that are not ours, and those of established flows that change nothing about them. All others are left
/// undecided.
#[inline(always)]
fn fast_ingress<F: Family, P: Packet>(packet: &P, node: &Node) -> Outcome {
    let shape = match parse::check::<F, P>(packet) {
        Ok(shape) => shape,
        Err(refusal) => return parse::refuse::<F, P>(packet, node, refusal),
    };
    let (Some(ip), Some(ports), Some(gate)) = headers_and_gate::<F, P>(packet) else { return NOT_OURS.into() };
    let parsed = parse::read::<F>(ip, ports, shape);
    let key = &parsed.key;
    let protocol = shape.protocol;
    if !lookup::may_be_ours::<F>(gate, node, key, protocol) {
        return NOT_OURS.into();
    }

    let now = now_ns();
    // UDP has no flags, so all of it is plain.
    if flow_state::is_plain(shape.flags)
        && let Some(flow) = find(F::flows(), key, node, now)
        && let Ok(way) = rewrite::way::<F, P>(packet, flow)
    {
        track::touch(flow, now);
        track::note_acknowledged::<F, P>(packet, &parsed, flow);
        if way.comes_from_client() {
            track::follow_client::<F, P>(packet, &parsed, flow);
        }
        return rewrite::send::<F, P>(packet, &parsed, node, flow, way).into();
    }
    Outcome::UNDECIDED
}

/// What the fast path has left. It reads the packet again, which is cheaper than to keep what was read: that would take
/// stack from all that is to come.
#[inline(never)]
fn slow_ingress<F: Family, P: Packet>(packet: &P, node: &Node) -> Outcome {
    let Ok(shape) = parse::check::<F, P>(packet) else { return NOT_OURS.into() };
    let (Some(ip), Some(ports), Some(_)) = headers_and_gate::<F, P>(packet) else { return NOT_OURS.into() };
    let parsed = parse::read::<F>(ip, ports, shape);
    let now = now_ns();
    known::<F, P>(packet, &parsed, node, now).or_else(|| unknown::<F, P>(packet, &parsed, node, now))
}

/// Packets of flows that are half open or change their state, or cannot be sent on.
#[inline(never)]
fn known<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F::Address>, node: &Node, now_ns: u64) -> Outcome {
    let Some(tracked) = track::find_current::<F>(parsed, node, now_ns) else { return Outcome::UNDECIDED };
    match rewrite::way::<F, P>(packet, tracked.flow) {
        Ok(way) => {
            if way.comes_from_client() {
                track::follow_client::<F, P>(packet, parsed, tracked.flow);
            }
            let verdict = rewrite::send::<F, P>(packet, parsed, node, tracked.flow, way);
            // Last: it may move the entry to the other table, and its place be given away.
            track::advance::<F, P>(packet, parsed, tracked, now_ns);
            verdict.into()
        }
        Err(verdict) => reset::carry_out::<F, P>(packet, parsed, verdict),
    }
}

/// Packets of no flow: they open one if they are to a service.
///
/// A backend's reply to a NAT port is passed like all else: it may well be the answer to a connection of the node's own,
/// or of a pod that is masqueraded with any port, and if it is nobody's, the kernel answers with a reset as well.
#[inline(never)]
fn unknown<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F::Address>, node: &Node, now_ns: u64) -> Outcome {
    let FlowKey { destination, destination_port, .. } = parsed.key;
    match maps::get(F::services(), &Endpoint::new(destination, destination_port, parsed.shape.protocol)) {
        Some(service) => open::open::<F, P>(packet, parsed, node, service, now_ns),
        None => NOT_OURS.into(),
    }
}

#[inline(always)]
fn egress_ip<F: Family, P: Packet>(packet: &P, node: &Node) -> Outcome {
    let shape = match parse::check::<F, P>(packet) {
        Ok(shape) => shape,
        Err(refusal) => return parse::refuse_egress::<F, P>(packet, node, refusal),
    };
    let (Some(ip), Some(ports), Some(gate)) = headers_and_gate::<F, P>(packet) else { return NOT_OURS.into() };
    let parsed = parse::read::<F>(ip, ports, shape);
    let key = &parsed.key;
    if !gate::may_pass(gate, &key.source, key.source_port, shape.protocol) {
        return NOT_OURS.into();
    }
    let now = now_ns();
    if flow_state::is_plain(shape.flags)
        && let Some(flow) = find(F::flows(), key, node, now)
    {
        if !rewrite::is_local_reply(flow) {
            return NOT_OURS.into();
        }
        if let Err(reason) = rewrite::serving(flow.backend) {
            return Verdict::Drop(reset::instead(reason)).into();
        }
        track::touch(flow, now);
        track::note_acknowledged::<F, P>(packet, &parsed, flow);
        return rewrite::reverse_local::<F, P>(packet, &parsed, flow).into();
    }
    slow_egress::<F, P>(packet, &parsed, node, now)
}

/// What the fast path leaves: half-open flows and changes of state.
#[inline(never)]
fn slow_egress<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F::Address>, node: &Node, now_ns: u64) -> Outcome {
    match track::find_any::<F>(parsed, node, now_ns) {
        Some(tracked) if rewrite::is_local_reply(tracked.flow) => {
            if let Err(reason) = rewrite::serving(tracked.flow.backend) {
                return Verdict::Drop(reset::instead(reason)).into();
            }
            let verdict = rewrite::reverse_local::<F, P>(packet, parsed, tracked.flow);
            track::advance::<F, P>(packet, parsed, tracked, now_ns);
            verdict.into()
        }
        _ => NOT_OURS.into(),
    }
}
