//! A second, plain implementation of the data path, to compare the programs with.
//!
//! Written from the description of the data path and not from the programs, it shares with them only what is one
//! definition for both sides: hashes, ring slots, states of flows, NAT ports, the gate. Clarity over speed: byte
//! slices, hash maps, checksums word by word.
//!
//! What the description leaves open is as the programs have it: a flow whose own port is taken gets another one, towards
//! this node too; a reply of a backend on this node that comes in by the wire is passed; at egress, all that is neither
//! the reply of a flow to a backend on this node nor a claim to a fenced VIP is passed.

mod fence;
mod flows;
mod fragments;
mod icmp;
mod open;
mod parse;
mod rewrite;
mod strange;

mod frame;
pub mod generate;
mod mutate;
mod pieces;
mod question;
pub mod world;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

pub use fence::Lease;
pub use flows::{Flow, Flows, Place, Proof, Tuple};
use fragments::Fragments;
use icmp::{Complaint, Reporter};
use kplb::{
    config::Protocol,
    model::{Desired, Endpoint, Family},
};
use kplb_common::{
    backend::{Backend, BackendState},
    flow::Direction,
    flow_state::{ACK, FlowState, RST, next_tcp, next_udp, opens},
    gate,
    net::{Be16, Ip4, Ip6, TCP},
    stats::BackendStats,
    verdict::{DropReason, ForwardReason, PassReason, ResetReason, Verdict},
};
use parse::{Parsed, Piece, Segment, Tagged, long};

use crate::{
    frames::cut_padding,
    testbed::{Hook, Ingress, Output},
};

const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);

/// The model, its flows and its leases.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    flows: Flows,
    fragments: Fragments,
    leases: [Lease; 2],
    traffic: HashMap<u16, BackendStats>,
}

impl Reference {
    /// The flows.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Gives or takes the lease of a family.
    pub fn set_lease(&mut self, family: Family, lease: Lease) {
        self.leases[usize::from(family == Family::V6)] = lease;
    }

    /// A backend's traffic.
    pub fn traffic(&self, backend: u16) -> BackendStats {
        self.traffic.get(&backend).copied().unwrap_or_default()
    }

    /// A backend is no more, and with it what it has had.
    pub fn forget(&mut self, backend: u16) {
        self.traffic.remove(&backend);
    }

    fn count(&mut self, backend: u16, direction: Direction, place: &parse::Place) {
        let stats = self.traffic.entry(backend).or_default();
        stats.packets[direction as usize] += 1;
        stats.bytes[direction as usize] += (place.end - place.l3) as u64;
    }

    /// What becomes of a frame at a hook.
    pub fn judge(&mut self, desired: &Desired, ingress: Ingress, hook: Hook, frame: &[u8]) -> (Verdict, Output) {
        let mut frame = frame.to_vec();
        let verdict = match hook {
            Hook::Ingress => self.ingress(desired, &mut frame),
            Hook::Egress => self.egress(desired, &mut frame),
        };
        if let (Verdict::Reset(_), Ingress::Tc) = (verdict, ingress) {
            // XDP leaves it as padding.
            cut_padding(&mut frame);
        }
        let action = ingress.action(hook, verdict);
        (verdict, Output { action, frame })
    }

    fn ingress(&mut self, desired: &Desired, frame: &mut [u8]) -> Verdict {
        let Some(tagged) = enter(desired, frame) else { return NOT_OURS };
        if let Some(target) = fence::asked(frame, &tagged)
            && let Some(lease) = self.needed_lease(desired, target)
        {
            return match lease {
                Lease::Fresh => Verdict::Pass(PassReason::Leased),
                Lease::Over => Verdict::Drop(DropReason::Fenced),
            };
        }
        if frame[..6] != desired.node.mac.octets() {
            return self.strange_ingress(desired, frame, &tagged);
        }
        if !is_ip(&tagged) {
            return Verdict::Pass(PassReason::NotIp);
        }
        match parse::ip(frame, tagged.l3, tagged.ethertype) {
            Parsed::Refused(destination, reason) if desired.vips.contains_key(&destination) => Verdict::Drop(reason),
            Parsed::Other | Parsed::Refused(..) => NOT_OURS,
            Parsed::Icmp(place) => match icmp::complaint(frame, place) {
                Some(complaint) => self.error_ingress(desired, frame, &complaint),
                None => NOT_OURS,
            },
            Parsed::Later(place, piece) => self.later_ingress(desired, frame, &place, &piece),
            Parsed::Segment(segment) => {
                if !may_be_ours(desired, &segment.tuple) {
                    return NOT_OURS;
                }
                let verdict = self.segment_ingress(desired, frame, &segment);
                self.note_first(&segment, verdict);
                verdict
            }
        }
    }

