//! The model's fence: which frames ask for the MAC address of an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::parse::{ETHERNET, IPV6, word};

/// Whether this node answers for its fenced VIPs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Lease {
    /// No.
    #[default]
    Over,
    /// Yes.
    Fresh,
}

/// Who is asked for, if the frame is a question.
pub(super) fn asked(frame: &[u8]) -> Option<IpAddr> {
    match word(frame, 12) {
        0x0806 => arp(frame).map(IpAddr::V4),
        0x86dd => solicitation(frame).map(IpAddr::V6),
        _ => None,
    }
}

fn arp(frame: &[u8]) -> Option<Ipv4Addr> {
    let arp = frame.get(ETHERNET..ETHERNET + 28)?;
    let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let (sender, target) = (address(14), address(24));
    let is_of_ethernet = [1, 6].contains(&word(arp, 0));
    // IPv4, six and four bytes, a request.
    let is_request = arp[2..8] == [8, 0, 6, 4, 0, 1];
    let is_announcement = sender == target;
    (is_of_ethernet && is_request && !is_announcement).then_some(target)
}

fn solicitation(frame: &[u8]) -> Option<Ipv6Addr> {
    let ip = &frame[ETHERNET..];
    let message = ip.get(IPV6..IPV6 + 24)?;
    let (payload_length, next_header, hops) = (word(ip, 4), ip[6], ip[7]);
    let is_whole = ip[0] >> 4 == 6 && payload_length >= 24;
    let is_solicitation = next_header == 58 && hops == 255 && message[..2] == [135, 0];
    let target: [u8; 16] = message[8..].try_into().expect("sixteen bytes");
    (is_whole && is_solicitation).then_some(target.into())
}
