//! Who is on stage: the backends of the configuration, and those that have left it and still have flows.
//!
//! Pure. A service is the same as before if its VIP, port and protocol are, and a backend if its address and port are.

use std::{collections::BTreeMap, net::IpAddr};

use kplb_common::{backend::BackendState, net::Mac};

use crate::{
    config::{BackendConfig, Config, ServiceConfig},
    directory::backend_address,
    health::fsm::Health,
    ids::Ids,
    model::{Desired, Endpoint},
};

/// A configuration, and those of its backends that are about to leave: each service's own come first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cast {
    /// With the leaving ones.
    pub(super) config: Config,
    /// Whether it is leaving, by place among the backends of all services.
    pub(super) is_leaving: Vec<bool>,
}

impl Cast {
    /// Those of `config`, and of `earlier` those that it no longer has. What an earlier service that is gone had is not
    /// kept: nobody leads its clients here any more.
    pub(super) fn new(mut config: Config, earlier: &[ServiceConfig]) -> Self {
        let mut is_leaving = Vec::new();
        for service in &mut config.services {
            is_leaving.resize(is_leaving.len() + service.backends.len(), false);
            let same = earlier.iter().find(|earlier| Endpoint::of(earlier) == Endpoint::of(service));
            for backend in same.map(|earlier| &earlier.backends[..]).unwrap_or_default() {
                if service.backends.iter().all(|present| present.address != backend.address) {
                    let leaver = named_apart(backend, service);
                    service.backends.push(leaver);
                    is_leaving.push(true);
                }
            }
        }
        Self { config, is_leaving }
    }

    /// The same without the leaving ones that are finished, by place.
    pub(super) fn without(&self, is_finished: impl Fn(usize) -> bool) -> Self {
        let stays = |place: usize| !(self.is_leaving[place] && is_finished(place));
        let mut places = 0..self.is_leaving.len();
        let mut config = self.config.clone();
        for service in &mut config.services {
            service.backends.retain(|_| places.next().is_some_and(stays));
        }
        let is_leaving = (0..self.is_leaving.len()).filter(|place| stays(*place)).map(|place| self.is_leaving[place]);
        Self { config, is_leaving: is_leaving.collect() }
    }

    /// The places of those that are leaving.
    pub(super) fn leaving(&self) -> impl Iterator<Item = usize> {
        (0..).zip(&self.is_leaving).filter(|(_, is_leaving)| **is_leaving).map(|(place, _)| place)
    }
}

/// Names are unique within a service.
fn named_apart(backend: &BackendConfig, service: &ServiceConfig) -> BackendConfig {
    let is_taken = service.backends.iter().any(|present| present.name == backend.name);
    let name = if is_taken { backend.address.to_string() } else { backend.name.clone() };
    BackendConfig { name, ..backend.clone() }
}

/// The services of an earlier agent, as far as the maps tell. Their backends are named by their addresses, and checked as
/// the first one that `config` has in the same service.
pub(super) fn services_of(held: &Desired, config: &Config) -> Vec<ServiceConfig> {
    let mut services = Vec::new();
    for service in &config.services {
        let Some(present) = held.services.get(&Endpoint::of(service)) else { continue };
        let backends = held.backends.values().filter(|backend| backend.service == present.id);
        let check = service.backends.first().and_then(|backend| backend.check.clone());
        let backends = backends
            .map(|backend| {
                let address = backend_address(&Endpoint::of(service), backend);
                BackendConfig { name: address.to_string(), address, weight: 1, check: check.clone() }
            })
            .collect();
        services.push(ServiceConfig { backends, ..service.clone() });
    }
    services
}

/// Where the frames for each backend went, by its address.
pub(super) fn next_hops_of(held: &Desired, config: &Config, ids: &Ids) -> BTreeMap<IpAddr, Mac> {
    let backends = config.services.iter().flat_map(|service| &service.backends);
    let known = backends.enumerate().filter_map(|(place, backend)| {
        let mac = held.backends.get(&ids.backend(place))?.mac;
        (mac != Mac::UNRESOLVED).then_some((backend.address.ip(), mac))
    });
    known.collect()
}

