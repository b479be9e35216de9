//! The model's changes to a frame, and the checksums that go with them.

use std::net::{IpAddr, SocketAddr};

use kplb_common::{
    flow_state::{ACK, FIN, RST, SYN},
    net::TCP,
};

use super::{
    flows::Tuple,
    parse::{IPV4, IPV6, Piece, Place, Segment, long, word},
};

/// Adds up 16-bit words in one's complement (RFC 1071).
pub(super) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(super) fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

/// What replaced words do to a checksum that covers them: the sum of `~m + m'` (RFC 1624, equation 3).
#[derive(Clone, Copy, Default)]
pub(super) struct Change(u32);

impl Change {
    pub(super) fn replace(&mut self, frame: &mut [u8], at: usize, new: &[u8]) {
        let old = &mut frame[at..at + new.len()];
        self.0 += old.chunks(2).map(|pair| u32::from(!u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
        self.0 += sum(new);
        old.copy_from_slice(new);
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// What the checksum at an offset becomes.
    pub(super) fn applied(self, frame: &[u8], at: usize) -> [u8; 2] {
        (!fold(u32::from(!word(frame, at)) + self.0)).to_be_bytes()
    }

    /// Mends the checksum at an offset.
    fn apply(self, frame: &mut [u8], at: usize) {
        let checksum = self.applied(frame, at);
        frame[at..at + 2].copy_from_slice(&checksum);
    }
}

pub(super) fn octets(address: &SocketAddr) -> Vec<u8> {
    match address.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Gives the packet another 5-tuple, as far as it has one; a fragment also gets another identification.
pub fn set_tuple(frame: &mut [u8], place: &Place, piece: Option<&Piece>, tuple: &Tuple) {
    let is_ipv4 = tuple.source.is_ipv4();
    let addresses_at = place.l3 + if is_ipv4 { 12 } else { 8 };
    let mut addresses = Change::default();
    addresses.replace(frame, addresses_at, &[octets(&tuple.source), octets(&tuple.destination)].concat());
    let mut id = Change::default();
    if let Some(piece) = piece {
        let renumbered = word(frame, piece.id_at) ^ tuple.source.port() ^ tuple.destination.port();
        id.replace(frame, piece.id_at, &renumbered.to_be_bytes());
    }
    if is_ipv4 {
        addresses.and(id).apply(frame, place.l3 + 10);
    }
    if piece.is_some_and(|piece| piece.offset != 0) {
        return;
    }

    let mut ports = Change::default();
    ports.replace(frame, place.l4, &tuple.source.port().to_be_bytes());
    ports.replace(frame, place.l4 + 2, &tuple.destination.port().to_be_bytes());
    let both = addresses.and(ports);
    if tuple.protocol == TCP {
        both.apply(frame, place.l4 + 16);
        return;
    }
    let at = place.l4 + 6;
    if word(frame, at) != 0 {
        both.apply(frame, at);
        if word(frame, at) == 0 {
            frame[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
    }
}

/// Whether the packet whose IP header begins at `l3` may go one hop further.
pub fn has_hop(frame: &[u8], l3: usize) -> bool {
    frame[hops_at(frame, l3)] > 1
}

fn is_ipv4(frame: &[u8], l3: usize) -> bool {
    frame[l3] >> 4 == 4
}

fn hops_at(frame: &[u8], l3: usize) -> usize {
    l3 + if is_ipv4(frame, l3) { 8 } else { 7 }
}

/// Takes a hop, and sends the frame to the next one.
pub fn forward(frame: &mut [u8], l3: usize, from: [u8; 6], to: [u8; 6]) {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    let at = hops_at(frame, l3);
    if is_ipv4(frame, l3) {
        let mut change = Change::default();
        let new = [frame[at] - 1, frame[at + 1]];
        change.replace(frame, at, &new);
        change.apply(frame, l3 + 10);
    } else {
        frame[at] -= 1;
    }
}

/// Turns a frame with a TCP segment into a reset for its sender (RFC 9293, 3.10.7.1).
pub fn reset(frame: &mut [u8], segment: &Segment) {
    let Place { l3, l4, end } = segment.place;
    let (sequence, acknowledgement, flags) = if segment.flags & ACK != 0 {
        (long(frame, l4 + 8), 0, RST)
    } else {
        let data = end - l4 - usize::from(frame[l4 + 12] >> 4) * 4;
        let phantom = u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
        (0, long(frame, l4 + 4).wrapping_add(data as u32).wrapping_add(phantom), RST | ACK)
    };
    let tuple = segment.tuple.reversed();

    let mut tcp = Vec::with_capacity(20);
    tcp.extend(tuple.source.port().to_be_bytes());
    tcp.extend(tuple.destination.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgement.to_be_bytes());
    tcp.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let (source, destination) = (octets(&tuple.source), octets(&tuple.destination));
    let checksum = !fold(sum(&source) + sum(&destination) + u32::from(TCP) + 20 + sum(&tcp));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());

    let mut ip = if tuple.source.is_ipv4() {
        vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0]
    } else {
        vec![0x60, 0, 0, 0, 0, 20, TCP, 64]
    };
    ip.extend(source);
    ip.extend(destination);
    if tuple.source.is_ipv4() {
        let checksum = !fold(sum(&ip));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    assert!(ip.len() == IPV4 || ip.len() == IPV6);

    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
    let answer = [ip, tcp].concat();
    frame[l3..l3 + answer.len()].copy_from_slice(&answer);
}
