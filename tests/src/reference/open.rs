//! How the model opens a flow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kplb::model::Desired;
use kplb_common::{
    abi::MAX_NAT_PROBES,
    backend::Location,
    flow_state::{FlowState, opens},
    hash::{hash_client, hash_flow, hash_nat_port},
    maglev::{NO_BACKEND, slot},
    net::{Address, Ip4, Ip6},
    service::{Persistence, Service},
    verdict::{DropReason, ResetReason, Verdict},
};

use super::{
    flows::{Flow, Flows, Place, Proof, Tuple},
    is_tcp, node_address,
    parse::Segment,
    serving, towards_backend,
};

/// The flow that a packet to a service opens, or why it opens none.
pub fn open(
    flows: &Flows,
    desired: &Desired,
    service: &Service,
    frame: &[u8],
    segment: &Segment,
) -> Result<Flow, Verdict> {
    if is_tcp(segment) && !opens(segment.flags) {
        return Err(Verdict::Reset(ResetReason::UnknownFlow));
    }
    let from_client = segment.tuple;
    let hashes = Hashes::new(service, &from_client);
    let no_backend = if service.waits_when_empty() {
        Verdict::Drop(DropReason::FirstChecks)
    } else {
        Verdict::Reset(ResetReason::NoBackend)
    };
    let ring = desired.rings.get(&service.id).ok_or(no_backend)?;
    let id = ring[slot(hashes.slot)];
    if id == NO_BACKEND {
        return Err(no_backend);
    }
    let backend = serving(desired, id).map_err(|_| no_backend)?;
    let place = if backend.location == Location::Local as u8 { Place::Local } else { Place::Remote };
    towards_backend(frame, segment.place.l3, backend, place)?;

    let address = match from_client.source {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(Ip4::from_wide(&backend.address))),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(backend.address)),
    };
    let own_port = from_client.source.port();
    let (client, keeps_port) = match place {
        Place::Local => (from_client.source.ip(), true),
        Place::Remote => (node_address(desired, from_client.source), desired.node.is_nat_port(own_port)),
    };
    let from_backend = |port| Tuple {
        source: SocketAddr::new(address, backend.port.to_host()),
        destination: SocketAddr::new(client, port),
        protocol: from_client.protocol,
    };
    let from_backend = (keeps_port.then_some(own_port).into_iter())
        .chain((0..MAX_NAT_PROBES).map(|probe| desired.node.nat_port(hashes.port, probe)))
        .map(from_backend)
        .find(|tuple| !flows.contains(tuple))
        .ok_or(Verdict::Drop(DropReason::NoNatPort))?;
    Ok(Flow {
        from_client,
        from_backend,
        backend: id,
        place,
        client_mac: frame[6..12].try_into().expect("six bytes"),
        state: FlowState::opening(from_client.protocol),
        acknowledged: [0; 2],
        proof: Proof::Missing,
    })
}

struct Hashes {
    slot: u32,
    port: u64,
}

impl Hashes {
    fn new(service: &Service, tuple: &Tuple) -> Self {
        match (tuple.source.ip(), tuple.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::of(service, tuple, Ip4::from(source), Ip4::from(destination))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Self::of(service, tuple, Ip6::from(source), Ip6::from(destination))
            }
            _ => unreachable!("a packet has addresses of one family"),
        }
    }

    fn of<A: Address>(service: &Service, tuple: &Tuple, source: A, destination: A) -> Self {
        let key = tuple.key(source, destination);
        let slot = if service.persistence == Persistence::Client as u8 {
            hash_client(service.seed, &source)
        } else {
            hash_flow(service.seed, &key)
        };
        Self { slot, port: hash_nat_port(service.seed, &key) }
    }
}
