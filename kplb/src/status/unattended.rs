//! The status of a data path without an agent: what the pinned maps alone tell.
//!
//! Names, checks and roles are known to agents only: addresses stand for names.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Result;
use kplb_common::{
    backend::{Backend, BackendState},
    net::{Ip4, Ip6, Mac},
    node::Node,
    service::{LocalClients, Persistence, Service},
};

use super::{BackendStatus, FlowsStatus, NodeStatus, ServiceStatus, Status, Traffic};
use crate::{
    dataplane::{FlowFamily, Mode, PinnedMaps, monotonic_now_ns},
    directory,
    flows::{self, Phase},
    health::board::State,
    maglev,
    model::Endpoint,
};

/// Live flows by service and backend.
type Flows = HashMap<(Endpoint, SocketAddr), FlowsStatus>;

/// The status of an interface's data path; `mode`: where the kernel says that its program at ingress runs.
///
/// # Errors
/// If the maps cannot be read.
pub fn unattended(interface: &str, mode: &str, maps: &PinnedMaps) -> Result<Status> {
    let (node, backends) = (maps.node()?, maps.backends()?);
    let mut flows = Flows::new();
    count::<Ip4>(maps, &node, &mut flows)?;
    count::<Ip6>(maps, &node, &mut flows)?;
    let mut services = Vec::new();
    for (endpoint, service) in maps.services()? {
        services.push(service_status(maps, &endpoint, &service, &backends, &flows)?);
    }
    let verdicts =
        maps.verdicts()?.into_iter().map(|(verdict, packets)| (verdict.name().to_owned(), packets)).collect();
    let of_family = |is_of_family: fn(&SocketAddr) -> bool| {
        let mut total = FlowsStatus::default();
        let own = services.iter().filter(|service: &&ServiceStatus| is_of_family(&service.vip));
        own.for_each(|service| total.add(&service.flows));
        total
    };
    let (flows_v4, flows_v6) = (of_family(SocketAddr::is_ipv4), of_family(SocketAddr::is_ipv6));
    Ok(Status {
        interface: interface.to_owned(),
        mode: mode.to_owned(),
        mode_reason: "without an agent".to_owned(),
        mode_cost: Mode::from_name(mode).map_or("", Mode::cost).to_owned(),
        pid: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: 0,
        generation: 0,
        node: node_status(&node),
        services,
        verdicts,
        flows_v4,
        flows_v6,
        flow_limits: maps.flow_table_sizes()?.into(),
        resets: super::ResetsStatus::default(),
        election: None,
        events: Vec::new(),
    })
}

fn count<A: FlowFamily>(maps: &PinnedMaps, node: &Node, flows: &mut Flows) -> Result<()> {
    let now_ns = monotonic_now_ns();
    maps.for_each_entry::<A>(|key, flow| {
        let Some(flow) = flows::decode(key, flow, node, now_ns) else { return };
        let count = flows.entry((flow.service(), flow.backend)).or_default();
        match flow.phase {
            Phase::Established => count.established += 1,
            Phase::HalfOpen => count.half_open += 1,
            Phase::Closing => count.closing += 1,
        }
    })
}

fn service_status(
    maps: &PinnedMaps,
    endpoint: &Endpoint,
    service: &Service,
    backends: &[(u16, Backend)],
    flows: &Flows,
) -> Result<ServiceStatus> {
    let ring = maps.ring(service.id)?;
    let mut own = Vec::new();
    for (id, backend) in backends.iter().filter(|(_, backend)| backend.service == service.id) {
        let address = directory::backend_address(endpoint, backend);
        let ring_share = maglev::share(&ring, *id);
        own.push(BackendStatus {
            name: address.to_string(),
            address,
            state: state(backend, ring_share).name().to_owned(),
            state_seconds: 0.0,
            by_hand: None,
            check: None,
            location: if backend.is_local() { "local" } else { "remote" }.to_owned(),
            next_hop: (backend.mac != Mac::UNRESOLVED).then(|| backend.mac.to_string()),
            ring_share,
            flows: flows.get(&(*endpoint, address)).copied().unwrap_or_default(),
            traffic: maps.traffic(*id)?.into(),
        });
    }
    let (mut total, mut traffic) = (FlowsStatus::default(), Traffic::default());
    for backend in &own {
        total.add(&backend.flows);
        traffic.add(&backend.traffic);
    }
    Ok(ServiceStatus {
        name: endpoint.to_string(),
        vip: endpoint.address,
        protocol: endpoint.protocol.to_string(),
        persistence: if service.persistence == Persistence::Client as u8 { "client" } else { "connection" }.to_owned(),
        local_clients: match service.local_clients {
            number if number == LocalClients::PreferLocal as u8 => "prefer-local",
            number if number == LocalClients::Hash as u8 => "hash",
            _ => "off",
        }
        .to_owned(),
        flows: total,
        traffic,
        backends: own,
    })
}

/// What it is used for, as far as that shows.
fn state(backend: &Backend, ring_share: f64) -> State {
    match BackendState::from_u8(backend.state) {
        BackendState::Serving if ring_share > 0.0 => State::Active,
        BackendState::Serving => State::Draining,
        BackendState::Down | BackendState::Absent => State::Down,
    }
}

fn node_status(node: &Node) -> NodeStatus {
    NodeStatus {
        mac: node.mac.to_string(),
        ipv4: (node.ipv4 != Ip4::default()).then(|| Ipv4Addr::from(node.ipv4)),
        ipv6: (node.ipv6 != Ip6::default()).then(|| Ipv6Addr::from(node.ipv6)),
        vlan: (!node.vlan.is_none()).then(|| node.vlan.to_string()),
        nat_port_first: node.nat_port_first,
        nat_port_last: node.nat_port_last,
    }
}
