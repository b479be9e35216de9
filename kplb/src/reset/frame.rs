//! The segments that end an orphan's two halves.
//!
//! A reset is taken if its sequence number is exactly what its receiver expects next (RFC 5961, section 3.2), which is
//! what the receiver has acknowledged last.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use kplb_common::{
    net::{Address as _, Ip4, Ip6, Mac},
    sweep::Orphan,
};

/// Of packets made here.
const HOPS: u8 = 64;

/// One end of a flow, as the other one sees it.
struct Half {
    from: Ip6,
    from_port: u16,
    to: Ip6,
    to_port: u16,
    sequence: u32,
}

impl Half {
    const fn of_client(orphan: &Orphan) -> Self {
        Self {
            from: orphan.vip,
            from_port: orphan.vip_port.to_host(),
            to: orphan.client,
            to_port: orphan.client_port.to_host(),
            sequence: orphan.client_acknowledged,
        }
    }

    const fn of_backend(orphan: &Orphan) -> Self {
        Self {
            from: orphan.peer,
            from_port: orphan.peer_port.to_host(),
            to: orphan.backend,
            to_port: orphan.backend_port.to_host(),
            sequence: orphan.backend_acknowledged,
        }
    }

    fn tcp(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.from_port, self.to_port, self.sequence, 0);
        tcp.rst = true;
        tcp
    }
}

/// For the client: a frame.
pub(super) fn to_client(orphan: &Orphan, node: Mac) -> Vec<u8> {
    frame(&Half::of_client(orphan), orphan.version, node, orphan.client_mac)
}

/// For a backend behind the wire: a frame.
pub(super) fn to_backend(orphan: &Orphan, node: Mac, backend: Mac) -> Vec<u8> {
    frame(&Half::of_backend(orphan), orphan.version, node, backend)
}

/// For a backend on this node: an IP packet.
pub(super) fn to_local_backend(orphan: &Orphan) -> Vec<u8> {
    let half = Half::of_backend(orphan);
    let ip = match orphan.version {
        4 => PacketBuilder::ipv4(v4(half.from).octets(), v4(half.to).octets(), HOPS).tcp_header(half.tcp()),
        _ => PacketBuilder::ipv6(v6(half.from).octets(), v6(half.to).octets(), HOPS).tcp_header(half.tcp()),
    };
    written(ip)
}

fn frame(half: &Half, version: u8, from: Mac, to: Mac) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(from.octets(), to.octets());
    let ip = match version {
        4 => ethernet.ipv4(v4(half.from).octets(), v4(half.to).octets(), HOPS),
        _ => ethernet.ipv6(v6(half.from).octets(), v6(half.to).octets(), HOPS),
    };
    written(ip.tcp_header(half.tcp()))
}

fn written(packet: PacketBuilderStep<TcpHeader>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(packet.size(0));
    packet.write(&mut bytes, &[]).expect("a vector takes every write, and there is no payload to be too long");
    bytes
}

fn v4(address: Ip6) -> Ipv4Addr {
    Ip4::from_wide(&address).into()
}

fn v6(address: Ip6) -> Ipv6Addr {
    address.into()
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use kplb_common::net::Be16;

    use super::*;

    const NODE: Mac = Mac::new([2, 0, 0, 0, 1, 1]);
    const CLIENT: Mac = Mac::new([2, 0, 0, 0, 2, 1]);
    const BACKEND: Mac = Mac::new([2, 0, 0, 0, 1, 2]);

    fn orphan(version: u8) -> Orphan {
        let address = |last: u8| match version {
            4 => Ip4::from(Ipv4Addr::new(198, 18, 0, last)).widen(),
            _ => Ip6::from(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, last.into())),
        };
        Orphan {
            client: address(101),
            vip: address(100),
            peer: address(11),
            backend: address(12),
            client_acknowledged: 0xdead_beef,
            backend_acknowledged: 0xcafe_f00d,
            client_port: Be16::from_host(40_000),
            vip_port: Be16::from_host(443),
            peer_port: Be16::from_host(10_000),
            backend_port: Be16::from_host(6443),
            client_mac: CLIENT,
            version,
            ..Orphan::default()
        }
    }

    /// Source, destination, ports, sequence number of a reset whose checksums are right.
    fn read(packet: &SlicedPacket<'_>) -> (String, String, u16, u16, u32) {
        let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("no TCP") };
        let header = tcp.to_header();
        assert!(header.rst && !header.ack && !header.syn && !header.fin);
        let (source, destination) = match &packet.net {
            Some(NetSlice::Ipv4(ip)) => {
                let ip = ip.header().to_header();
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                assert_eq!(Ok(header.checksum), header.calc_checksum_ipv4(&ip, &[]));
                (Ipv4Addr::from(ip.source).to_string(), Ipv4Addr::from(ip.destination).to_string())
            }
            Some(NetSlice::Ipv6(ip)) => {
                let ip = ip.header().to_header();
                assert_eq!(Ok(header.checksum), header.calc_checksum_ipv6(&ip, &[]));
                (Ipv6Addr::from(ip.source).to_string(), Ipv6Addr::from(ip.destination).to_string())
            }
            _ => panic!("no IP"),
        };
        (source, destination, header.source_port, header.destination_port, header.sequence_number)
    }

    #[test]
    fn each_end_gets_what_it_expects_next() {
        for (version, prefix) in [(4, "198.18.0."), (6, "2001:2::")] {
            let orphan = orphan(version);
            let address = |last: u8| if version == 4 { format!("{prefix}{last}") } else { format!("{prefix}{last:x}") };
            let client = (address(100), address(101), 443, 40_000, 0xdead_beef);
            let backend = (address(11), address(12), 10_000, 6443, 0xcafe_f00d);

            let frame = to_client(&orphan, NODE);
            assert_eq!((&frame[..6], &frame[6..12]), (&CLIENT.octets()[..], &NODE.octets()[..]));
            assert_eq!(read(&SlicedPacket::from_ethernet(&frame).expect("a frame")), client);

            let frame = to_backend(&orphan, NODE, BACKEND);
            assert_eq!((&frame[..6], &frame[6..12]), (&BACKEND.octets()[..], &NODE.octets()[..]));
            assert_eq!(read(&SlicedPacket::from_ethernet(&frame).expect("a frame")), backend);

            let packet = to_local_backend(&orphan);
            assert_eq!(read(&SlicedPacket::from_ip(&packet).expect("a packet")), backend);
        }
    }
}
