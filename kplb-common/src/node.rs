//! What the programs must know of the node they run on.

use core::fmt;

use crate::{
    clock::Clock,
    hash,
    net::{Ip4, Ip6, Mac},
};

/// Room for the lifetimes: a power of two, so that a masked state is always a valid index.
pub const LIFETIMES: usize = 16;

/// The node, as the agent last saw it; the one value of `NODE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Node {
    /// How long an entry of each [`crate::flow_state::FlowState`] lives without a packet, in nanoseconds, indexed by the state's number.
    pub lifetimes_ns: [u64; LIFETIMES],
    /// How it is told what time it is.
    pub clock: Clock,
    /// IPv6 source address of NATed flows.
    pub ipv6: Ip6,
    /// IPv4 source address of NATed flows.
    pub ipv4: Ip4,
    /// First source port of NATed flows, host order.
    pub nat_port_first: u16,
    /// Last source port of NATed flows, host order; not below the first.
    pub nat_port_last: u16,
    /// MAC address of the interface.
    pub mac: Mac,
    /// The VLAN whose frames are looked at; none: those without a tag.
    pub vlan: Vlan,
    /// Always zero.
    pub _pad: [u16; 3],
}

const _: () = assert!(size_of::<Node>() == 184);

/// Tags that a frame can have and still be looked at.
pub const MAX_TAGS: usize = 2;

/// The VLAN of a frame: the identifiers of its tags, outermost first, host order; from 1 to 4094, then zeros.
///
/// A tag of identifier zero is none: it gives the frame a priority only (IEEE 802.1Q-2022, table 9-2).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Vlan(pub [u16; MAX_TAGS]);

impl Vlan {
    /// That of frames without a tag.
    pub const NONE: Self = Self([0; MAX_TAGS]);

    /// Its tags' identifiers, outermost first.
    pub fn identifiers(self) -> impl Iterator<Item = u16> {
        self.0.into_iter().take_while(|identifier| *identifier != 0)
    }

    /// Whether its frames have no tag.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        // The outermost tag comes first.
        self.0[0] == 0
    }
}

impl Node {
    /// Whether NATed flows may have this source port (host order).
    #[inline(always)]
    pub fn is_nat_port(&self, port: u16) -> bool {
        self.nat_port_first <= port && port <= self.nat_port_last
    }

    /// How long a flow lives without a packet, in nanoseconds, by the number of its
    /// [`crate::flow_state::FlowState`]. The number of no
    /// state, which the programs never write, has whatever lifetime the agent gave it: none.
    ///
    /// By number and not by state, which would be a path for the verifier to follow for each state.
    #[inline(always)]
    pub fn lifetime_ns(&self, state: u8) -> u64 {
        self.lifetimes_ns[usize::from(state) & (LIFETIMES - 1)]
    }

    /// The source port (host order) to try for a new flow at the given probe. Each probe is placed by itself (uniform
    /// probing: Knuth, The Art of Computer Programming, volume 3, section 6.4): by steps, however they are chosen, some
    /// flow would come by the same few ports again and again, and never get one.
    #[inline(always)]
    pub fn nat_port(&self, hash: u64, probe: u32) -> u16 {
        let n_ports = u32::from(self.nat_port_last.wrapping_sub(self.nat_port_first)) + 1;
        // A place in the range as a fraction of 2^32: the multiplication instead of a modulo.
        let offset = (u64::from(hash::nth(hash, probe)) * u64::from(n_ports)) >> 32;
        self.nat_port_first.wrapping_add(offset as u16)
    }
}

/// The identifiers with a point between: `42`, `100.42`.
impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [outer, inner] = self.0;
        write!(f, "{outer}")?;
        if inner == 0 { Ok(()) } else { write!(f, ".{inner}") }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::HashSet, vec::Vec};

    use proptest::prelude::*;

    use super::*;
    use crate::{abi::MAX_NAT_PROBES, hash::hash_words};

    fn node(nat_port_first: u16, nat_port_last: u16) -> Node {
        Node {
            lifetimes_ns: [0; LIFETIMES],
            clock: Clock::default(),
            ipv6: Ip6::default(),
            ipv4: Ip4::default(),
            nat_port_first,
            nat_port_last,
            mac: Mac::default(),
            vlan: Vlan::NONE,
            _pad: [0; 3],
        }
    }

    proptest! {
        #[test]
        fn ports_are_of_the_range(first in 1024_u16.., n in 0_u16..1000, hash: u64, probe in 0..MAX_NAT_PROBES) {
            let node = node(first, first.saturating_add(n));
            prop_assert!(node.is_nat_port(node.nat_port(hash, probe)));
        }
    }

    /// Whatever its hash: also one whose halves, as a start and a step, go round in a small circle.
    #[test]
    fn no_flow_is_confined_to_a_few_ports() {
        let node = node(10_000, 32_767);
        for denominator in 1..40_u64 {
            for numerator in 0..denominator {
                let step = ((numerator << 32) / denominator) | 1;
                let hash = step << 32 | 0x1234_5678;
                let ports: HashSet<u16> = (0..MAX_NAT_PROBES).map(|probe| node.nat_port(hash, probe)).collect();
                // Of 128 drawn at random from 22,768, more than a few pairs would be a sign of something.
                assert!(ports.len() > 120, "{numerator}/{denominator}: {} ports", ports.len());
            }
        }
    }

    /// With nine of ten ports taken, whoever comes still gets one.
    #[test]
    fn a_range_can_be_used_nearly_up() {
        let node = node(10_000, 32_767);
        let n_flows = 22_768 / 10 * 9;
        let mut taken = HashSet::new();
        let mut n_probes = Vec::new();
        for flow in 0..n_flows {
            let hash = hash_words(1, &[flow]);
            let probe = (0..MAX_NAT_PROBES).find(|probe| taken.insert(node.nat_port(hash, *probe)));
            n_probes.push(probe.expect("a free port"));
        }
        assert!(n_probes.iter().sum::<u32>() < 3 * n_flows, "more than three probes on average");
    }
}
