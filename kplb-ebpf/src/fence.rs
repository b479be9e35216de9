//! The fence: while this node's lease on a fenced VIP is not fresh, whoever asks for the VIP is not answered, and nobody
//! is told that it is here (see `kplb_common::fence`).
//!
//! The kernel answers by itself for every address on an interface, so what must not be answered must not reach it: a
//! *question*, at ingress. What it would not answer either passes: replies, advertisements, announcements, and what is
//! malformed. And the kernel speaks by itself in the name of every address that something sends from, so what must not be
//! heard must not leave: a *claim*, at egress. Each ends in a verdict of its own kind, `Leased` or `Fenced`,
//! `LeasedClaim` or `FencedClaim`, so that the counters tell a node that answers and speaks from one that could.
//!
//! What is asked by unicast is a question, too: neighbours probe an address at the MAC address that they know (RFC 1122,
//! section 2.3.2.1; RFC 4861, section 7.3.3), and would go on sending to a node that has lost its VIP for as long as it
//! answers.
//!
//! What is in another VLAN than the node's is about other addresses, and never comes here. Left to the kernel: neighbour
//! discovery behind an IPv6 extension header, which nobody sends (fragments would even be ignored: RFC 6980, section 5).

use kplb_common::{
    fence::lease_index,
    net::{Be16, ETHERTYPE_IPV4, ICMPV6, Ip4},
    verdict::{DropReason, PassReason, Verdict},
};

use crate::{
    emit::Outcome,
    family::{Family, V4, V6},
    maps,
    packet::{Arp, Discovery, Ipv6, Packet},
};

/// Hardware types of ARP (IANA "Hardware Types"): the kernel takes both on Ethernet (`arp_process` in `net/ipv4/arp.c`).
const ETHERNET: u16 = Be16::from_host(1).to_wire();
const IEEE_802: u16 = Be16::from_host(6).to_wire();

const IPV4: u16 = Be16::from_host(ETHERTYPE_IPV4).to_wire();
/// `ares_op$REQUEST` of RFC 826.
const REQUEST: u16 = Be16::from_host(1).to_wire();

/// ICMPv6 type of a neighbour solicitation (RFC 4861, section 4.3).
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement (RFC 4861, section 4.4).
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Of all neighbour discovery: no router has forwarded it (RFC 4861, sections 7.1.1 and 7.1.2).
const HOP_LIMIT: u8 = 255;

/// What becomes of a packet about a fenced VIP while the lease is fresh, and while it is not.
type Verdicts = (PassReason, DropReason);

const QUESTION: Verdicts = (PassReason::Leased, DropReason::Fenced);
const CLAIM: Verdicts = (PassReason::LeasedClaim, DropReason::FencedClaim);

/// An ARP packet that came in; undecided if it is no question for a fenced VIP.
///
/// A probe (sender 0.0.0.0: RFC 5227, section 2.1.1) is a question: whoever is about to take the VIP over must not hear
/// that this node has it. An announcement, in which sender and target are the same (RFC 5227, section 2.3; also called
/// gratuitous), is none, though its operation may be *request*. It is how the new master says where the VIP is, and this
/// node is a client of it like any other: without it, its neighbour table would name the old master.
#[inline(never)]
pub fn request<P: Packet>(packet: &P, l3: usize) -> Outcome {
    let Some(arp) = arp(packet, l3) else { return Outcome::UNDECIDED };
    let (sender, target) = (arp.sender, arp.target);
    let is_question = arp.operation.to_wire() == REQUEST && sender != target;
    if is_question { judge::<V4>(&target, QUESTION) } else { Outcome::UNDECIDED }
}

/// An ARP packet that is about to leave; undecided if it is no claim to a fenced VIP.
///
/// Whoever receives it takes note of its sender before looking at its operation (RFC 826, "Packet Reception"), so all of
/// them count. The kernel's own requests name the address that is sent from (`arp_solicit` in `net/ipv4/arp.c`, unless
/// `arp_announce` is set). A probe for the VIP is no claim: its sender is 0.0.0.0.
#[inline(never)]
pub fn arp_claim<P: Packet>(packet: &P, l3: usize) -> Outcome {
    let Some(arp) = arp(packet, l3) else { return Outcome::UNDECIDED };
    let sender = arp.sender;
    judge::<V4>(&sender, CLAIM)
}

