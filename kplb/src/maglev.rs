//! Builds the maglev ring of a service.
//!
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Each
//! backend prefers the slots in an order of its own; the backends take turns, each taking the first slot of its order
//! that is free. A lighter backend sits turns out, as in Envoy's `MaglevTable`.
//!
//! Losing one of n backends moves few slots more than its own while there are hundreds of slots for each: 5 % more with
//! ten backends, 70 % more with sixty.
//!
//! Invariant: which backend has a slot depends on the seed, the backends' addresses, ports and weights only: not on the
//! order in which they are listed, on ids, names or the processor. Nodes with the same configuration choose alike.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use kplb_common::{
    hash::hash_words,
    maglev::{NO_BACKEND, RING_SIZE, Ring},
};

/// A backend that wants its share of the ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Member {
    /// Address and port; no two members have the same.
    pub address: SocketAddr,
    /// Share of the ring relative to the other members; 0 keeps out of it.
    pub weight: u32,
    /// What stands in the member's slots.
    pub id: u16,
}

/// The ring of `members`; without any of a weight, every slot says [`NO_BACKEND`].
pub fn build(seed: u64, members: &[Member]) -> Box<Ring> {
    build_of_size(seed, members)
}

/// The same with `N` slots, which is a prime number.
pub fn build_of_size<const N: usize>(seed: u64, members: &[Member]) -> Box<[u16; N]> {
    let mut ring = Box::new([NO_BACKEND; N]);
    let mut turns: Vec<Turn<N>> =
        members.iter().filter(|member| member.weight > 0).map(|member| Turn::new(seed, member)).collect();
    // Not by address alone, which would give the lowest one the first turn on every ring.
    turns.sort_by_key(|turn| (turn.order, turn.address));
    let Some(heaviest) = turns.iter().map(|turn| turn.weight).max() else {
        return ring;
    };

    let mut n_free = N;
    for round in 1_u64.. {
        for turn in &mut turns {
            // In `heaviest` rounds, a member gets as many turns as its weight, evenly spaced.
            if round * turn.weight < turn.due {
                continue;
            }
            turn.due += heaviest;
            ring[turn.take_free_slot(&ring)] = turn.id;
            n_free -= 1;
            if n_free == 0 {
                return ring;
            }
        }
    }
    unreachable!("each round fills a slot: the heaviest member sits none out")
}

/// Rings as they were built last, so that those that have not changed need not be built again.
#[derive(Clone, Debug, Default)]
pub struct Rings(BTreeMap<u16, Built>);

/// A ring and what it was built from.
#[derive(Clone, Debug)]
struct Built {
    seed: u64,
    members: Vec<Member>,
    ring: Arc<Ring>,
}

impl Rings {
    /// The ring of a service.
    pub fn get(&mut self, service: u16, seed: u64, members: Vec<Member>) -> Arc<Ring> {
        if let Some(built) = self.0.get(&service)
            && built.seed == seed
            && built.members == members
        {
            return Arc::clone(&built.ring);
        }
        let ring: Arc<Ring> = build(seed, &members).into();
        self.0.insert(service, Built { seed, members, ring: Arc::clone(&ring) });
        ring
    }
}

/// Share of the ring's slots that lead to backend `id`, 0 to 1.
pub fn share(ring: &Ring, id: u16) -> f64 {
    let n_slots = ring.iter().filter(|&&slot| slot == id).count();
    n_slots as f64 / RING_SIZE as f64
}

/// A member's order of preference among `N` slots, and how far it got.
struct Turn<const N: usize> {
    order: u64,
    address: SocketAddr,
    weight: u64,
    /// The member's next turn is in the round whose number times the weight reaches this.
    due: u64,
    id: u16,
    slot: usize,
    skip: usize,
}

impl<const N: usize> Turn<N> {
    /// Makes the second hash of the seed independent of the first; any odd constant does.
    const SKIP_SEED: u64 = 0xd6e8_feb8_6659_fd93;

