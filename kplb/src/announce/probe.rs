//! Who else answers for a VIP: duplicate address detection, with questions that change nobody's cache.
//!
//! IPv4: ARP probes (RFC 5227, section 2.1.1). IPv6: the neighbour solicitations of RFC 4862, section 5.4.2.

use std::{
    collections::HashSet,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacketSlice, EtherType, Ethernet2Header, Icmpv6Type,
    PacketBuilder,
};
use kplb_common::net::Mac;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::packet_socket::PacketSocket;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Neighbour discovery ignores packets that a router has forwarded (RFC 4861, section 7.1.1).
const HOP_LIMIT: u8 = 255;
/// Longer than any answer.
const BUFFER_BYTES: usize = 1500;
/// Where the target and the first option of a neighbour advertisement are (RFC 4861, section 4.4).
const TARGET_OFFSET: usize = 8;
const OPTION_OFFSET: usize = 24;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Type and length, in units of eight bytes (RFC 4861, section 4.6.1).
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// Another host that answers for a VIP.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// The VIP.
    pub vip: IpAddr,
    /// Who answers.
    pub mac: Mac,
}

/// Asks once who has each of the VIPs, and listens for as long as `patience`. Blocks.
///
/// # Errors
/// If a socket cannot be opened or used.
pub fn other_owners(interface: &str, own: Mac, vips: &[IpAddr], patience: Duration) -> Result<Vec<Owner>> {
    // Of the families in use only: a node may have no IPv6 at all.
    let arp = vips.iter().any(IpAddr::is_ipv4).then(arp_socket).transpose()?;
    let discovery = vips.iter().any(IpAddr::is_ipv6).then(|| discovery_socket(interface)).transpose()?;
    let wire = PacketSocket::open(interface)?;
    for vip in vips {
        let question = match vip {
            IpAddr::V4(vip) => arp_probe(own, *vip),
            IpAddr::V6(vip) => solicitation(own, *vip),
        };
        wire.send(&question).with_context(|| format!("ask who has {vip}"))?;
    }

    let deadline = Instant::now() + patience;
    let mut owners = HashSet::new();
    let mut buffer = [0; BUFFER_BYTES];
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let sockets = arp.iter().chain(&discovery);
        let mut descriptors: Vec<_> = sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        ppoll(&mut descriptors, Some(TimeSpec::from(left)), None).context("wait for answers")?;
        while let Some(Ok(n)) = arp.as_ref().map(|mut socket| socket.read(&mut buffer)) {
            owners.extend(arp_reply(&buffer[..n], own));
        }
        while let Some(Ok(n)) = discovery.as_ref().map(|mut socket| socket.read(&mut buffer)) {
            owners.extend(advertisement(&buffer[..n]));
        }
    }
    Ok(owners.into_iter().filter(|owner| vips.contains(&owner.vip) && owner.mac != own).collect())
}

fn arp_socket() -> Result<Socket> {
    let protocol = ethertype(EtherType::ARP);
    Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(protocol)).context("open a packet socket")
}

fn discovery_socket(interface: &str) -> Result<Socket> {
    let socket =
        Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6)).context("open a raw socket")?;
    socket.bind_device(Some(interface.as_bytes())).context("bind a raw socket")?;
    Ok(socket)
}

fn ethertype(ethertype: EtherType) -> Protocol {
    // packet(7): in network byte order.
    Protocol::from(i32::from(ethertype.0.to_be()))
}

/// Sender protocol address zero: nobody's cache changes.
fn arp_probe(own: Mac, vip: Ipv4Addr) -> Vec<u8> {
    let ethernet = Ethernet2Header { source: own.octets(), destination: BROADCAST, ether_type: EtherType::ARP };
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: own.octets(),
        sender_ipv4: [0; 4],
        target_mac: [0; 6],
        target_ipv4: vip.octets(),
    };
    [ethernet.to_bytes().as_slice(), arp.to_bytes().as_slice()].concat()
}

/// From the unspecified address, so the answer goes to all nodes; without the option that says who asks (RFC 4861,
/// section 4.3).
fn solicitation(own: Mac, vip: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = vip.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
    let builder = PacketBuilder::ethernet2(own.octets(), [0x33, 0x33, 0xff, x, y, z])
        .ipv6([0; 16], group.octets(), HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborSolicitation);
    let payload = vip.octets();
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).expect("a vector takes every write, and the payload is short");
    frame
}

