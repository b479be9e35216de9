//! Frames for the comparison of programs and model, written byte by byte.

use std::net::IpAddr;

use kplb_common::net::{TCP, UDP};

use super::{
    flows::Tuple,
    parse::{ETHERNET, IPV4, IPV6},
    pieces::insert_extension,
    rewrite::{fold, octets, sum},
};

/// What a frame is to say.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Destination MAC address.
    pub to: [u8; 6],
    /// Source MAC address.
    pub from: [u8; 6],
    /// Addresses, ports, protocol.
    pub tuple: Tuple,
    /// TTL or hop limit.
    pub hops: u8,
    /// TCP flags.
    pub flags: u8,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP acknowledgement number.
    pub acknowledgement: u32,
    /// What the TCP segment or UDP datagram carries.
    pub payload: Vec<u8>,
    /// Bytes of TCP options: a multiple of four, at most forty.
    pub options: usize,
}

impl Draft {
    /// The frame, with right lengths and checksums.
    pub fn write(&self) -> Vec<u8> {
        let mut l4 = self.layer4();
        let (source, destination) = (octets(&self.tuple.source), octets(&self.tuple.destination));
        let pseudo = sum(&source) + sum(&destination) + u32::from(self.tuple.protocol) + l4.len() as u32;
        let checksum_at = if self.tuple.protocol == TCP { 16 } else { 6 };
        let mut checksum = !fold(pseudo + sum(&l4));
        if checksum == 0 && self.tuple.protocol == UDP {
            checksum = 0xffff;
        }
        l4[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = [self.to, self.from].concat();
        match self.tuple.source.ip() {
            IpAddr::V4(_) => {
                frame.extend([8, 0]);
                let [high, low] = ((IPV4 + l4.len()) as u16).to_be_bytes();
                let mut ip = vec![0x45, 0, high, low, 0x12, 0x34, 0x40, 0, self.hops, self.tuple.protocol, 0, 0];
                ip.extend(source.iter().chain(&destination));
                mend_ipv4(&mut ip);
                frame.extend(ip);
            }
            IpAddr::V6(_) => {
                frame.extend([0x86, 0xdd, 0x60, 0x0a, 0xbc, 0xde]);
                frame.extend((l4.len() as u16).to_be_bytes());
                frame.extend([self.tuple.protocol, self.hops]);
                frame.extend(source.iter().chain(&destination));
            }
        }
        frame.extend(l4);
        frame
    }

    fn layer4(&self) -> Vec<u8> {
        let mut l4 = Vec::new();
        l4.extend(self.tuple.source.port().to_be_bytes());
        l4.extend(self.tuple.destination.port().to_be_bytes());
        if self.tuple.protocol == TCP {
            l4.extend(self.sequence.to_be_bytes());
            l4.extend(self.acknowledgement.to_be_bytes());
            l4.extend([(5 + self.options as u8 / 4) << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
            l4.extend(vec![1; self.options]);
        } else {
            l4.extend((8 + self.payload.len() as u16).to_be_bytes());
            l4.extend([0, 0]);
        }
        l4.extend(&self.payload);
        l4
    }
}

/// An ICMP or ICMPv6 message with this type, code and quotation, with right lengths and checksums.
pub fn icmp([from, to]: [[u8; 6]; 2], ends: [IpAddr; 2], hops: u8, kind: [u8; 2], quoted: &[u8]) -> Vec<u8> {
    let [source, destination] = ends.map(|end| octets(&(end, 0).into()));
    let addresses = [source, destination].concat();
    let mut message = [&kind[..], &[0, 0, 0, 0, 5, 0], quoted].concat();
    let mut frame = [to, from].concat();
    if ends[0].is_ipv4() {
        let checksum = !fold(sum(&message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let [high, low] = ((IPV4 + message.len()) as u16).to_be_bytes();
        let mut ip = vec![0x45, 0, high, low, 0x12, 0x34, 0, 0, hops, 1, 0, 0];
        ip.extend(addresses);
        mend_ipv4(&mut ip);
        frame.extend([8, 0]);
        frame.extend(ip);
    } else {
        let checksum = !fold(sum(&addresses) + 58 + message.len() as u32 + sum(&message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((message.len() as u16).to_be_bytes());
        frame.extend([58, hops]);
        frame.extend(addresses);
    }
    frame.extend(message);
    frame
}

/// Writes the checksum of an IPv4 header.
pub(super) fn mend_ipv4(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let checksum = !fold(sum(ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether a frame without tags is one of IPv4.
pub(super) fn is_ipv4(frame: &[u8]) -> bool {
    frame[12] == 8
}

/// Gives a frame of [`Draft::write`] IPv4 options, or an IPv6 extension header of this number.
pub fn insert_header(frame: &mut Vec<u8>, number: u8) {
    let (at, length_at) = if is_ipv4(frame) { (IPV4, 2) } else { (IPV6, 4) };
    let protocol = if is_ipv4(frame) { 1 } else { frame[ETHERNET + 6] };
    let header = [protocol, 0, 1, 1, 1, 1, 1, 0];
    frame.splice(ETHERNET + at..ETHERNET + at, header);
    let ip = &mut frame[ETHERNET..];
    let length = u16::from_be_bytes([ip[length_at], ip[length_at + 1]]) + header.len() as u16;
    ip[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    if at == IPV4 {
        ip[0] += 2;
        mend_ipv4(&mut ip[..IPV4 + 8]);
    } else {
        ip[6] = number;
    }
}

/// Makes a frame of [`Draft::write`] a fragment at this offset, of which there are more or not.
pub fn fragment(frame: &mut Vec<u8>, bits: u16) {
    if is_ipv4(frame) {
        let ip = &mut frame[ETHERNET..ETHERNET + IPV4];
        ip[6..8].copy_from_slice(&bits.to_be_bytes());
        mend_ipv4(ip);
    } else {
        let offset_and_more = (bits & 0x1fff) << 3 | (bits >> 13 & 1);
        let [high, low] = offset_and_more.to_be_bytes();
        let header = [frame[ETHERNET + 6], 0, high, low, 0, 0, 0x12, 0x34];
        insert_extension(frame, 44, &header);
    }
}

/// Gives a frame of [`Draft::write`] another IP protocol.
pub fn set_protocol(frame: &mut [u8], protocol: u8) {
    if is_ipv4(frame) {
        frame[ETHERNET + 9] = protocol;
        mend_ipv4(&mut frame[ETHERNET..ETHERNET + IPV4]);
    } else {
        frame[ETHERNET + 6] = protocol;
    }
}
