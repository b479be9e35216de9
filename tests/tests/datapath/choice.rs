//! Cases of choices: which backend, and which source port.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use kplb::model::Desired;
use kplb_common::{
    abi::MAX_NAT_PROBES,
    flow::FlowKey,
    hash::{hash_client, hash_flow, hash_nat_port},
    maglev::slot,
    net::{Address, Ip4, Ip6, TCP, UDP},
    verdict::DropReason,
};
use kplb_tests::{frames::SYN, reference::Tuple};

use crate::{
    case::{Case, Step},
    scene::{Family, Flow, KEPT_PORT, Kind, NAT_PORTS, OTHER_PORT, SEED},
    shape::ConcatAll as _,
};

/// All of them.
pub fn cases(family: Family, desired: &Desired) -> Vec<Case> {
    [ports(family, desired), exhaustion(family, desired), persistence(family, desired)].concat_all()
}

/// What the hash functions, which have tests of their own, say of a client's 5-tuple.
pub struct Hashes {
    pub client: u32,
    flow: u32,
    nat_port: u64,
}

/// Of a client's packet.
pub fn hashes(tuple: &Tuple) -> Hashes {
    fn of<A: Address>(key: &FlowKey<A>) -> Hashes {
        Hashes {
            client: hash_client(SEED, &key.source),
            flow: hash_flow(SEED, key),
            nat_port: hash_nat_port(SEED, key),
        }
    }
    use std::net::IpAddr::{V4, V6};
    match (tuple.source.ip(), tuple.destination.ip()) {
        (V4(source), V4(destination)) => of(&tuple.key(Ip4::from(source), Ip4::from(destination))),
        (V6(source), V6(destination)) => of(&tuple.key(Ip6::from(source), Ip6::from(destination))),
        _ => unreachable!("a flow is of one family"),
    }
}

/// The port that a flow is given at a probe.
fn probed(desired: &Desired, flow: &Flow, probe: u32) -> u16 {
    desired.node.nat_port(hashes(&flow.forward()).nat_port, probe)
}

/// The flow of a client, given its port by this probe.
fn flow_by_probe(desired: &Desired, any: &Flow, client: SocketAddr, probe: u32) -> Flow {
    let flow = any.of_client(client, 0);
    flow.of_client(client, probed(desired, &flow, probe))
}

/// Which source port a flow gets.
fn ports(family: Family, desired: &Desired) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let flow = Flow::new(family, protocol, Kind::Remote);
        let opens = |name: String, flow: &Flow| Case::forward(name, flow, &flow.client_sends(SYN)).opens();
        for port in [*NAT_PORTS.start(), *NAT_PORTS.end()] {
            let kept = flow.of_client(family.at(101, port), port);
            cases.push(opens(format!("{name}: port {port} is kept"), &kept));
        }
        for port in [1, 1023, NAT_PORTS.start() - 1, NAT_PORTS.end() + 1, OTHER_PORT, 65_535, 0] {
            let moved = flow_by_probe(desired, &flow, family.at(101, port), 0);
            cases.push(opens(format!("{name}: port {port} is replaced"), &moved));
            let reply = Case::reply(format!("{name}: reply to port {port}"), &moved, &moved.reply_data());
            cases.push(reply.after(moved.established()));
        }
        // Another client has the port already.
        let second = flow_by_probe(desired, &flow, family.at(102, KEPT_PORT), 0);
        assert_ne!(second.nat.port(), KEPT_PORT, "choose another client: this one's first probe is its own port");
        let taken = |n: u16, port: u16| flow.of_client(family.at(110 + n, port), port);
        // A client whose first probes are all different.
        let third = (OTHER_PORT..)
            .map(|port| flow_by_probe(desired, &flow, family.at(102, port), 3))
            .find(|flow| (0..4).map(|probe| probed(desired, flow, probe)).collect::<BTreeSet<_>>().len() == 4)
            .expect("such a client");
        let first_three =
            (0..3_u16).flat_map(|probe| taken(probe, probed(desired, &third, probe.into())).established());
        cases.extend([
            opens(format!("{name}: the port is taken by a half-open flow"), &second).after(flow.opened()),
            opens(format!("{name}: the port is taken by an established flow"), &second).after(flow.established()),
            opens(format!("{name}: three probes are taken"), &third).after(first_three.collect::<Vec<_>>()),
            Case::reply(format!("{name}: the first one's replies"), &flow, &flow.reply_data())
                .after(flow.established())
                .after(second.established()),
            Case::reply(format!("{name}: the second one's replies"), &second, &second.reply_data())
                .after(flow.established())
                .after(second.established()),
            // Taken towards one backend is not taken towards another.
            opens(format!("{name}: the port of another protocol's flow"), &flow)
                .after(Flow::new(family, if protocol == TCP { UDP } else { TCP }, Kind::Remote).established()),
            Case::forward(format!("{name}: the same port again"), &second, &second.client_sends(SYN))
                .after(flow.opened())
                .after(second.opened()),
        ]);
    }
    // Towards the node's backend the client's address tells flows apart.
    let local = Flow::new(family, TCP, Kind::Local);
    for port in [1, KEPT_PORT, OTHER_PORT, 65_535] {
        let flow = local.of_client(family.at(101, port), port);
        cases.push(Case::forward(format!("local: port {port} is kept"), &flow, &flow.client_sends(SYN)).opens());
        let other = local.of_client(family.at(102, port), port);
        let case = Case::forward(format!("local: port {port} of two clients"), &other, &other.client_sends(SYN));
        cases.push(case.opens().after(flow.established()));
    }
    cases
}

