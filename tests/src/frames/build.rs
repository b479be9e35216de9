//! From fields to bytes.

use std::net::IpAddr;

use super::{
    Frame, Ip, Tcp, Transport, Udp,
    checksum::{pseudo_header, sum},
};

impl Frame {
    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let addresses = octets(&self.ip);
        let segment = self.transport.build(&addresses, &self.payload);
        let ip = self.ip.build(&addresses, self.transport.protocol(), segment.len());
        let ethertype = self.ethertype.unwrap_or(if self.ip.source.is_ipv4() { 0x0800 } else { 0x86dd });
        [&self.destination_mac[..], &self.source_mac, &ethertype.to_be_bytes(), &ip, &segment, &self.padding].concat()
    }

    /// Bytes of the IP packet, header included, as it is built.
    pub fn ip_length(&self) -> u64 {
        (self.build().len() - 14 - self.padding.len()) as u64
    }

    /// The frame with the last two bytes of its payload, of even length, such that the checksum of the transport comes
    /// out as this.
    ///
    /// # Panics
    /// If the payload is of odd length or too short.
    #[must_use]
    pub fn with_transport_checksum(mut self, wanted: u16) -> Self {
        let at = self.payload.len() - 2;
        assert!(self.payload.len().is_multiple_of(2), "the last word must be one");
        self.payload[at..].fill(0);
        let mut unsummed = self.transport.clone();
        match &mut unsummed {
            Transport::Tcp(tcp) => tcp.checksum = Some(0),
            Transport::Udp(udp) => udp.checksum = Some(0),
        }
        let addresses = octets(&self.ip);
        let segment = unsummed.build(&addresses, &self.payload);
        let pseudo = pseudo_header(&addresses, segment.len(), unsummed.protocol());
        let word = difference(!wanted, sum(&[&pseudo, &segment]));
        self.payload[at..].copy_from_slice(&word.to_be_bytes());
        self
    }

    /// The IPv4 frame with the identification with which the header's checksum comes out as this.
    #[must_use]
    pub fn with_ip_checksum(mut self, wanted: u16) -> Self {
        self.ip.id = 0;
        self.ip.checksum = Some(0);
        let header = &self.build()[14..34];
        self.ip.id = difference(!wanted, sum(&[header]));
        self.ip.checksum = None;
        self
    }
}

/// What added to `b` in one's complement makes `a`.
fn difference(a: u16, b: u16) -> u16 {
    sum(&[&a.to_be_bytes(), &(!b).to_be_bytes()])
}

/// Both addresses.
pub(super) fn octets(ip: &Ip) -> Vec<u8> {
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
        (source, destination) => panic!("{source} and {destination} are of different families"),
    }
}

impl Ip {
    pub(super) fn build(&self, addresses: &[u8], protocol: u8, segment_length: usize) -> Vec<u8> {
        let protocol = self.protocol.unwrap_or(protocol);
        let length = |length: usize| {
            self.length.unwrap_or_else(|| u16::try_from(length).expect("a packet of at most 64 KiB")).to_be_bytes()
        };
        if !self.source.is_ipv4() {
            let [a, b] = self.id.to_be_bytes();
            let first = self.first_byte.unwrap_or(0x60) | self.class >> 4;
            let fixed = [first, self.class << 4, a, b];
            let length = length(self.options.len() + segment_length);
            return [&fixed[..], &length, &[protocol, self.hops], addresses, &self.options].concat();
        }
        let header_length = 20 + self.options.len();
        let first = self.first_byte.unwrap_or_else(|| 0x40 | u8::try_from(header_length / 4).expect("a short header"));
        let mut header = [
            &[first, self.class][..],
            &length(header_length + segment_length),
            &self.id.to_be_bytes(),
            &self.fragment.to_be_bytes(),
            &[self.hops, protocol, 0, 0],
            addresses,
            &self.options,
        ]
        .concat();
        let checksum = self.checksum.unwrap_or_else(|| !sum(&[&header]));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }
}

impl Transport {
    /// The IP protocol number.
    pub fn protocol(&self) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp(_) => 17,
        }
    }

    fn build(&self, addresses: &[u8], payload: &[u8]) -> Vec<u8> {
        let (mut segment, set, at) = match self {
            Self::Tcp(tcp) => (tcp.build(payload), tcp.checksum, 16),
            Self::Udp(udp) => (udp.build(payload), udp.checksum, 6),
        };
        let checksum = set.unwrap_or_else(|| {
            let pseudo = pseudo_header(addresses, segment.len(), self.protocol());
            match (self, !sum(&[&pseudo, &segment])) {
                (Self::Udp(_), 0) => 0xffff,
                (_, checksum) => checksum,
            }
        });
        segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        segment
    }
}

impl Tcp {
    fn build(&self, payload: &[u8]) -> Vec<u8> {
        let words = self.data_offset.unwrap_or_else(|| u8::try_from(5 + self.options.len() / 4).expect("few options"));
        [
            &self.source.to_be_bytes()[..],
            &self.destination.to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.acknowledgement.to_be_bytes(),
            &[words << 4, self.flags],
            &self.window.to_be_bytes(),
            &[0, 0],
            &self.urgent.to_be_bytes(),
            &self.options,
            payload,
        ]
        .concat()
    }
}

impl Udp {
    fn build(&self, payload: &[u8]) -> Vec<u8> {
        let length = self.length.unwrap_or_else(|| u16::try_from(8 + payload.len()).expect("a datagram of 64 KiB"));
        [&self.source.to_be_bytes()[..], &self.destination.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload]
            .concat()
    }
}
