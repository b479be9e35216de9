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
    fence, icmp,
    layout::{Layout, Part, Plain, Walked},
    maps,
    packet::{Packet, Ports, Tcp, Udp},
};

const NOT_OURS: Verdict = Verdict::Pass(PassReason::NotOurs);

/// A packet that the pipeline can work on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Parsed<A, L> {
    /// Its 5-tuple.
    pub key: FlowKey<A>,
    /// What it is besides.
    pub shape: Shape,
    /// Where its headers lie.
    pub layout: L,
}

/// What a packet is, but for its 5-tuple.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Shape {
    pub protocol: u8,
    /// TCP flags; zero for UDP.
    pub flags: u8,
    /// Bytes of the IP packet, header included.
    pub ip_length: u16,
}

impl<A, L> Parsed<A, L> {
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.shape.protocol == TCP
    }
}

/// Why a packet is not for the pipeline, or that it is; in one register, so that a function that is not inlined can return
/// it.
#[repr(transparent)]
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Refusal(u32);

impl Refusal {
    /// It is for the pipeline.
    pub const NONE: Self = Self(0);
    /// Surely nothing of ours.
    pub const NOT_OURS: Self = Self(1);
    /// ICMP, which may be an error about a flow.
    pub const ICMP: Self = Self(2);
    /// ICMPv6, which may be that, or neighbour discovery.
    pub const ICMPV6: Self = Self(3);
    /// Dropped if it is addressed to a VIP, as its lengths or its version contradict each other.
    pub const MALFORMED: Self = Self::if_for_vip(DropReason::Malformed);

    /// Dropped for this reason if it is addressed to a VIP. No outcome is as small as the numbers above.
    #[inline(always)]
    pub const fn if_for_vip(reason: DropReason) -> Self {
        Self(Outcome::new(Verdict::Drop(reason)).to_register())
    }
}

/// The 5-tuple of a packet, of which [`check_plain`] or [`walk`] has approved. The two are apart because a 5-tuple inside
/// of a `Result` would be copied about on the stack.
#[inline(always)]
pub fn key<F: Family>(ip: &F::Header, ports: &Ports, protocol: u8) -> FlowKey<F::Address> {
    FlowKey {
        source: *F::source(ip),
        destination: *F::destination(ip),
        source_port: ports.source,
        destination_port: ports.destination,
        protocol: u32::from(protocol),
    }
}

/// Checks the headers of a frame with the plain layout; the ethertype has been looked at. Whatever is not plain and sound
/// is left undecided, unless it is surely not ours.
#[inline(always)]
pub fn check_plain<F: Family, P: Packet>(packet: &P) -> Result<Shape, Outcome> {
    let Some(ip) = packet.header::<F::Header>(Plain.l3()) else { return Err(Outcome::UNDECIDED) };
    let (protocol, ip_length) = F::check_plain(packet, ip)?;
    let l4_length = usize::from(ip_length) - (F::L4_OFFSET - Plain.l3());
    let flags = match protocol {
        UDP => read_udp(packet, F::L4_OFFSET, l4_length),
        _ => read_tcp(packet, F::L4_OFFSET, l4_length),
    };
    match flags {
        Some(flags) => Ok(Shape { protocol, flags, ip_length }),
        None => Err(Outcome::UNDECIDED),
    }
}

/// Checks the headers of any frame, and fills in layout and shape, of which only the beginning is known.
///
/// Not inlined, and what it finds is in a map: so the verifier forgets by which way, and does not go through all that
/// follows for each.
#[inline(never)]
pub fn walk<F: Family, P: Packet>(packet: &P, parsed: &mut Parsed<F::Address, Walked>) -> Refusal {
    match F::walk(packet, parsed).and_then(|()| check_l4::<F, P>(packet, parsed)) {
        Ok(()) => Refusal::NONE,
        Err(refusal) => refusal,
    }
}

