//! The fence: who asks for a fenced VIP is not answered unless this node's lease is fresh (see `kplb_common::fence`).
//!
//! The kernel answers by itself for every address on an interface, so what must not be answered must not reach it. What
//! it would not answer either passes: replies, advertisements, announcements, and what is malformed. Each question ends
//! in a verdict of its own kind, `Leased` or `Fenced`, so that the counters tell a node that answers from one that could.
//!
//! What is asked by unicast is a question, too: neighbours probe an address at the MAC address that they know (RFC 1122,
//! section 2.3.2.1; RFC 4861, section 7.3.3), and would go on sending to a node that has lost its VIP for as long as it
//! answers.
//!
//! Left to the kernel: frames with a VLAN tag, and solicitations behind an IPv6 extension header, which nobody sends
//! (fragments would even be ignored: RFC 6980, section 5).

use kplb_common::{
    fence::lease_index,
    net::{Be16, ETHERTYPE_IPV4, ICMPV6, Ip4},
    verdict::{DropReason, PassReason, Verdict},
};

use crate::{
    emit::Outcome,
    family::{Family, V4, V6},
    maps,
    packet::{Arp, Ethernet, Ipv6, Packet, Solicitation},
};

/// Hardware types of ARP (IANA "Hardware Types"): the kernel takes both on Ethernet (`arp_process` in `net/ipv4/arp.c`).
const ETHERNET: u16 = Be16::from_host(1).to_wire();
const IEEE_802: u16 = Be16::from_host(6).to_wire();

const IPV4: u16 = Be16::from_host(ETHERTYPE_IPV4).to_wire();
/// `ares_op$REQUEST` of RFC 826.
const REQUEST: u16 = Be16::from_host(1).to_wire();

/// ICMPv6 type of a neighbour solicitation (RFC 4861, section 4.3).
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Of all neighbour discovery: no router has forwarded it (RFC 4861, section 7.1.1).
const HOP_LIMIT: u8 = 255;

/// An ARP packet; undecided if it is no question for a fenced VIP.
///
/// A probe (sender 0.0.0.0: RFC 5227, section 2.1.1) is a question: whoever is about to take the VIP over must not hear
/// that this node has it. An announcement, in which sender and target are the same (RFC 5227, section 2.3; also called
/// gratuitous), is none, though its operation may be *request*. It is how the new master says where the VIP is, and this
/// node is a client of it like any other: without it, its neighbour table would name the old master.
#[inline(never)]
pub fn request<P: Packet>(packet: &P) -> Outcome {
    let Some(arp) = packet.header::<Arp>(size_of::<Ethernet>()) else { return Outcome::UNDECIDED };
    let hardware = arp.hardware.to_wire();
    let (sender, target) = (arp.sender, arp.target);
    let is_question = (hardware == ETHERNET || hardware == IEEE_802)
        && arp.protocol.to_wire() == IPV4
        && usize::from(arp.hardware_length) == size_of_val(&arp.sender_mac.octets())
        && usize::from(arp.protocol_length) == size_of::<Ip4>()
        && arp.operation.to_wire() == REQUEST
        && sender != target;
    if is_question { judge::<V4>(&target) } else { Outcome::UNDECIDED }
}

/// An IPv6 packet; undecided if it is no question for a fenced VIP.
///
/// Here an announcement is a message of its own, so every solicitation is a question: also that of a node which looks for
/// a duplicate before it takes the VIP over (RFC 4862, section 5.4.2).
#[inline(never)]
pub fn solicitation<P: Packet>(packet: &P) -> Outcome {
    let (Some(ip), Some(solicitation)) =
        (packet.header::<Ipv6>(size_of::<Ethernet>()), packet.header::<Solicitation>(V6::L4_OFFSET))
    else {
        return Outcome::UNDECIDED;
    };
    let is_question = ip.version_class_label.to_host() >> 28 == 6
        && ip.next_header == ICMPV6
        && ip.hop_limit == HOP_LIMIT
        && usize::from(ip.payload_length.to_host()) >= size_of::<Solicitation>()
        && solicitation.kind == NEIGHBOUR_SOLICITATION
        && solicitation.code == 0;
    if is_question { judge::<V6>(&solicitation.target) } else { Outcome::UNDECIDED }
}

#[inline(always)]
fn judge<F: Family>(target: &F::Address) -> Outcome {
    if !maps::get(F::vips(), target).is_some_and(|vip| vip.is_fenced()) {
        return Outcome::UNDECIDED;
    }
    match maps::lease(lease_index::<F::Address>()) {
        Some(lease) if lease.is_fresh(now_ns()) => Verdict::Pass(PassReason::Leased).into(),
        _ => Verdict::Drop(DropReason::Fenced).into(),
    }
}

/// The time: nanoseconds of the boot-time clock (see `kplb_common::fence::Lease`), exact. Questions are few, and the time
/// that two nodes answer for a VIP is not to be longer by a tick.
///
/// # Minimum kernel version
/// 5.8
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: takes nothing, and only reads the clock.
    unsafe { aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns() }
}
