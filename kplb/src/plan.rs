//! From one state of the maps to another, in steps of which none leaves the data path inconsistent.
//!
//! Invariant, after every single operation: a service that is in its table has its VIP, an open gate for itself and its
//! backends, and a ring that names only backends which are serving and belong to it. And one that opens stands behind the
//! fence that its VIP is to have.
//!
//! The backend that a service prefers for this node's clients is written with the service, last: the programs check
//! that it is the service's own and serving.
//!
//! Operations are in this order:
//!
//! ```text
//! node -> gate for what comes, too -> leaving services
//!      -> coming backends -> rings without leaving backends -> backends whose id changes hands -> leaving backends
//!      -> rings -> backends that serve no longer -> VIPs with their fences -> coming services
//!      -> gate without what has left
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use kplb_common::{
    backend::Backend,
    fence::Vip,
    gate::Gate,
    maglev::{NO_BACKEND, Ring},
    node::Node,
    service::Service,
};

use crate::model::{Desired, Endpoint};

/// A change of one entry of one map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Writes `NODE`.
    SetNode(Node),
    /// Writes `GATE`.
    SetGate(Arc<Gate>),
    /// Adds or replaces in `VIPS4` or `VIPS6`.
    SetVip {
        /// Key.
        address: IpAddr,
        /// Value.
        vip: Vip,
    },
    /// Removes from `VIPS4` or `VIPS6`, where it is.
    RemoveVip {
        /// Key.
        address: IpAddr,
    },
    /// Adds or replaces in `SERVICES4` or `SERVICES6`.
    SetService {
        /// Key.
        endpoint: Endpoint,
        /// Value.
        service: Service,
    },
    /// Removes from `SERVICES4` or `SERVICES6`, where it is.
    RemoveService {
        /// Key.
        endpoint: Endpoint,
    },
    /// Writes an element of `BACKENDS`.
    SetBackend {
        /// Index.
        id: u16,
        /// Value.
        backend: Backend,
    },
    /// Clears an element of `BACKENDS`: the backend is absent.
    RemoveBackend {
        /// Index.
        id: u16,
    },
    /// Swaps a ring in `RINGS` as a whole.
    SetRing {
        /// Index: the service's id.
        service: u16,
        /// Value.
        ring: Arc<Ring>,
    },
    /// Removes a ring from `RINGS`, where it is.
    RemoveRing {
        /// Index: the service's id.
        service: u16,
    },
}

impl Operation {
    /// Whether this one and the next may take effect in any order, and so at the same time: the rings of two services, each
    /// of them once.
    pub const fn goes_with(&self, next: &Self) -> bool {
        matches!((self, next), (Self::SetRing { service: a, .. }, Self::SetRing { service: b, .. }) if *a < *b)
    }

    /// Whether flows may have lost their backend by it.
    pub fn ends_flows(&self) -> bool {
        match self {
            Self::SetBackend { backend, .. } => !backend.is_serving(),
            Self::RemoveBackend { .. } => true,
            _ => false,
        }
    }

    /// The service and its new ring, if that is what it sets.
    pub fn ring(&self) -> Option<(u16, Arc<Ring>)> {
        match self {
            Self::SetRing { service, ring } => Some((*service, Arc::clone(ring))),
            _ => None,
        }
    }

    /// What the maps hold after the operation.
    pub fn apply(&self, state: &mut Desired) {
        match self {
            Self::SetNode(node) => state.node = *node,
            Self::SetGate(gate) => state.gate = Arc::clone(gate),
            Self::SetVip { address, vip } => {
                state.vips.insert(*address, *vip);
            }
            Self::RemoveVip { address } => {
                state.vips.remove(address);
            }
            Self::SetService { endpoint, service } => {
                state.services.insert(*endpoint, *service);
            }
            Self::RemoveService { endpoint } => {
                state.services.remove(endpoint);
            }
            Self::SetBackend { id, backend } => {
                state.backends.insert(*id, *backend);
            }
            Self::RemoveBackend { id } => {
                state.backends.remove(id);
            }
            Self::SetRing { service, ring } => {
                state.rings.insert(*service, Arc::clone(ring));
            }
            Self::RemoveRing { service } => {
                state.rings.remove(service);
            }
        }
    }
}

