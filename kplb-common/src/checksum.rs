//! Incremental update of Internet checksums (RFC 1624, equation 3).
//!
//! Sums are of memory words as they lie: one's complement addition does not depend on byte order (RFC 1071, 2.B).
//! Invariant: an update never repairs a packet. What was wrong before is wrong after, so that the receiver still sees
//! the damage.

/// Folds a one's complement sum of 32-bit words to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The delta that replaces words that add up to `old` by words that add up to `new`: to be added to a checksum by
/// [`update`]. The sums are of 32-bit or 16-bit words, without folding.
#[inline(always)]
pub const fn delta(old: u64, new: u64) -> u16 {
    fold(!fold(old) as u64 + new)
}

/// The delta of both changes.
#[inline(always)]
pub const fn sum(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    // Of two words, one fold leaves no carry. LLVM does not see that, and each step here holds up all that follow.
    (sum as u16).wrapping_add((sum >> 16) as u16)
}

/// The checksum after a change.
#[inline(always)]
pub const fn update(checksum: u16, delta: u16) -> u16 {
    !sum(!checksum, delta)
}

/// A UDP checksum after a change: zero, "no checksum", stays zero, and none becomes zero (RFC 768).
#[inline(always)]
pub const fn update_udp(checksum: u16, delta: u16) -> u16 {
    if checksum == 0 {
        return 0;
    }
    match update(checksum, delta) {
        0 => 0xffff,
        updated => updated,
    }
}

/// The delta in the IPv4 header's checksum of one hop less to live, whose byte is the first of its 16-bit word.
pub const TTL_DECREMENT: u16 = !0x0100_u16.to_be();

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    /// The checksum from scratch, byte by byte (RFC 1071).
    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum: u64 = 0;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn word(bytes: &[u8], i: usize) -> u32 {
        u32::from_ne_bytes(bytes[i..i + 4].try_into().expect("four bytes"))
    }

    proptest! {
        #[test]
        fn update_equals_recomputation(
            mut bytes in prop::collection::vec(any::<u8>(), 16..200).prop_filter("a header is not all zero", |b| b[0] != 0),
            position in 1_usize..3,
            new in any::<[u8; 4]>(),
        ) {
            let position = position * 4;
            let before = u16::from_ne_bytes(checksum(&bytes).to_be_bytes());
            let old = word(&bytes, position);
            bytes[position..position + 4].copy_from_slice(&new);
            let after = u16::from_ne_bytes(checksum(&bytes).to_be_bytes());
            prop_assert_eq!(update(before, delta(u64::from(old), u64::from(u32::from_ne_bytes(new)))), after);
        }

        #[test]
        fn a_sum_of_two_is_folded(a: u16, b: u16) {
            prop_assert_eq!(sum(a, b), fold(u64::from(a) + u64::from(b)));
        }

        #[test]
        fn deltas_add_up(a in any::<[u32; 2]>(), b in any::<[u32; 2]>(), checksum in 1_u16..) {
            let [a, b] = [a, b].map(|words| words.map(u64::from));
            let both = delta(a[0] + a[1], b[0] + b[1]);
            let each = sum(delta(a[0], b[0]), delta(a[1], b[1]));
            prop_assert_eq!(update(checksum, both), update(checksum, each));
        }

        #[test]
        fn fewer_hops(mut header in any::<[u8; 20]>().prop_filter("hops left", |h| h[8] > 0 && h[0] != 0)) {
            let before = u16::from_ne_bytes(checksum(&header).to_be_bytes());
            header[8] -= 1;
            let after = u16::from_ne_bytes(checksum(&header).to_be_bytes());
            prop_assert_eq!(update(before, TTL_DECREMENT), after);
        }

        #[test]
        fn udp_zero_means_none(delta in any::<u16>(), checksum in 1_u16..) {
            prop_assert_eq!(update_udp(0, delta), 0);
            prop_assert_ne!(update_udp(checksum, delta), 0);
        }
    }

    #[test]
    fn folds_every_carry() {
        assert_eq!(delta(0, 18 * u64::from(u32::MAX)), 0xffff);
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0x1_0000), 1);
    }
}
