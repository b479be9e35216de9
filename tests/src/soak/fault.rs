//! What can go wrong, and a plan of it that a seed repeats.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// Nodes of the lab.
pub const N_NODES: usize = 3;

/// Clients of the lab that load comes from.
pub const N_CLIENTS: usize = 2;

/// Until the first fault.
const START: Duration = Duration::from_secs(5);

/// From one slot of the plan to the next, in milliseconds: a fault, what it costs, and a quiet period.
const SLOT_MS: std::ops::Range<u64> = 15_000..20_000;

/// In so many slots, in percent, a second fault begins before the first one is over.
const PAIRS_PERCENT: u32 = 30;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum Kind {
    /// The process of a backend is killed, and started again later.
    BackendKill,
    /// The process of a backend is stopped, and goes on later.
    BackendPause,
    /// The process of a backend runs but a part of the time.
    BackendSlow,
    /// An agent is killed, and another one takes over, at once or later.
    AgentKill,
    /// An agent is told to stop, takes everything away, and is started again later.
    AgentStop,
    /// An agent leaves or is killed, and one with other programs takes over.
    AgentUpgrade,
    /// An agent follows another configuration, and later the first one again.
    AgentReload,
    /// A node's cable is pulled, and plugged in again.
    LinkFlap,
    /// A node gets another MAC address and says nothing of it, or a client does and announces it; later it gets its own
    /// again.
    NeighbourChange,
    /// Another node becomes master: one that is to be preferred now, or any while the master's agent is frozen.
    MasterMove,
}

/// A fault of the plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault {
    /// When it begins, after the start of the load.
    pub at: Duration,
    /// What it is.
    pub kind: Kind,
    /// The number of the node that it happens to, from 1 on.
    pub node: usize,
    /// How long it lasts.
    pub hold: Duration,
    /// Which one of its kind, where there are several.
    pub variant: usize,
}

