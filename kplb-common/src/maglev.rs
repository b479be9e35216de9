//! The maglev ring as the data path reads it; `kplb::maglev` builds it.
//!
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4.

/// Slots of a ring: prime, as the construction demands, and more than a hundred for each of a hundred backends.
pub const RING_SIZE: usize = 16_381;

/// Backend ids by slot; the one value of an inner map of `RINGS`, so that it is swapped as a whole.
pub type Ring = [u16; RING_SIZE];

/// In a slot: no backend.
pub const NO_BACKEND: u16 = u16::MAX;

/// The slot of a hash, below [`RING_SIZE`].
///
/// A multiplication instead of a modulo: it spreads as evenly, is cheaper, and its bound is plain to the verifier.
#[inline(always)]
pub const fn slot(hash: u32) -> usize {
    ((hash as u64 * RING_SIZE as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_cover_the_ring() {
        assert_eq!(slot(0), 0);
        assert_eq!(slot(u32::MAX), RING_SIZE - 1);
    }

    #[test]
    fn size_is_prime() {
        assert!((2..RING_SIZE).take_while(|n| n * n <= RING_SIZE).all(|n| !RING_SIZE.is_multiple_of(n)));
    }
}
