//! Damage to frames.

use rand::{Rng as _, rngs::StdRng};

use super::parse::{ETHERNET, IPV4, IPV6};

/// Length of the shortest frames.
pub const SHORTEST: usize = ETHERNET + 1;
/// Longest frame that is made.
pub const LONGEST: usize = 1600;

/// Damages a frame in one to three ways.
pub fn mutate(rng: &mut StdRng, frame: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..=3) {
        let length = frame.len();
        // Of the IP length, and of the TCP or UDP header.
        let (length_at, l4) =
            if frame[12] == 8 { (ETHERNET + 2, ETHERNET + IPV4) } else { (ETHERNET + 4, ETHERNET + IPV6) };
        match rng.random_range(0..9) {
            0 => flip(rng, frame, 0..length),
            1 => flip(rng, frame, ETHERNET..length.min(ETHERNET + IPV6 + 20)),
            2 => flip(rng, frame, ETHERNET..length.min(ETHERNET + IPV4)),
            3 => {
                frame.truncate(rng.random_range(SHORTEST..=length));
            }
            4 => {
                frame.truncate(ETHERNET + rng.random_range(18..64));
            }
            5 => frame.resize(length + rng.random_range(1..60), rng.random()),
            6 => lie(rng, frame, length_at),
            // UDP length, TCP data offset.
            7 => lie(rng, frame, l4 + 4),
            _ => set(rng, frame, l4 + 12),
        }
        frame.truncate(LONGEST);
    }
}

fn flip(rng: &mut StdRng, frame: &mut [u8], range: std::ops::Range<usize>) {
    let at = rng.random_range(range);
    frame[at] ^= 1 << rng.random_range(0..8);
}

fn set(rng: &mut StdRng, frame: &mut [u8], at: usize) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = rng.random();
    }
}

/// Changes a length a bit, or altogether.
fn lie(rng: &mut StdRng, frame: &mut [u8], at: usize) {
    let Some([high, low]) = frame.get_mut(at..at + 2) else { return };
    let length = u16::from_be_bytes([*high, *low]);
    let lie = match rng.random_range(0..3) {
        0 => length.wrapping_add(rng.random_range(0..30)).wrapping_sub(15),
        1 => rng.random_range(0..64),
        _ => rng.random(),
    };
    [*high, *low] = lie.to_be_bytes();
}

/// Whether the kernel surely runs a TC program on a frame: it refuses some, with `EINVAL`, that end before their IP
/// header does.
pub fn fits_tc(frame: &[u8]) -> bool {
    let header = match frame[12..14] {
        [8, 0] => IPV4,
        [0x86, 0xdd] => IPV6,
        _ => 1,
    };
    frame.len() >= ETHERNET + header
}
