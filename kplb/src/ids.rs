//! The numbers by which the data path knows services and backends.
//!
//! Invariant: who is in the maps keeps its number as long as it is there, and no number is given to another while
//! anything still goes by it. A service is the same if its VIP, port and protocol are; a backend, if its service and its
//! address and port are.

use std::collections::{BTreeSet, HashMap};

use kplb_common::{
    abi::{MAX_BACKENDS, MAX_SERVICES},
    net::{Be16, Ip6},
};

use crate::{
    config::Config,
    model::{Desired, Endpoint, wide},
};

/// The ids of a configuration's services and backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ids {
    /// By place in the configuration.
    services: Vec<u16>,
    /// By place among the backends of all services.
    backends: Vec<u16>,
}

/// There are not enough ids for all that is, and all that is to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no room for so many new {0}, as long as there are flows of old ones: try again later")]
pub struct NoRoom(&'static str);

impl Ids {
    /// Those of a configuration whose data path is new: in its order.
    pub fn in_order(config: &Config) -> Self {
        let n_backends = config.services.iter().map(|service| service.backends.len()).sum();
        Self {
            services: (0_u16..).take(config.services.len()).collect(),
            backends: (0_u16..).take(n_backends).collect(),
        }
    }

    /// Those of a configuration for a data path that is in use. `busy`: the backends that there are flows of.
    ///
    /// # Errors
    /// If new services or backends are too many beside those that are leaving.
    pub fn assign(config: &Config, held: &Desired, busy: &BTreeSet<u16>) -> Result<Self, NoRoom> {
        let mut free = Free::new(MAX_SERVICES, held.services.values().map(|service| service.id));
        let mut services = Vec::with_capacity(config.services.len());
        for service in &config.services {
            let present = held.services.get(&Endpoint::of(service)).map(|present| present.id);
            services.push(present.or_else(|| free.next()).ok_or(NoRoom("services"))?);
        }
        let present: HashMap<(u16, Ip6, Be16), u16> =
            held.backends.iter().map(|(id, held)| ((held.service, held.address, held.port), *id)).collect();
        let mut free = Free::new(MAX_BACKENDS, held.backends.keys().chain(busy).copied());
        let mut backends = Vec::new();
        for (service, id) in config.services.iter().zip(&services) {
            for backend in &service.backends {
                let port = Be16::from_host(backend.address.port());
                let present = present.get(&(*id, wide(backend.address.ip()), port)).copied();
                backends.push(present.or_else(|| free.next()).ok_or(NoRoom("backends"))?);
            }
        }
        Ok(Self { services, backends })
    }

    /// The id of the service at this place of the configuration.
    pub fn service(&self, place: usize) -> u16 {
        self.services[place]
    }

    /// The id of the backend at this place among those of all services.
    pub fn backend(&self, place: usize) -> u16 {
        self.backends[place]
    }

    /// The place of the backend with this id, if it is one of the configuration.
    pub fn place_of_backend(&self, id: u16) -> Option<usize> {
        self.backends.iter().position(|backend| *backend == id)
    }
}

/// The ids that nobody has, from the lowest on.
struct Free {
    next: u16,
    end: u32,
    taken: BTreeSet<u16>,
}

impl Free {
    fn new(end: u32, taken: impl Iterator<Item = u16>) -> Self {
        Self { next: 0, end, taken: taken.collect() }
    }

    fn next(&mut self) -> Option<u16> {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        let id = self.next;
        (u32::from(id) < self.end).then(|| {
            self.next += 1;
            id
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config,
        maglev::Rings,
        model::{Conditions, NodeFacts, desired},
    };

    fn config(services: &[(&str, &[&str])]) -> Config {
        let text: String = services
            .iter()
            .map(|(vip, backends)| {
                let backends: Vec<String> =
                    backends.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
                format!("[[service]]\nvip = \"{vip}\"\nbackend = [{}]\n", backends.join(", "))
            })
            .collect();
        config::parse(&text, "test").unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn held(config: &Config, ids: &Ids) -> Desired {
        let facts = NodeFacts { ipv4: Some([198, 18, 0, 11].into()), ..NodeFacts::default() };
        desired(config, ids, &facts, &Conditions::all_active(config), &mut Rings::default()).expect("possible")
    }

    const A: (&str, &[&str]) = ("198.18.0.100:1", &["198.18.0.11:1", "198.18.0.12:1"]);
    const B: (&str, &[&str]) = ("198.18.0.100:2", &["198.18.0.11:2"]);

    #[test]
    fn who_stays_keeps_its_id_whatever_the_order_is() {
        let before = config(&[A, B]);
        let held = held(&before, &Ids::in_order(&before));
        let after = config(&[
            B,
            ("198.18.0.100:3", &["198.18.0.11:1"]),
            ("198.18.0.100:1", &["198.18.0.13:1", "198.18.0.12:1"]),
        ]);
        let ids = Ids::assign(&after, &held, &BTreeSet::new()).expect("there is room");
        assert_eq!(ids, Ids { services: vec![1, 2, 0], backends: vec![2, 3, 4, 1] });
        assert_eq!(ids.place_of_backend(1), Some(3));
        assert_eq!(ids.place_of_backend(0), None, "it has left");
    }

    #[test]
    fn an_id_that_there_are_flows_of_is_given_to_nobody() {
        let before = config(&[A]);
        let ids = Ids::assign(&before, &Desired::empty(), &BTreeSet::from([0, 2])).expect("there is room");
        assert_eq!(ids.backends, [1, 3]);
    }

    #[test]
    fn the_ids_of_a_new_data_path_are_in_order() {
        let config = config(&[A, B]);
        assert_eq!(Ids::assign(&config, &Desired::empty(), &BTreeSet::new()), Ok(Ids::in_order(&config)));
    }

    #[test]
    fn ids_run_out() {
        let config = config(&[A]);
        let all = (0..u16::try_from(MAX_BACKENDS).expect("fits") - 1).collect();
        let error = Ids::assign(&config, &Desired::empty(), &all).expect_err("one is left, and two are needed");
        assert_eq!(error, NoRoom("backends"));
    }
}