/// No port is left.
fn exhaustion(family: Family, desired: &Desired) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let flow = Flow::new(family, protocol, Kind::Remote);
        let all: Vec<Flow> =
            (NAT_PORTS).zip(150..).map(|(port, last)| flow.of_client(family.at(last, port), port)).collect();
        let half: Vec<Step> = all.iter().flat_map(Flow::opened).collect();
        let full: Vec<Step> = all.iter().flat_map(Flow::established).collect();
        let late = flow.of_client(family.at(102, OTHER_PORT), 0);
        let exhausted = |what: &str, flow: &Flow| {
            Case::drop(format!("{name}: no port left, {what}"), &flow.client_sends(SYN), DropReason::NoNatPort)
        };
        // The only one that is free, and not the first that is tried.
        let freed = flow_by_probe(desired, &flow, late.client, MAX_NAT_PROBES - 1);
        let owner = all.iter().find(|flow| flow.nat == freed.nat).expect("every port has a flow");
        let age = Step::Age(owner.forward(), Duration::from_secs(11));
        cases.extend([
            exhausted("all half-open", &late).after(half.clone()).leaves(&late, None),
            exhausted("all established", &late).after(full.clone()),
            exhausted("its own port taken", &flow).after(full.clone()),
            Case::forward(format!("{name}: no port left, but for known flows"), &all[3], &all[3].data())
                .after(full.clone()),
            Case::forward(format!("{name}: the port of a flow that is too old"), &freed, &freed.client_sends(SYN))
                .opens()
                .after(half)
                .after([age]),
        ]);
    }
    cases
}

/// Which backend a flow gets.
fn persistence(family: Family, desired: &Desired) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut chosen = [(Kind::ByClient, Vec::new()), (Kind::ByConnection, Vec::new())];
    for (kind, chosen) in &mut chosen {
        let any = Flow::new(family, TCP, *kind);
        let service = desired.backends[&any.backend_id].service;
        let ring = &desired.rings[&service];
        for (last, port) in (101..105).flat_map(|last| NAT_PORTS.step_by(5).map(move |port| (last, port))) {
            let flow = any.of_client(family.at(last, port), port);
            let hashes = hashes(&flow.forward());
            let hash = if *kind == Kind::ByClient { hashes.client } else { hashes.flow };
            let backend = ring[slot(hash)];
            chosen.push((last, backend));
            let flow = flow.to_backend_number(backend - any.backend_id, family);
            let name = format!("{kind:?}: client {last}, port {port}");
            let open = Case::forward(&name, &flow, &flow.client_sends(SYN)).opens();
            let data = Case::forward(format!("{name}, data"), &flow, &flow.data()).after(flow.established());
            let reply = Case::reply(format!("{name}, reply"), &flow, &flow.reply_data()).after(flow.established());
            cases.extend([open, data, reply]);
        }
    }
    let [(_, by_client), (_, by_connection)] = chosen;
    for last in 101..105 {
        let backends = |chosen: &[(u16, u16)]| {
            let backends = chosen.iter().filter(|(client, _)| *client == last).map(|(_, backend)| *backend);
            backends.collect::<BTreeSet<u16>>().len()
        };
        assert_eq!(backends(&by_client), 1, "a client keeps to one backend");
        assert!(backends(&by_connection) > 1, "connections are spread");
    }
    cases
}