/// The operations that lead from `applied`, or from maps as they are created, to `desired`.
pub fn plan(desired: &Desired, applied: Option<&Desired>) -> Vec<Operation> {
    let state = applied.cloned().unwrap_or_else(Desired::empty);
    let mut planner = Planner { desired, state, operations: Vec::new() };
    planner.set_node();
    planner.open_gate();
    planner.close();
    planner.add_backends();
    planner.leave_rings();
    planner.replace_and_remove_backends();
    planner.set_rings();
    planner.stop_backends();
    planner.open();
    planner.set_gate(Arc::clone(&desired.gate));
    planner.operations
}

struct Planner<'d> {
    desired: &'d Desired,
    /// What the maps hold after the operations so far.
    state: Desired,
    operations: Vec<Operation>,
}

impl Planner<'_> {
    fn push(&mut self, operation: Operation) {
        operation.apply(&mut self.state);
        self.operations.push(operation);
    }

    fn set_node(&mut self) {
        if self.state.node != self.desired.node {
            self.push(Operation::SetNode(self.desired.node));
        }
    }

    fn set_gate(&mut self, gate: Arc<Gate>) {
        if self.state.gate != gate {
            self.push(Operation::SetGate(gate));
        }
    }

    /// Opens the gate for what comes before anything else knows of it: a backend's replies must be let in before a ring
    /// names it.
    fn open_gate(&mut self) {
        let mut gate = Arc::clone(&self.state.gate);
        Arc::make_mut(&mut gate).iter_mut().zip(self.desired.gate.iter()).for_each(|(word, coming)| *word |= coming);
        self.set_gate(gate);
    }

    /// Closes the services that are not wanted, and those whose id changes hands.
    fn close(&mut self) {
        let stays = |endpoint: &Endpoint, service: &Service| {
            self.desired.services.get(endpoint).is_some_and(|desired| desired.id == service.id)
        };
        let leaving: Vec<Endpoint> = (self.state.services.iter())
            .filter(|(endpoint, service)| !stays(endpoint, service))
            .map(|(endpoint, _)| *endpoint)
            .collect();
        for endpoint in leaving {
            self.push(Operation::RemoveService { endpoint });
        }
        for address in missing_keys(&self.state.vips, &self.desired.vips) {
            self.push(Operation::RemoveVip { address });
        }
    }

    /// Whether the element of `BACKENDS` is free for the desired backend, or already the same backend's.
    fn is_free_for(&self, id: u16, backend: &Backend) -> bool {
        self.state.backends.get(&id).is_none_or(|present| is_same(present, backend))
    }

    /// Whether the backend is to stop serving: for that, the ring must let it go before.
    fn stops(&self, id: u16, backend: &Backend) -> bool {
        !backend.is_serving()
            && self.state.backends.get(&id).is_some_and(|present| is_same(present, backend) && present.is_serving())
    }

    /// Whether the desired backend of this id, if there is one, stands in its place.
    fn is_in_place(&self, id: u16) -> bool {
        match (self.state.backends.get(&id), self.desired.backends.get(&id)) {
            (Some(present), Some(desired)) => is_same(present, desired),
            _ => false,
        }
    }

    /// Adds the backends whose place is free, and updates those that stay.
    fn add_backends(&mut self) {
        for (&id, &backend) in &self.desired.backends {
            if self.is_free_for(id, &backend) && !self.stops(id, &backend) {
                self.set_backend(id, backend);
            }
        }
    }

    fn set_backend(&mut self, id: u16, backend: Backend) {
        if self.state.backends.get(&id) != Some(&backend) {
            self.push(Operation::SetBackend { id, backend });
        }
    }

    /// Takes the backends that leave, or whose id changes hands, off the rings, and removes the rings of no service.
    fn leave_rings(&mut self) {
        let live: BTreeSet<u16> = self.state.services.values().map(|service| service.id).collect();
        let may_stay = self.may_stay();
        for (service, ring) in self.state.rings.clone() {
            if !live.contains(&service) {
                self.push(Operation::RemoveRing { service });
            } else if !ring.iter().all(|&id| id == NO_BACKEND || may_stay[usize::from(id)]) {
                let ring = without_leaving(&ring, self.desired.rings.get(&service), &may_stay);
                self.push(Operation::SetRing { service, ring });
            }
        }
    }

    /// Which ids may be in a ring now and later, by id: rings have many slots, each of which is looked at.
    fn may_stay(&self) -> Vec<bool> {
        let mut may_stay = vec![false; usize::from(NO_BACKEND) + 1];
        for &id in self.state.backends.keys() {
            may_stay[usize::from(id)] = self.is_in_place(id);
        }
        may_stay
    }

    /// No ring names what is replaced or removed here.
    fn replace_and_remove_backends(&mut self) {
        for (&id, &backend) in &self.desired.backends {
            if !self.stops(id, &backend) {
                self.set_backend(id, backend);
            }
        }
        for id in missing_keys(&self.state.backends, &self.desired.backends) {
            self.push(Operation::RemoveBackend { id });
        }
    }

    fn set_rings(&mut self) {
        for (&service, ring) in &self.desired.rings {
            if self.state.rings.get(&service) != Some(ring) {
                self.push(Operation::SetRing { service, ring: Arc::clone(ring) });
            }
        }
    }

    /// No ring names what serves no longer.
    fn stop_backends(&mut self) {
        for (&id, &backend) in &self.desired.backends {
            self.set_backend(id, backend);
        }
    }

    /// Opens the services, each behind the fence that its VIP is to have.
    fn open(&mut self) {
        for (&address, &vip) in &self.desired.vips {
            if self.state.vips.get(&address) != Some(&vip) {
                self.push(Operation::SetVip { address, vip });
            }
        }
        for (&endpoint, &service) in &self.desired.services {
            if self.state.services.get(&endpoint) != Some(&service) {
                self.push(Operation::SetService { endpoint, service });
            }
        }
    }
}

