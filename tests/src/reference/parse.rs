//! From a frame's bytes to what the model decides on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kplb_common::{
    net::{TCP, UDP},
    verdict::DropReason,
};

use super::flows::Tuple;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6: usize = 40;

/// What is behind a frame's tags.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tagged {
    /// Identifiers of the tags that have one, outermost first.
    pub vlan: Vec<u16>,
    /// Of what follows the tags.
    pub ethertype: u16,
    /// Where that begins in the frame.
    pub l3: usize,
}

/// What a frame's IP packet is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parsed {
    /// Nothing that concerns a service.
    Other,
    /// Dropped for this reason if it is for a VIP.
    Refused(IpAddr, DropReason),
    /// TCP or UDP, and its lengths are consistent.
    Segment(Segment),
    /// A fragment without the header of TCP or UDP.
    Later(Place, Piece),
    /// ICMP or ICMPv6, all of it.
    Icmp(Place),
}

/// Where a packet lies in its frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Where the IP header begins.
    pub l3: usize,
    /// Where what is behind all IP headers begins.
    pub l4: usize,
    /// Where the IP packet ends.
    pub end: usize,
}

/// A TCP segment or UDP datagram, or the first fragment of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Its 5-tuple.
    pub tuple: Tuple,
    /// TCP flags; zero for UDP.
    pub flags: u8,
    /// Where it lies.
    pub place: Place,
    /// If it is a first fragment.
    pub piece: Option<Piece>,
}

/// What tells the fragments of a datagram from all others: addresses, protocol in IPv4, identification.
pub type DatagramId = (IpAddr, IpAddr, Option<u8>, u32);

/// A fragment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    /// Of which datagram.
    pub of: DatagramId,
    /// Where the last two bytes of its identification lie in the frame.
    pub id_at: usize,
    /// Where it begins in the datagram, in bytes.
    pub offset: usize,
    /// Bytes that it brings.
    pub length: usize,
}

/// The 16-bit number at an offset.
pub fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// The 32-bit number at an offset.
pub fn long(frame: &[u8], at: usize) -> u32 {
    u32::from(word(frame, at)) << 16 | u32::from(word(frame, at + 2))
}

/// Goes through the tags of a frame; none if there are too many, or one is cut off.
pub fn tags(frame: &[u8]) -> Option<Tagged> {
    let mut tagged = Tagged { vlan: Vec::new(), ethertype: word(frame, 12), l3: ETHERNET };
    for _ in 0..3 {
        if ![0x8100, 0x88a8].contains(&tagged.ethertype) {
            return Some(tagged);
        }
        let tag = frame.get(tagged.l3..tagged.l3 + 4)?;
        let identifier = word(tag, 0) & 0xfff;
        if identifier != 0 {
            tagged.vlan.push(identifier);
        }
        tagged.ethertype = word(tag, 2);
        tagged.l3 += 4;
    }
    (tagged.vlan.len() <= 2 && ![0x8100, 0x88a8].contains(&tagged.ethertype)).then_some(tagged)
}

/// Why a packet is not taken.
enum Refusal {
    Other,
    ForVip(DropReason),
}

const MALFORMED: Refusal = Refusal::ForVip(DropReason::Malformed);

/// What the IP headers say.
struct Headers {
    protocol: u8,
    place: Place,
    piece: Option<Piece>,
}

/// Parses the IP packet that begins at `l3`, of the version that the ethertype says.
pub fn ip(frame: &[u8], l3: usize, ethertype: u16) -> Parsed {
    let is_ipv4 = ethertype == 0x0800;
    let fixed = if is_ipv4 { IPV4 } else { IPV6 };
    if frame.len() < l3 + fixed {
        return Parsed::Other;
    }
    let [_, destination] = addresses(frame, l3, is_ipv4);
    let headers = if is_ipv4 { ipv4(frame, l3) } else { ipv6(frame, l3) };
    match headers.and_then(|headers| layer4(frame, headers, addresses(frame, l3, is_ipv4))) {
        Ok(parsed) => parsed,
        Err(Refusal::Other) => Parsed::Other,
        Err(Refusal::ForVip(reason)) => Parsed::Refused(destination, reason),
    }
}

