//! Who has an address: ARP and neighbour discovery, field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Ip,
    build::octets,
    checksum::{pseudo_header, sum},
};

/// To all.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// The operation of an ARP request.
pub const REQUEST: u16 = 1;
/// The operation of an ARP reply.
pub const REPLY: u16 = 2;

/// ICMPv6 type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;

const ICMPV6: u8 = 58;

/// An ARP frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arp {
    /// Destination MAC address of the frame.
    pub destination_mac: [u8; 6],
    /// Source MAC address of the frame.
    pub source_mac: [u8; 6],
    /// What the frame says it is.
    pub ethertype: u16,
    /// Hardware type.
    pub hardware: u16,
    /// Protocol type.
    pub protocol: u16,
    /// Bytes of a hardware and of a protocol address.
    pub lengths: [u8; 2],
    /// Request or reply.
    pub operation: u16,
    /// Hardware address of the sender.
    pub sender_mac: [u8; 6],
    /// Protocol address of the sender.
    pub sender: Ipv4Addr,
    /// Hardware address of the target.
    pub target_mac: [u8; 6],
    /// Protocol address of the target.
    pub target: Ipv4Addr,
    /// What follows the ARP packet in the frame.
    pub padding: Vec<u8>,
}

impl Arp {
    /// The request of a host for the MAC address of another one, to all.
    pub fn request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            destination_mac: BROADCAST,
            source_mac: mac,
            ethertype: 0x0806,
            hardware: 1,
            protocol: 0x0800,
            lengths: [6, 4],
            operation: REQUEST,
            sender_mac: mac,
            sender,
            target_mac: [0; 6],
            target,
            padding: Vec::new(),
        }
    }

    /// The frame with a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        [
            &self.destination_mac[..],
            &self.source_mac,
            &self.ethertype.to_be_bytes(),
            &self.hardware.to_be_bytes(),
            &self.protocol.to_be_bytes(),
            &self.lengths,
            &self.operation.to_be_bytes(),
            &self.sender_mac,
            &self.sender.octets(),
            &self.target_mac,
            &self.target.octets(),
            &self.padding,
        ]
        .concat()
    }
}

/// A frame with a message of neighbour discovery that has a target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Discovery {
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// What the frame says it is.
    pub ethertype: u16,
    /// IPv6 header.
    pub ip: Ip,
    /// ICMPv6 type.
    pub kind: u8,
    /// ICMPv6 code.
    pub code: u8,
    /// Flags of an advertisement; reserved in a solicitation.
    pub flags: u32,
    /// Whom it is about.
    pub target: Ipv6Addr,
    /// Options, as bytes.
    pub options: Vec<u8>,
    /// What follows the IPv6 packet in the frame.
    pub padding: Vec<u8>,
}

impl Discovery {
    /// The solicitation of a host for the MAC address of another one, to the group that its address belongs to (RFC
    /// 4291, section 2.7.1; RFC 2464, section 7), with the host's own as an option.
    pub fn solicitation(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) -> Self {
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
        let ip = Ip { hops: 255, ..Ip::new(source.into(), group.into()) };
        Self {
            destination_mac: [0x33, 0x33, 0xff, a, b, c],
            source_mac: mac,
            ethertype: 0x86dd,
            ip,
            kind: SOLICITATION,
            code: 0,
            flags: 0,
            target,
            options: [&[1, 1][..], &mac].concat(),
            padding: Vec::new(),
        }
    }

    /// The frame with a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The frame to one host.
    #[must_use]
    pub fn to(self, mac: [u8; 6], address: Ipv6Addr) -> Self {
        self.with(|frame| (frame.destination_mac, frame.ip.destination) = (mac, IpAddr::V6(address)))
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let addresses = octets(&self.ip);
        let mut message =
            [&[self.kind, self.code, 0, 0][..], &self.flags.to_be_bytes(), &self.target.octets(), &self.options]
                .concat();
        let checksum = !sum(&[&pseudo_header(&addresses, message.len(), ICMPV6), &message]);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let ip = self.ip.build(&addresses, ICMPV6, message.len());
        let ethertype = self.ethertype.to_be_bytes();
        [&self.destination_mac[..], &self.source_mac, &ethertype, &ip, &message, &self.padding].concat()
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, Icmpv6Type, PacketBuilder};

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// The builders agree with another one, to the byte.
    #[test]
    fn frames_are_those_of_etherparse() {
        let (sender, target) = (Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2));
        let ethernet = Ethernet2Header { source: MAC, destination: [0xff; 6], ether_type: EtherType::ARP };
        let arp = ArpEthIpv4Packet {
            operation: ArpOperation::REQUEST,
            sender_mac: MAC,
            sender_ipv4: sender.octets(),
            target_mac: [0; 6],
            target_ipv4: target.octets(),
        };
        let theirs = [ethernet.to_bytes().as_slice(), arp.to_bytes().as_slice()].concat();
        assert_eq!(Arp::request(MAC, sender, target).build(), theirs);

        let [source, target]: [Ipv6Addr; 2] =
            ["2001:2::1", "2001:2::12:3456"].map(|address| address.parse().expect("an address"));
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().expect("an address");
        let mut theirs = Vec::new();
        PacketBuilder::ethernet2(MAC, [0x33, 0x33, 0xff, 0x12, 0x34, 0x56])
            .ipv6(source.octets(), group.octets(), 255)
            .icmpv6(Icmpv6Type::NeighborSolicitation)
            .write(&mut theirs, &[&target.octets()[..], &[1, 1], &MAC].concat())
            .expect("a vector takes all");
        let ours = Discovery::solicitation(MAC, source, target).with(|frame| frame.ip.id = 0);
        assert_eq!(ours.build(), theirs);
    }
}
