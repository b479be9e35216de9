//! A frame that says which MAC address has an IP address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use crate::packet_socket::{Direction, Frame};

/// In which way it is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClaimKind {
    /// As the sender of an ARP request.
    ArpRequest,
    /// As the sender of an ARP reply.
    ArpReply,
    /// By a neighbour advertisement.
    NeighbourAdvertisement,
}

/// Why it is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Occasion {
    /// To tell all of the segment: a gratuitous ARP, an unsolicited advertisement.
    Announcement,
    /// By the way, as the source that a question about another address names. The kernel asks in the name of whatever
    /// address it is about to send from, a VIP too.
    Question,
    /// To answer one host.
    Answer,
}

/// An ARP packet or a neighbour advertisement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// When.
    pub at: Instant,
    /// Which way it went.
    pub direction: Direction,
    /// In which way it is said.
    pub kind: ClaimKind,
    /// Whom it is said to, and why.
    pub occasion: Occasion,
    /// The address in question.
    pub address: IpAddr,
    /// The MAC address that is said to have it.
    pub mac: [u8; 6],
}

impl Claim {
    /// The claim in a frame, if there is one.
    pub fn of(frame: &Frame) -> Option<Self> {
        let (ethernet, packet) = frame.bytes.split_at_checked(14)?;
        let (at, direction) = (frame.at, frame.direction);
        match ethernet[12..] {
            [0x08, 0x06] => {
                let (kind, address, mac, target) = arp(packet)?;
                let occasion = match kind {
                    _ if target == address => Occasion::Announcement,
                    ClaimKind::ArpRequest => Occasion::Question,
                    _ => Occasion::Answer,
                };
                Some(Self { at, direction, kind, occasion, address: address.into(), mac })
            }
            [0x86, 0xdd] => {
                let (address, mac) = neighbour_advertisement(packet)?;
                let is_to_a_group = ethernet[0] & 1 == 1;
                let occasion = if is_to_a_group { Occasion::Announcement } else { Occasion::Answer };
                let kind = ClaimKind::NeighbourAdvertisement;
                Some(Self { at, direction, kind, occasion, address: address.into(), mac })
            }
            _ => None,
        }
    }
}

/// RFC 826, for IPv4 on Ethernet: which way it is, its sender's addresses, and the IPv4 address of its target.
fn arp(packet: &[u8]) -> Option<(ClaimKind, Ipv4Addr, [u8; 6], Ipv4Addr)> {
    const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
    let rest = packet.strip_prefix(&ETHERNET_IPV4)?;
    let kind = match rest.get(..2)? {
        [0, 1] => ClaimKind::ArpRequest,
        [0, 2] => ClaimKind::ArpReply,
        _ => return None,
    };
    let mac = rest.get(2..8)?.try_into().ok()?;
    let [sender, target] = [8..12, 18..22].map(|range| Some(<[u8; 4]>::try_from(rest.get(range)?).ok()?.into()));
    Some((kind, sender?, mac, target?))
}

/// RFC 4861, section 4.4: its target, and the MAC address of that.
fn neighbour_advertisement(packet: &[u8]) -> Option<(Ipv6Addr, [u8; 6])> {
    const ICMPV6: u8 = 58;
    const TYPE: u8 = 136;
    const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
    let message = (*packet.get(6)? == ICMPV6).then(|| packet.get(40..))??;
    let address: [u8; 16] = (*message.first()? == TYPE).then(|| message.get(8..24))??.try_into().ok()?;
    // The only option that an advertisement is defined to have.
    let mac = message.get(24..)?.strip_prefix(&TARGET_LINK_LAYER_ADDRESS)?.get(..6)?.try_into().ok()?;
    Some((address.into(), mac))
}