/// Who says in this frame that an address is his. Answers come to the one who asked.
fn arp_reply(frame: &[u8], own: Mac) -> Option<Owner> {
    let (ethernet, rest) = Ethernet2Header::from_slice(frame).ok()?;
    let arp = ArpPacketSlice::from_slice(rest).ok()?;
    let is_reply = ethernet.destination == own.octets()
        && arp.hw_addr_type() == ArpHardwareId::ETHERNET
        && arp.proto_addr_type() == EtherType::IPV4
        && arp.operation() == ArpOperation::REPLY;
    let mac = <[u8; 6]>::try_from(arp.sender_hw_addr()).ok()?;
    let vip = <[u8; 4]>::try_from(arp.sender_protocol_addr()).ok()?;
    is_reply.then(|| Owner { vip: vip.into(), mac: Mac::new(mac) })
}

/// The same of an ICMPv6 message.
fn advertisement(message: &[u8]) -> Option<Owner> {
    let target = <[u8; 16]>::try_from(message.get(TARGET_OFFSET..OPTION_OFFSET)?).ok()?;
    let option = message.get(OPTION_OFFSET..OPTION_OFFSET + 2)?;
    let mac = <[u8; 6]>::try_from(message.get(OPTION_OFFSET + 2..OPTION_OFFSET + 8)?).ok()?;
    let is_one = message[0] == NEIGHBOUR_ADVERTISEMENT && option == TARGET_LINK_LAYER_ADDRESS;
    is_one.then(|| Owner { vip: target.into(), mac: Mac::new(mac) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 0x0b]);
    const OTHER: Mac = Mac::new([2, 0, 0, 0, 0, 0x0c]);

    #[test]
    fn an_arp_probe_has_no_sender_address() {
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0b, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 1,
            2, 0, 0, 0, 0, 0x0b, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 198, 18, 0, 100,
        ];
        assert_eq!(arp_probe(OWN, [198, 18, 0, 100].into()), expected);
    }

    #[test]
    fn a_solicitation_comes_from_nobody() {
        let vip: Ipv6Addr = "2001:2::a1:b2c3".parse().expect("an address");
        let frame = solicitation(OWN, vip);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0xa1, 0xb2, 0xc3]);
        assert_eq!(frame[22..38], [0; 16]);
        assert_eq!(frame[38..54], "ff02::1:ffa1:b2c3".parse::<Ipv6Addr>().expect("an address").octets());
        assert_eq!((frame[21], frame[54], frame.len()), (255, 135, 14 + 40 + 24));
        assert_eq!(frame[62..78], vip.octets());
    }

    #[test]
    fn answers_are_read() {
        #[rustfmt::skip]
        let mut reply = vec![
            2, 0, 0, 0, 0, 0x0b, 2, 0, 0, 0, 0, 0x0c, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 2,
            2, 0, 0, 0, 0, 0x0c, 198, 18, 0, 100,
            2, 0, 0, 0, 0, 0x0b, 0, 0, 0, 0,
        ];
        let owner = Owner { vip: [198, 18, 0, 100].into(), mac: OTHER };
        assert_eq!(arp_reply(&reply, OWN), Some(owner));
        assert_eq!(arp_reply(&reply, OTHER), None, "to another");
        for n in 0..reply.len() {
            assert_eq!(arp_reply(&reply[..n], OWN), None, "{n} bytes");
        }
        reply[21] = 1;
        assert_eq!(arp_reply(&reply, OWN), None, "a question");

        let vip: Ipv6Addr = "2001:2::100".parse().expect("an address");
        let mut message =
            [[136, 0, 0, 0, 0x20, 0, 0, 0].as_slice(), &vip.octets(), &[2, 1, 2, 0, 0, 0, 0, 0x0c]].concat();
        assert_eq!(advertisement(&message), Some(Owner { vip: vip.into(), mac: OTHER }));
        for n in 0..message.len() {
            assert_eq!(advertisement(&message[..n]), None, "{n} bytes");
        }
        message[0] = 135;
        assert_eq!(advertisement(&message), None);
    }
}