/// Whom a fault happens to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Victim {
    /// The server on a node.
    Backend,
    /// The agent on a node.
    Agent,
    /// A node as a whole.
    Node,
    /// A client.
    Client,
    /// Whoever is master.
    Master,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::BackendKill,
        Self::BackendPause,
        Self::BackendSlow,
        Self::AgentKill,
        Self::AgentStop,
        Self::AgentUpgrade,
        Self::AgentReload,
        Self::LinkFlap,
        Self::NeighbourChange,
        Self::MasterMove,
    ];

    /// Whether an agent ends by it.
    const fn ends_agent(self) -> bool {
        matches!(self, Self::AgentKill | Self::AgentStop | Self::AgentUpgrade)
    }

    /// How long one lasts, in milliseconds. Agents of some kinds are started again at once.
    fn hold_ms(self, variant: usize) -> std::ops::Range<u64> {
        match self {
            Self::BackendKill | Self::AgentStop => 500..4000,
            Self::BackendPause => 300..7000,
            Self::BackendSlow => 2000..6000,
            Self::AgentKill if variant == 0 => 500..4000,
            Self::AgentKill | Self::AgentUpgrade => 0..1,
            Self::AgentReload => 500..3000,
            Self::LinkFlap => 200..3500,
            Self::NeighbourChange => 2500..5000,
            Self::MasterMove => 3500..5000,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}

impl Fault {
    /// Whom it happens to.
    pub fn victim(&self) -> Victim {
        match self.kind {
            Kind::BackendKill | Kind::BackendPause | Kind::BackendSlow => Victim::Backend,
            Kind::AgentKill | Kind::AgentStop | Kind::AgentUpgrade | Kind::AgentReload => Victim::Agent,
            Kind::LinkFlap => Victim::Node,
            Kind::NeighbourChange if self.variant % 3 == 2 => Victim::Client,
            Kind::NeighbourChange => Victim::Node,
            Kind::MasterMove => Victim::Master,
        }
    }

    /// The number of the client that it happens to, if it does to a client.
    pub fn client(&self) -> usize {
        (self.node - 1) % N_CLIENTS + 1
    }

    /// Whether another one may begin before this one is over, so that it can still be told what explains a failure.
    fn goes_with(&self, other: &Self) -> bool {
        use Victim::{Agent, Backend, Client, Master, Node};
        match (self.victim(), other.victim()) {
            (Client, Client) | (Master, Master | Node | Agent) | (Node | Agent, Master) => false,
            (Client, _) | (_, Client) | (Master, Backend) | (Backend, Master) => true,
            (Backend, Agent) | (Agent, Backend) => true,
            _ => self.node != other.node,
        }
    }
}

/// The number of the node whose agent never ends, so that what it takes can be told from all of the run.
pub fn spared(seed: u64) -> usize {
    usize::try_from(seed).unwrap_or_default() % N_NODES + 1
}

/// What happens within this time, in slots of one fault or two. The same seed and kinds give the same plan.
///
/// Every kind has its turn before one comes again. One agent is [`spared`].
pub fn plan(seed: u64, kinds: &[Kind], total: Duration) -> Vec<Vec<Fault>> {
    let mut random = StdRng::seed_from_u64(seed);
    let spared = spared(seed);
    let mut bag = Vec::new();
    let mut slots = Vec::new();
    let mut at = START;
    // The last one is to be over before the end.
    while at + Duration::from_millis(SLOT_MS.start) <= total && !kinds.is_empty() {
        if bag.is_empty() {
            bag = kinds.to_vec();
            bag.shuffle(&mut random);
        }
        let first = draw(&mut random, bag.pop().expect("it was filled"), at, spared);
        let mut slot = vec![first];
        if random.random_ratio(PAIRS_PERCENT, 100) {
            let kind = kinds[random.random_range(0..kinds.len())];
            let later = Duration::from_millis(random.random_range(100..1500));
            let second = draw(&mut random, kind, at + later, spared);
            if first.goes_with(&second) {
                slot.push(second);
            }
        }
        slots.push(slot);
        at += Duration::from_millis(random.random_range(SLOT_MS));
    }
    slots
}

fn draw(random: &mut StdRng, kind: Kind, at: Duration, spared: usize) -> Fault {
    let variant = random.random_range(0..6);
    let hold = Duration::from_millis(random.random_range(kind.hold_ms(variant)));
    let node = random.random_range(1..=N_NODES);
    let node = if kind.ends_agent() && node == spared { node % N_NODES + 1 } else { node };
    Fault { at, kind, node, hold, variant }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_seed_repeats_its_plan() {
        assert_eq!(plan(7, &Kind::ALL, HOUR), plan(7, &Kind::ALL, HOUR));
        assert_ne!(plan(7, &Kind::ALL, HOUR), plan(8, &Kind::ALL, HOUR));
        // A shorter run is the beginning of a longer one.
        let short = plan(7, &Kind::ALL, HOUR / 4);
        assert_eq!(short, plan(7, &Kind::ALL, HOUR)[..short.len()]);
    }

    #[test]
    fn every_kind_has_its_turn() {
        for slots in plan(1, &Kind::ALL, HOUR).chunks_exact(Kind::ALL.len()) {
            let mut kinds: Vec<_> = slots.iter().map(|slot| slot[0].kind).collect();
            kinds.sort_unstable();
            assert_eq!(kinds, Kind::ALL);
        }
    }

    #[test]
    fn only_what_is_asked_for_happens() {
        let slots = plan(3, &[Kind::LinkFlap], HOUR);
        assert!(slots.len() > 100, "{}", slots.len());
        assert!(slots.concat().iter().all(|fault| fault.kind == Kind::LinkFlap));
        assert_eq!(plan(3, &[], HOUR), Vec::<Vec<Fault>>::new());
    }

    #[test]
    fn one_agent_is_spared_and_all_else_happens_to_its_node() {
        for seed in 0..6 {
            let faults = plan(seed, &Kind::ALL, 2 * HOUR).concat();
            let kinds: std::collections::BTreeSet<_> =
                faults.iter().filter(|fault| fault.node == spared(seed)).map(|fault| fault.kind).collect();
            let expected = Kind::ALL.into_iter().filter(|kind| !kind.ends_agent());
            assert!(kinds.into_iter().eq(expected), "seed {seed}");
            let ended = faults.iter().filter(|fault| fault.kind.ends_agent()).map(|fault| fault.node);
            assert_eq!(ended.collect::<std::collections::BTreeSet<_>>().len(), N_NODES - 1);
        }
    }

    #[test]
    fn two_at_a_time_happen_to_different_ones() {
        let slots = plan(5, &Kind::ALL, 10 * HOUR);
        let pairs: Vec<_> = slots.iter().filter(|slot| slot.len() == 2).collect();
        assert!(pairs.len() > slots.len() / 10, "{} of {}", pairs.len(), slots.len());
        for pair in pairs {
            let is_same = pair[0].victim() == pair[1].victim() && pair[0].node == pair[1].node;
            assert!(!is_same, "{pair:?}");
        }
    }
}
