//! The frames that announce a VIP: gratuitous ARP and unsolicited neighbour advertisements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, Icmpv6Type, PacketBuilder,
    icmpv6::NeighborAdvertisementHeader,
};
use kplb_common::net::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
/// The link-local address of all nodes, and its Ethernet group (RFC 2464, section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// Neighbour discovery ignores packets that a router has forwarded (RFC 4861, section 7.1.2).
const HOP_LIMIT: u8 = 255;
/// Option type and length, in units of eight bytes (RFC 4861, section 4.6.1).
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// The frames of one announcement.
pub(super) fn announcements(mac: Mac, vip: IpAddr) -> Vec<Vec<u8>> {
    match vip {
        // Some systems update their cache by one form only, some by the other.
        IpAddr::V4(vip) => {
            [ArpOperation::REQUEST, ArpOperation::REPLY].map(|operation| gratuitous_arp(mac, vip, operation)).into()
        }
        IpAddr::V6(vip) => vec![neighbour_advertisement(mac, vip)],
    }
}

/// RFC 5944, section 4.6: sender and target protocol address are the VIP; a reply repeats the hardware address, a
/// request leaves it zero.
fn gratuitous_arp(mac: Mac, vip: Ipv4Addr, operation: ArpOperation) -> Vec<u8> {
    let target_mac = if operation == ArpOperation::REPLY { mac.octets() } else { [0; 6] };
    let ethernet = Ethernet2Header { source: mac.octets(), destination: BROADCAST, ether_type: EtherType::ARP };
    let arp = ArpEthIpv4Packet {
        operation,
        sender_mac: mac.octets(),
        sender_ipv4: vip.octets(),
        target_mac,
        target_ipv4: vip.octets(),
    };
    [ethernet.to_bytes().as_slice(), arp.to_bytes().as_slice()].concat()
}

/// RFC 4861, section 7.2.6: unsolicited, to all nodes, overriding what they know.
fn neighbour_advertisement(mac: Mac, vip: Ipv6Addr) -> Vec<u8> {
    let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    let payload = [vip.octets().as_slice(), TARGET_LINK_LAYER_ADDRESS.as_slice(), mac.octets().as_slice()].concat();
    let builder = PacketBuilder::ethernet2(mac.octets(), ALL_NODES_MAC)
        .ipv6(vip.octets(), ALL_NODES.octets(), HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).expect("a vector takes every write, and the payload is short");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 0x0b]);

    #[test]
    fn arp_in_both_forms() {
        let frames = announcements(MAC, IpAddr::from([198, 18, 0, 100]));
        #[rustfmt::skip]
        let request = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0b, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 1,
            2, 0, 0, 0, 0, 0x0b, 198, 18, 0, 100,
            0, 0, 0, 0, 0, 0, 198, 18, 0, 100,
        ];
        #[rustfmt::skip]
        let reply = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0b, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 2,
            2, 0, 0, 0, 0, 0x0b, 198, 18, 0, 100,
            2, 0, 0, 0, 0, 0x0b, 198, 18, 0, 100,
        ];
        assert_eq!(frames, [request.to_vec(), reply.to_vec()]);
    }

    #[test]
    fn advertisement_overrides() {
        let vip: Ipv6Addr = "2001:2::100".parse().expect("a valid address");
        let frames = announcements(MAC, IpAddr::V6(vip));
        #[rustfmt::skip]
        let mut expected = vec![
            0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x0b, 0x86, 0xdd,
            0x60, 0, 0, 0, 0, 32, 58, 255,
            0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0,
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            136, 0, 0, 0, 0x20, 0, 0, 0,
            0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0,
            2, 1, 2, 0, 0, 0, 0, 0x0b,
        ];
        let checksum = icmpv6_checksum(&expected);
        expected[56..58].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(frames, [expected]);
    }

    /// RFC 4443, section 2.3, from scratch: pseudo-header of addresses, length and next header, then the message.
    fn icmpv6_checksum(frame: &[u8]) -> u16 {
        let (addresses, message) = (&frame[22..54], &frame[54..]);
        let length = u16::try_from(message.len()).expect("a short message");
        let words = [addresses, message].concat();
        let sum = words.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>()
            + u32::from(length)
            + 58;
        let folded = (sum & 0xffff) + (sum >> 16);
        !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
    }
}