/// Source and destination of the IP packet at an offset.
pub fn addresses(frame: &[u8], l3: usize, is_ipv4: bool) -> [IpAddr; 2] {
    let ip = &frame[l3..];
    if is_ipv4 {
        [12, 16].map(|at| IpAddr::V4(Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3])))
    } else {
        [8, 24].map(|at| {
            let octets: [u8; 16] = ip[at..at + 16].try_into().expect("sixteen bytes");
            IpAddr::V6(Ipv6Addr::from(octets))
        })
    }
}

fn ipv4(frame: &[u8], l3: usize) -> Result<Headers, Refusal> {
    let ip = &frame[l3..];
    let (version, header_length, protocol) = (ip[0] >> 4, usize::from(ip[0] & 15) * 4, ip[9]);
    if version != 4 || header_length < IPV4 {
        return Err(MALFORMED);
    }
    let (more, offset) = (word(ip, 6) & 0x2000 != 0, usize::from(word(ip, 6) & 0x1fff) * 8);
    let is_fragment = more || offset != 0;
    match protocol {
        TCP | UDP => {}
        1 if !is_fragment => {}
        _ => return Err(Refusal::Other),
    }
    let total_length = usize::from(word(ip, 2));
    if total_length < header_length || total_length > ip.len() {
        return Err(if protocol == 1 { Refusal::Other } else { MALFORMED });
    }
    if let Some(refusal) = refused_options(&ip[IPV4..header_length]) {
        return Err(if protocol == 1 { Refusal::Other } else { refusal });
    }
    let [source, destination] = addresses(frame, l3, true);
    let piece = Piece {
        of: (source, destination, Some(protocol), u32::from(word(ip, 4))),
        id_at: l3 + 4,
        offset,
        length: total_length - header_length,
    };
    if is_fragment {
        check_piece(&piece, more)?;
    }
    let place = Place { l3, l4: l3 + header_length, end: l3 + total_length };
    Ok(Headers { protocol, place, piece: is_fragment.then_some(piece) })
}

/// No source route, and no option of which a part is missing.
fn refused_options(mut options: &[u8]) -> Option<Refusal> {
    loop {
        let length = match options {
            [] | [0, ..] => return None,
            [1, ..] => 1,
            [131 | 137, ..] => return Some(Refusal::ForVip(DropReason::IpOptions)),
            [_, length, ..] if *length >= 2 => usize::from(*length),
            _ => return Some(MALFORMED),
        };
        match options.get(length..) {
            Some(rest) => options = rest,
            None => return Some(MALFORMED),
        }
    }
}

/// All fragments but the last bring whole units of eight bytes, and none reaches beyond the longest datagram.
fn check_piece(piece: &Piece, more: bool) -> Result<(), Refusal> {
    let is_odd = more && !piece.length.is_multiple_of(8);
    let is_too_long = piece.offset + piece.length > 65_535;
    if piece.length == 0 || is_odd || is_too_long { Err(MALFORMED) } else { Ok(()) }
}

fn ipv6(frame: &[u8], l3: usize) -> Result<Headers, Refusal> {
    let ip = &frame[l3..];
    if ip[0] >> 4 != 6 {
        return Err(MALFORMED);
    }
    let end = l3 + IPV6 + usize::from(word(ip, 4));
    let chain = match chain(frame, ip[6], l3 + IPV6) {
        Ok(chain) => chain,
        Err(Broken::Cut { in_fragment: true }) => return Err(Refusal::ForVip(DropReason::FragmentTiny)),
        Err(Broken::Cut { in_fragment: false }) => return Err(MALFORMED),
        Err(Broken::Unwalkable) => return Err(Refusal::ForVip(DropReason::ExtensionHeader)),
        Err(Broken::Other) => return Err(Refusal::Other),
    };
    let protocol = chain.protocol;
    if end > frame.len() || end - l3 > 65_535 {
        return Err(if protocol == 58 { Refusal::Other } else { MALFORMED });
    }
    let place = Place { l3, l4: chain.l4, end };
    let Some(at) = chain.fragment_at.filter(|at| word(frame, at + 2) & 0xfff9 != 0) else {
        return if place.l4 > end { Err(MALFORMED) } else { Ok(Headers { protocol, place, piece: None }) };
    };
    if ![TCP, UDP, 60].contains(&protocol) {
        return Err(Refusal::Other);
    }
    let [source, destination] = addresses(frame, l3, false);
    let piece = Piece {
        of: (source, destination, None, long(frame, at + 4)),
        id_at: at + 6,
        offset: usize::from(word(frame, at + 2) & 0xfff8),
        length: end.saturating_sub(at + 8),
    };
    check_piece(&piece, word(frame, at + 2) & 1 != 0)?;
    if piece.offset == 0 && place.l4 > end {
        return Err(Refusal::ForVip(DropReason::FragmentTiny));
    }
    Ok(Headers { protocol, place, piece: Some(piece) })
}