/// What an earlier agent took each backend for, by place; nothing of one that the maps do not have.
pub(super) fn health_of(held: &Desired, config: &Config, ids: &Ids) -> Vec<Option<Health>> {
    let backends = config.services.iter().flat_map(|service| &service.backends);
    let health = |(place, backend): (usize, &BackendConfig)| {
        let id = ids.backend(place);
        let present = held.backends.get(&id)?;
        let has_share = held.rings.get(&present.service).is_some_and(|ring| ring.contains(&id));
        Some(match BackendState::from_u8(present.state) {
            BackendState::Serving if has_share || backend.weight == 0 => Health::Active,
            BackendState::Serving => Health::Draining,
            BackendState::Down | BackendState::Absent => Health::Down,
        })
    };
    backends.enumerate().map(health).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        config,
        maglev::Rings,
        model::{Condition, Conditions, FULL_SHARE, NodeFacts, desired},
    };

    const FIRST: &str = "vip = '198.18.0.100:1'";

    fn config(services: &[(&str, &[&str])]) -> Config {
        let text: String = services
            .iter()
            .map(|(head, backends)| {
                let backends: Vec<String> = backends
                    .iter()
                    .map(|name| format!("{{ name = 'cp{name}', address = '198.18.0.{name}:1' }}"))
                    .collect();
                format!("[[service]]\n{head}\nbackend = [{}]\n", backends.join(", "))
            })
            .collect();
        config::parse(&text, "test").unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn names(cast: &Cast) -> Vec<&str> {
        cast.config.services.iter().flat_map(|service| &service.backends).map(|backend| backend.name.as_str()).collect()
    }

    #[test]
    fn who_is_no_longer_configured_leaves() {
        let before = config(&[(FIRST, &["11", "12"]), ("vip = '198.18.0.100:2'", &["14"])]);
        let after = config(&[("vip = '198.18.0.100:3'", &["15"]), (FIRST, &["12", "13"])]);
        let cast = Cast::new(after.clone(), &before.services);
        assert_eq!(names(&cast), ["cp15", "cp12", "cp13", "cp11"], "that of the service that is gone is not kept");
        assert_eq!(cast.is_leaving, [false, false, false, true]);
        assert_eq!(cast.leaving().collect::<Vec<_>>(), [3]);
        let rest = cast.without(|place| place == 3);
        assert_eq!(rest, Cast { config: after, is_leaving: vec![false; 3] });
        assert_eq!(cast.without(|place| place < 3), cast, "only who leaves can be finished");
    }

    #[test]
    fn who_comes_back_stays() {
        let (before, after) = (config(&[(FIRST, &["11", "12"])]), config(&[(FIRST, &["12"])]));
        let cast = Cast::new(after, &before.services);
        let again = Cast::new(before.clone(), &cast.config.services);
        assert_eq!(again, Cast { config: before, is_leaving: vec![false; 2] });
    }

    #[test]
    fn names_stay_apart() {
        let before = config(&[(FIRST, &["11"])]);
        let mut after = config(&[(FIRST, &["12"])]);
        after.services[0].backends[0].name = "cp11".to_owned();
        let cast = Cast::new(after, &before.services);
        assert_eq!(names(&cast), ["cp11", "198.18.0.11:1"]);
    }

    #[test]
    fn maps_tell_what_an_earlier_agent_knew() {
        let config = config(&[(FIRST, &["11", "12", "13", "14"])]);
        let ids = Ids::in_order(&config);
        let condition = |share, state| Condition { share, state };
        let conditions = Conditions {
            backends: vec![
                condition(FULL_SHARE, BackendState::Serving),
                condition(0, BackendState::Serving),
                condition(0, BackendState::Down),
                condition(FULL_SHARE, BackendState::Serving),
            ],
            ..Conditions::all_active(&config)
        };
        let facts = NodeFacts { ipv4: Some([198, 18, 0, 11].into()), ..NodeFacts::default() };
        let mut held = desired(&config, &ids, &facts, &conditions, &mut Rings::default()).expect("possible");
        held.backends.remove(&3);
        assert_eq!(
            health_of(&held, &config, &ids),
            [Some(Health::Active), Some(Health::Draining), Some(Health::Down), None]
        );
        let services = services_of(&held, &config);
        let addresses: BTreeSet<String> =
            services[0].backends.iter().map(|backend| backend.address.to_string()).collect();
        assert_eq!(addresses, ["198.18.0.11:1", "198.18.0.12:1", "198.18.0.13:1"].map(str::to_owned).into());
    }
}