    fn segment_ingress(&mut self, desired: &Desired, frame: &mut [u8], segment: &Segment) -> Verdict {
        let tuple = &segment.tuple;
        if let Some((flow, direction)) = self.find(desired, segment) {
            return self.hit(desired, frame, segment, flow, direction);
        }
        if let Some(service) = desired.services.get(&endpoint(tuple.destination, tuple.protocol)) {
            return match open::open(&self.flows, desired, service, frame, segment) {
                Ok(flow) => {
                    self.flows.insert(flow);
                    self.traffic.entry(flow.backend).or_default().flows += 1;
                    self.count(flow.backend, Direction::ToBackend, &segment.place);
                    send(desired, frame, &segment.place, segment.piece.as_ref(), &flow, Direction::ToBackend)
                }
                Err(verdict) => refuse(frame, segment, verdict),
            };
        }
        NOT_OURS
    }

    /// A datagram in fragments is known from its first one on, if that is sent on.
    fn note_first(&mut self, segment: &Segment, verdict: Verdict) {
        match (&segment.piece, verdict) {
            (Some(piece), Verdict::Forward(_)) => self.fragments.begin(piece, segment.tuple),
            (Some(piece), _) => self.fragments.forget(piece),
            (None, _) => {}
        }
    }

    /// A fragment that came in and is not the first. It changes no flow.
    fn later_ingress(&mut self, desired: &Desired, frame: &mut [u8], place: &parse::Place, piece: &Piece) -> Verdict {
        let Some(tuple) = self.fragments.tuple(piece) else {
            let is_for_vip = desired.vips.contains_key(&piece.of.1);
            return if is_for_vip { Verdict::Drop(DropReason::FragmentUnknown) } else { NOT_OURS };
        };
        let Some((flow, direction)) = self.flows.find(&tuple) else { return Verdict::Drop(DropReason::UnknownFlow) };
        match refusal(desired, frame, place.l3, &flow, direction) {
            Some(Verdict::Reset(reason)) => return Verdict::Drop(instead(reason)),
            Some(verdict) => return verdict,
            None => {}
        }
        if self.fragments.repeats(piece) {
            return Verdict::Drop(DropReason::FragmentOverlap);
        }
        self.count(flow.backend, direction, place);
        send(desired, frame, place, Some(piece), &flow, direction)
    }

    /// An error that came in. It changes no flow.
    fn error_ingress(&self, desired: &Desired, frame: &mut [u8], complaint: &Complaint) -> Verdict {
        let answer = &complaint.answer;
        if !may_be_ours(desired, answer) {
            return NOT_OURS;
        }
        let Some((flow, direction)) = self.flows.find(answer) else {
            let is_of_service = desired.services.contains_key(&endpoint(answer.destination, answer.protocol));
            return if is_of_service { Verdict::Drop(DropReason::IcmpUnknownFlow) } else { NOT_OURS };
        };
        match refusal(desired, frame, complaint.place.l3, &flow, direction) {
            Some(Verdict::Reset(reason)) => return Verdict::Drop(instead(reason)),
            Some(verdict) => return verdict,
            None => {}
        }
        let rewritten = flow.rewritten(direction);
        if (direction, flow.place) == (Direction::ToBackend, Place::Local) {
            icmp::translate(frame, complaint, &rewritten, Reporter::Same);
            return Verdict::Forward(ForwardReason::IcmpToLocalBackend);
        }
        icmp::translate(frame, complaint, &rewritten, Reporter::LikeAnswer);
        let (next_hop, reason) = match direction {
            Direction::ToBackend => (desired.backends[&flow.backend].mac.octets(), ForwardReason::IcmpToBackend),
            Direction::ToClient => (flow.client_mac, ForwardReason::IcmpToClient),
        };
        rewrite::forward(frame, complaint.place.l3, desired.node.mac.octets(), next_hop);
        Verdict::Forward(reason)
    }

