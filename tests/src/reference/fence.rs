//! The model's fence: which frames ask for the MAC address of an address, and which say it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::parse::{IPV6, Tagged, word};

/// Whether this node answers and speaks for its fenced VIPs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Lease {
    /// No.
    #[default]
    Over,
    /// Yes.
    Fresh,
}

/// Who is asked for, if the frame is a question.
pub(super) fn asked(frame: &[u8], tagged: &Tagged) -> Option<IpAddr> {
    match tagged.ethertype {
        0x0806 => {
            let (operation, sender, target) = arp(frame, tagged.l3)?;
            let is_announcement = sender == target;
            (operation == 1 && !is_announcement).then_some(IpAddr::V4(target))
        }
        0x86dd => {
            let (kind, _, target) = discovery(frame, tagged.l3)?;
            (kind == 135).then_some(IpAddr::V6(target))
        }
        _ => None,
    }
}

/// Whose MAC address the frame says, be it by the way.
pub(super) fn claimed(frame: &[u8], tagged: &Tagged) -> Vec<IpAddr> {
    match tagged.ethertype {
        0x0806 => arp(frame, tagged.l3).into_iter().map(|(_, sender, _)| IpAddr::V4(sender)).collect(),
        0x86dd => match discovery(frame, tagged.l3) {
            Some((135, source, _)) => vec![IpAddr::V6(source)],
            Some((136, source, target)) => vec![IpAddr::V6(source), IpAddr::V6(target)],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Operation, sender and target of an ARP packet of Ethernet and IPv4.
fn arp(frame: &[u8], l3: usize) -> Option<(u16, Ipv4Addr, Ipv4Addr)> {
    let arp = frame.get(l3..l3 + 28)?;
    let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let is_of_ethernet = [1, 6].contains(&word(arp, 0));
    // IPv4, six and four bytes.
    let is_of_ipv4 = arp[2..6] == [8, 0, 6, 4];
    (is_of_ethernet && is_of_ipv4).then(|| (word(arp, 6), address(14), address(24)))
}

/// Type, source and target of an ICMPv6 message that no router has forwarded, if it has the length of a solicitation.
fn discovery(frame: &[u8], l3: usize) -> Option<(u8, Ipv6Addr, Ipv6Addr)> {
    let ip = frame.get(l3..)?;
    let header = ip.get(..IPV6)?;
    let (payload_length, next_header, hops) = (usize::from(word(header, 4)), header[6], header[7]);
    let message = ip.get(IPV6..IPV6 + 24)?;
    let is_whole = header[0] >> 4 == 6 && payload_length >= 24;
    let is_local = next_header == 58 && hops == 255 && message[1] == 0;
    let address = |bytes: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("sixteen bytes"));
    (is_whole && is_local).then(|| (message[0], address(&header[8..24]), address(&message[8..])))
}
