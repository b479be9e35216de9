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
    clock::now_ns,
    emit::Outcome,
    family::{Family, V4, V6},
    fence,
    fragment::{self, Course},
    layout::{Layout, Part, Plain, Walked},
    lookup::{self, find},
    maps, open,
    packet::{Ethernet, Packet, Ports, Tcp},
    parse::{self, Parsed, Refusal},
    reset, rewrite, track, vlan,
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
    let outcome = match ethertype {
        IPV4 if vlan::is_fast(packet, node) && ethernet.destination.is_unicast() => fast_ingress::<V4, P>(packet, node),
        IPV6 if vlan::is_fast(packet, node) && ethernet.destination.is_unicast() => fast_ingress_ipv6(packet, node),
        _ => Outcome::UNDECIDED,
    };
    outcome.or_else(|| slow_ingress(packet, node))
}

/// What the fast path has left. It reads the packet again, which is cheaper than to keep what was read: that would take
/// stack from all that is to come.
#[inline(never)]
fn slow_ingress<P: Packet>(packet: &P, node: &Node) -> Outcome {
    let entered = vlan::enter(packet, node);
    let (ethertype, l3) = (entered.ethertype(), entered.l3());
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return NOT_OURS.into() };
    if ethernet.destination != node.mac {
        return for_others(packet, l3, ethertype);
    }
    match ethertype {
        vlan::FOREIGN => NOT_OURS.into(),
        IPV4 => slow_ingress_ip::<V4, P>(packet, node, l3),
        IPV6 => slow_ingress_ip::<V6, P>(packet, node, l3),
        ARP => fence::request(packet, l3).or_else(|| NOT_IP.into()),
        _ => NOT_IP.into(),
    }
}

/// Frames for others reach us on a hub, or while a switch has not yet learned where the VIP went: those are not ours. But
/// so do frames for all and for many, among which are the questions who has a VIP.
#[inline(always)]
fn for_others<P: Packet>(packet: &P, l3: usize, ethertype: u16) -> Outcome {
    match ethertype {
        ARP => fence::request(packet, l3),
        IPV6 => fence::solicitation(packet, l3),
        _ => Outcome::UNDECIDED,
    }
    .or_else(|| NOT_OURS.into())
}

/// A packet that is about to leave by the interface: ours if it is the reply of a backend on this node, or says where a
/// fenced VIP is.
#[inline(always)]
pub fn egress<P: Packet>(packet: &P) -> Outcome {
    let (Some(ethernet), Some(node)) = (packet.header::<Ethernet>(0), maps::node()) else { return NOT_OURS.into() };
    let outcome = match ethernet.ethertype.to_wire() {
        IPV4 if vlan::is_fast(packet, node) => fast_egress::<V4, P>(packet, node),
        IPV6 if vlan::is_fast(packet, node) => fast_egress_ipv6(packet, node),
        _ => Outcome::UNDECIDED,
    };
    outcome.or_else(|| slow_egress(packet, node))
}

/// See [`slow_ingress`].
#[inline(never)]
fn slow_egress<P: Packet>(packet: &P, node: &Node) -> Outcome {
    let entered = vlan::enter(packet, node);
    let l3 = entered.l3();
    match entered.ethertype() {
        vlan::FOREIGN => NOT_OURS.into(),
        IPV4 => slow_egress_ip::<V4, P>(packet, node, l3),
        IPV6 => slow_egress_ip::<V6, P>(packet, node, l3),
        ARP => fence::arp_claim(packet, l3).or_else(|| NOT_IP.into()),
        _ => NOT_IP.into(),
    }
}

/// What both hooks look at once a packet's headers have been checked: none of it is absent, but the verifier cannot know.
#[inline(always)]
fn headers_and_gate<'p, F: Family, P: Packet>(
    packet: &'p P,
    layout: &impl Layout,
) -> (Option<&'p F::Header>, Option<&'p Ports>, Option<&'static Gate>) {
    let ip = packet.header::<F::Header>(layout.l3());
    (ip.map(|ip| &*ip), packet.header::<Ports>(layout.l4::<F>()).map(|ports| &*ports), maps::gate())
}

