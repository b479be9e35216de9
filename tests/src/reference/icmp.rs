//! The model's ICMP errors: which are about a packet that was sent on, and what is made of them.
//!
//! An error goes back to whoever sent the packet, as an answer to it would. So what an answer becomes tells what the
//! error's addresses become, and the packet in it becomes what was sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kplb_common::net::{TCP, UDP};

use super::{
    flows::Tuple,
    parse::{ETHERNET, IPV4, IPV6, word},
    rewrite::{Change, octets},
};

/// Bytes of an ICMP header.
const ICMP: usize = 8;

/// An error, and the packet that it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Complaint {
    /// The 5-tuple of answers to the packet.
    pub(super) answer: Tuple,
    /// Where the packet's TCP or UDP header begins in the frame.
    l4: usize,
    /// Where the error ends in the frame.
    end: usize,
}

fn ip_length(is_ipv4: bool) -> usize {
    if is_ipv4 { IPV4 } else { IPV6 }
}

fn addresses_at(is_ipv4: bool) -> usize {
    if is_ipv4 { 12 } else { 8 }
}

/// The addresses of the IP packet at an offset.
fn addresses(frame: &[u8], ip: usize, is_ipv4: bool) -> [IpAddr; 2] {
    let at = ip + addresses_at(is_ipv4);
    if is_ipv4 {
        let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]).into();
        return [address(at), address(at + 4)];
    }
    let address = |at: usize| {
        let octets: [u8; 16] = frame[at..at + 16].try_into().expect("sixteen bytes");
        Ipv6Addr::from(octets).into()
    };
    [address(at), address(at + 16)]
}

/// What a frame complains about, if it is an error about a TCP segment or a UDP datagram.
pub(super) fn complaint(frame: &[u8]) -> Option<Complaint> {
    let is_ipv4 = match word(frame, 12) {
        0x0800 => true,
        0x86dd => false,
        _ => return None,
    };
    let icmp = ETHERNET + ip_length(is_ipv4);
    let quoted = icmp + ICMP;
    frame.get(..quoted + ip_length(is_ipv4))?;

    let ip = &frame[ETHERNET..];
    let (is_icmp, length) = if is_ipv4 {
        (ip[0] == 0x45 && ip[9] == 1 && word(ip, 6) & 0x3fff == 0, usize::from(word(ip, 2)))
    } else {
        (ip[0] >> 4 == 6 && ip[6] == 58, IPV6 + usize::from(word(ip, 4)))
    };
    let errors: &[u8] = if is_ipv4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
    if !is_icmp || !errors.contains(&frame[icmp]) {
        return None;
    }

    let ip = &frame[quoted..];
    let (is_sound, header_length, protocol) = if is_ipv4 {
        (ip[0] >> 4 == 4 && ip[0] & 15 >= 5 && word(ip, 6) & 0x1fff == 0, usize::from(ip[0] & 15) * 4, ip[9])
    } else {
        (ip[0] >> 4 == 6, IPV6, ip[6])
    };
    let (l4, end) = (quoted + header_length, ETHERNET + length);
    if !is_sound || ![TCP, UDP].contains(&protocol) || l4 + 8 > end || end > frame.len() {
        return None;
    }

    let [_, told] = addresses(frame, ETHERNET, is_ipv4);
    let [sender, receiver] = addresses(frame, quoted, is_ipv4);
    let answer = Tuple {
        source: SocketAddr::new(receiver, word(frame, l4 + 2)),
        destination: SocketAddr::new(sender, word(frame, l4)),
        protocol,
    };
    (told == sender).then_some(Complaint { answer, l4, end })
}

/// Whom an error comes from in the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reporter {
    /// Whoever it was.
    Same,
    /// Whom an answer would come from.
    LikeAnswer,
}

/// Makes of an error what concerns whoever sent the packet; `rewritten` is what an answer becomes.
pub(super) fn translate(frame: &mut [u8], complaint: &Complaint, rewritten: &Tuple, reporter: Reporter) {
    let Complaint { l4, end, .. } = *complaint;
    let is_ipv4 = rewritten.source.is_ipv4();
    let icmp = ETHERNET + ip_length(is_ipv4);
    let quoted = icmp + ICMP;
    // Of all that the ICMP checksum covers.
    let mut covered = Change::default();

    let sent = rewritten.reversed();
    let mut addresses = Change::default();
    addresses.replace(
        frame,
        quoted + addresses_at(is_ipv4),
        &[octets(&sent.source), octets(&sent.destination)].concat(),
    );
    if is_ipv4 {
        covered.replace(frame, quoted + 10, &addresses.applied(frame, quoted + 10));
    }
    let mut ports = Change::default();
    ports.replace(frame, l4, &sent.source.port().to_be_bytes());
    ports.replace(frame, l4 + 2, &sent.destination.port().to_be_bytes());
    let both = addresses.and(ports);
    covered = covered.and(both);

    let at = l4 + if rewritten.protocol == TCP { 16 } else { 6 };
    let is_quoted = at + 2 <= end;
    let is_none = rewritten.protocol == UDP && is_quoted && word(frame, at) == 0;
    if is_quoted && !is_none {
        let mut checksum = both.applied(frame, at);
        if rewritten.protocol == UDP && checksum == [0, 0] {
            checksum = [0xff, 0xff];
        }
        covered.replace(frame, at, &checksum);
    }

    let mut outer = Change::default();
    let source = octets(&rewritten.source);
    let at = ETHERNET + addresses_at(is_ipv4);
    if reporter == Reporter::LikeAnswer {
        outer.replace(frame, at, &source);
    }
    outer.replace(frame, at + source.len(), &octets(&rewritten.destination));
    if is_ipv4 {
        let checksum = outer.applied(frame, ETHERNET + 10);
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum);
    } else {
        covered = covered.and(outer);
    }
    let checksum = covered.applied(frame, icmp + 2);
    frame[icmp + 2..icmp + 4].copy_from_slice(&checksum);
}