    /// An error that is about to leave.
    fn error_egress(&self, desired: &Desired, frame: &mut [u8], complaint: &Complaint) -> Verdict {
        match self.flows.find(&complaint.answer) {
            Some((flow, Direction::ToClient)) if flow.place == Place::Local => {
                if let Err(reason) = serving(desired, flow.backend) {
                    return Verdict::Drop(instead(reason));
                }
                icmp::translate(frame, complaint, &flow.rewritten(Direction::ToClient), Reporter::LikeAnswer);
                Verdict::Forward(ForwardReason::IcmpToClientLocal)
            }
            _ => NOT_OURS,
        }
    }

    fn egress(&mut self, desired: &Desired, frame: &mut [u8]) -> Verdict {
        let Some(tagged) = enter(desired, frame) else { return NOT_OURS };
        let claimed = fence::claimed(frame, &tagged);
        if let Some(lease) = claimed.into_iter().find_map(|address| self.needed_lease(desired, address)) {
            return match lease {
                Lease::Fresh => Verdict::Pass(PassReason::LeasedClaim),
                Lease::Over => Verdict::Drop(DropReason::FencedClaim),
            };
        }
        if !is_ip(&tagged) {
            return Verdict::Pass(PassReason::NotIp);
        }
        match parse::ip(frame, tagged.l3, tagged.ethertype) {
            Parsed::Other | Parsed::Refused(..) => NOT_OURS,
            Parsed::Icmp(place) => match icmp::complaint(frame, place) {
                Some(complaint) => self.error_egress(desired, frame, &complaint),
                None => NOT_OURS,
            },
            Parsed::Later(place, piece) => self.later_egress(desired, frame, &place, &piece),
            Parsed::Segment(segment) => {
                if !in_gate(desired, segment.tuple.source, segment.tuple.protocol) {
                    return NOT_OURS;
                }
                let verdict = self.segment_egress(desired, frame, &segment);
                self.note_first(&segment, verdict);
                verdict
            }
        }
    }

    fn segment_egress(&mut self, desired: &Desired, frame: &mut [u8], segment: &Segment) -> Verdict {
        match self.flows.find(&segment.tuple) {
            Some((mut flow, Direction::ToClient)) if flow.place == Place::Local => {
                if let Err(reason) = serving(desired, flow.backend) {
                    return Verdict::Drop(instead(reason));
                }
                advance(&mut flow, Direction::ToClient, frame, segment);
                self.flows.update(flow);
                self.count(flow.backend, Direction::ToClient, &segment.place);
                let rewritten = flow.rewritten(Direction::ToClient);
                rewrite::set_tuple(frame, &segment.place, segment.piece.as_ref(), &rewritten);
                Verdict::Forward(ForwardReason::ToClientLocal)
            }
            _ => NOT_OURS,
        }
    }

    /// A fragment that is about to leave and is not the first.
    fn later_egress(&mut self, desired: &Desired, frame: &mut [u8], place: &parse::Place, piece: &Piece) -> Verdict {
        let Some(tuple) = self.fragments.tuple(piece) else { return NOT_OURS };
        match self.flows.find(&tuple) {
            None => Verdict::Drop(DropReason::UnknownFlow),
            Some((flow, Direction::ToClient)) if flow.place == Place::Local => {
                if let Err(reason) = serving(desired, flow.backend) {
                    return Verdict::Drop(instead(reason));
                }
                if self.fragments.repeats(piece) {
                    return Verdict::Drop(DropReason::FragmentOverlap);
                }
                self.count(flow.backend, Direction::ToClient, place);
                rewrite::set_tuple(frame, place, Some(piece), &flow.rewritten(Direction::ToClient));
                Verdict::Forward(ForwardReason::ToClientLocal)
            }
            Some(_) => NOT_OURS,
        }
    }

