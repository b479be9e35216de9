//! Internet checksums from scratch, byte pair by byte pair (RFC 1071), and the check of a frame's.

use anyhow::{Context as _, Result, ensure};

/// The one's complement sum of big-endian words.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
    }
    u16::try_from(sum).expect("reduced below 2^16 after each addition")
}

/// The bytes that a transport checksum covers besides the segment: addresses, length and protocol (RFC 9293, 3.1; RFC
/// 8200, 8.1). Both families' sum up to the same words.
pub(super) fn pseudo_header(addresses: &[u8], length: usize, protocol: u8) -> Vec<u8> {
    let length = u32::try_from(length).expect("a frame is shorter than 4 GiB");
    [addresses, &length.to_be_bytes(), &[0, 0, 0, protocol]].concat()
}

/// Checks the IPv4 header's checksum and the TCP, UDP, ICMP or ICMPv6 one of a frame, of fragments the former.
///
/// # Errors
/// If one is wrong, or the frame is not such a one.
pub fn check_checksums(frame: &[u8]) -> Result<()> {
    let mut ip = frame.get(12..).context("no ethertype")?;
    while ip.starts_with(&[0x81, 0]) || ip.starts_with(&[0x88, 0xa8]) {
        ip = ip.get(4..).context("a tag cut")?;
    }
    let ip = ip.get(2..).context("no IP header")?;
    let (addresses, protocol, segment) = match ip.first().context("no IP header")? >> 4 {
        4 => {
            let header_length = usize::from(ip[0] & 0xf) * 4;
            let header = ip.get(..header_length).context("IPv4 header cut")?;
            ensure!(sum(&[header]) == 0xffff, "wrong IPv4 header checksum");
            if u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0 {
                return Ok(());
            }
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            (&ip[12..20], ip[9], ip.get(header_length..total).context("IPv4 packet cut")?)
        }
        _ => {
            let header = ip.get(..40).context("IPv6 header cut")?;
            let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            let mut payload = ip.get(40..40 + length).context("IPv6 packet cut")?;
            let mut protocol = ip[6];
            while let 0 | 43 | 44 | 60 = protocol {
                let extension = payload.get(..8).context("an extension header cut")?;
                if protocol == 44 && u16::from_be_bytes([extension[2], extension[3]]) & 0xfff9 != 0 {
                    return Ok(());
                }
                let length = if protocol == 44 { 8 } else { (usize::from(extension[1]) + 1) * 8 };
                protocol = extension[0];
                payload = payload.get(length..).context("an extension header cut")?;
            }
            (&header[8..40], protocol, payload)
        }
    };
    let is_udp = protocol == 17;
    if is_udp && segment.get(6..8) == Some(&[0, 0]) {
        return Ok(());
    }
    // ICMP for IPv4 covers nothing but the message (RFC 792).
    let pseudo = if protocol == 1 { Vec::new() } else { pseudo_header(addresses, segment.len(), protocol) };
    ensure!(sum(&[&pseudo, segment]) == 0xffff, "wrong checksum of protocol {protocol}");
    Ok(())
}

/// Cuts off what comes after the IP packet of a frame that has one.
pub fn cut_padding(frame: &mut Vec<u8>) {
    let mut at = 12;
    while let [0x81, 0] | [0x88, 0xa8] = frame[at..at + 2] {
        at += 4;
    }
    let ip = at + 2;
    let length = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let end = if frame[ip] >> 4 == 4 { ip + length(ip + 2) } else { ip + 40 + length(ip + 4) };
    frame.truncate(end);
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::super::{Frame, SYN};

    const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

    /// The builder agrees with another one, to the byte.
    #[test]
    fn frames_are_those_of_etherparse() {
        let ends = ["198.18.0.1:1025", "198.18.0.2:80"].map(|end| end.parse().expect("an address"));
        let ours = Frame::tcp(MACS, ends[0], ends[1], SYN).carrying(*b"odd").with_tcp(|tcp| tcp.sequence = 7);
        let mut theirs = Vec::new();
        PacketBuilder::ethernet2(MACS[0], MACS[1])
            .ip(etherparse::IpHeaders::Ipv4(
                etherparse::Ipv4Header {
                    identification: 0x1d1d,
                    dont_fragment: true,
                    ..etherparse::Ipv4Header::new(0, 61, etherparse::IpNumber::TCP, [198, 18, 0, 1], [198, 18, 0, 2])
                        .expect("a payload length that fits")
                },
                etherparse::Ipv4Extensions::default(),
            ))
            .tcp(1025, 80, 7, 0xfaf0)
            .syn()
            .write(&mut theirs, b"odd")
            .expect("a vector takes all");
        assert_eq!(ours.build(), theirs);

        let ends = ["[2001:2::1]:1025", "[2001:2::2]:53"].map(|end| end.parse().expect("an address"));
        let ours = Frame::udp(MACS, ends[0], ends[1]).with_ip(|ip| ip.id = 0);
        let mut theirs = Vec::new();
        PacketBuilder::ethernet2(MACS[0], MACS[1])
            .ipv6(
                "2001:2::1".parse::<std::net::Ipv6Addr>().expect("an address").octets(),
                [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
                61,
            )
            .udp(1025, 53)
            .write(&mut theirs, b"datagram")
            .expect("a vector takes all");
        assert_eq!(ours.build(), theirs);
    }

    #[test]
    fn a_wrong_checksum_is_found() {
        let ends = ["198.18.0.1:1025", "198.18.0.2:80"].map(|end| end.parse().expect("an address"));
        let frame = Frame::udp(MACS, ends[0], ends[1]);
        super::check_checksums(&frame.build()).expect("right");
        let mut wrong = frame.build();
        wrong[36] ^= 1;
        super::check_checksums(&wrong).expect_err("wrong");
        let bytes = frame.with_udp(|udp| udp.checksum = Some(0)).build();
        super::check_checksums(&bytes).expect("zero is none");
    }
}
