//! What flow tables may hold, judged from their entries themselves and not from what an agent counts: that skips what has
//! expired, the entries of replies, and backends that it does not know.
//!
//! The kernel's tables keep what has expired until its place is needed, and a new flow may take an expired entry's NAT port
//! while its other half is still there. So of old entries little can be said. But every entry was young once, and while
//! it is *young* (half of its lifetime has not passed since its last packet):
//!
//! * its other half is there, and leads back to it: otherwise a NAT port or a client's entry was forgotten when the other
//!   one was removed, or never stored;
//! * the data path knows its backend: an id is given up only when no flow names it any more.
//!
//! And at any age:
//!
//! * of two entries with one key, the one of the table of half-open flows is the newer: it is of a flow that is about to
//!   take the other one's place. Were it the older, it would be left over from a flow that has moved on;
//! * a node's tables hold two entries at most for each connection that clients have ever begun.
//!
//! An entry that is seen too rarely for that is not judged; a leak that is no accident leaves others. A table is not read
//! at one moment, so what is wrong must be so again and again ([`Suspect`]). Youth ends early enough that a half that hears
//! nothing while the other one does has not expired, and never does the kernel need the place of a young entry: there is
//! room for many minutes of load.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    time::Duration,
};

use kplb_common::{
    flow::{Direction, Flow, FlowKey},
    flow_state::FlowState,
    net::{Address, Be16},
};

use super::{LIFETIME, SHORT_LIFETIME};

/// Entries that are older say nothing any more, and are only counted.
const RECENT: Duration = Duration::from_secs(120);

/// Entries of a flow.
const HALVES: u64 = 2;

/// A key, as everybody else knows it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Tuple {
    protocol: u32,
    source: SocketAddr,
    destination: SocketAddr,
}

/// An entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The key of the other half.
    opposite: Tuple,
    is_of_client: bool,
    state: FlowState,
    backend: u16,
    /// Time since the last packet.
    age: Duration,
}

/// The tables of a node, both families together.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// All entries of a key that are not old, those of half-open flows first.
    recent: BTreeMap<Tuple, Vec<Entry>>,
    /// How many entries there are, whatever their age.
    n_entries: u64,
    /// The backends that the data path knows.
    backends: BTreeSet<u16>,
}

/// What is wrong if it is still so when the tables are read again.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Suspect {
    /// A young entry has no other half, or one that is of another flow.
    Alone(Tuple),
    /// A flow has moved on, and one of its entries is still among the half-open ones.
    LeftOver(Tuple),
    /// A young entry names a backend that the data path does not know.
    Stranger(Tuple, u16),
}

/// How many flows there may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// On all nodes together.
    pub at_least: u64,
    /// On any node.
    pub at_most: u64,
}

/// How long an entry lives without a packet, by the configuration and not by what the data path has made of it.
const fn lifetime(state: FlowState) -> Duration {
    match state {
        FlowState::Established | FlowState::FinFromClient | FlowState::FinFromBackend | FlowState::UdpAssured => {
            LIFETIME
        }
        FlowState::SynSent
        | FlowState::SynAcked
        | FlowState::Closing
        | FlowState::UdpUnreplied
        | FlowState::UdpReplied => SHORT_LIFETIME,
    }
}

impl Entry {
    fn is_young(&self) -> bool {
        self.age <= lifetime(self.state) / 2
    }

    fn is_live(&self) -> bool {
        self.age <= lifetime(self.state)
    }
}

impl Tables {
    /// Enters what a table has. Those of half-open flows come first.
    pub fn add<A: Address>(&mut self, key: &FlowKey<A>, flow: &Flow<A>, now_ns: u64) {
        self.n_entries += 1;
        let age = Duration::from_nanos(now_ns.saturating_sub(flow.last_seen_ns));
        if age > RECENT {
            return;
        }
        let entry = Entry {
            opposite: tuple(&flow.opposite(key.protocol)),
            is_of_client: flow.direction == Direction::ToBackend as u8,
            state: flow.state(),
            backend: flow.backend,
            age,
        };
        self.recent.entry(tuple(key)).or_default().push(entry);
    }

    /// Enters a backend that the data path knows.
    pub fn add_backend(&mut self, id: u16) {
        self.backends.insert(id);
    }

    /// How many entries there are, whatever their age.
    pub fn n_entries(&self) -> u64 {
        self.n_entries
    }

