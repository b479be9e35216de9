//! Puts together what `kplb status` shows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process,
    time::{Duration, Instant},
};

use kplb_common::{
    maglev::Ring,
    net::Mac,
    service::{LocalClients, Persistence},
    sweep::FlowCount,
};

use super::local::Local;
use crate::{
    config::{BackendConfig, Config, ServiceConfig},
    dataplane::{Attached, Counters, FlowTableSizes},
    election::ElectionReport,
    health::board::Entry,
    ids::Ids,
    maglev,
    model::Desired,
    netlink::facts::{Reach, Survey},
    reset::Sent,
    status::{
        BackendStatus, CheckStatus, EventStatus, FlowsStatus, NodeStatus, ResetsStatus, ServiceStatus, Status, Traffic,
    },
};

/// All that a report is made of.
pub(super) struct Sources<'a> {
    pub(super) interface: &'a str,
    pub(super) attached: &'a Attached,
    pub(super) local: Local,
    pub(super) uptime: Duration,
    pub(super) now: Instant,
    pub(super) generation: u64,
    pub(super) config: &'a Config,
    pub(super) ids: &'a Ids,
    pub(super) applied: &'a Desired,
    pub(super) survey: &'a Survey,
    /// By place of the backend in the configuration.
    pub(super) entries: &'a [Entry],
    pub(super) counters: &'a Counters,
    pub(super) limits: FlowTableSizes,
    pub(super) election: Option<ElectionReport>,
    pub(super) events: Vec<EventStatus>,
    /// Sent since the start.
    pub(super) resets: Sent,
}

/// The status of the agent.
pub(super) fn report(sources: &Sources<'_>) -> Status {
    let Sources { interface, attached, uptime, config, survey, counters, .. } = sources;
    let mut services = Vec::with_capacity(config.services.len());
    let mut first_backend = 0;
    for (place, service) in config.services.iter().enumerate() {
        services.push(service_status(sources, place, first_backend, service));
        first_backend += service.backends.len();
    }
    let verdicts: BTreeMap<String, u64> =
        counters.verdicts.iter().map(|(verdict, packets)| (verdict.name().to_owned(), *packets)).collect();
    let flows = |is_of_family: fn(&SocketAddr) -> bool| {
        total(services.iter().filter(|service| is_of_family(&service.vip)).map(|service| &service.flows))
    };
    Status {
        interface: (*interface).to_owned(),
        mode: attached.mode.to_string(),
        mode_reason: attached.reason.clone(),
        mode_cost: attached.mode.cost().to_owned(),
        pid: Some(process::id()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: uptime.as_secs(),
        generation: sources.generation,
        node: NodeStatus {
            mac: survey.mac.to_string(),
            ipv4: survey.ipv4,
            ipv6: survey.ipv6,
            vlan: (!config.node.vlan.is_none()).then(|| config.node.vlan.to_string()),
            nat_port_first: *config.node.nat_ports.start(),
            nat_port_last: *config.node.nat_ports.end(),
        },
        flows_v4: flows(SocketAddr::is_ipv4),
        flows_v6: flows(SocketAddr::is_ipv6),
        flow_limits: sources.limits.into(),
        resets: ResetsStatus {
            to_clients: sources.resets.to_clients as u64,
            to_backends: sources.resets.to_backends as u64,
        },
        services,
        verdicts,
        election: sources.election.clone(),
        events: sources.events.clone(),
    }
}

fn service_status(sources: &Sources<'_>, place: usize, first_backend: usize, service: &ServiceConfig) -> ServiceStatus {
    let ring = sources.applied.rings.get(&sources.ids.service(place)).map(|ring| &**ring);
    let backends: Vec<BackendStatus> = (first_backend..)
        .zip(&service.backends)
        .map(|(place, backend)| backend_status(sources, ring, place, backend))
        .collect();
    let mut traffic = Traffic::default();
    backends.iter().for_each(|backend| traffic.add(&backend.traffic));
    ServiceStatus {
        name: service.name.clone(),
        vip: service.vip,
        protocol: service.protocol.to_string(),
        persistence: match service.persistence {
            Persistence::Client => "client",
            Persistence::Connection => "connection",
        }
        .to_owned(),
        local_clients: match service.local_clients {
            LocalClients::PreferLocal if sources.local.is_on() => "prefer-local",
            LocalClients::Hash if sources.local.is_on() => "hash",
            _ => "off",
        }
        .to_owned(),
        flows: total(backends.iter().map(|backend| &backend.flows)),
        traffic,
        backends,
    }
}

fn backend_status(sources: &Sources<'_>, ring: Option<&Ring>, place: usize, backend: &BackendConfig) -> BackendStatus {
    let Sources { now, survey, entries, counters, .. } = sources;
    let (location, next_hop) = whereabouts(survey, backend.address.ip());
    let (id, entry) = (sources.ids.backend(place), &entries[place]);
    BackendStatus {
        name: backend.name.clone(),
        address: backend.address,
        state: entry.state().name().to_owned(),
        state_seconds: (*now - entry.since()).as_secs_f64(),
        by_hand: entry.by_hand().map(|decision| decision.name().to_owned()),
        check: entry.last().map(|(ended, outcome)| CheckStatus {
            code: outcome.code.to_string(),
            words: outcome.words.clone(),
            is_good: outcome.finding.is_good(),
            latency_ms: outcome.latency.as_secs_f64() * 1000.0,
            age_seconds: (*now - *ended).as_secs_f64(),
        }),
        location: location.to_owned(),
        next_hop: next_hop.map(|mac| mac.to_string()),
        ring_share: ring.map_or(0.0, |ring| maglev::share(ring, id)),
        flows: counters.flows.get(usize::from(id)).map(flows).unwrap_or_default(),
        traffic: counters.backends.get(usize::from(id)).copied().map(Traffic::from).unwrap_or_default(),
    }
}

fn whereabouts(survey: &Survey, backend: IpAddr) -> (&'static str, Option<Mac>) {
    match survey.reach.get(&backend) {
        Some(Reach::Local) => ("local", None),
        Some(Reach::Via { mac, .. }) => ("remote", *mac),
        Some(Reach::OtherInterface(_) | Reach::Unreachable) | None => ("remote", None),
    }
}

fn flows(count: &FlowCount) -> FlowsStatus {
    FlowsStatus {
        established: count.established.into(),
        half_open: count.half_open.into(),
        closing: count.closing.into(),
    }
}

fn total<'a>(flows: impl Iterator<Item = &'a FlowsStatus>) -> FlowsStatus {
    let mut total = FlowsStatus::default();
    flows.for_each(|flows| total.add(flows));
    total
}
