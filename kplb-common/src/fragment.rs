//! Fragments: which datagram a fragment belongs to, and which parts of it have been seen.
//!
//! Only a datagram's first fragment has the ports, so what it said is kept for those that follow.

use crate::net::Be16;

/// Bytes of the unit in which a fragment's offset is given (RFC 791, section 3.1; RFC 8200, section 4.5).
pub const UNIT: usize = 8;

/// How long the fragments of a datagram are waited for, in nanoseconds: as long as Linux waits for those of IPv4
/// (`net.ipv4.ipfrag_time`).
pub const LIFETIME_NS: u64 = 30 * 1_000_000_000;

/// Words of [`Fragments::received`]: a bit for each unit of the longest datagram.
pub const RECEIVED_WORDS: usize = 128;

/// What tells a datagram's fragments from all others (RFC 791, section 2.3; RFC 8200, section 4.5); key of the tables.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct FragmentKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Identification, in network order; that of IPv4 in the lower half of the number.
    pub id: u32,
    /// IP protocol number of IPv4; zero in IPv6, whose fragments need not say the same.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentKey<crate::net::Ip4>>() == 16);
const _: () = assert!(size_of::<FragmentKey<crate::net::Ip6>>() == 40);

/// A datagram of which the first fragment has been sent on; value of the tables.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fragments {
    /// When the first fragment came: nanoseconds of the data path's clock ([`crate::clock`]).
    pub first_seen_ns: u64,
    /// Source port, as the first fragment had it.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// IP protocol number.
    pub protocol: u32,
    /// A bit for each unit that has come: the bit table of RFC 791, section 3.2.
    pub received: [u64; RECEIVED_WORDS],
}

const _: () = assert!(size_of::<Fragments>() == 1040);

/// The bits of a word of [`Fragments::received`] that a fragment fills, which begins at unit `first` and is `n_units`
/// long.
#[inline(always)]
pub const fn bits(word: usize, first: usize, n_units: usize) -> u64 {
    let start = word * 64;
    let end = first + n_units;
    let from = first.saturating_sub(start);
    let to = end.saturating_sub(start);
    below(to) & !below(from)
}

/// The bits below the `n`th.
#[inline(always)]
const fn below(n: usize) -> u64 {
    if n < 64 { (1 << n) - 1 } else { u64::MAX }
}

/// What is changed in the identification of a fragment whose ports, after its rewrite, are these: the lower half of it is
/// combined with this word by exclusive or.
///
/// Packets of many flows get one source address, and fragments of two datagrams with one identification would be put
/// together by the receiver. Whoever rewrites addresses has to see to that (RFC 6864, section 5.3). Two flows between the
/// same addresses differ in a port, so equal identifications of theirs come out different, and what differs within a flow
/// stays different.
#[inline(always)]
pub const fn renumbering(source_port: Be16, destination_port: Be16) -> u16 {
    source_port.to_wire() ^ destination_port.to_wire()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_filled(unit: usize, first: usize, n_units: usize) -> bool {
        (first..first + n_units).contains(&unit)
    }

    proptest! {
        #[test]
        fn bits_are_those_of_the_units(first in 0_usize..8192, n_units in 0_usize..=8192) {
            for word in 0..RECEIVED_WORDS {
                let bits = bits(word, first, n_units);
                for bit in 0..64 {
                    prop_assert_eq!(bits >> bit & 1 == 1, is_filled(word * 64 + bit, first, n_units));
                }
            }
        }
    }
}
