//! The checksum of an advert: the one's complement of the one's complement sum (RFC 1071) of the message, and of a
//! pseudo-header where there is one.
//!
//! | version | over | covers |
//! | --- | --- | --- |
//! | 2 | IPv4 | the message (RFC 3768, section 5.3.8) |
//! | 3 | IPv4 | the message (RFC 9568, section 5.2.8), or a pseudo-header, too (RFC 5798 as keepalived reads it) |
//! | 3 | IPv6 | the message and a pseudo-header (RFC 9568, section 5.2.8; RFC 8200, section 8.1) |

use std::net::IpAddr;

use kplb_common::checksum::fold;

/// VRRP's number among the protocols over IP (RFC 9568, section 5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// The addresses of the packet as it is on the wire; with unicast the destination is the peer's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PseudoHeader {
    /// Who sends.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
}

/// The checksum of a message whose checksum field is zero; of one that is complete: zero, if it is undamaged.
pub fn checksum(message: &[u8], pseudo_header: Option<PseudoHeader>) -> u16 {
    let pseudo_sum = pseudo_header.map_or(0, |PseudoHeader { source, destination }| {
        // Both families' pseudo-headers are these words in some order, and zeros.
        sum_of(source) + sum_of(destination) + message.len() as u64 + u64::from(PROTOCOL)
    });
    !fold(pseudo_sum + sum(message))
}

fn sum_of(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// Of 16-bit words; a last odd byte is a word's first (RFC 1071, section 1).
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071, section 3: the sum of these bytes is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], None), !0xddf2);
        assert_eq!(checksum(&[0x00, 0x01, 0xf2], None), !0xf201);
    }

    #[test]
    fn the_pseudo_header_is_as_if_prepended() {
        let message = [0x31, 51, 100, 1, 0, 25, 0, 0, 192, 0, 2, 100];
        let pseudo_header = PseudoHeader { source: [192, 0, 2, 1].into(), destination: [224, 0, 0, 18].into() };
        let v4 = [192, 0, 2, 1, 224, 0, 0, 18, 0, 112, 0, 12];
        assert_eq!(checksum(&message, Some(pseudo_header)), checksum(&[&v4[..], &message].concat(), None));

        let source: std::net::Ipv6Addr = "fe80::1".parse().expect("an address");
        let destination: std::net::Ipv6Addr = "ff02::12".parse().expect("an address");
        let pseudo_header = PseudoHeader { source: source.into(), destination: destination.into() };
        let tail = [0, 0, 0, 12, 0, 0, 0, 112];
        let v6 = [&source.octets()[..], &destination.octets(), &tail, &message].concat();
        assert_eq!(checksum(&message, Some(pseudo_header)), checksum(&v6, None));
    }
}
