//! A VRRP message and the headers before it, as plain fields: judging them is left to whoever looks.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use crate::packet_socket::{Direction, Frame};

/// VRRP's protocol number (RFC 9568, section 5.1.1.4).
const PROTOCOL: u8 = 112;

/// A frame of IP protocol 112.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Advert {
    /// When.
    pub at: Instant,
    /// Which way it went.
    pub direction: Direction,
    /// The frame's source.
    pub source_mac: [u8; 6],
    /// The frame's destination.
    pub destination_mac: [u8; 6],
    /// The packet's source.
    pub source: IpAddr,
    /// The packet's destination.
    pub destination: IpAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub traffic_class: u8,
    /// The message, as long as the IP header says.
    pub message: Vec<u8>,
}

impl Advert {
    /// The advert in a frame, if there is one.
    pub fn of(frame: &Frame) -> Option<Self> {
        let (ethernet, packet) = frame.bytes.split_at_checked(14)?;
        let read = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
        let (source, destination, protocol, ttl, traffic_class, message) = match ethernet[12..] {
            [0x08, 0x00] => {
                let header = packet.get(..20)?;
                let length = usize::from(header[0] & 0xf) * 4;
                (
                    IpAddr::from(<[u8; 4]>::try_from(&header[12..16]).map(Ipv4Addr::from).ok()?),
                    IpAddr::from(<[u8; 4]>::try_from(&header[16..20]).map(Ipv4Addr::from).ok()?),
                    header[9],
                    header[8],
                    header[1],
                    packet.get(length..usize::from(read(2)?))?,
                )
            }
            [0x86, 0xdd] => {
                let header = packet.get(..40)?;
                (
                    IpAddr::from(<[u8; 16]>::try_from(&header[8..24]).map(Ipv6Addr::from).ok()?),
                    IpAddr::from(<[u8; 16]>::try_from(&header[24..40]).map(Ipv6Addr::from).ok()?),
                    header[6],
                    header[7],
                    (read(0)? >> 4).to_be_bytes()[1],
                    packet.get(40..40 + usize::from(read(4)?))?,
                )
            }
            _ => return None,
        };
        (protocol == PROTOCOL).then(|| Self {
            at: frame.at,
            direction: frame.direction,
            source_mac: ethernet[6..12].try_into().unwrap_or_default(),
            destination_mac: ethernet[..6].try_into().unwrap_or_default(),
            source,
            destination,
            ttl,
            traffic_class,
            message: message.to_vec(),
        })
    }

    /// The version of the protocol, if the message has any bytes.
    pub fn version(&self) -> Option<u8> {
        Some(self.message.first()? >> 4)
    }

    /// The virtual router's id.
    pub fn router_id(&self) -> Option<u8> {
        self.message.get(1).copied()
    }

    /// The sender's priority; 0 of one that gives up.
    pub fn priority(&self) -> Option<u8> {
        self.message.get(2).copied()
    }
}