/// A function of its own: the stack of a program and all it calls is 512 bytes, too few for both families at once.
#[inline(never)]
fn fast_ingress_ipv6<P: Packet>(packet: &P, node: &Node) -> Outcome {
    packet.gather(V6::L4_OFFSET + size_of::<Tcp>());
    fast_ingress::<V6, P>(packet, node)
}

/// See [`fast_ingress_ipv6`].
#[inline(never)]
fn fast_egress_ipv6<P: Packet>(packet: &P, node: &Node) -> Outcome {
    packet.gather(V6::L4_OFFSET + size_of::<Tcp>());
    fast_egress::<V6, P>(packet, node)
}

/// Packets of the plain layout that are not ours, and those of established flows that change nothing about them. All
/// others are left undecided.
///
/// Whichever MAC address they are sent to: when the interface gets another one, the kernel tells neighbours of it before the
/// agent can tell us, and would reset what reaches it.
#[inline(always)]
fn fast_ingress<F: Family, P: Packet>(packet: &P, node: &Node) -> Outcome {
    let shape = match parse::check_plain::<F, P>(packet) {
        Ok(shape) => shape,
        Err(outcome) => return outcome,
    };
    let (Some(ip), Some(ports), Some(gate)) = headers_and_gate::<F, P>(packet, &Plain) else { return NOT_OURS.into() };
    let parsed = Parsed { key: parse::key::<F>(ip, ports, shape.protocol), shape, layout: Plain };
    let key = &parsed.key;
    let protocol = shape.protocol;
    if !lookup::may_be_ours::<F>(gate, node, key, protocol) {
        return NOT_OURS.into();
    }

    let now = now_ns(node);
    // UDP has no flags, so all of it is plain.
    if flow_state::is_plain(shape.flags)
        && let Some(flow) = find(F::flows(), key, node, now)
        && let Ok(way) = rewrite::way::<F, P>(packet, &Plain, flow)
    {
        track::listen::<F, P>(packet, &parsed, flow, now);
        track::touch(flow, now);
        track::note_acknowledged::<F, P>(packet, &parsed, flow);
        if way.comes_from_client() {
            track::follow_client::<F, P>(packet, key.protocol, flow);
        }
        return rewrite::send::<F, P>(packet, &parsed, node, flow, way).into();
    }
    Outcome::UNDECIDED
}

/// An IP packet that came in for this node; `l3` is where its header begins.
///
/// In two steps and not one within the other: the second takes half of the stack that there is.
#[inline(always)]
fn slow_ingress_ip<F: Family, P: Packet>(packet: &P, node: &Node, l3: usize) -> Outcome {
    let Some(parsed) = F::walked() else { return NOT_OURS.into() };
    parsed.layout.l3 = l3 as u8;
    examine::<F, P>(packet, parsed, node).or_else(|| unknown::<F, P>(packet, parsed, node))
}

/// What is not for the pipeline, and packets of known flows. All others are left undecided.
#[inline(never)]
fn examine<F: Family, P: Packet>(packet: &P, parsed: &mut Parsed<F::Address, Walked>, node: &Node) -> Outcome {
    let refusal = parse::walk::<F, P>(packet, parsed);
    if refusal != Refusal::NONE {
        return parse::refuse::<F, P>(packet, node, &parsed.layout, refusal);
    }
    if parsed.layout.part() == Part::LATER {
        return fragment::later::<F, P>(packet, node, parsed, Course::In);
    }
    let (Some(ip), Some(ports), Some(gate)) = headers_and_gate::<F, P>(packet, &parsed.layout) else {
        return NOT_OURS.into();
    };
    parsed.key = parse::key::<F>(ip, ports, parsed.shape.protocol);
    if !lookup::may_be_ours::<F>(gate, node, &parsed.key, parsed.shape.protocol) {
        return NOT_OURS.into();
    }
    let now = now_ns(node);
    let outcome = known::<F, P>(packet, parsed, node, now);
    if outcome != Outcome::UNDECIDED && parsed.layout.part() == Part::FIRST {
        fragment::first::<F>(parsed, outcome, now);
    }
    outcome
}

