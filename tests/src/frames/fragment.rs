//! A frame's packet in fragments.

use std::{net::IpAddr, ops::Range};

use super::{Frame, checksum::sum};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

impl Frame {
    /// The packet cut at these places of what follows its IPv4 header or its fixed IPv6 header.
    pub fn fragments(&self, cuts: &[usize], id: u32) -> Vec<Vec<u8>> {
        let ends = [&[0], cuts, &[self.fragmentable().len()]].concat();
        ends.windows(2).map(|ends| self.fragment(ends[0]..ends[1], id)).collect()
    }

    /// The fragment that brings this part; more follow if it does not reach to the end.
    pub fn fragment(&self, part: Range<usize>, id: u32) -> Vec<u8> {
        let more = part.end < self.fragmentable().len();
        self.fragment_with(part.start as u16 | u16::from(more), &self.fragmentable()[part], id)
    }

    /// The fragment that says it is at this offset, of which the lowest bit says whether more follow, and brings this.
    pub fn fragment_with(&self, offset_and_more: u16, brings: &[u8], id: u32) -> Vec<u8> {
        let whole = self.build();
        let mut headers = whole[..ETHERNET + self.header_length()].to_vec();
        let ip = &mut headers[ETHERNET..];
        let fragment_header = match self.ip.source {
            IpAddr::V4(_) => {
                let length = (ip.len() + brings.len()) as u16;
                let fragment = offset_and_more >> 3 | (offset_and_more & 1) << 13;
                ip[2..4].copy_from_slice(&length.to_be_bytes());
                ip[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                ip[6..8].copy_from_slice(&fragment.to_be_bytes());
                ip[10..12].fill(0);
                let checksum = !sum(&[ip]);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                Vec::new()
            }
            IpAddr::V6(_) => {
                let header = [&[ip[6], 0][..], &offset_and_more.to_be_bytes(), &id.to_be_bytes()].concat();
                ip[4..6].copy_from_slice(&((header.len() + brings.len()) as u16).to_be_bytes());
                ip[6] = 44;
                header
            }
        };
        [&headers[..], &fragment_header, brings].concat()
    }

    /// What is cut up.
    pub fn fragmentable(&self) -> Vec<u8> {
        let whole = Self { padding: Vec::new(), ..self.clone() }.build();
        whole[ETHERNET + self.header_length()..].to_vec()
    }

    fn header_length(&self) -> usize {
        match self.ip.source {
            IpAddr::V4(_) => 20 + self.ip.options.len(),
            IpAddr::V6(_) => 40,
        }
    }
}

/// A frame with VLAN tags: ethertype and control information of each, outermost first.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags: Vec<u8> =
        tags.iter().flat_map(|(ethertype, control)| [ethertype, control]).flat_map(|word| word.to_be_bytes()).collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}
