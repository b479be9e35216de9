//! What becomes of frames on their way: cut into fragments, given options, extension headers and VLAN tags.

use kplb_common::net::{TCP, UDP};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    frame::{is_ipv4, mend_ipv4},
    parse::{ETHERNET, IPV4, IPV6},
};

/// Gives a frame IPv4 options, mostly such as are walked, or IPv6 extension headers.
pub fn with_headers(rng: &mut StdRng, frame: &mut Vec<u8>) {
    if is_ipv4(frame) { with_options(rng, frame) } else { with_extensions(rng, frame) }
}

fn with_options(rng: &mut StdRng, frame: &mut Vec<u8>) {
    if frame[ETHERNET] != 0x45 {
        return;
    }
    let mut options = Vec::new();
    for _ in 0..rng.random_range(1..5) {
        match rng.random_range(0..12) {
            0..5 => options.push(1),
            // Router alert, a time stamp, a record of the route.
            5..7 => options.extend([148, 4, 0, 0]),
            7 => options.extend([68, 8, 5, 0, 0, 0, 0, 0]),
            8 => options.extend([7, 7, 4, 0, 0, 0, 0]),
            // A source route.
            9 => options.extend([*[131, 137].choose(rng).expect("two"), 7, 4, 198, 18, 0, 1]),
            // Lengths that cannot be.
            10 => {
                options.extend([rng.random_range(2..=255), *[0, 1, 2, 3, 39, 40, 41, 255].choose(rng).expect("eight")])
            }
            _ => options.push(0),
        }
    }
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4), *[0, 0, 1].choose(rng).expect("three"));
    let length = u16::from_be_bytes([frame[ETHERNET + 2], frame[ETHERNET + 3]]).wrapping_add(options.len() as u16);
    frame[ETHERNET] += options.len() as u8 / 4;
    frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&length.to_be_bytes());
    let end = ETHERNET + IPV4 + options.len();
    frame.splice(ETHERNET + IPV4..ETHERNET + IPV4, options);
    mend_ipv4(&mut frame[ETHERNET..end]);
}

fn with_extensions(rng: &mut StdRng, frame: &mut Vec<u8>) {
    for _ in 0..*[1, 1, 1, 2, 2, 3, 4, 5, 6, 7].choose(rng).expect("ten") {
        let number = *[0, 60, 60, 60, 43, 43, 44, 44, 51, 135].choose(rng).expect("ten");
        let units: u8 = if number == 44 { 0 } else { *[0, 0, 0, 0, 1, 2, 9, 30].choose(rng).expect("eight") };
        let mut header = vec![rng.random(); (usize::from(units) + 1) * 8];
        header[..2].copy_from_slice(&[frame[ETHERNET + 6], units]);
        match number {
            // Segments left.
            43 => header[3] = u8::from(rng.random_ratio(1, 5)),
            // Of a datagram that is all in one fragment, mostly.
            44 => {
                let offset_and_more: u16 = *[0, 0, 0, 0, 1, 6, 8, 9].choose(rng).expect("eight");
                header[1..4].copy_from_slice(&[0, 0, offset_and_more as u8]);
            }
            _ => {}
        }
        insert_extension(frame, number, &header);
    }
}

/// Puts an extension header of this number in front of all others.
pub fn insert_extension(frame: &mut Vec<u8>, number: u8, header: &[u8]) {
    let at = ETHERNET + 4;
    let length = u16::from_be_bytes([frame[at], frame[at + 1]]).wrapping_add(header.len() as u16);
    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
    frame[ETHERNET + 6] = number;
    frame.splice(ETHERNET + IPV6..ETHERNET + IPV6, header.iter().copied());
}

