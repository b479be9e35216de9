//! Frames for tests, field by field.
//!
//! What is not set is computed from the rest: lengths, and checksums from scratch, by code that shares nothing with
//! what it is to test. So an expected frame is the sent one with its fields replaced, and never a copy of what came out.

mod build;
mod checksum;
mod fragment;
pub mod icmp;
pub mod neighbour;

use std::net::{IpAddr, SocketAddr};

/// TCP flags as frames have them.
pub use kplb_common::flow_state::{ACK, FIN, RST, SYN};

pub use self::{
    checksum::{check_checksums, cut_padding, sum},
    fragment::tagged,
};

/// TCP flag: deliver at once.
pub const PSH: u8 = 0x08;

/// A frame with one TCP segment or UDP datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// That of the IP version unless set.
    pub ethertype: Option<u16>,
    /// IP header.
    pub ip: Ip,
    /// TCP or UDP header.
    pub transport: Transport,
    /// What the segment or datagram carries.
    pub payload: Vec<u8>,
    /// What follows the IP packet in the frame.
    pub padding: Vec<u8>,
}

/// IP header of either family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// Type of service or traffic class.
    pub class: u8,
    /// IPv4 identification, or the lower half of the flow label.
    pub id: u16,
    /// IPv4 fragment word: flags and offset.
    pub fragment: u16,
    /// The byte of version and header length in IPv4, of version in IPv6; right unless set.
    pub first_byte: Option<u8>,
    /// IPv4 total length, IPv6 payload length; right unless set.
    pub length: Option<u16>,
    /// Protocol or next header; that of the transport unless set.
    pub protocol: Option<u8>,
    /// IPv4 header checksum; right unless set.
    pub checksum: Option<u16>,
    /// IPv4 options, or IPv6 extension headers, as bytes.
    pub options: Vec<u8>,
}

/// What is in the IP packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Transport {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
}

/// TCP header.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Header length in words; right unless set.
    pub data_offset: Option<u8>,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Checksum; right unless set.
    pub checksum: Option<u16>,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options as bytes, a multiple of four.
    pub options: Vec<u8>,
}

/// UDP header.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Length; right unless set.
    pub length: Option<u16>,
    /// Checksum; right unless set.
    pub checksum: Option<u16>,
}

impl Ip {
    /// A header with something in each field.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        Self {
            source,
            destination,
            hops: 61,
            class: 0,
            id: 0x1d1d,
            fragment: 0x4000,
            first_byte: None,
            length: None,
            protocol: None,
            checksum: None,
            options: Vec::new(),
        }
    }
}

impl Frame {
    /// A TCP segment without payload.
    pub fn tcp(macs: [[u8; 6]; 2], from: SocketAddr, to: SocketAddr, flags: u8) -> Self {
        let tcp = Tcp { source: from.port(), destination: to.port(), flags, window: 0xfaf0, ..Tcp::default() };
        Self::new(macs, from.ip(), to.ip(), Transport::Tcp(tcp))
    }

    /// A UDP datagram with a little payload.
    pub fn udp(macs: [[u8; 6]; 2], from: SocketAddr, to: SocketAddr) -> Self {
        let udp = Udp { source: from.port(), destination: to.port(), ..Udp::default() };
        let mut frame = Self::new(macs, from.ip(), to.ip(), Transport::Udp(udp));
        frame.payload = b"datagram".to_vec();
        frame
    }

    fn new([source_mac, destination_mac]: [[u8; 6]; 2], source: IpAddr, destination: IpAddr, l4: Transport) -> Self {
        Self {
            destination_mac,
            source_mac,
            ethertype: None,
            ip: Ip::new(source, destination),
            transport: l4,
            payload: Vec::new(),
            padding: Vec::new(),
        }
    }

    /// The frame with a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The frame with a change of its IP header.
    #[must_use]
    pub fn with_ip(self, change: impl FnOnce(&mut Ip)) -> Self {
        self.with(|frame| change(&mut frame.ip))
    }

    /// The frame with a change of its TCP header.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn with_tcp(self, change: impl FnOnce(&mut Tcp)) -> Self {
        self.with(|frame| match &mut frame.transport {
            Transport::Tcp(tcp) => change(tcp),
            Transport::Udp(_) => panic!("a UDP frame has no TCP header"),
        })
    }

    /// The frame with a change of its UDP header.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn with_udp(self, change: impl FnOnce(&mut Udp)) -> Self {
        self.with(|frame| match &mut frame.transport {
            Transport::Udp(udp) => change(udp),
            Transport::Tcp(_) => panic!("a TCP frame has no UDP header"),
        })
    }

    /// The frame with this payload.
    #[must_use]
    pub fn carrying(self, payload: impl Into<Vec<u8>>) -> Self {
        self.with(|frame| frame.payload = payload.into())
    }

    /// The frame between these MAC addresses.
    #[must_use]
    pub fn between(self, [source, destination]: [[u8; 6]; 2]) -> Self {
        self.with(|frame| (frame.source_mac, frame.destination_mac) = (source, destination))
    }

    /// The frame from this address and port.
    #[must_use]
    pub fn from(self, source: SocketAddr) -> Self {
        self.with(|frame| {
            frame.ip.source = source.ip();
            match &mut frame.transport {
                Transport::Tcp(tcp) => tcp.source = source.port(),
                Transport::Udp(udp) => udp.source = source.port(),
            }
        })
    }

    /// The frame to this address and port.
    #[must_use]
    pub fn to(self, destination: SocketAddr) -> Self {
        self.with(|frame| {
            frame.ip.destination = destination.ip();
            match &mut frame.transport {
                Transport::Tcp(tcp) => tcp.destination = destination.port(),
                Transport::Udp(udp) => udp.destination = destination.port(),
            }
        })
    }

    /// The frame with one hop less to live.
    #[must_use]
    pub fn one_hop_on(self) -> Self {
        self.with_ip(|ip| ip.hops -= 1)
    }
}