    /// The lease on an address, if that is a fenced VIP.
    fn needed_lease(&self, desired: &Desired, address: IpAddr) -> Option<Lease> {
        let is_fenced = desired.vips.get(&address).is_some_and(|vip| vip.is_fenced());
        is_fenced.then(|| self.leases[usize::from(address.is_ipv6())])
    }

    /// The flow of a packet. One that has ended, or whose backend is not serving, makes way for a new one.
    fn find(&mut self, desired: &Desired, segment: &Segment) -> Option<(Flow, Direction)> {
        let (flow, direction) = self.flows.find(&segment.tuple)?;
        let may_open = !is_tcp(segment) || opens(segment.flags);
        let is_over = flow.state == FlowState::Closing
            || direction == Direction::ToBackend && serving(desired, flow.backend).is_err();
        if may_open && is_over {
            self.flows.remove(&flow);
            return None;
        }
        Some((flow, direction))
    }

    fn hit(
        &mut self,
        desired: &Desired,
        frame: &mut [u8],
        segment: &Segment,
        mut flow: Flow,
        direction: Direction,
    ) -> Verdict {
        if let Some(verdict) = refusal(desired, frame, segment.place.l3, &flow, direction) {
            return refuse(frame, segment, verdict);
        }
        if direction == Direction::ToBackend {
            flow.client_mac.copy_from_slice(&frame[6..12]);
        }
        advance(&mut flow, direction, frame, segment);
        self.flows.update(flow);
        self.count(flow.backend, direction, &segment.place);
        send(desired, frame, &segment.place, segment.piece.as_ref(), &flow, direction)
    }
}

/// What is behind a frame's tags, if they are those of the node's VLAN.
fn enter(desired: &Desired, frame: &[u8]) -> Option<Tagged> {
    let vlan = desired.node.vlan.0.into_iter().take_while(|identifier| *identifier != 0);
    parse::tags(frame).filter(|tagged| vlan.eq(tagged.vlan.iter().copied()))
}

fn is_ip(tagged: &Tagged) -> bool {
    [0x0800, 0x86dd].contains(&tagged.ethertype)
}

fn is_tcp(segment: &Segment) -> bool {
    segment.tuple.protocol == TCP
}

fn node_address(desired: &Desired, alike: SocketAddr) -> IpAddr {
    match alike {
        SocketAddr::V4(_) => IpAddr::V4(desired.node.ipv4.into()),
        SocketAddr::V6(_) => IpAddr::V6(desired.node.ipv6.into()),
    }
}

fn endpoint(address: SocketAddr, protocol: u8) -> Endpoint {
    Endpoint { address, protocol: if protocol == TCP { Protocol::Tcp } else { Protocol::Udp } }
}

/// To an endpoint of ours, or from one to this node.
fn may_be_ours(desired: &Desired, tuple: &Tuple) -> bool {
    let for_nat_port = tuple.destination.ip() == node_address(desired, tuple.destination)
        && desired.node.is_nat_port(tuple.destination.port());
    let from_backend = for_nat_port && in_gate(desired, tuple.source, tuple.protocol);
    in_gate(desired, tuple.destination, tuple.protocol) || from_backend
}

fn in_gate(desired: &Desired, address: SocketAddr, protocol: u8) -> bool {
    let port = Be16::from_host(address.port());
    match address.ip() {
        IpAddr::V4(v4) => gate::may_pass(&desired.gate, &Ip4::from(v4), port, protocol),
        IpAddr::V6(v6) => gate::may_pass(&desired.gate, &Ip6::from(v6), port, protocol),
    }
}

/// The backend with this id, if its flows' packets are sent on.
fn serving(desired: &Desired, id: u16) -> Result<&Backend, ResetReason> {
    match desired.backends.get(&id) {
        Some(backend) if backend.state == BackendState::Serving as u8 => Ok(backend),
        Some(backend) if backend.state == BackendState::Down as u8 => Err(ResetReason::BackendDown),
        _ => Err(ResetReason::BackendGone),
    }
}

