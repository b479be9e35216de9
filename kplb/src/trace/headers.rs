//! The headers of a frame of which only the beginning is known.
//!
//! Invariant: any bytes will do. What does not make sense is left out.

use std::net::{IpAddr, SocketAddr};

use etherparse::{ArpOperation, LaxIpPayloadSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};
use kplb_common::net::{ICMP, ICMPV6, Mac, TCP, UDP};

/// What a frame is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Headers {
    /// Who has sent the frame.
    pub source_mac: Option<Mac>,
    /// To whom.
    pub destination_mac: Option<Mac>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, or the number of another IP protocol.
    pub protocol: Option<String>,
    /// Source and destination; the ports are zero where there are none.
    pub tuple: Option<Tuple>,
    /// Hops that are left.
    pub ttl: Option<u8>,
    /// Of TCP.
    pub tcp: Option<Tcp>,
    /// What the packet is beyond its protocol: of ICMP its type and code, of ARP the question.
    pub note: Option<String>,
    /// Of an ICMP error: the packet that it is about.
    pub about: Option<Tuple>,
}

/// From where to where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tuple {
    /// Source.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
}

/// What is told of a TCP header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tcp {
    /// `SYN`, `SYN ACK`…
    pub flags: String,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Window.
    pub window: u16,
}

/// Bytes of the ports of TCP and UDP.
const PORTS: usize = 4;
/// Bytes of an ICMP header, behind which an error quotes a packet.
const ICMP_HEADER: usize = 8;

impl Headers {
    /// Those of a frame that begins so.
    pub fn of(frame: &[u8]) -> Self {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return Self::default() };
        let mut headers = Self::default();
        if let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link {
            headers.source_mac = Some(Mac::new(ethernet.source()));
            headers.destination_mac = Some(Mac::new(ethernet.destination()));
        }
        headers.read_net(&packet);
        headers.tcp = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Some(Tcp {
                flags: flags(tcp.slice()),
                sequence: tcp.sequence_number(),
                acknowledgement: tcp.acknowledgment_number(),
                window: tcp.window_size(),
            }),
            _ => None,
        };
        headers
    }

    fn read_net(&mut self, packet: &LaxSlicedPacket<'_>) {
        match &packet.net {
            Some(LaxNetSlice::Arp(arp)) => {
                self.protocol = Some("arp".to_owned());
                let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
                let (sender, target) = (address(arp.sender_protocol_addr()), address(arp.target_protocol_addr()));
                if let (Some(sender), Some(target)) = (sender, target) {
                    self.note = Some(match arp.operation() {
                        ArpOperation::REQUEST => format!("{sender} asks who has {target}"),
                        _ => format!("{sender} is told to {target}"),
                    });
                }
            }
            Some(net) => self.read_ip(net),
            None => {}
        }
    }

    fn read_ip(&mut self, net: &LaxNetSlice<'_>) {
        let (Some((tuple, protocol, ttl)), Some(payload)) = (tuple(net), net.ip_payload_ref()) else { return };
        self.tuple = Some(tuple);
        self.ttl = Some(ttl);
        let payload = payload.payload;
        self.protocol = Some(match protocol {
            TCP => "tcp".to_owned(),
            UDP => "udp".to_owned(),
            ICMP => "icmp".to_owned(),
            ICMPV6 => "icmpv6".to_owned(),
            number => number.to_string(),
        });
        if !matches!(protocol, ICMP | ICMPV6) {
            return;
        }
        if let [kind, code, ..] = payload {
            self.note = Some(format!("type {kind} code {code}"));
            // The errors are these (RFC 792; RFC 4443, section 2.1).
            let is_error = if protocol == ICMP { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { *kind < 128 };
            let quoted = payload.get(ICMP_HEADER..).filter(|_| is_error);
            let quoted = quoted.and_then(|quoted| LaxSlicedPacket::from_ip(quoted).ok());
            self.about = quoted.and_then(|packet| packet.net.as_ref().and_then(self::tuple)).map(|(tuple, _, _)| tuple);
        }
    }

    /// Every address and port in the headers.
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        self.tuple.iter().chain(&self.about).flat_map(|tuple| [tuple.source, tuple.destination])
    }
}

/// From where to where an IP packet is, its protocol, and the hops that are left.
fn tuple(net: &LaxNetSlice<'_>) -> Option<(Tuple, u8, u8)> {
    let (source, destination, ttl): (IpAddr, IpAddr, u8) = match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.ttl())
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.hop_limit())
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let payload = net.ip_payload_ref()?;
    let protocol = payload.ip_number.0;
    let (source_port, destination_port) = ports(payload, protocol);
    let tuple = Tuple { source: (source, source_port).into(), destination: (destination, destination_port).into() };
    Some((tuple, protocol, ttl))
}

/// The ports, wherever there are any: an ICMP error need not quote more of TCP.
fn ports(payload: &LaxIpPayloadSlice<'_>, protocol: u8) -> (u16, u16) {
    match payload.payload.get(..PORTS) {
        Some([a, b, c, d]) if matches!(protocol, TCP | UDP) && !payload.fragmented => {
            (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        _ => (0, 0),
    }
}

/// The flags of a TCP header, by name.
fn flags(header: &[u8]) -> String {
    const NAMES: [(u8, &str); 6] =
        [(0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"), (0x20, "URG")];
    const FLAGS: usize = 13;
    let flags = header.get(FLAGS).copied().unwrap_or(0);
    let names: Vec<_> = NAMES.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect();
    names.join(" ")
}
