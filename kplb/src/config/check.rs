//! A draft's values checked against each other.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

use kplb_common::abi::{MAX_BACKENDS, MAX_SERVICES};

use super::{
    BackendConfig, CheckConfig, CheckKind, Config, Place, Problems, Protocol, ServiceConfig,
    draft::{At, Draft, DraftBackend, DraftService},
    health::DraftCheck,
    value::shown,
};

/// Checks a draft; nothing if a value that the configuration cannot be without is missing, which has been reported.
pub(super) fn check(draft: Draft, problems: &mut Problems) -> Option<Config> {
    limits(&draft, problems);
    addresses(&draft.services, problems);

    let mut endpoints = Unique::default();
    let mut names = Unique::default();
    let mut services = Vec::with_capacity(draft.services.len());
    let mut is_complete = true;
    for service in draft.services {
        match check_service(service, &mut endpoints, &mut names, problems) {
            Some(service) => services.push(service),
            None => is_complete = false,
        }
    }
    let vrrp = draft.vrrp.map(|vrrp| vrrp.check(&services, problems));
    is_complete.then_some(Config { node: draft.node, flows: draft.flows, vrrp, metrics: draft.metrics, services })
}

/// As many services and backends as there is room for, and no fewer than make sense.
fn limits(draft: &Draft, problems: &mut Problems) {
    if !draft.tries_service {
        let hint = "add a [[service]] with a vip and its backends, or give --vip and --backend";
        problems.add(&draft.place, "there is no service", hint);
    }
    if let Some(first_too_many) = draft.services.get(MAX_SERVICES as usize) {
        let n = draft.services.len();
        problems.add(&first_too_many.place, format!("{n} services"), format!("at most {MAX_SERVICES} are possible"));
    }
    let mut n = 0;
    for service in &draft.services {
        let had_room = n <= MAX_BACKENDS as usize;
        n += service.backends.len();
        if had_room && n > MAX_BACKENDS as usize {
            let hint = format!("at most {MAX_BACKENDS} are possible, over all services");
            problems.add(&service.place, "too many backends up to this service", hint);
        }
    }
}

/// No VIP is a backend's address: its packets would come back to the service.
fn addresses(services: &[DraftService], problems: &mut Problems) {
    let vips: HashMap<IpAddr, &Place> =
        services.iter().filter_map(|service| service.vip.as_ref()).map(|vip| (vip.value.ip(), &vip.place)).collect();
    for address in services.iter().flat_map(|service| &service.backends).filter_map(|backend| backend.address.as_ref())
    {
        if let Some(vip) = vips.get(&address.value.ip()) {
            problems.add(
                &address.place,
                format!("backend {} has the address of a VIP ({vip})", address.value),
                "give the backend's own address",
            );
        }
    }
}

fn check_service(
    service: DraftService,
    endpoints: &mut Unique<(SocketAddr, Protocol)>,
    names: &mut Unique<String>,
    problems: &mut Problems,
) -> Option<ServiceConfig> {
    let vip = service.vip?;
    let protocol = service.protocol;
    let repeated = endpoints.repeated((vip.value, protocol), &vip.place);
    if let Some(first) = &repeated {
        problems.add(
            &vip.place,
            format!("a service {}/{protocol} exists already ({first})", vip.value),
            "list all its backends there, or use another VIP, port or protocol",
        );
    }
    // A repeated endpoint repeats its default name: one report is enough.
    let is_reported = repeated.is_some() && service.name.is_none();
    let default_name = || At { value: format!("{}/{protocol}", vip.value), place: vip.place.clone() };
    let name = service.name.unwrap_or_else(default_name);
    check_name("service", &name, is_reported, names, problems);
    if service.backends.is_empty() {
        problems.add(
            &service.place,
            format!("service {} has no backend", shown(&name.value)),
            "add a [[service.backend]] with its address, or a --backend of the VIP's family",
        );
    }
    // What is not TCP is not checked unless someone says how.
    let default_check = (protocol == Protocol::Tcp).then_some(CheckConfig::default().kind);
    let backends = check_backends(service.backends, &vip, &service.check, default_check, problems)?;
    Some(ServiceConfig {
        name: name.value,
        vip: vip.value,
        protocol,
        persistence: service.persistence,
        local_clients: service.local_clients,
        seed: service.seed,
        on_down: service.on_down,
        drain_timeout: service.drain_timeout,
        slow_start: service.slow_start,
        backends,
    })
}

fn check_backends(
    backends: Vec<DraftBackend>,
    vip: &At<SocketAddr>,
    service_check: &DraftCheck,
    default_check: Option<CheckKind>,
    problems: &mut Problems,
) -> Option<Vec<BackendConfig>> {
    let mut addresses = Unique::default();
    let mut names = Unique::default();
    let mut checked = Vec::with_capacity(backends.len());
    let mut is_complete = true;
    for backend in backends {
        let Some(address) = backend.address else {
            is_complete = false;
            continue;
        };
        if address.value.is_ipv4() != vip.value.is_ipv4() {
            problems.add(
                &address.place,
                format!("backend {} is not of the family of its VIP {} ({})", address.value, vip.value, vip.place),
                "use a service for each family",
            );
        }
        let repeated = addresses.repeated(address.value, &address.place);
        if let Some(first) = &repeated {
            problems.add(
                &address.place,
                format!("backend {} exists already in this service ({first})", address.value),
                "leave it out, or give it more `weight`",
            );
        }
        let is_reported = repeated.is_some() && backend.name.is_none();
        let default_name = || At { value: address.value.to_string(), place: address.place.clone() };
        let name = backend.name.unwrap_or_else(default_name);
        check_name("backend", &name, is_reported, &mut names, problems);
        let check = backend.check.or(service_check).check(default_check, problems);
        checked.push(BackendConfig { name: name.value, address: address.value, weight: backend.weight, check });
    }
    is_complete.then_some(checked)
}

fn check_name(what: &str, name: &At<String>, is_reported: bool, names: &mut Unique<String>, problems: &mut Problems) {
    if let Some(first) = names.repeated(name.value.clone(), &name.place)
        && !is_reported
    {
        problems.add(
            &name.place,
            format!("a {what} named {} exists already ({first})", shown(&name.value)),
            "give one of them another `name`",
        );
    }
}

/// Values that may exist once, with the place of the first.
struct Unique<T>(HashMap<T, Place>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Unique<T> {
    /// The place of the same value before, if there was one.
    fn repeated(&mut self, value: T, place: &Place) -> Option<Place> {
        match self.0.entry(value) {
            Entry::Occupied(first) => Some(first.get().clone()),
            Entry::Vacant(entry) => {
                entry.insert(place.clone());
                None
            }
        }
    }
}