    fn new(seed: u64, member: &Member) -> Self {
        let order = hash(seed, member.address);
        let skip = hash(seed ^ Self::SKIP_SEED, member.address);
        Self {
            order,
            address: member.address,
            weight: member.weight.into(),
            due: 0,
            id: member.id,
            slot: (order % N as u64) as usize,
            // From one to one less than the prime size: every such step visits every slot.
            skip: (skip % (N as u64 - 1)) as usize + 1,
        }
    }

    /// The first free slot in the order of preference; there must be one.
    fn take_free_slot(&mut self, ring: &[u16; N]) -> usize {
        loop {
            let slot = self.slot;
            self.slot = (slot + self.skip) % N;
            if ring[slot] == NO_BACKEND {
                return slot;
            }
        }
    }
}

/// Keyed hash of an address and port, the same on every processor.
fn hash(seed: u64, address: SocketAddr) -> u64 {
    let octets = match address.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut words: Vec<u32> =
        octets.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect();
    words.push(u32::from(address.port()).to_be());
    hash_words(seed, &words)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::Ipv4Addr};

    use kplb_common::abi::MAX_BACKENDS;
    use proptest::prelude::*;

    use super::*;

    fn member(n: u16, weight: u32) -> Member {
        let address = Ipv4Addr::from(0xc612_0000 + u32::from(n));
        Member { address: SocketAddr::from((address, 6443)), weight, id: n }
    }

    fn members(weights: &[u32]) -> Vec<Member> {
        weights.iter().zip(0..).map(|(&weight, n)| member(n, weight)).collect()
    }

    fn slots(ring: &Ring) -> HashMap<u16, usize> {
        let mut slots = HashMap::new();
        ring.iter().for_each(|&id| *slots.entry(id).or_default() += 1);
        slots
    }

    fn n_different(a: &Ring, b: &Ring) -> usize {
        a.iter().zip(b).filter(|(a, b)| a != b).count()
    }

    #[test]
    fn nobody_has_a_slot() {
        for members in [&[][..], &[member(1, 0)]] {
            assert!(build(0, members).iter().all(|&id| id == NO_BACKEND));
        }
    }

    #[test]
    fn one_has_every_slot() {
        let ring = build(3, &[member(1, 0), member(7, 5)]);
        assert!(ring.iter().all(|&id| id == 7));
        assert_eq!(share(&ring, 7), 1.0);
        assert_eq!(share(&ring, 1), 0.0);
    }

    #[test]
    fn shares_follow_weights() {
        let ring = build(0, &members(&[1, 2, 1]));
        for (id, expected) in [(0, 0.25), (1, 0.5), (2, 0.25)] {
            assert!((share(&ring, id) - expected).abs() < 0.001, "backend {id} has {}", share(&ring, id));
        }
    }

    #[test]
    fn port_and_seed_count() {
        let ring = build(0, &members(&[1, 1, 1]));
        assert!(n_different(&ring, &build(1, &members(&[1, 1, 1]))) > RING_SIZE / 3);
        let moved: Vec<_> = (members(&[1, 1, 1]).into_iter())
            .map(|member| Member { address: SocketAddr::new(member.address.ip(), 443), ..member })
            .collect();
        assert!(n_different(&ring, &build(0, &moved)) > RING_SIZE / 3);
    }

    #[test]
    fn rings_are_built_once() {
        let mut rings = Rings::default();
        let first = rings.get(0, 7, members(&[1, 1]));
        assert!(first == build(7, &members(&[1, 1])).into());
        assert!(Arc::ptr_eq(&first, &rings.get(0, 7, members(&[1, 1]))));
        for (service, seed, weights) in [(1, 7, [1, 1]), (0, 8, [1, 1]), (0, 7, [1, 2])] {
            let other = rings.get(service, seed, members(&weights));
            assert!(!Arc::ptr_eq(&first, &other) && other == build(seed, &members(&weights)).into());
        }
    }

    /// As many backends as can be, and the weights that make the most rounds.
    #[test]
    fn the_largest_rings_are_full() {
        let mut weights = vec![1; MAX_BACKENDS as usize];
        for heaviest in [1, 256] {
            weights[17] = heaviest;
            let slots = slots(&build(0, &members(&weights)));
            assert_eq!(slots.len(), weights.len(), "every member has a slot, and none is empty");
        }
    }

    /// How many slots of other backends another backend has once this one is lost.
    fn needlessly_moved(seed: u64, weights: &[u32], lost: usize) -> usize {
        let all = members(weights);
        let mut rest = all.clone();
        let lost = rest.remove(lost).id;
        let (before, after) = (build(seed, &all), build(seed, &rest));
        before.iter().zip(after.iter()).filter(|(before, after)| **before != lost && before != after).count()
    }

    /// A ring is not the only one that there could be: some are luckier than others, and their mean is what counts.
    #[test]
    fn disruption_is_near_the_minimum() {
        const SEEDS: usize = 64;
        for weights in [&[1; 2][..], &[1; 3], &[1; 5], &[1; 10], &[1; 30], &[1; 60], &[1, 2, 3, 3], &[5, 1, 5, 2, 4]] {
            let needless: usize =
                (0_u64..).take(SEEDS).map(|seed| needlessly_moved(seed, weights, weights.len() / 2)).sum();
            let percent = 100.0 * needless as f64 / (SEEDS * RING_SIZE) as f64;
            assert!(percent <= 2.0, "{percent:.2} % of the slots moved without need, with weights {weights:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equal_weights_spread_evenly(seed: u64, n in 1_usize..100, weight in 1_u32..=256) {
            let slots = slots(&build(seed, &members(&vec![weight; n])));
            prop_assert_eq!(slots.len(), n);
            // The turns go round: nobody is more than one ahead.
            let (min, max) = (slots.values().min(), slots.values().max());
            prop_assert!(max <= min.map(|min| min + 1).as_ref(), "{min:?} to {max:?} slots");
        }

        #[test]
        fn unequal_weights_spread_in_proportion(seed: u64, weights in prop::collection::vec(0_u32..=256, 1..60)) {
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            prop_assume!(total > 0);
            let slots = slots(&build(seed, &members(&weights)));
            prop_assert!(!slots.contains_key(&NO_BACKEND));
            for (id, &weight) in (0..).zip(&weights) {
                let n = slots.get(&id).copied().unwrap_or_default() as f64;
                let expected = RING_SIZE as f64 * f64::from(weight) / total as f64;
                // A turn more or less, and a few percent.
                prop_assert!((n - expected).abs() <= 2.0 + expected * 0.03, "{n} slots instead of {expected}");
            }
        }

        #[test]
        fn order_is_of_no_consequence(
            seed: u64,
            (sorted, shuffled) in prop::collection::vec(0_u32..=256, 1..30)
                .prop_map(|weights| members(&weights))
                .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
        ) {
            prop_assert!(build(seed, &sorted) == build(seed, &shuffled));
        }

        /// Losing a backend, and with the rings exchanged gaining one.
        #[test]
        fn disruption_is_bounded(
            seed: u64,
            weights in prop_oneof![
                (2_usize..60).prop_map(|n| vec![1; n]),
                prop::collection::vec(1_u32..=10, 2..20),
            ],
            lost: prop::sample::Index,
        ) {
            let lost = lost.index(weights.len());
            // Without the heaviest one the others' turns are spaced anew.
            let heaviest_left = weights.iter().enumerate().filter(|(id, _)| *id != lost).map(|(_, weight)| *weight).max();
            prop_assume!(heaviest_left >= Some(weights[lost]));
            let needless = needlessly_moved(seed, &weights, lost);
            prop_assert!(needless <= RING_SIZE / 8, "{needless} slots moved without need");
        }
    }
}
