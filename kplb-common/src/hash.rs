//! The keyed hash that places clients on the ring and flows on NAT ports.
//!
//! Invariant: the result depends on the wire bytes and the seed only, so that every node with the same configuration
//! chooses alike, on little and big endian.

use crate::{flow::FlowKey, net::Address};

/// Stafford's variant 13 of the 64-bit finalizer of MurmurHash3, the step of SplitMix64 (Steele et al., OOPSLA 2014).
#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Golden ratio times 2^64; keeps a zero seed and zero words from the fixed point of [`mix`].
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The n-th of the numbers that follow from a hash, each as good as a hash of its own (SplitMix64, whose state is the hash
/// here).
#[inline(always)]
pub const fn nth(hash: u64, n: u32) -> u32 {
    (mix(hash.wrapping_add(STEP.wrapping_mul(n as u64 + 1))) >> 32) as u32
}

#[inline(always)]
const fn start(seed: u64) -> u64 {
    mix(seed.wrapping_add(STEP))
}

#[inline(always)]
fn add(state: u64, word: u32) -> u64 {
    mix(state.wrapping_add(STEP) ^ u64::from(u32::from_be(word)))
}

/// Keyed hash of 32-bit words given as they lie in memory.
#[inline(always)]
pub fn hash_words(seed: u64, words: &[u32]) -> u64 {
    let mut state = start(seed);
    for word in words {
        state = add(state, *word);
    }
    state
}

/// As [`hash_words`], of an address.
#[inline(always)]
fn hash_address<A: Address>(seed: u64, address: &A) -> u64 {
    address.fold(start(seed), add)
}

/// Hash of a client's address.
#[inline(always)]
pub fn hash_client<A: Address>(seed: u64, client: &A) -> u32 {
    (hash_address(seed, client) >> 32) as u32
}

#[inline(always)]
fn hash_key<A: Address>(seed: u64, key: &FlowKey<A>) -> u64 {
    let state = key.destination.fold(hash_address(seed, &key.source), add);
    let ports = u64::from(key.source_port.to_host()) << 16 | u64::from(key.destination_port.to_host());
    mix(state.wrapping_add(STEP) ^ ports ^ u64::from(key.protocol) << 32)
}

/// Hash of a 5-tuple, for its slot.
#[inline(always)]
pub fn hash_flow<A: Address>(seed: u64, key: &FlowKey<A>) -> u32 {
    (hash_key(seed, key) >> 32) as u32
}

/// Hash of a 5-tuple, for its NAT port. Its lower half, which places the port, has nothing in common with
/// [`hash_flow`]: the flows of a backend, whose slots are few, would crowd on few ports.
#[inline(always)]
pub fn hash_nat_port<A: Address>(seed: u64, key: &FlowKey<A>) -> u64 {
    hash_key(seed, key)
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::net::{Ip4, Ip6};

    fn largest_deviation(hashes: impl Iterator<Item = u32>) -> f64 {
        let mut buckets = [0_u32; 64];
        let mut n = 0;
        for hash in hashes {
            buckets[(hash >> 26) as usize] += 1;
            n += 1;
        }
        let expected = f64::from(n) / 64.0;
        buckets.iter().map(|&count| (f64::from(count) - expected).abs() / expected).fold(0.0, f64::max)
    }

    #[test]
    fn neighbouring_clients_spread() {
        let v4 = (0..65_536_u32).map(|n| hash_client(7, &Ip4::from(Ipv4Addr::from(0xc612_0000 + n))));
        assert!(largest_deviation(v4) < 0.15);
        let v6 = (0..65_536_u128).map(|n| hash_client(7, &Ip6::from(Ipv6Addr::from((0x2001_0002 << 96) + n))));
        assert!(largest_deviation(v6) < 0.15);
    }

    #[test]
    fn seed_and_every_word_count() {
        let base = hash_words(1, &[1, 2, 3, 4]);
        assert_ne!(base, hash_words(2, &[1, 2, 3, 4]));
        for i in 0..4 {
            let mut words = [1, 2, 3, 4];
            words[i] ^= 1;
            assert_ne!(base, hash_words(1, &words));
        }
        assert_ne!(hash_words(1, &[1, 2]), hash_words(1, &[2, 1]));
    }

    #[test]
    fn an_address_is_its_words() {
        let address = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0x11);
        let words = [0x2001_0002_u32, 0, 0, 0x11].map(u32::to_be);
        assert_eq!(hash_client(5, &Ip6::from(address)), (hash_words(5, &words) >> 32) as u32);
    }
}
