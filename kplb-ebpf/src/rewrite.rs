//! Sending a packet of a flow on its way.
//!
//! All that could refuse the packet is asked by [`way`] before the first byte or entry changes, so that a refused
//! packet leaves no trace but its verdict.

use kplb_common::{
    backend::{Backend, BackendState, Location},
    checksum,
    flow::{Direction, Flow},
    fragment,
    net::Mac,
    node::Node,
    verdict::{DropReason, ForwardReason, PassReason, ResetReason, Verdict},
};

use crate::{
    family::Family,
    layout::{Layout, Part},
    maps,
    packet::{Ethernet, L4Checksum, Packet, Ports, Tcp, Udp, Word},
    parse::Parsed,
};

/// Where a packet goes next.
#[derive(Clone, Copy)]
pub struct Way {
    reason: ForwardReason,
    /// Of no meaning for a backend on this node.
    next_hop: Mac,
}

impl Way {
    /// Whether a client's frame brought the packet.
    #[inline(always)]
    pub fn comes_from_client(self) -> bool {
        !matches!(self.reason, ForwardReason::ToClient)
    }

    /// Whether the packet stays on this node.
    #[inline(always)]
    pub fn ends_here(self) -> bool {
        matches!(self.reason, ForwardReason::ToLocalBackend)
    }
}

/// The way of a packet that came in, or the verdict that it cannot go.
#[inline(always)]
pub fn way<F: Family, P: Packet>(packet: &P, layout: &impl Layout, flow: &Flow<F::Address>) -> Result<Way, Verdict> {
    let is_local = flow.location == Location::Local as u8;
    let is_reply = flow.direction == Direction::ToClient as u8;
    if is_reply && is_local {
        // The reply of a backend on this node does not come in by the wire.
        return Err(Verdict::Pass(PassReason::NotOurs));
    }
    let backend = serving(flow.backend).map_err(Verdict::Reset)?;
    if !is_reply {
        return way_to_backend::<F, P>(packet, layout, backend, is_local);
    }
    check_hops::<F, P>(packet, layout)?;
    Ok(Way { reason: ForwardReason::ToClient, next_hop: flow.client_mac.by_words() })
}

/// The backend of a flow, if its packets are sent on.
#[inline(always)]
pub fn serving(id: u16) -> Result<&'static Backend, ResetReason> {
    match maps::backend(id) {
        Some(backend) if backend.is_serving() => Ok(backend),
        Some(backend) if backend.state == BackendState::Down as u8 => Err(ResetReason::BackendDown),
        _ => Err(ResetReason::BackendGone),
    }
}

/// The way to a backend; `is_local` as the flow has it.
#[inline(always)]
pub fn way_to_backend<F: Family, P: Packet>(
    packet: &P,
    layout: &impl Layout,
    backend: &Backend,
    is_local: bool,
) -> Result<Way, Verdict> {
    if is_local {
        return Ok(Way { reason: ForwardReason::ToLocalBackend, next_hop: Mac::UNRESOLVED });
    }
    check_hops::<F, P>(packet, layout)?;
    if backend.mac == Mac::UNRESOLVED {
        return Err(Verdict::Drop(DropReason::NoNeighbour));
    }
    Ok(Way { reason: ForwardReason::ToBackend, next_hop: backend.mac.by_words() })
}

/// A packet that is sent on needs a hop for it (RFC 1812, 5.3.1; RFC 8200, section 3).
#[inline(always)]
fn check_hops<F: Family, P: Packet>(packet: &P, layout: &impl Layout) -> Result<(), Verdict> {
    match packet.header::<F::Header>(layout.l3()) {
        Some(ip) if F::hops(ip) > 1 => Ok(()),
        _ => Err(Verdict::Drop(DropReason::TtlExpired)),
    }
}

/// Addresses the frame to the next hop, for which the packet gives one of its own. Returns what [`Family::take_hop`] does.
#[inline(always)]
pub fn set_out<F: Family, P: Packet>(packet: &P, layout: &impl Layout, node: &Node, way: &Way) -> u16 {
    if let Some(ethernet) = packet.header::<Ethernet>(0) {
        ethernet.destination = way.next_hop;
        ethernet.source = node.mac.by_words();
    }
    packet.header::<F::Header>(layout.l3()).map_or(0, F::take_hop)
}

/// Rewrites a packet that came in, and counts it.
#[inline(always)]
pub fn send<F: Family, P: Packet>(
    packet: &P,
    parsed: &Parsed<F::Address, impl Layout>,
    node: &Node,
    flow: &Flow<F::Address>,
    way: Way,
) -> Verdict {
    let of_hop = if way.ends_here() { 0 } else { set_out::<F, P>(packet, &parsed.layout, node, &way) };
    translate::<F, P>(packet, parsed, flow, of_hop);
    let direction = if way.comes_from_client() { Direction::ToBackend } else { Direction::ToClient };
    count(flow.backend, direction, parsed.shape.ip_length);
    Verdict::Forward(way.reason)
}

/// Whether the flow is that of a reply that leaves this node.
#[inline(always)]
pub fn is_local_reply<A>(flow: &Flow<A>) -> bool {
    flow.direction == Direction::ToClient as u8 && flow.location == Location::Local as u8
}

/// Rewrites the reply of a backend on this node, and counts it.
#[inline(always)]
pub fn reverse_local<F: Family, P: Packet>(
    packet: &P,
    parsed: &Parsed<F::Address, impl Layout>,
    flow: &Flow<F::Address>,
) -> Verdict {
    translate::<F, P>(packet, parsed, flow, 0);
    count(flow.backend, Direction::ToClient, parsed.shape.ip_length);
    Verdict::Forward(ForwardReason::ToClientLocal)
}

/// Replaces addresses and ports, and mends the checksums; `of_hop` is by what that of the IP header is to be mended
/// besides.
#[inline(always)]
fn translate<F: Family, P: Packet>(
    packet: &P,
    parsed: &Parsed<F::Address, impl Layout>,
    flow: &Flow<F::Address>,
    of_hop: u16,
) {
    let layout = &parsed.layout;
    let mut delta = checksum::sum(flow.address_delta, of_hop);
    if layout.part() != Part::WHOLE
        && let Some(id) = packet.header::<Word>(layout.id_at())
    {
        let before = id.0;
        id.0 ^= fragment::renumbering(flow.source_port, flow.destination_port);
        delta = checksum::sum(delta, checksum::delta(u64::from(before), u64::from(id.0)));
    }
    if let Some(ip) = packet.header::<F::Header>(layout.l3()) {
        F::set_addresses(ip, &flow.source, &flow.destination);
        F::mend(ip, delta);
    }
    if layout.part() == Part::LATER {
        return;
    }
    let l4 = layout.l4::<F>();
    if let Some(ports) = packet.header::<Ports>(l4) {
        ports.source = flow.source_port;
        ports.destination = flow.destination_port;
    }
    let (offset, which) = if parsed.is_tcp() {
        (core::mem::offset_of!(Tcp, checksum), L4Checksum::Tcp)
    } else {
        (core::mem::offset_of!(Udp, checksum), L4Checksum::Udp)
    };
    packet.update_l4_checksum::<F>(l4 + offset, which, flow.deltas());
}

#[inline(always)]
fn count(backend: u16, direction: Direction, bytes: u16) {
    if let Some(stats) = maps::backend_stats(backend) {
        stats.count(direction, bytes);
    }
}
