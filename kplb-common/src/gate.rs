//! The first question asked of a packet: can it be ours at all?
//!
//! A filter of one hash function over the endpoints that kplb serves: the services' and the backends'. A clear bit
//! means *surely not ours*, so that other traffic costs one load and a test. A set bit means *perhaps*: the exact
//! tables decide.

use crate::{
    endpoint::Endpoint,
    net::{Address, Be16},
};

/// Words of the filter; a power of two.
pub const GATE_WORDS: usize = 1024;

/// The filter; the one value of `GATE`.
pub type Gate = [u64; GATE_WORDS];

/// Word and bit of an endpoint in the filter.
#[inline(always)]
pub fn position<A: Address>(address: &A, port: Be16, protocol: u8) -> (usize, u32) {
    let start = u32::from(port.to_wire()) << 8 | u32::from(protocol);
    // Rotating keeps equal words of an IPv6 address from cancelling out.
    let folded = address.fold(start, |folded, word| folded.rotate_left(5) ^ word);
    // Fibonacci hashing: the upper half of the product by 2^32 / golden ratio.
    let hash = folded.wrapping_mul(0x9e37_79b9) >> 16;
    ((hash >> 6) as usize & (GATE_WORDS - 1), hash & 63)
}

/// Whether a packet to or from this endpoint can be ours.
#[inline(always)]
pub fn may_pass<A: Address>(gate: &Gate, address: &A, port: Be16, protocol: u8) -> bool {
    let (word, bit) = position(address, port, protocol);
    gate[word] >> bit & 1 == 1
}

/// Opens the gate for an endpoint.
pub fn open<A: Address>(gate: &mut Gate, endpoint: &Endpoint<A>) {
    let (word, bit) = position(&endpoint.address, endpoint.port, endpoint.protocol);
    gate[word] |= 1 << bit;
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::net::{Ip4, TCP};

    fn endpoint(last: u8, port: u16) -> Endpoint<Ip4> {
        Endpoint::new(Ip4::from(Ipv4Addr::new(198, 18, 0, last)), Be16::from_host(port), TCP)
    }

    fn passes(gate: &Gate, e: Endpoint<Ip4>) -> bool {
        may_pass(gate, &e.address, e.port, e.protocol)
    }

    #[test]
    fn opened_endpoints_pass() {
        let mut gate = [0; GATE_WORDS];
        (0..=255).for_each(|last| open(&mut gate, &endpoint(last, 6443)));
        assert!((0..=255).all(|last| passes(&gate, endpoint(last, 6443))));
    }

    #[test]
    fn few_others_do() {
        let mut gate = [0; GATE_WORDS];
        (10..20).for_each(|last| open(&mut gate, &endpoint(last, 6443)));
        let others = (0..=255).flat_map(|last| (1..100).map(move |port| endpoint(last, port)));
        let n_passing = others.clone().filter(|&e| passes(&gate, e)).count();
        assert!(n_passing * 1000 < others.count(), "{n_passing} of the other endpoints pass a gate with ten open bits");
    }
}