/// The desired ring where it may be used already, else the present one where it still may be.
fn without_leaving(present: &Ring, desired: Option<&Arc<Ring>>, may_stay: &[bool]) -> Arc<Ring> {
    let mut ring = Box::new(*present);
    for (slot, id) in ring.iter_mut().enumerate() {
        let candidates = [desired.map_or(NO_BACKEND, |desired| desired[slot]), *id];
        *id = candidates.into_iter().find(|&id| may_stay[usize::from(id)]).unwrap_or(NO_BACKEND);
    }
    ring.into()
}

/// Whether both are the same server of the same service, whatever is known of the way to it.
fn is_same(a: &Backend, b: &Backend) -> bool {
    (a.address, a.port, a.service) == (b.address, b.port, b.service)
}

/// The keys that `a` has and `b` has not.
fn missing_keys<K: Ord + Copy, V>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> Vec<K> {
    a.keys().filter(|key| !b.contains_key(key)).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        net::{Ipv4Addr, SocketAddr},
    };

    use kplb_common::{
        backend::BackendState,
        fence::Fencing,
        gate::GATE_WORDS,
        net::{Address, Ip4, Mac},
        service::{LocalClients, Persistence},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{BackendConfig, Config, FlowsConfig, NodeConfig, OnDown, Protocol, ServiceConfig},
        ids::Ids,
        maglev::Rings,
        model::{Condition, Conditions, FULL_SHARE, NodeFacts, desired, open_gate},
    };

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(198, 18, 0, last).into()
    }

    /// A service of one of two VIPs, ports and protocols, with backends of one pool: some servers are in several.
    fn services() -> impl Strategy<Value = ServiceConfig> {
        let persistence = prop::sample::select(vec![Persistence::Client, Persistence::Connection]);
        let backend = (1_u8..8, 0_u16..3).prop_map(|(last, weight)| BackendConfig {
            name: last.to_string(),
            address: (address(last), 6443).into(),
            weight,
            check: None,
        });
        let vip = (100_u8..102, 6443_u16..6445).prop_map(|(last, port)| SocketAddr::new(address(last), port));
        let protocol = prop::sample::select(Protocol::ALL.to_vec());
        (vip, protocol, persistence, 0_u64..8, prop::collection::vec(backend, 1..5)).prop_map(
            |(vip, protocol, persistence, seed, mut backends)| {
                let mut seen = BTreeSet::new();
                backends.retain(|backend| seen.insert(backend.address));
                ServiceConfig {
                    name: vip.to_string(),
                    vip,
                    protocol,
                    persistence,
                    local_clients: LocalClients::PreferLocal,
                    seed,
                    on_down: OnDown::Reset,
                    drain_timeout: None,
                    slow_start: None,
                    backends,
                }
            },
        )
    }

    fn facts() -> impl Strategy<Value = NodeFacts> {
        let local = prop::collection::btree_set((1_u8..8).prop_map(address), 0..3);
        let mac = any::<u8>().prop_map(|last| Mac::new([2, 0, 0, 0, 1, last]));
        let macs = prop::collection::btree_map((1_u8..8).prop_map(address), mac, 0..8);
        (0_u8..3, local, macs).prop_map(|(node, local, macs)| NodeFacts {
            mac: Mac::new([2, 0, 0, 0, 0, node]),
            ipv4: Some(Ipv4Addr::new(198, 18, 0, 50 + node)),
            ipv6: None,
            local,
            macs,
        })
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let condition = |share, state| Condition { share, state };
        prop_oneof![
            3 => Just(condition(FULL_SHARE, BackendState::Serving)),
            1 => Just(condition(FULL_SHARE / 2, BackendState::Serving)),
            1 => Just(condition(0, BackendState::Serving)),
            2 => Just(condition(0, BackendState::Down)),
        ]
    }

    fn states() -> impl Strategy<Value = Desired> {
        let conditions = prop::collection::vec(condition(), 16);
        let fencings = prop::sample::subsequence(vec![address(100), address(101)], 0..=2);
        let parts = (prop::collection::vec(services(), 0..4), facts(), conditions, fencings);
        parts.prop_map(|(mut services, facts, conditions, fenced)| {
            let mut seen = BTreeSet::new();
            services.retain(|service| seen.insert((service.vip, service.protocol)));
            let config = Config {
                node: NodeConfig::default(),
                flows: FlowsConfig::default(),
                vrrp: None,
                metrics: None,
                services,
            };
            let conditions = Conditions { backends: conditions, ..Conditions::all_active(&config) };
            let desired = desired(&config, &Ids::in_order(&config), &facts, &conditions, &mut Rings::default())
                .expect("a node that can serve");
            with_fences(desired, &fenced)
        })
    }

    /// With a fence around these VIPs, as far as they are there.
    fn with_fences(mut state: Desired, fenced: &[IpAddr]) -> Desired {
        for (address, vip) in &mut state.vips {
            if fenced.contains(address) {
                *vip = Vip::new(Fencing::Fenced);
            }
        }
        state
    }

    /// Which ids rings name, each ring looked through once.
    #[derive(Default)]
    struct Names(HashMap<*const Ring, (Arc<Ring>, BTreeSet<u16>)>);

    impl Names {
        fn of(&mut self, ring: &Arc<Ring>) -> &BTreeSet<u16> {
            let collect = || (Arc::clone(ring), ring.iter().copied().filter(|&id| id != NO_BACKEND).collect());
            &self.0.entry(Arc::as_ptr(ring)).or_insert_with(collect).1
        }
    }

    fn passes(gate: &Gate, endpoint: &Endpoint) -> bool {
        let mut bit = [0; GATE_WORDS];
        open_gate(&mut bit, endpoint);
        gate.iter().zip(bit.iter()).all(|(gate, bit)| gate & bit == *bit)
    }

    /// The invariant of this module.
    fn check(state: &Desired, names: &mut Names) {
        for (service, ring) in &state.rings {
            for id in names.of(ring) {
                let is_serving = state.backends.get(id).is_some_and(Backend::is_serving);
                assert!(is_serving, "the ring of {service} names backend {id}, which is not serving");
            }
        }
        for (endpoint, service) in &state.services {
            assert!(state.vips.contains_key(&endpoint.address.ip()), "{endpoint} has no VIP");
            assert!(passes(&state.gate, endpoint), "the gate is closed for {endpoint}");
            let ring = state.rings.get(&service.id).unwrap_or_else(|| panic!("{endpoint} has no ring"));
            for id in names.of(ring) {
                let backend = state.backends[id];
                assert_eq!(backend.service, service.id, "backend {id} in the ring of {endpoint}");
                let ip = Ipv4Addr::from(Ip4::from_wide(&backend.address));
                let address = (ip, backend.port.to_host()).into();
                let server = Endpoint { address, protocol: endpoint.protocol };
                assert!(passes(&state.gate, &server), "the gate is closed for backend {id} of {endpoint}");
            }
        }
        let mut ids: Vec<u16> = state.services.values().map(|service| service.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), state.services.len(), "two services with one ring");
    }

    /// An operation without its value, which can be a ring.
    fn name(operation: &Operation) -> String {
        match operation {
            Operation::SetNode(_) => "SetNode".to_owned(),
            Operation::SetGate(_) => "SetGate".to_owned(),
            Operation::SetVip { address, vip } if vip.is_fenced() => format!("SetVip {address} fenced"),
            Operation::SetVip { address, .. } => format!("SetVip {address}"),
            Operation::RemoveVip { address } => format!("RemoveVip {address}"),
            Operation::SetService { endpoint, service } => format!("SetService {endpoint} {}", service.id),
            Operation::RemoveService { endpoint } => format!("RemoveService {endpoint}"),
            Operation::SetBackend { id, .. } => format!("SetBackend {id}"),
            Operation::RemoveBackend { id } => format!("RemoveBackend {id}"),
            Operation::SetRing { service, .. } => format!("SetRing {service}"),
            Operation::RemoveRing { service } => format!("RemoveRing {service}"),
        }
    }

    fn names(operations: &[Operation]) -> Vec<String> {
        operations.iter().map(name).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn every_plan_arrives_and_is_consistent_on_the_way(from in states(), to in states()) {
            let mut names = Names::default();
            let mut state = Desired::empty();
            for (desired, applied) in [(&from, None), (&to, Some(&from))] {
                for operation in plan(desired, applied) {
                    let before = state.clone();
                    operation.apply(&mut state);
                    // The kernel refuses to remove what is not there; to write what is there already is idle.
                    prop_assert!(state != before, "{} changes nothing", name(&operation));
                    check(&state, &mut names);
                    if let Operation::SetService { endpoint, .. } = &operation {
                        let vip = endpoint.address.ip();
                        prop_assert_eq!(state.vips[&vip], desired.vips[&vip], "{} without its fence", endpoint);
                    }
                }
                prop_assert!(state == *desired);
            }
        }

        /// Interrupted anywhere, a plan is taken up from where it was left.
        #[test]
        fn a_plan_can_be_interrupted(from in states(), over in states(), to in states(), at: prop::sample::Index) {
            let mut names = Names::default();
            let mut state = from.clone();
            let operations = plan(&over, Some(&from));
            for operation in operations.iter().take(at.index(operations.len() + 1)) {
                operation.apply(&mut state);
            }
            for operation in plan(&to, Some(&state)) {
                operation.apply(&mut state);
                check(&state, &mut names);
            }
            prop_assert!(state == to);
        }

        #[test]
        fn nothing_to_do(state in states()) {
            prop_assert!(plan(&state, Some(&state)).is_empty());
        }
    }

    fn state(text: &str) -> Desired {
        let config = crate::config::parse(text, "test").expect("valid");
        let facts = NodeFacts { ipv4: Some(Ipv4Addr::new(198, 18, 0, 11)), ..NodeFacts::default() };
        desired(&config, &Ids::in_order(&config), &facts, &Conditions::all_active(&config), &mut Rings::default())
            .expect("possible")
    }

    const ONE: &str = "[[service]]\nvip = '198.18.0.100:1'\nbackend = [{ address = '198.18.0.12:1' }]";
    const TWO: &str =
        "[[service]]\nvip = '198.18.0.100:1'\nbackend = [{ address = '198.18.0.12:1' }, { address = '198.18.0.13:1' }]";

    #[test]
    fn the_first_plan_opens_the_service_last() {
        let expected = [
            "SetNode",
            // Replies of the backends may come in before anything is sent to them.
            "SetGate",
            "SetBackend 0",
            "SetRing 0",
            "SetVip 198.18.0.100",
            "SetService 198.18.0.100:1/tcp 0",
        ];
        assert_eq!(names(&plan(&state(ONE), None)), expected);
    }

    #[test]
    fn a_backend_comes_before_the_ring_and_leaves_after_it() {
        let expected = ["SetGate", "SetBackend 1", "SetRing 0"];
        assert_eq!(names(&plan(&state(TWO), Some(&state(ONE)))), expected);
        let expected = ["SetRing 0", "RemoveBackend 1", "SetGate"];
        assert_eq!(names(&plan(&state(ONE), Some(&state(TWO)))), expected);
    }

    #[test]
    fn the_service_closes_first_and_the_gate_last() {
        let expected = [
            "SetNode",
            "RemoveService 198.18.0.100:1/tcp",
            "RemoveVip 198.18.0.100",
            "RemoveRing 0",
            "RemoveBackend 0",
            "SetGate",
        ];
        assert_eq!(names(&plan(&Desired::empty(), Some(&state(ONE)))), expected);
    }

    #[test]
    fn a_fence_is_one_write_and_comes_before_the_service() {
        let (open, fenced) = (state(ONE), with_fences(state(ONE), &[address(100)]));
        assert_eq!(names(&plan(&fenced, Some(&open))), ["SetVip 198.18.0.100 fenced"]);
        assert_eq!(names(&plan(&open, Some(&fenced))), ["SetVip 198.18.0.100"]);
        let first = names(&plan(&fenced, None));
        assert_eq!(first[first.len() - 2..], ["SetVip 198.18.0.100 fenced", "SetService 198.18.0.100:1/tcp 0"]);
    }

    #[test]
    fn a_new_mac_address_is_one_write() {
        let before = state(ONE);
        let mut after = before.clone();
        let mut backend = before.backends[&0];
        backend.mac = Mac::new([2, 0, 0, 0, 0, 9]);
        after.backends.insert(0, backend);
        assert_eq!(plan(&after, Some(&before)), [Operation::SetBackend { id: 0, backend }]);
    }

    /// A backend that goes down leaves the ring first: no client is given it meanwhile.
    #[test]
    fn a_backend_stops_serving_off_the_ring() {
        let before = state(TWO);
        let mut after = before.clone();
        after.backends.get_mut(&1).expect("two backends").state = BackendState::Down as u8;
        let ring = Box::new(before.rings[&0].map(|_| 0));
        after.rings.insert(0, ring.into());
        assert_eq!(names(&plan(&after, Some(&before))), ["SetRing 0", "SetBackend 1"]);
        assert_eq!(names(&plan(&before, Some(&after))), ["SetBackend 1", "SetRing 0"]);
    }

    /// A server that takes another's id: in between, the ring names neither.
    #[test]
    fn an_id_changes_hands_off_the_ring() {
        let replaced = state(&ONE.replace("0.12", "0.13"));
        let operations = plan(&replaced, Some(&state(ONE)));
        assert_eq!(names(&operations), ["SetGate", "SetRing 0", "SetBackend 0", "SetRing 0", "SetGate"]);
        let Operation::SetRing { ring, .. } = &operations[1] else { panic!("no ring") };
        assert!(ring.iter().all(|&id| id == NO_BACKEND));
    }

    /// A server that goes from one service to another and keeps its id: the first ring lets it go before.
    #[test]
    fn rings_of_several_services_are_swapped_together() {
        let ring = Arc::new([NO_BACKEND; kplb_common::maglev::RING_SIZE]);
        let set = |service| Operation::SetRing { service, ring: Arc::clone(&ring) };
        let operations = [set(0), set(1), set(2), Operation::RemoveBackend { id: 7 }, set(0), set(0), set(1), set(0)];
        let steps: Vec<usize> = operations.chunk_by(Operation::goes_with).map(<[_]>::len).collect();
        // Twice the same ring is one after the other.
        assert_eq!(steps, [3, 1, 1, 2, 1]);
    }

    #[test]
    fn a_server_changes_services() {
        let text = |first: &str, second: &str| {
            let backends = |list: &str| -> String {
                list.split(' ').map(|last| format!("{{ address = '198.18.0.{last}:1' }}, ")).collect()
            };
            let service =
                |port, list| format!("[[service]]\nvip = '198.18.0.100:{port}'\nbackend = [{}]\n", backends(list));
            service(1, first) + &service(2, second)
        };
        let (before, after) = (state(&text("12 13", "14")), state(&text("12", "13")));
        assert_eq!((before.backends[&1].service, after.backends[&1].service), (0, 1));
        let mut maps = before.clone();
        let mut names = Names::default();
        for operation in plan(&after, Some(&before)) {
            operation.apply(&mut maps);
            check(&maps, &mut names);
        }
        assert!(maps == after);
    }
}
