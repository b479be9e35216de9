//! Questions who has an address, and the answers, as bytes: ARP (RFC 826), neighbour discovery (RFC 4861). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacketSlice, EtherType, Ethernet2Header, Icmpv6Type,
    PacketBuilder,
};
use kplb_common::net::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Neighbour discovery ignores packets that a router has forwarded (RFC 4861, section 7.1.1).
const HOP_LIMIT: u8 = 255;
/// Where the target and the first option of a neighbour advertisement are (RFC 4861, section 4.4).
const TARGET_OFFSET: usize = 8;
const OPTION_OFFSET: usize = 24;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Types and length, in units of eight bytes (RFC 4861, section 4.6.1).
const SOURCE_LINK_LAYER_ADDRESS: [u8; 2] = [1, 1];
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// A question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// By ARP.
    V4 {
        /// Who asks.
        sender: Ipv4Addr,
        /// The address.
        target: Ipv4Addr,
    },
    /// By neighbour discovery.
    V6 {
        /// Who asks.
        sender: Ipv6Addr,
        /// The address.
        target: Ipv6Addr,
    },
}

/// An answer: who has an address.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Answer {
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub mac: Mac,
}

impl Question {
    /// A question in nobody's name, which changes no cache: duplicate address detection (RFC 5227, section 2.1.1; RFC
    /// 4862, section 5.4.2). Only for an address that is this node's own, or to be: a host that is about to take it
    /// gives it up.
    pub const fn anonymous(target: IpAddr) -> Self {
        match target {
            IpAddr::V4(target) => Self::V4 { sender: Ipv4Addr::UNSPECIFIED, target },
            IpAddr::V6(target) => Self::V6 { sender: Ipv6Addr::UNSPECIFIED, target },
        }
    }

    /// A question from one of this node's addresses, as any host asks for its neighbours; none if it is of the other
    /// family.
    pub const fn from(sender: IpAddr, target: IpAddr) -> Option<Self> {
        match (sender, target) {
            (IpAddr::V4(sender), IpAddr::V4(target)) => Some(Self::V4 { sender, target }),
            (IpAddr::V6(sender), IpAddr::V6(target)) => Some(Self::V6 { sender, target }),
            _ => None,
        }
    }

    /// The address that it is about.
    pub const fn target(&self) -> IpAddr {
        match self {
            Self::V4 { target, .. } => IpAddr::V4(*target),
            Self::V6 { target, .. } => IpAddr::V6(*target),
        }
    }

    /// The frame, which is for all; `own` is the MAC address of the interface that asks.
    pub fn frame(&self, own: Mac) -> Vec<u8> {
        match *self {
            Self::V4 { sender, target } => arp_request(own, sender, target),
            Self::V6 { sender, target } => solicitation(own, sender, target),
        }
    }
}

fn arp_request(own: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let ethernet = Ethernet2Header { source: own.octets(), destination: BROADCAST, ether_type: EtherType::ARP };
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: own.octets(),
        sender_ipv4: sender.octets(),
        target_mac: [0; 6],
        target_ipv4: target.octets(),
    };
    [ethernet.to_bytes().as_slice(), arp.to_bytes().as_slice()].concat()
}

/// To the target's solicited-node group (RFC 4291, section 2.7.1). From the unspecified address it is without the option
/// that says who asks, and the answer goes to all nodes (RFC 4861, section 4.3).
fn solicitation(own: Mac, sender: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
    let builder = PacketBuilder::ethernet2(own.octets(), [0x33, 0x33, 0xff, x, y, z])
        .ipv6(sender.octets(), group.octets(), HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborSolicitation);
    let mut payload = target.octets().to_vec();
    if !sender.is_unspecified() {
        payload.extend(SOURCE_LINK_LAYER_ADDRESS);
        payload.extend(own.octets());
    }
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).expect("a vector takes every write, and the payload is short");
    frame
}