    /// Flows that live. One that is moving on counts once.
    pub fn n_live(&self) -> u64 {
        let is_live = |entries: &&Vec<Entry>| entries.iter().any(|entry| entry.is_of_client && entry.is_live());
        self.recent.values().filter(is_live).count() as u64
    }

    /// Entries that live, of either direction.
    pub fn n_live_entries(&self) -> u64 {
        self.recent.values().flatten().filter(|entry| entry.is_live()).count() as u64
    }

    /// What is wrong, unless the tables were just changing.
    pub fn suspects(&self) -> BTreeSet<Suspect> {
        let mut suspects = BTreeSet::new();
        for (key, entries) in &self.recent {
            if let [half_open, flow] = entries[..]
                && flow.age <= half_open.age
            {
                suspects.insert(Suspect::LeftOver(*key));
            }
            for entry in entries.iter().filter(|entry| entry.is_young()) {
                let mut others = self.recent.get(&entry.opposite).into_iter().flatten();
                if !others.any(|other| other.opposite == *key) {
                    suspects.insert(Suspect::Alone(*key));
                }
                if !self.backends.contains(&entry.backend) {
                    suspects.insert(Suspect::Stranger(*key, entry.backend));
                }
            }
        }
        suspects
    }
}

impl Bounds {
    /// What is wrong with how many flows live on each node.
    pub fn judge(&self, flows: &[u64]) -> Option<String> {
        let Self { at_least, at_most } = *self;
        let is_bounded = flows.iter().sum::<u64>() >= at_least && flows.iter().all(|n| *n <= at_most);
        (!is_bounded).then(|| {
            format!("flows of the nodes: {flows:?}; it is to be {at_least} at least, and on each {at_most} at most")
        })
    }
}

/// What is wrong with the number of a node's entries, of whatever age, when so many connections were begun.
pub fn too_many(n_entries: u64, attempts: u64) -> Option<String> {
    (n_entries > HALVES * attempts).then(|| format!("{n_entries} entries of {attempts} connections"))
}