/// Cuts a frame's packet into fragments with this identification, in an order and with gaps and overlaps that are mostly
/// as they should be. A frame that is too short, or has no TCP or UDP, stays whole.
pub fn cut(rng: &mut StdRng, frame: &[u8], id: u8) -> Vec<Vec<u8>> {
    let header_length = if is_ipv4(frame) { IPV4 } else { IPV6 };
    let Some(payload) = frame.get(ETHERNET + header_length..) else { return vec![frame.to_vec()] };
    let protocol = frame[ETHERNET + if is_ipv4(frame) { 9 } else { 6 }];
    let is_plain = [0x45, 0x60].contains(&frame[ETHERNET]) && [TCP, UDP].contains(&protocol);
    if !is_plain || payload.len() < 16 {
        return vec![frame.to_vec()];
    }
    let mut cuts: Vec<usize> =
        (0..rng.random_range(1..4)).map(|_| rng.random_range(1..payload.len().div_ceil(8)) * 8).collect();
    if rng.random_ratio(4, 5) {
        // Behind the header, so that the first fragment is not tiny.
        cuts.retain(|cut| *cut >= 24);
    }
    cuts.extend([0, payload.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    let mut pieces: Vec<Vec<u8>> = cuts
        .windows(2)
        .map(|ends| {
            let (mut from, mut to) = (ends[0], ends[1]);
            if rng.random_ratio(1, 12) {
                from = from.saturating_sub(8);
            }
            if rng.random_ratio(1, 20) {
                to = (to + rng.random_range(1..9)).min(payload.len());
            }
            let more = to < payload.len();
            piece(frame, &payload[from..to], header_length, from, more != rng.random_ratio(1, 40), id)
        })
        .collect();
    match rng.random_range(0..10) {
        0 => pieces.reverse(),
        1 => {
            let again = pieces.choose(rng).expect("a piece").clone();
            pieces.push(again);
        }
        2 if pieces.len() > 2 => pieces.swap(1, 2),
        _ => {}
    }
    pieces
}

fn piece(frame: &[u8], payload: &[u8], header_length: usize, offset: usize, more: bool, id: u8) -> Vec<u8> {
    let mut piece = frame[..ETHERNET + header_length].to_vec();
    let ip = &mut piece[ETHERNET..];
    if is_ipv4(frame) {
        let length = (header_length + payload.len()) as u16;
        let fragment = (offset / 8) as u16 | u16::from(more) << 13;
        ip[2..4].copy_from_slice(&length.to_be_bytes());
        ip[4..6].copy_from_slice(&[7, id]);
        ip[6..8].copy_from_slice(&fragment.to_be_bytes());
        mend_ipv4(ip);
    } else {
        let next = ip[6];
        ip[4..6].copy_from_slice(&(payload.len() as u16 + 8).to_be_bytes());
        ip[6] = 44;
        piece.extend([next, 0]);
        piece.extend((offset as u16 | u16::from(more)).to_be_bytes());
        piece.extend([0xa5, 0x5a, 7, id]);
    }
    piece.extend(payload);
    piece
}

/// Puts a VLAN tag behind the MAC addresses.
pub fn tag(frame: &mut Vec<u8>, ethertype: u16, identifier: u16, priority: u8) {
    let control = u16::from(priority) << 13 | identifier;
    frame.splice(12..12, [ethertype.to_be_bytes(), control.to_be_bytes()].concat());
}

/// Gives a frame the tags of a VLAN, outermost first, or nearly.
pub fn tag_all(rng: &mut StdRng, frame: &mut Vec<u8>, vlan: &[u16]) {
    let mut tags: Vec<u16> = vlan.to_vec();
    match rng.random_range(0..40) {
        0 => tags.push(0),
        1 => tags.insert(0, 0),
        2 => tags.push(rng.random_range(1..4095)),
        3 => {
            tags.pop();
        }
        4 => tags.reverse(),
        5 => tags = vec![0; rng.random_range(1..5)],
        _ => {}
    }
    for identifier in tags.into_iter().rev() {
        let ethertype = *[0x8100, 0x8100, 0x88a8].choose(rng).expect("three");
        tag(frame, ethertype, identifier, rng.random_range(0..8));
    }
}