/// Checks what is behind the IP headers.
#[inline(always)]
fn check_l4<F: Family, P: Packet>(packet: &P, parsed: &mut Parsed<F::Address, Walked>) -> Result<(), Refusal> {
    let layout = &parsed.layout;
    if layout.part == Part::LATER {
        return Ok(());
    }
    let l4 = usize::from(layout.l4);
    let l4_length = usize::from(layout.l3) + usize::from(parsed.shape.ip_length) - l4;
    packet.gather(l4 + size_of::<Tcp>());
    let is_first = layout.part == Part::FIRST;
    parsed.shape.flags = match parsed.shape.protocol {
        TCP if is_first => read_first_tcp(packet, l4, l4_length)?,
        UDP if is_first => read_first_udp(packet, l4, l4_length)?,
        TCP => read_tcp(packet, l4, l4_length).ok_or(Refusal::MALFORMED)?,
        UDP => read_udp(packet, l4, l4_length).ok_or(Refusal::MALFORMED)?,
        _ => return Err(F::ICMP),
    };
    Ok(())
}

/// The flags of a TCP segment of `length` bytes, if its header is whole.
#[inline(always)]
fn read_tcp<P: Packet>(packet: &P, l4: usize, length: usize) -> Option<u8> {
    let tcp = packet.header::<Tcp>(l4)?;
    let header_length = usize::from(tcp.data_offset >> 4) * 4;
    (size_of::<Tcp>() <= header_length && header_length <= length).then_some(tcp.flags)
}

/// Zero for a UDP datagram of at most `length` bytes, if its header is whole.
#[inline(always)]
fn read_udp<P: Packet>(packet: &P, l4: usize, length: usize) -> Option<u8> {
    let udp = packet.header::<Udp>(l4)?;
    let claimed = usize::from(udp.length.to_host());
    (size_of::<Udp>() <= claimed && claimed <= length).then_some(0)
}

/// As [`read_tcp`], of a first fragment which has `length` bytes of the segment: the whole header must be among them, or
/// its ports and flags could be changed by what follows (RFC 3128; RFC 7112, section 5).
#[inline(always)]
fn read_first_tcp<P: Packet>(packet: &P, l4: usize, length: usize) -> Result<u8, Refusal> {
    let Some(tcp) = packet.header::<Tcp>(l4).filter(|_| size_of::<Tcp>() <= length) else { return Err(TINY) };
    let header_length = usize::from(tcp.data_offset >> 4) * 4;
    match header_length {
        _ if header_length < size_of::<Tcp>() => Err(Refusal::MALFORMED),
        _ if header_length > length => Err(TINY),
        _ => Ok(tcp.flags),
    }
}

/// As [`read_udp`], of a first fragment. The length is that of the whole datagram.
#[inline(always)]
fn read_first_udp<P: Packet>(packet: &P, l4: usize, length: usize) -> Result<u8, Refusal> {
    let Some(udp) = packet.header::<Udp>(l4).filter(|_| size_of::<Udp>() <= length) else { return Err(TINY) };
    if size_of::<Udp>() <= usize::from(udp.length.to_host()) { Ok(0) } else { Err(Refusal::MALFORMED) }
}

const TINY: Refusal = Refusal::if_for_vip(DropReason::FragmentTiny);

/// The verdict on a refused packet that is about to leave. Whatever is wrong with it, this node sends it: not our
/// business, unless it says where a VIP is, or is an error about a packet to a backend here.
#[inline(always)]
pub fn refuse_egress<F: Family, P: Packet>(packet: &P, node: &Node, layout: &Walked, refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::ICMP => icmp::egress::<F, P>(packet, node, layout),
        Refusal::ICMPV6 => {
            fence::discovery_claim(packet, layout.l3()).or_else(|| icmp::egress::<F, P>(packet, node, layout))
        }
        _ => NOT_OURS.into(),
    }
}

/// The verdict on a refused packet that came in.
#[inline(always)]
pub fn refuse<F: Family, P: Packet>(packet: &P, node: &Node, layout: &Walked, refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::NOT_OURS => NOT_OURS.into(),
        Refusal::ICMP => icmp::ingress::<F, P>(packet, node, layout),
        Refusal::ICMPV6 => {
            fence::solicitation(packet, layout.l3()).or_else(|| icmp::ingress::<F, P>(packet, node, layout))
        }
        Refusal(register) => if_for_vip::<F, P>(packet, layout, Outcome::from_register(register)),
    }
}

/// This outcome for a packet that is addressed to a VIP; any other is passed.
#[inline(always)]
pub fn if_for_vip<F: Family, P: Packet>(packet: &P, layout: &Walked, outcome: Outcome) -> Outcome {
    match packet.header::<F::Header>(layout.l3()) {
        Some(ip) if maps::get(F::vips(), F::destination(ip)).is_some() => outcome,
        _ => NOT_OURS.into(),
    }
}