/// An IPv6 packet that came in; undecided if it is no question for a fenced VIP.
///
/// Here an announcement is a message of its own, so every solicitation is a question: also that of a node which looks for
/// a duplicate before it takes the VIP over (RFC 4862, section 5.4.2).
#[inline(never)]
pub fn solicitation<P: Packet>(packet: &P, l3: usize) -> Outcome {
    match discovery(packet, l3) {
        Some((_, solicitation)) if solicitation.kind == NEIGHBOUR_SOLICITATION => {
            judge::<V6>(&solicitation.target, QUESTION)
        }
        _ => Outcome::UNDECIDED,
    }
}

/// An IPv6 packet that is about to leave; undecided if it is no claim to a fenced VIP.
///
/// A solicitation tells where its source is (RFC 4861, section 7.2.3), an advertisement where its target is (section
/// 7.2.5). The source of an advertisement is no news to those who go by the RFC; that it names a VIP is refused all the
/// same. A search for duplicates of the VIP is no claim: it comes from the unspecified address.
#[inline(never)]
pub fn discovery_claim<P: Packet>(packet: &P, l3: usize) -> Outcome {
    let Some((ip, discovery)) = discovery(packet, l3) else { return Outcome::UNDECIDED };
    match discovery.kind {
        NEIGHBOUR_SOLICITATION => judge::<V6>(&ip.source, CLAIM),
        NEIGHBOUR_ADVERTISEMENT => judge::<V6>(&ip.source, CLAIM).or_else(|| judge::<V6>(&discovery.target, CLAIM)),
        _ => Outcome::UNDECIDED,
    }
}

/// The ARP packet of Ethernet and IPv4 that begins at `l3`, if it is one.
#[inline(always)]
fn arp<P: Packet>(packet: &P, l3: usize) -> Option<&Arp> {
    packet.gather(l3 + size_of::<Arp>());
    let arp = packet.header::<Arp>(l3)?;
    let hardware = arp.hardware.to_wire();
    let is_of_ipv4 = (hardware == ETHERNET || hardware == IEEE_802)
        && arp.protocol.to_wire() == IPV4
        && usize::from(arp.hardware_length) == size_of_val(&arp.sender_mac.octets())
        && usize::from(arp.protocol_length) == size_of::<Ip4>();
    is_of_ipv4.then_some(&*arp)
}

/// The solicitation or advertisement in the IPv6 packet that begins at `l3`, if it may be one: its type is not looked at.
#[inline(always)]
fn discovery<P: Packet>(packet: &P, l3: usize) -> Option<(&Ipv6, &Discovery)> {
    packet.gather(l3 + size_of::<Ipv6>() + size_of::<Discovery>());
    let ip = packet.header::<Ipv6>(l3)?;
    let discovery = packet.header::<Discovery>(l3 + size_of::<Ipv6>())?;
    let is_valid = ip.version_class_label.to_host() >> 28 == 6
        && ip.next_header == ICMPV6
        && ip.hop_limit == HOP_LIMIT
        && usize::from(ip.payload_length.to_host()) >= size_of::<Discovery>()
        && discovery.code == 0;
    is_valid.then_some((&*ip, &*discovery))
}

#[inline(always)]
fn judge<F: Family>(address: &F::Address, (leased, fenced): Verdicts) -> Outcome {
    if !maps::get(F::vips(), address).is_some_and(|vip| vip.is_fenced()) {
        return Outcome::UNDECIDED;
    }
    match maps::lease(lease_index::<F::Address>()) {
        Some(lease) if lease.is_fresh(now_ns()) => Verdict::Pass(leased).into(),
        _ => Verdict::Drop(fenced).into(),
    }
}

/// The time: nanoseconds of the boot-time clock (see `kplb_common::fence::Lease`), exact. Packets about VIPs are few, and
/// the time that two nodes answer for one is not to be longer by a tick.
///
/// # Minimum kernel version
/// 5.8
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: takes nothing, and only reads the clock.
    unsafe { aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns() }
}
