//! What the maps hold: read back, for an agent that takes them over.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use aya::{
    Ebpf, Pod,
    maps::{Array, ArrayOfMaps, HashMap, MapData},
};
use kplb_common::{
    abi::{MAX_BACKENDS, map},
    backend::{Backend, BackendState},
    endpoint,
    fence::Vip,
    gate::Gate,
    maglev::Ring,
    net::{Ip4, Ip6},
    node::Node,
    service::Service,
};

use super::{open, pinned};
use crate::{
    config::Protocol,
    model::{Desired, Endpoint},
};

/// Reads every map that the agent writes.
pub(super) fn read(ebpf: &Ebpf) -> anyhow::Result<Desired> {
    let node: Array<_, Node> = open(ebpf, map::NODE)?;
    let gate: Array<_, Gate> = open(ebpf, map::GATE)?;
    let mut vips: BTreeMap<IpAddr, Vip> = BTreeMap::new();
    vips.extend(entries::<Ip4, Vip>(ebpf, map::VIPS4)?.into_iter().map(|(key, vip)| (Ipv4Addr::from(key).into(), vip)));
    vips.extend(entries::<Ip6, Vip>(ebpf, map::VIPS6)?.into_iter().map(|(key, vip)| (Ipv6Addr::from(key).into(), vip)));
    let mut services: BTreeMap<Endpoint, Service> = BTreeMap::new();
    for (key, service) in entries::<endpoint::Endpoint<Ip4>, Service>(ebpf, map::SERVICES4)? {
        let address = SocketAddr::from((Ipv4Addr::from(key.address), key.port.to_host()));
        services.insert(Endpoint { address, protocol: protocol(key.protocol)? }, service);
    }
    for (key, service) in entries::<endpoint::Endpoint<Ip6>, Service>(ebpf, map::SERVICES6)? {
        let address = SocketAddr::from((Ipv6Addr::from(key.address), key.port.to_host()));
        services.insert(Endpoint { address, protocol: protocol(key.protocol)? }, service);
    }
    Ok(Desired {
        node: node.get(&0, 0).with_context(|| format!("read {}", map::NODE))?,
        gate: Arc::new(gate.get(&0, 0).with_context(|| format!("read {}", map::GATE))?),
        vips,
        rings: rings(ebpf, services.values())?,
        services,
        backends: backends(ebpf)?,
    })
}

fn backends(ebpf: &Ebpf) -> anyhow::Result<BTreeMap<u16, Backend>> {
    let array: Array<_, Backend> = open(ebpf, map::BACKENDS)?;
    let mut backends = BTreeMap::new();
    for id in 0..u16::try_from(MAX_BACKENDS).unwrap_or(u16::MAX) {
        let backend = array.get(&id.into(), 0).with_context(|| format!("read {}", map::BACKENDS))?;
        if BackendState::from_u8(backend.state) != BackendState::Absent {
            backends.insert(id, backend);
        }
    }
    Ok(backends)
}

fn rings<'s>(ebpf: &Ebpf, services: impl Iterator<Item = &'s Service>) -> anyhow::Result<BTreeMap<u16, Arc<Ring>>> {
    let array: ArrayOfMaps<_, Array<MapData, Ring>> = open(ebpf, map::RINGS)?;
    let mut rings = BTreeMap::new();
    for service in services {
        let read = || array.get(&service.id.into(), 0)?.get(&0, 0);
        let ring = read().with_context(|| format!("read the ring of service {}", service.id))?;
        rings.insert(service.id, Arc::new(ring));
    }
    Ok(rings)
}

fn entries<K: Pod, V: Pod>(ebpf: &Ebpf, name: &str) -> anyhow::Result<Vec<(K, V)>> {
    let table: HashMap<_, K, V> = open(ebpf, name)?;
    table.iter().collect::<Result<_, _>>().with_context(|| format!("read {name}"))
}

fn protocol(number: u8) -> anyhow::Result<Protocol> {
    pinned::protocol(number).with_context(|| format!("a service of protocol {number} is in the maps"))
}