/// Packets of flows that are half open or change their state, or cannot be sent on.
#[inline(never)]
fn known<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F::Address, Walked>, node: &Node, now_ns: u64) -> Outcome {
    let Some(tracked) = track::find_current::<F>(parsed, node, now_ns) else { return Outcome::UNDECIDED };
    match rewrite::way::<F, P>(packet, &parsed.layout, tracked.flow) {
        Ok(way) => {
            if way.comes_from_client() {
                track::follow_client::<F, P>(packet, parsed.key.protocol, tracked.flow);
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
fn unknown<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F::Address, Walked>, node: &Node) -> Outcome {
    let now = now_ns(node);
    let FlowKey { destination, destination_port, .. } = parsed.key;
    let outcome = match maps::get(F::services(), &Endpoint::new(destination, destination_port, parsed.shape.protocol)) {
        Some(service) => open::open::<F, P>(packet, parsed, node, service, now),
        None => NOT_OURS.into(),
    };
    if parsed.layout.part() == Part::FIRST {
        fragment::first::<F>(parsed, outcome, now);
    }
    outcome
}

/// As [`fast_ingress`], at egress.
#[inline(always)]
fn fast_egress<F: Family, P: Packet>(packet: &P, node: &Node) -> Outcome {
    let shape = match parse::check_plain::<F, P>(packet) {
        Ok(shape) => shape,
        Err(outcome) => return outcome,
    };
    let (Some(ip), Some(ports), Some(gate)) = headers_and_gate::<F, P>(packet, &Plain) else { return NOT_OURS.into() };
    let parsed = Parsed { key: parse::key::<F>(ip, ports, shape.protocol), shape, layout: Plain };
    let key = &parsed.key;
    if !gate::may_pass(gate, &key.source, key.source_port, shape.protocol) {
        return NOT_OURS.into();
    }
    let now = now_ns(node);
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
    Outcome::UNDECIDED
}

/// An IP packet that is about to leave; `l3` is where its header begins.
#[inline(never)]
fn slow_egress_ip<F: Family, P: Packet>(packet: &P, node: &Node, l3: usize) -> Outcome {
    let Some(parsed) = F::walked() else { return NOT_OURS.into() };
    parsed.layout.l3 = l3 as u8;
    let refusal = parse::walk::<F, P>(packet, parsed);
    if refusal != Refusal::NONE {
        return parse::refuse_egress::<F, P>(packet, node, &parsed.layout, refusal);
    }
    let part = parsed.layout.part();
    if part == Part::LATER {
        return fragment::later::<F, P>(packet, node, parsed, Course::Out);
    }
    let (Some(ip), Some(ports), Some(gate)) = headers_and_gate::<F, P>(packet, &parsed.layout) else {
        return NOT_OURS.into();
    };
    parsed.key = parse::key::<F>(ip, ports, parsed.shape.protocol);
    if !gate::may_pass(gate, &parsed.key.source, parsed.key.source_port, parsed.shape.protocol) {
        return NOT_OURS.into();
    }
    let now = now_ns(node);
    let outcome = reply::<F, P>(packet, parsed, node, now);
    if part == Part::FIRST {
        fragment::first::<F>(parsed, outcome, now);
    }
    outcome
}

/// A packet that leaves: the reply of a backend on this node, or none of ours.
#[inline(never)]
fn reply<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F::Address, Walked>, node: &Node, now_ns: u64) -> Outcome {
    match track::find_any::<F>(&parsed.key, node, now_ns) {
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