/// The headers of an IPv6 packet.
pub(super) struct Chain {
    /// What follows the last one.
    pub(super) protocol: u8,
    /// Where that begins.
    pub(super) l4: usize,
    /// Where the fragment header begins, if there is one.
    pub(super) fragment_at: Option<usize>,
}

pub(super) enum Broken {
    Cut { in_fragment: bool },
    Unwalkable,
    Other,
}

/// Walks extension headers: five at most, of which none begins beyond byte 200 of the frame.
pub(super) fn chain(frame: &[u8], next_header: u8, at: usize) -> Result<Chain, Broken> {
    let mut chain = Chain { protocol: next_header, l4: at, fragment_at: None };
    for n_walked in 0.. {
        match chain.protocol {
            TCP | UDP | 58 => return Ok(chain),
            0 | 43 | 60 | 44 => {}
            51 | 135 | 139 | 140 => return Err(Broken::Unwalkable),
            _ => return Err(Broken::Other),
        }
        let is_fragment = chain.protocol == 44;
        if is_fragment && chain.fragment_at.is_some() {
            return Err(Broken::Unwalkable);
        }
        let cut = Broken::Cut { in_fragment: chain.fragment_at.is_some() };
        let header = frame.get(chain.l4..chain.l4 + 8).ok_or(cut)?;
        if chain.protocol == 43 && header[3] != 0 {
            return Err(Broken::Unwalkable);
        }
        chain.protocol = header[0];
        if is_fragment {
            chain.fragment_at = Some(chain.l4);
            chain.l4 += 8;
            if word(header, 2) & 0xfff8 != 0 {
                return Ok(chain);
            }
        } else {
            chain.l4 += (usize::from(header[1]) + 1) * 8;
        }
        if chain.l4 > 200 || n_walked == 5 {
            return Err(Broken::Unwalkable);
        }
    }
    unreachable!("the loop ends by itself")
}

fn layer4(frame: &[u8], headers: Headers, [source, destination]: [IpAddr; 2]) -> Result<Parsed, Refusal> {
    let Headers { protocol, place, piece } = headers;
    if let Some(piece) = piece
        && piece.offset != 0
    {
        return Ok(Parsed::Later(place, piece));
    }
    if protocol != TCP && protocol != UDP {
        return Ok(Parsed::Icmp(place));
    }
    let l4 = &frame[place.l4..place.end];
    // What a first fragment lacks is in the others.
    let missing = if piece.is_some() { Refusal::ForVip(DropReason::FragmentTiny) } else { MALFORMED };
    let flags = if protocol == TCP {
        if l4.len() < 20 {
            return Err(missing);
        }
        let header_length = usize::from(l4[12] >> 4) * 4;
        if header_length < 20 {
            return Err(MALFORMED);
        }
        if header_length > l4.len() {
            return Err(missing);
        }
        l4[13]
    } else {
        if l4.len() < 8 {
            return Err(missing);
        }
        let length = usize::from(word(l4, 4));
        if length < 8 || piece.is_none() && length > l4.len() {
            return Err(MALFORMED);
        }
        0
    };
    let tuple = Tuple {
        source: SocketAddr::new(source, word(l4, 0)),
        destination: SocketAddr::new(destination, word(l4, 2)),
        protocol,
    };
    Ok(Parsed::Segment(Segment { tuple, flags, place, piece }))
}
