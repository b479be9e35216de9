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

/// What a frame's IP packet is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parsed {
    /// Nothing that concerns a service.
    Other,
    /// Dropped for this reason if it is for a VIP.
    Refused(IpAddr, DropReason),
    /// TCP or UDP, and its lengths are consistent.
    Segment(Segment),
}

/// A TCP segment or UDP datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Its 5-tuple.
    pub tuple: Tuple,
    /// TCP flags; zero for UDP.
    pub flags: u8,
    /// Where the TCP or UDP header begins in the frame.
    pub l4: usize,
    /// Bytes of the IP payload.
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

/// Parses a frame whose ethertype is that of IPv4.
pub fn ipv4(frame: &[u8]) -> Parsed {
    if frame.len() < ETHERNET + IPV4 {
        return Parsed::Other;
    }
    let ip = &frame[ETHERNET..];
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]));
    let (source, destination) = (address(12), address(16));
    let (version, header_words, protocol) = (ip[0] >> 4, ip[0] & 15, ip[9]);
    let refused = |reason| Parsed::Refused(destination, reason);

    if version != 4 || header_words < 5 {
        return refused(DropReason::Malformed);
    }
    if protocol != TCP && protocol != UDP {
        return Parsed::Other;
    }
    if header_words > 5 {
        return refused(DropReason::IpOptions);
    }
    let (more_fragments, offset) = (word(ip, 6) & 0x2000 != 0, word(ip, 6) & 0x1fff);
    if more_fragments || offset != 0 {
        return refused(DropReason::Fragment);
    }
    let total_length = usize::from(word(ip, 2));
    if total_length < IPV4 || total_length > ip.len() {
        return refused(DropReason::Malformed);
    }
    layer4(frame, ETHERNET + IPV4, total_length - IPV4, protocol, source, destination)
}

/// Parses a frame whose ethertype is that of IPv6.
pub fn ipv6(frame: &[u8]) -> Parsed {
    if frame.len() < ETHERNET + IPV6 {
        return Parsed::Other;
    }
    let ip = &frame[ETHERNET..];
    let address = |at: usize| {
        let octets: [u8; 16] = ip[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (source, destination) = (address(8), address(24));
    let next_header = ip[6];
    let refused = |reason| Parsed::Refused(destination, reason);

    if ip[0] >> 4 != 6 {
        return refused(DropReason::Malformed);
    }
    match next_header {
        TCP | UDP => {}
        44 => {
            return match ip.get(IPV6).copied() {
                Some(TCP | UDP) => refused(DropReason::Fragment),
                Some(_) => Parsed::Other,
                None => refused(DropReason::Malformed),
            };
        }
        0 | 43 | 51 | 60 | 135 | 139 | 140 => return refused(DropReason::ExtensionHeader),
        _ => return Parsed::Other,
    }
    let payload_length = usize::from(word(ip, 4));
    if payload_length > ip.len() - IPV6 {
        return refused(DropReason::Malformed);
    }
    layer4(frame, ETHERNET + IPV6, payload_length, next_header, source, destination)
}

fn layer4(frame: &[u8], l4: usize, length: usize, protocol: u8, source: IpAddr, destination: IpAddr) -> Parsed {
    let malformed = Parsed::Refused(destination, DropReason::Malformed);
    let flags = if protocol == TCP {
        if length < 20 {
            return malformed;
        }
        let data_offset = usize::from(frame[l4 + 12] >> 4);
        if data_offset < 5 || data_offset * 4 > length {
            return malformed;
        }
        frame[l4 + 13]
    } else {
        if length < 8 {
            return malformed;
        }
        let udp_length = usize::from(word(frame, l4 + 4));
        if udp_length < 8 || udp_length > length {
            return malformed;
        }
        0
    };
    Parsed::Segment(Segment {
        tuple: Tuple {
            source: SocketAddr::new(source, word(frame, l4)),
            destination: SocketAddr::new(destination, word(frame, l4 + 2)),
            protocol,
        },
        flags,
        l4,
        length,
    })
}