fn tuple<A: Address>(key: &FlowKey<A>) -> Tuple {
    let at = |address: &A, port: Be16| SocketAddr::new(kplb::dataplane::to_ip(address), port.to_host());
    Tuple {
        protocol: key.protocol,
        source: at(&key.source, key.source_port),
        destination: at(&key.destination, key.destination_port),
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}, protocol {}", self.source, self.destination, self.protocol)
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone(key) => write!(f, "the entry {key} has no other half"),
            Self::LeftOver(key) => write!(f, "the flow of {key} has moved on, and an entry is left half open"),
            Self::Stranger(key, backend) => write!(f, "the entry {key} is of backend {backend}, which is unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use kplb_common::{
        flow::{Deltas, Shared},
        net::{Ip4, Mac, TCP},
    };

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1000 * SECOND;

    type Half = (FlowKey<Ip4>, Flow<Ip4>);

    fn key(source: u8, source_port: u16, destination: u8, destination_port: u16) -> FlowKey<Ip4> {
        FlowKey {
            source: Ip4::from(std::net::Ipv4Addr::new(198, 18, 0, source)),
            destination: Ip4::from(std::net::Ipv4Addr::new(198, 18, 0, destination)),
            source_port: Be16::from_host(source_port),
            destination_port: Be16::from_host(destination_port),
            protocol: u32::from(TCP),
        }
    }

    /// Both entries of a flow whose last packet came so many seconds ago: of the client's port, by the NAT port.
    fn flow(port: u16, nat: u16, state: FlowState, seconds: u64) -> [Half; 2] {
        let (client, reply) = (key(101, port, 100, 6443), key(12, 6443, 11, nat));
        let shared = Shared {
            last_seen_ns: NOW - seconds * SECOND,
            acknowledged: 0,
            backend: 3,
            client_mac: Mac::default(),
            state: state as u8,
            location: 0,
        };
        let half = |opposite, direction| Flow::new(opposite, direction, &shared, Deltas::default());
        [(client, half(&reply, Direction::ToBackend)), (reply, half(&client, Direction::ToClient))]
    }

    fn tables(halves: &[Half]) -> Tables {
        let mut tables = Tables::default();
        tables.add_backend(3);
        halves.iter().for_each(|(key, flow)| tables.add(key, flow, NOW));
        tables
    }

    fn alone(key: &FlowKey<Ip4>) -> BTreeSet<Suspect> {
        BTreeSet::from([Suspect::Alone(tuple(key))])
    }

    #[test]
    fn two_halves_are_a_flow() {
        let tables = tables(&flow(1, 10_001, FlowState::Established, 1));
        assert_eq!((tables.n_entries(), tables.n_live(), tables.n_live_entries()), (2, 1, 2));
        assert_eq!(tables.suspects(), BTreeSet::new());
    }

    #[test]
    fn a_half_whose_other_one_is_gone_is_a_leak() {
        let [client, reply] = flow(1, 10_001, FlowState::Closing, 2);
        assert_eq!(tables(&[client]).suspects(), alone(&client.0));
        // A NAT port that nobody uses.
        assert_eq!(tables(&[reply]).suspects(), alone(&reply.0));
        // Its client has another flow now.
        let [_, lost] = flow(1, 10_001, FlowState::Established, 2);
        let next = flow(1, 10_002, FlowState::Established, 1);
        assert_eq!(tables(&[lost, next[0], next[1]]).suspects(), alone(&lost.0));
    }

    #[test]
    fn whose_lifetime_is_nearly_over_may_have_lost_its_port() {
        let [old, _] = flow(1, 10_001, FlowState::Closing, 3);
        let next = flow(2, 10_001, FlowState::Established, 1);
        assert_eq!(tables(&[old, next[0], next[1]]).suspects(), BTreeSet::new());
    }

    #[test]
    fn what_a_move_leaves_behind_is_a_leak() {
        let [client, reply] = flow(1, 10_001, FlowState::Established, 1);
        let [_, half_open] = flow(1, 10_001, FlowState::SynAcked, 2);
        let left = BTreeSet::from([Suspect::LeftOver(tuple(&reply.0))]);
        assert_eq!(tables(&[half_open, client, reply]).suspects(), left);
        // However long ago.
        let [client, reply] = flow(1, 10_001, FlowState::Closing, 30);
        let [_, half_open] = flow(1, 10_001, FlowState::SynAcked, 31);
        assert_eq!(tables(&[half_open, client, reply]).suspects(), left);
    }

    #[test]
    fn a_new_flow_may_take_the_place_of_one_that_is_over() {
        let next = flow(2, 10_001, FlowState::SynAcked, 1);
        let over = flow(1, 10_001, FlowState::Closing, 7);
        assert_eq!(tables(&[next[0], next[1], over[0], over[1]]).suspects(), BTreeSet::new());
    }

    #[test]
    fn an_unknown_backend_has_no_flows() {
        let halves = flow(1, 10_001, FlowState::Established, 1);
        let mut unknown = Tables::default();
        halves.iter().for_each(|(key, flow)| unknown.add(key, flow, NOW));
        assert_eq!(unknown.suspects(), halves.map(|(key, _)| Suspect::Stranger(tuple(&key), 3)).into());
        let halves = flow(1, 10_001, FlowState::Established, 11);
        let mut unknown = Tables::default();
        halves.iter().for_each(|(key, flow)| unknown.add(key, flow, NOW));
        assert_eq!((unknown.suspects(), unknown.n_live_entries()), (BTreeSet::new(), 0));
    }

    #[test]
    fn what_lives_on_is_counted_whatever_it_is() {
        // The half that no agent counts.
        let [_, reply] = flow(1, 10_001, FlowState::Established, 10);
        assert_eq!((tables(&[reply]).n_live(), tables(&[reply]).n_live_entries()), (0, 1));
        // One that is of the future never expires.
        let (key, late) = reply;
        let late = Flow { last_seen_ns: NOW + 100 * SECOND, ..late };
        assert_eq!(tables(&[(key, late)]).n_live_entries(), 1);
        // Both tables have one that is moving on.
        let [client, _] = flow(1, 10_001, FlowState::Established, 1);
        assert_eq!(tables(&[client, client]).n_live(), 1);
        let [client, _] = flow(1, 10_001, FlowState::Established, 200);
        assert_eq!((tables(&[client]).n_entries(), tables(&[client]).n_live_entries()), (1, 0));
    }

    #[test]
    fn flows_are_bounded_from_both_sides() {
        let bounds = Bounds { at_least: 10, at_most: 20 };
        assert_eq!(bounds.judge(&[0, 20, 3]), None);
        assert_eq!(bounds.judge(&[5, 5, 0]), None);
        assert!(bounds.judge(&[0, 9, 0]).is_some());
        assert!(bounds.judge(&[0, 21, 0]).is_some());
        assert!(bounds.judge(&[]).is_some(), "nothing that is read is not enough");
        assert_eq!(too_many(20, 10), None);
        assert!(too_many(21, 10).is_some());
    }
}
