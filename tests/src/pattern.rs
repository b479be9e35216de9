//! Pseudo-random bytes that every part of the lab can produce, so that a transfer is checked by its hash alone.

use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};

/// How many bytes are produced at a time.
const CHUNK: usize = 64 * 1024;

/// The first `n` bytes of the pattern, in chunks.
#[derive(Clone, Debug)]
pub struct Pattern {
    left: u64,
    state: u64,
}

impl Pattern {
    /// The first `n` bytes.
    pub fn new(n: u64) -> Self {
        Self { left: n, state: 0 }
    }

    /// How many bytes are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl Iterator for Pattern {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        if length == 0 {
            return None;
        }
        self.left -= length as u64;
        // Only the last chunk can end within a word.
        let mut chunk = Vec::with_capacity(CHUNK);
        while chunk.len() < length {
            chunk.extend_from_slice(&self.next_word().to_be_bytes());
        }
        chunk.truncate(length);
        Some(chunk.into())
    }
}

/// The SHA-256 of the first `n` bytes, in hexadecimal.
pub fn pattern_sha256(n: u64) -> String {
    let mut hash = Sha256::new();
    for chunk in Pattern::new(n) {
        hash.update(&chunk);
    }
    hex(&hash.finalize())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_pattern_starts_with_the_shorter() {
        let collect = |n| Pattern::new(n).flat_map(Vec::from).collect::<Vec<_>>();
        let long = collect(200_003);
        assert_eq!(long.len(), 200_003);
        for n in [0, 1, 8, 65_535, 65_536, 65_537] {
            assert_eq!(collect(n), long[..usize::try_from(n).expect("n is small")], "{n} bytes");
        }
    }
}
