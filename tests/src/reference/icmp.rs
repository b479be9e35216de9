//! The model's ICMP errors: which are about a packet that was sent on, and what is made of them.
//!
//! An error goes back to whoever sent the packet, as an answer to it would. So what an answer becomes tells what the
//! error's addresses become, and the packet in it becomes what was sent.

use std::net::SocketAddr;

use kplb_common::net::{TCP, UDP};

use super::{
    flows::Tuple,
    parse::{IPV4, IPV6, Place, addresses, chain, word},
    rewrite::{Change, octets},
};

/// Bytes of an ICMP header.
const ICMP: usize = 8;

/// An error, and the packet that it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Complaint {
    /// The 5-tuple of answers to the packet.
    pub(super) answer: Tuple,
    /// Where the error lies in the frame.
    pub(super) place: Place,
    /// Where the packet's TCP or UDP header begins in the frame.
    l4: usize,
    /// Where, in a fragment of IPv6, the last two bytes of the identification lie.
    id_at: Option<usize>,
}

fn ip_length(is_ipv4: bool) -> usize {
    if is_ipv4 { IPV4 } else { IPV6 }
}

fn addresses_at(is_ipv4: bool) -> usize {
    if is_ipv4 { 12 } else { 8 }
}

/// What an ICMP message complains about, if it is an error about a TCP segment or a UDP datagram.
pub(super) fn complaint(frame: &[u8], place: Place) -> Option<Complaint> {
    let is_ipv4 = frame[place.l3] >> 4 == 4;
    let quoted = place.l4 + ICMP;
    frame.get(..quoted + ip_length(is_ipv4))?;
    let errors: &[u8] = if is_ipv4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
    if !errors.contains(&frame[place.l4]) {
        return None;
    }

    let ip = &frame[quoted..];
    let (protocol, l4, id_at) = if is_ipv4 {
        let is_sound = ip[0] >> 4 == 4 && ip[0] & 15 >= 5 && word(ip, 6) & 0x1fff == 0;
        is_sound.then_some((ip[9], quoted + usize::from(ip[0] & 15) * 4, None))?
    } else {
        let chain = (ip[0] >> 4 == 6).then(|| chain(frame, ip[6], quoted + IPV6).ok())??;
        let fragment = chain.fragment_at.map(|at| (at, word(frame, at + 2)));
        if fragment.is_some_and(|(_, offset)| offset & 0xfff8 != 0) {
            return None;
        }
        let id_at = fragment.filter(|(_, offset)| offset & 1 != 0).map(|(at, _)| at + 6);
        (chain.protocol, chain.l4, id_at)
    };
    if ![TCP, UDP].contains(&protocol) || l4 + 8 > place.end {
        return None;
    }

    let [_, told] = addresses(frame, place.l3, is_ipv4);
    let [sender, receiver] = addresses(frame, quoted, is_ipv4);
    let answer = Tuple {
        source: SocketAddr::new(receiver, word(frame, l4 + 2)),
        destination: SocketAddr::new(sender, word(frame, l4)),
        protocol,
    };
    (told == sender).then_some(Complaint { answer, place, l4, id_at })
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
    let Complaint { place, l4, id_at, .. } = *complaint;
    let is_ipv4 = rewritten.source.is_ipv4();
    let icmp = place.l4;
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
    if let Some(at) = id_at {
        let original = word(frame, at) ^ word(frame, l4) ^ word(frame, l4 + 2);
        covered.replace(frame, at, &original.to_be_bytes());
    }
    let mut ports = Change::default();
    ports.replace(frame, l4, &sent.source.port().to_be_bytes());
    ports.replace(frame, l4 + 2, &sent.destination.port().to_be_bytes());
    let both = addresses.and(ports);
    covered = covered.and(both);

    let at = l4 + if rewritten.protocol == TCP { 16 } else { 6 };
    let is_quoted = at + 2 <= place.end;
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
    let at = place.l3 + addresses_at(is_ipv4);
    if reporter == Reporter::LikeAnswer {
        outer.replace(frame, at, &source);
    }
    outer.replace(frame, at + source.len(), &octets(&rewritten.destination));
    if is_ipv4 {
        let checksum = outer.applied(frame, place.l3 + 10);
        frame[place.l3 + 10..place.l3 + 12].copy_from_slice(&checksum);
    } else {
        covered = covered.and(outer);
    }
    let checksum = covered.applied(frame, icmp + 2);
    frame[icmp + 2..icmp + 4].copy_from_slice(&checksum);
}
