//! From bytes to a 5-tuple, refusing all that contradicts itself.
//!
//! After this module has accepted a packet, its TCP or UDP header is whole and within the lengths that its headers
//! claim. What it refuses is dropped only if it is addressed to a VIP, or is a question or a claim about one that is
//! fenced: other traffic is none of our business.

use kplb_common::{
    flow::FlowKey,
    net::{TCP, UDP},
    node::Node,
    verdict::{DropReason, PassReason, Verdict},
};

use crate::{
    emit::Outcome,
    family::Family,
    fence, icmp, maps,
    packet::{Ethernet, Packet, Ports, Tcp, Udp},
};

/// A packet that the pipeline can work on.
pub struct Parsed<A> {
    /// Its 5-tuple.
    pub key: FlowKey<A>,
    /// What [`check`] found out.
    pub shape: Shape,
}

/// What a packet is, but for its 5-tuple.
#[derive(Clone, Copy)]
pub struct Shape {
    pub protocol: u8,
    /// TCP flags; zero for UDP.
    pub flags: u8,
    /// Bytes of the IP packet, header included.
    pub ip_length: u16,
}

impl<A> Parsed<A> {
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.shape.protocol == TCP
    }
}

/// Why a packet is not for the pipeline.
#[derive(Clone, Copy)]
pub enum Refusal {
    /// Surely nothing of ours.
    NotOurs,
    /// ICMP, which may be an error about a flow.
    Icmp,
    /// ICMPv6, which may be that, or neighbour discovery.
    Icmpv6,
    /// Dropped if it is addressed to a VIP.
    IfForVip(DropReason),
}

/// Reads the packet, of which [`check`] has approved. The two are apart because a 5-tuple inside of a `Result` would be
/// copied about on the stack.
#[inline(always)]
pub fn read<F: Family>(ip: &F::Header, ports: &Ports, shape: Shape) -> Parsed<F::Address> {
    Parsed {
        key: FlowKey {
            source: *F::source(ip),
            destination: *F::destination(ip),
            source_port: ports.source,
            destination_port: ports.destination,
            protocol: u32::from(shape.protocol),
        },
        shape,
    }
}

/// Checks the frame's headers; the ethertype has been looked at.
#[inline(always)]
pub fn check<F: Family, P: Packet>(packet: &P) -> Result<Shape, Refusal> {
    let Some(header) = packet.header::<F::Header>(size_of::<Ethernet>()) else { return Err(Refusal::NotOurs) };
    let (protocol, ip_length) = F::check(packet, header)?;
    let l4_length = usize::from(ip_length) - (F::L4_OFFSET - size_of::<Ethernet>());
    let flags = match protocol {
        UDP => read_udp::<F, P>(packet, l4_length),
        _ => read_tcp::<F, P>(packet, l4_length),
    };
    match flags {
        Some(flags) => Ok(Shape { protocol, flags, ip_length }),
        None => Err(Refusal::IfForVip(DropReason::Malformed)),
    }
}

/// The flags of a TCP segment of `length` bytes, if its header is whole.
#[inline(always)]
fn read_tcp<F: Family, P: Packet>(packet: &P, length: usize) -> Option<u8> {
    let tcp = packet.header::<Tcp>(F::L4_OFFSET)?;
    let header_length = usize::from(tcp.data_offset >> 4) * 4;
    (size_of::<Tcp>() <= header_length && header_length <= length).then_some(tcp.flags)
}

/// Zero for a UDP datagram of at most `length` bytes, if its header is whole.
#[inline(always)]
fn read_udp<F: Family, P: Packet>(packet: &P, length: usize) -> Option<u8> {
    let udp = packet.header::<Udp>(F::L4_OFFSET)?;
    let claimed = usize::from(udp.length.to_host());
    (size_of::<Udp>() <= claimed && claimed <= length).then_some(0)
}

/// The verdict on a refused packet that is about to leave. Whatever is wrong with it, this node sends it: not our
/// business, unless it says where a VIP is, or is an error about a packet to a backend here.
#[inline(always)]
pub fn refuse_egress<F: Family, P: Packet>(packet: &P, node: &Node, refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::Icmp => icmp::egress::<F, P>(packet, node),
        Refusal::Icmpv6 => fence::discovery_claim(packet).or_else(|| icmp::egress::<F, P>(packet, node)),
        Refusal::NotOurs | Refusal::IfForVip(_) => Verdict::Pass(PassReason::NotOurs).into(),
    }
}

/// The verdict on a refused packet that came in.
#[inline(always)]
pub fn refuse<F: Family, P: Packet>(packet: &P, node: &Node, refusal: Refusal) -> Outcome {
    let not_ours = Verdict::Pass(PassReason::NotOurs).into();
    match refusal {
        Refusal::NotOurs => not_ours,
        Refusal::Icmp => icmp::ingress::<F, P>(packet, node),
        Refusal::Icmpv6 => fence::solicitation(packet).or_else(|| icmp::ingress::<F, P>(packet, node)),
        Refusal::IfForVip(reason) => match packet.header::<F::Header>(size_of::<Ethernet>()) {
            Some(ip) if maps::get(F::vips(), F::destination(ip)).is_some() => Verdict::Drop(reason).into(),
            _ => not_ours,
        },
    }
}
