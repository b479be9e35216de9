//! ICMP errors of both families, field by field.

use std::net::IpAddr;

use super::{
    Ip,
    build::octets,
    checksum::{pseudo_header, sum},
};

/// ICMP type of "destination unreachable", with its code for a packet that is too big.
pub const TOO_BIG_V4: (u8, u8) = (3, 4);
/// ICMPv6 type and code of "packet too big".
pub const TOO_BIG_V6: (u8, u8) = (2, 0);

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A frame with an ICMP or ICMPv6 error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IcmpError {
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// IP header: from the reporter to whoever sent the packet.
    pub ip: Ip,
    /// Type and code.
    pub kind: (u8, u8),
    /// What the type makes of the header's last four bytes.
    pub rest: [u8; 4],
    /// The quoted packet, from its IP header on.
    pub quote: Vec<u8>,
    /// What is added to the right checksum in one's complement.
    pub checksum_error: u16,
    /// What follows the IP packet in the frame.
    pub padding: Vec<u8>,
}

impl IcmpError {
    /// The error "packet too big" about a packet, of which this is quoted.
    pub fn too_big([source_mac, destination_mac]: [[u8; 6]; 2], from: IpAddr, to: IpAddr, quote: Vec<u8>) -> Self {
        Self {
            destination_mac,
            source_mac,
            ip: Ip::new(from, to),
            kind: if from.is_ipv4() { TOO_BIG_V4 } else { TOO_BIG_V6 },
            // Both families have the MTU, of 16 and of 32 bits, at the end.
            rest: [0, 0, 5, 0],
            quote,
            checksum_error: 0,
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
        let addresses = octets(&self.ip);
        let mut message = [&[self.kind.0, self.kind.1, 0, 0][..], &self.rest, &self.quote].concat();
        let (protocol, ethertype, pseudo) = if self.ip.source.is_ipv4() {
            (ICMP, 0x0800_u16, Vec::new())
        } else {
            (ICMPV6, 0x86dd, pseudo_header(&addresses, message.len(), ICMPV6))
        };
        let (checksum, carry) = (!sum(&[&pseudo, &message])).overflowing_add(self.checksum_error);
        message[2..4].copy_from_slice(&(checksum + u16::from(carry)).to_be_bytes());
        let ip = self.ip.build(&addresses, protocol, message.len());
        [&self.destination_mac[..], &self.source_mac, &ethertype.to_be_bytes(), &ip, &message, &self.padding].concat()
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4::DestUnreachableHeader};

    use super::*;
    use crate::frames::check_checksums;

    const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

    /// The builder agrees with another one, to the byte.
    #[test]
    fn frames_are_those_of_etherparse() {
        let ([a, b], quote) = ([[198, 18, 0, 1], [198, 18, 0, 2]], b"an odd quote".to_vec());
        let ours = IcmpError::too_big(MACS, a.into(), b.into(), quote.clone())
            .with(|frame| (frame.ip.id, frame.ip.fragment) = (0, 0x4000));
        let header = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1280 };
        let mut theirs = Vec::new();
        PacketBuilder::ethernet2(MACS[0], MACS[1])
            .ipv4(a, b, 61)
            .icmpv4(Icmpv4Type::DestinationUnreachable(header))
            .write(&mut theirs, &quote)
            .expect("a vector takes all");
        assert_eq!(ours.build(), theirs);
        check_checksums(&theirs).expect("right");

        let [a, b]: [std::net::Ipv6Addr; 2] = ["2001:2::1", "2001:2::2"].map(|text| text.parse().expect("an address"));
        let ours = IcmpError::too_big(MACS, a.into(), b.into(), quote.clone()).with(|frame| frame.ip.id = 0);
        let mut theirs = Vec::new();
        PacketBuilder::ethernet2(MACS[0], MACS[1])
            .ipv6(a.octets(), b.octets(), 61)
            .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 })
            .write(&mut theirs, &quote)
            .expect("a vector takes all");
        assert_eq!(ours.build(), theirs);
        check_checksums(&theirs).expect("right");
    }

    #[test]
    fn a_wrong_checksum_is_wrong() {
        for [a, b] in [["198.18.0.1", "198.18.0.2"], ["2001:2::1", "2001:2::2"]] {
            let [a, b] = [a, b].map(|text| text.parse().expect("an address"));
            let right = IcmpError::too_big(MACS, a, b, vec![7; 48]);
            check_checksums(&right.build()).expect("right");
            check_checksums(&right.with(|frame| frame.checksum_error = 1).build()).expect_err("wrong");
        }
    }
}