/// Who says in this frame that an address is his, in an answer to `own`.
pub(super) fn arp_reply(frame: &[u8], own: Mac) -> Option<Answer> {
    let (ethernet, rest) = Ethernet2Header::from_slice(frame).ok()?;
    let arp = ArpPacketSlice::from_slice(rest).ok()?;
    let is_reply = ethernet.destination == own.octets()
        && arp.hw_addr_type() == ArpHardwareId::ETHERNET
        && arp.proto_addr_type() == EtherType::IPV4
        && arp.operation() == ArpOperation::REPLY;
    let mac = <[u8; 6]>::try_from(arp.sender_hw_addr()).ok()?;
    let address = <[u8; 4]>::try_from(arp.sender_protocol_addr()).ok()?;
    is_reply.then(|| Answer { address: address.into(), mac: Mac::new(mac) })
}

/// The same of an ICMPv6 message, whoever it is for.
pub(super) fn advertisement(message: &[u8]) -> Option<Answer> {
    let target = <[u8; 16]>::try_from(message.get(TARGET_OFFSET..OPTION_OFFSET)?).ok()?;
    let option = message.get(OPTION_OFFSET..OPTION_OFFSET + 2)?;
    let mac = <[u8; 6]>::try_from(message.get(OPTION_OFFSET + 2..OPTION_OFFSET + 8)?).ok()?;
    let is_one = message[0] == NEIGHBOUR_ADVERTISEMENT && option == TARGET_LINK_LAYER_ADDRESS;
    is_one.then(|| Answer { address: target.into(), mac: Mac::new(mac) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 0x0b]);
    const OTHER: Mac = Mac::new([2, 0, 0, 0, 0, 0x0c]);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_arp_question() {
        let expected = |sender: [u8; 4]| {
            #[rustfmt::skip]
            let mut frame = vec![
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0b, 0x08, 0x06,
                0, 1, 0x08, 0, 6, 4, 0, 1,
                2, 0, 0, 0, 0, 0x0b, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 198, 18, 0, 100,
            ];
            frame[28..32].copy_from_slice(&sender);
            frame
        };
        let target = ip("198.18.0.100");
        assert_eq!(Question::anonymous(target).frame(OWN), expected([0; 4]));
        let question = Question::from(ip("198.18.0.11"), target).expect("one family");
        assert_eq!(question.frame(OWN), expected([198, 18, 0, 11]));
        assert_eq!(question.target(), target);
        assert_eq!(Question::from(ip("2001:2::11"), target), None);
    }

    #[test]
    fn a_solicitation() {
        let target = ip("2001:2::a1:b2c3");
        let IpAddr::V6(v6) = target else { panic!("an IPv6 address") };
        let sender: Ipv6Addr = "2001:2::11".parse().expect("an address");
        let named = Question::from(sender.into(), target).expect("one family");
        assert_eq!(named.target(), target);
        for (question, sender, option) in [
            (Question::anonymous(target), [0; 16], &[][..]),
            (named, sender.octets(), &[1, 1, 2, 0, 0, 0, 0, 0x0b][..]),
        ] {
            let frame = question.frame(OWN);
            assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0xa1, 0xb2, 0xc3]);
            assert_eq!(frame[22..38], sender);
            let group: Ipv6Addr = "ff02::1:ffa1:b2c3".parse().expect("an address");
            assert_eq!(frame[38..54], group.octets());
            assert_eq!((frame[21], frame[54]), (255, 135));
            assert_eq!(frame[62..78], v6.octets());
            assert_eq!(frame[78..], *option);
        }
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
        let answer = Answer { address: [198, 18, 0, 100].into(), mac: OTHER };
        assert_eq!(arp_reply(&reply, OWN), Some(answer));
        assert_eq!(arp_reply(&reply, OTHER), None, "to another");
        for n in 0..reply.len() {
            assert_eq!(arp_reply(&reply[..n], OWN), None, "{n} bytes");
        }
        reply[21] = 1;
        assert_eq!(arp_reply(&reply, OWN), None, "a question");

        let address: Ipv6Addr = "2001:2::100".parse().expect("an address");
        let mut message =
            [[136, 0, 0, 0, 0x20, 0, 0, 0].as_slice(), &address.octets(), &[2, 1, 2, 0, 0, 0, 0, 0x0c]].concat();
        assert_eq!(advertisement(&message), Some(Answer { address: address.into(), mac: OTHER }));
        for n in 0..message.len() {
            assert_eq!(advertisement(&message[..n]), None, "{n} bytes");
        }
        message[0] = 135;
        assert_eq!(advertisement(&message), None);
    }
}