/// Why a packet of a flow cannot go on.
fn refusal(desired: &Desired, frame: &[u8], l3: usize, flow: &Flow, direction: Direction) -> Option<Verdict> {
    match (direction, flow.place) {
        (Direction::ToBackend, _) => match serving(desired, flow.backend) {
            Err(reason) => Some(Verdict::Reset(reason)),
            Ok(backend) => towards_backend(frame, l3, backend, flow.place).err(),
        },
        (Direction::ToClient, Place::Local) => Some(NOT_OURS),
        (Direction::ToClient, Place::Remote) => match serving(desired, flow.backend) {
            Err(reason) => Some(Verdict::Reset(reason)),
            Ok(_) => (!rewrite::has_hop(frame, l3)).then_some(Verdict::Drop(DropReason::TtlExpired)),
        },
    }
}

/// Whether a packet can go to a backend that exists.
fn towards_backend(frame: &[u8], l3: usize, backend: &Backend, place: Place) -> Result<(), Verdict> {
    if place == Place::Local {
        return Ok(());
    }
    if !rewrite::has_hop(frame, l3) {
        return Err(Verdict::Drop(DropReason::TtlExpired));
    }
    if backend.mac.octets() == [0; 6] {
        return Err(Verdict::Drop(DropReason::NoNeighbour));
    }
    Ok(())
}

/// Answers with a reset what can be answered with one.
fn refuse(frame: &mut [u8], segment: &Segment, verdict: Verdict) -> Verdict {
    let Verdict::Reset(reason) = verdict else { return verdict };
    // How much of the sequence space a fragment's datagram takes is not known.
    let can_be_answered = segment.flags & ACK != 0 || segment.piece.is_none();
    if is_tcp(segment) && segment.flags & RST == 0 && can_be_answered {
        rewrite::reset(frame, segment);
        return verdict;
    }
    Verdict::Drop(instead(reason))
}

/// Why a packet is dropped that cannot be answered.
fn instead(reason: ResetReason) -> DropReason {
    match reason {
        ResetReason::UnknownFlow => DropReason::UnknownFlow,
        ResetReason::NoBackend => DropReason::NoBackend,
        ResetReason::BackendGone => DropReason::BackendGone,
        ResetReason::BackendDown => DropReason::BackendDown,
    }
}

fn send(
    desired: &Desired,
    frame: &mut [u8],
    place: &parse::Place,
    piece: Option<&Piece>,
    flow: &Flow,
    direction: Direction,
) -> Verdict {
    let node = desired.node.mac.octets();
    let reason = match (direction, flow.place) {
        (Direction::ToBackend, Place::Local) => ForwardReason::ToLocalBackend,
        (Direction::ToBackend, Place::Remote) => {
            rewrite::forward(frame, place.l3, node, desired.backends[&flow.backend].mac.octets());
            ForwardReason::ToBackend
        }
        (Direction::ToClient, _) => {
            rewrite::forward(frame, place.l3, node, flow.client_mac);
            ForwardReason::ToClient
        }
    };
    rewrite::set_tuple(frame, place, piece, &flow.rewritten(direction));
    Verdict::Forward(reason)
}

/// Moves a flow on by a packet that has not been changed yet.
fn advance(flow: &mut Flow, direction: Direction, frame: &[u8], segment: &Segment) {
    let before = flow.state;
    if !is_tcp(segment) {
        flow.state = next_udp(before, direction);
        if flow.state.is_assured() {
            flow.proof = Proof::Given;
        }
        return;
    }
    let (sequence, acknowledgement) = (long(frame, segment.place.l4 + 4), long(frame, segment.place.l4 + 8));
    let acknowledges = acknowledgement.wrapping_sub(flow.acknowledged[direction as usize]) <= i32::MAX as u32;
    flow.state = next_tcp(before, direction, segment.flags, acknowledges);
    let is_first_proof = flow.proof == Proof::Missing && flow.state.is_assured();
    if before == FlowState::SynSent && flow.state == FlowState::SynAcked {
        flow.acknowledged = [sequence.wrapping_add(1); 2];
    }
    if is_first_proof {
        flow.proof = Proof::Given;
        // What comes from the client is what the backend expects next.
        flow.acknowledged[Direction::ToClient as usize] = sequence;
    }
    if flow.proof == Proof::Given && segment.flags & ACK != 0 {
        flow.acknowledged[direction as usize] = acknowledgement;
    }
}
