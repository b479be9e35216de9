//! Going through the flow tables, and what the data path reports of backends.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use kplb::{dataplane::Sighting, plan::Operation};
use kplb_common::{
    backend::{Backend, BackendState, Location},
    flow_state::FlowState::Closing,
    net::{Address as _, Ip4, TCP, UDP},
    report::{REPORT_INTERVAL_NS, Symptom},
    sweep::{Orphan, SweepMode},
};
use kplb_tests::{
    frames::{ACK, PSH, RST, SYN},
    poll,
    testbed::{Ingress, Table::Flows, Testbed},
};

use crate::{
    case::{Step, entry, take},
    scene::{AMPLE, Family, Flow, KEPT_PORT, Kind, NAT_PORTS, Place, everywhere},
    traffic::{BACKEND_ISN, CLIENT_ISN},
};

/// A client's last acknowledgement number, and a backend's.
const CLIENT_HAS: u32 = 0x0123_4567;
const BACKEND_HAS: u32 = 0x89ab_cdef;

fn testbed(ingress: Ingress, family: Family) -> Result<Testbed> {
    Testbed::new(ingress, &family.configuration(NAT_PORTS), &family.facts(), AMPLE)
}

fn set_state(testbed: &mut Testbed, flow: &Flow, state: BackendState) -> Result<()> {
    let backend = Backend { state: state as u8, ..testbed.desired().backends[&flow.backend_id] };
    testbed.apply(&Operation::SetBackend { id: flow.backend_id, backend })
}

fn take_all(testbed: &mut Testbed, steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(|step| take(testbed, step))
}

/// Both ends have acknowledged something since the flow was established.
fn used(flow: &Flow) -> Vec<Step> {
    let mut steps = flow.established();
    steps.push(flow.client_sent(&flow.client_sends(ACK | PSH).with_tcp(|tcp| tcp.acknowledgement = CLIENT_HAS)));
    steps.push(flow.backend_sent(&flow.backend_sends(ACK | PSH).with_tcp(|tcp| tcp.acknowledgement = BACKEND_HAS)));
    steps
}

fn expected(flow: &Flow, version: u8, acknowledged: [u32; 2]) -> Orphan {
    use std::net::IpAddr::{V4, V6};
    let wide = |address| match address {
        V4(address) => Ip4::from(address).widen(),
        V6(address) => address.into(),
    };
    let port = |port| kplb_common::net::Be16::from_host(port);
    Orphan {
        client: wide(flow.client.ip()),
        vip: wide(flow.vip.ip()),
        peer: wide(flow.nat.ip()),
        backend: wide(flow.backend.ip()),
        client_acknowledged: acknowledged[0],
        backend_acknowledged: acknowledged[1],
        client_port: port(flow.client.port()),
        vip_port: port(flow.vip.port()),
        peer_port: port(flow.nat.port()),
        backend_port: port(flow.backend.port()),
        client_mac: kplb_common::net::Mac::new(flow.client_mac),
        backend_id: flow.backend_id,
        version,
        location: match flow.place {
            Place::Remote => Location::Remote as u8,
            Place::Local => Location::Local as u8,
        },
        _pad: 0,
    }
}

fn ends_the_flows_of_a_lost_backend(ingress: Ingress, family: Family, version: u8) -> Result<()> {
    let mut testbed = testbed(ingress, family)?;
    for kind in [Kind::Remote, Kind::Local] {
        let (tcp, udp) = (Flow::new(family, TCP, kind), Flow::new(family, UDP, kind));
        let fresh = tcp.of_client(family.at(102, KEPT_PORT + 1), KEPT_PORT + 1);
        let half_open = tcp.of_client(family.at(102, KEPT_PORT + 2), KEPT_PORT + 2);
        let closed = tcp.of_client(family.at(102, KEPT_PORT + 3), KEPT_PORT + 3);
        let other = Flow::new(family, TCP, if kind == Kind::Remote { Kind::Local } else { Kind::Remote });
        for steps in [used(&tcp), fresh.established(), half_open.answered(), closed.closed(), udp.established()] {
            take_all(&mut testbed, &steps)?;
        }
        take_all(&mut testbed, &used(&other))?;

        ensure!(testbed.end_flows(SweepMode::EndOrphans)?.is_empty(), "a flow of a serving backend was ended");
        set_state(&mut testbed, &tcp, BackendState::Down)?;
        set_state(&mut testbed, &udp, BackendState::Down)?;
        let mut orphans = testbed.end_flows(SweepMode::EndOrphans)?;
        orphans.sort_by_key(|orphan| orphan.client_port.to_host());
        // A fresh flow's ends have acknowledged the handshake.
        let handshake = [BACKEND_ISN.wrapping_add(1), CLIENT_ISN.wrapping_add(1)];
        let all = [expected(&tcp, version, [CLIENT_HAS, BACKEND_HAS]), expected(&fresh, version, handshake)];
        ensure!(orphans == all, "{orphans:#?}\ninstead of\n{all:#?}");
        for flow in [&tcp, &fresh] {
            for tuple in [flow.forward(), flow.reply()] {
                ensure!(entry(&mut testbed, &tuple) == Some((Closing, Flows)), "{tuple:?} has not ended");
            }
        }
        ensure!(testbed.end_flows(SweepMode::EndOrphans)?.is_empty(), "ended twice");
        set_state(&mut testbed, &tcp, BackendState::Serving)?;
        set_state(&mut testbed, &udp, BackendState::Serving)?;
        testbed.clear_flows()?;
    }
    Ok(())
}

#[test]
fn ends_the_flows_of_a_lost_backend_v4() -> Result<()> {
    Ingress::each(|ingress| ends_the_flows_of_a_lost_backend(ingress, Family::V4, 4))
}

#[test]
fn ends_the_flows_of_a_lost_backend_v6() -> Result<()> {
    Ingress::each(|ingress| ends_the_flows_of_a_lost_backend(ingress, Family::V6, 6))
}

/// When its VIPs have gone to another node, all of a family ends.
fn ends_the_flows_of_a_family(ingress: Ingress, family: Family, own: SweepMode, other: SweepMode) -> Result<()> {
    let mut testbed = testbed(ingress, family)?;
    let (remote, local) = (Flow::new(family, TCP, Kind::Remote), Flow::new(family, TCP, Kind::Local));
    let half_open = remote.of_client(family.at(102, KEPT_PORT + 1), KEPT_PORT + 1);
    let udp = Flow::new(family, UDP, Kind::Remote);
    for steps in [used(&remote), used(&local), half_open.answered(), udp.established()] {
        take_all(&mut testbed, &steps)?;
    }
    ensure!(testbed.end_flows(other)?.is_empty(), "a flow of another family was ended");
    let ended: std::collections::BTreeSet<u16> =
        testbed.end_flows(own)?.iter().map(|orphan| orphan.client_port.to_host()).collect();
    ensure!(ended == [remote.client.port(), local.client.port()].into(), "{ended:?}");
    for flow in [&remote, &local] {
        ensure!(entry(&mut testbed, &flow.forward()) == Some((Closing, Flows)), "{flow:?} has not ended");
    }
    ensure!(entry(&mut testbed, &udp.forward()).is_some_and(|(state, _)| state != Closing), "a UDP flow was ended");
    ensure!(testbed.end_flows(own)?.is_empty(), "ended twice");
    Ok(())
}

#[test]
fn ends_the_flows_of_a_family_v4() -> Result<()> {
    Ingress::each(|ingress| ends_the_flows_of_a_family(ingress, Family::V4, SweepMode::EndIpv4, SweepMode::EndIpv6))
}

#[test]
fn ends_the_flows_of_a_family_v6() -> Result<()> {
    Ingress::each(|ingress| ends_the_flows_of_a_family(ingress, Family::V6, SweepMode::EndIpv6, SweepMode::EndIpv4))
}

/// More orphans than there is room for at once.
#[test]
fn ends_any_number_of_flows() -> Result<()> {
    const N: u16 = 15_000;
    let sizes = kplb::dataplane::FlowTableSizes { max_flows: 65_536, max_half_open: 1024 };
    let family = Family::V4;
    let mut testbed = Testbed::new(Ingress::Xdp, &family.configuration(10_000..=32_767), &family.facts(), sizes)?;
    let any = Flow::new(family, TCP, Kind::Remote);
    for n in 0..N {
        let flow = any.of_client(family.at(0x1000 + n, 10_000 + n), 10_000 + n);
        take_all(&mut testbed, &flow.established())?;
    }
    set_state(&mut testbed, &any, BackendState::Down)?;
    let orphans = testbed.end_flows(SweepMode::EndOrphans)?;
    let ports: std::collections::BTreeSet<u16> = orphans.iter().map(|orphan| orphan.client_port.to_host()).collect();
    ensure!((orphans.len(), ports.len()) == (N.into(), N.into()), "{} of {N} flows", orphans.len());
    Ok(())
}

#[test]
fn counts_the_flows_of_each_backend() -> Result<()> {
    let (ingress, family) = (Ingress::Xdp, Family::V4);
    let mut testbed = testbed(ingress, family)?;
    let (remote, local) = (Flow::new(family, TCP, Kind::Remote), Flow::new(family, TCP, Kind::Local));
    let udp = Flow::new(family, UDP, Kind::Remote);
    let other = |flow: &Flow, n: u16| flow.of_client(family.at(110 + n, KEPT_PORT + n), KEPT_PORT + n);
    for steps in [
        remote.established(),
        other(&remote, 1).established(),
        other(&remote, 2).opened(),
        other(&remote, 3).closed(),
        local.answered(),
        udp.established(),
    ] {
        take_all(&mut testbed, &steps)?;
    }
    // One that is too old is none.
    let old = other(&remote, 4);
    take_all(&mut testbed, &old.established())?;
    take(&mut testbed, &Step::Age(old.forward(), std::time::Duration::from_secs(25 * 60 * 60)))?;

    let count = |testbed: &mut Testbed| -> Result<BTreeMap<usize, [u32; 3]>> {
        let flows = testbed.flow_counts()?.into_iter().enumerate();
        let counts = flows.map(|(id, count)| (id, [count.established, count.half_open, count.closing]));
        Ok(counts.filter(|(_, count)| *count != [0; 3]).collect())
    };
    let ids = [remote, local, udp].map(|flow| usize::from(flow.backend_id));
    let expected = BTreeMap::from([(ids[0], [2, 1, 1]), (ids[1], [0, 1, 0]), (ids[2], [1, 0, 0])]);
    assert_eq!(count(&mut testbed)?, expected);
    // Each count is a new one.
    assert_eq!(count(&mut testbed)?, expected);
    testbed.clear_flows()?;
    assert_eq!(count(&mut testbed)?, BTreeMap::new());
    Ok(())
}

/// What a client meets at a backend is reported, rarely.
#[test]
fn symptoms_are_reported() -> Result<()> {
    for (ingress, family) in everywhere() {
        let mut testbed = testbed(ingress, family)?;
        for kind in [Kind::Remote, Kind::Local] {
            let flow = Flow::new(family, TCP, kind);
            let id = flow.backend_id;
            take_all(&mut testbed, &flow.opened())?;
            assert_eq!(testbed.reports()?, []);
            take(&mut testbed, &flow.client_sent(&flow.client_sends(SYN)))?;
            assert_eq!(testbed.reports()?, [Sighting::Backend(id, Symptom::Unanswered)]);
            // Not again at once, but after a while.
            take(&mut testbed, &flow.client_sent(&flow.client_sends(SYN)))?;
            assert_eq!(testbed.reports()?, []);
            let interval = std::time::Duration::from_nanos(REPORT_INTERVAL_NS);
            poll::until("the next report", 20 * interval, || {
                let sent = take(&mut testbed, &flow.client_sent(&flow.client_sends(SYN)));
                sent.is_ok()
                    && testbed.reports().is_ok_and(|reports| reports == [Sighting::Backend(id, Symptom::Unanswered)])
            })?;
            poll::until("a refusal", 20 * interval, || {
                let flow = flow.of_client(family.at(103, KEPT_PORT + 1), KEPT_PORT + 1);
                let sent = take_all(&mut testbed, &flow.opened())
                    .and_then(|()| take(&mut testbed, &flow.backend_sent(&flow.backend_sends(RST | ACK))));
                sent.is_ok()
                    && testbed.reports().is_ok_and(|reports| reports == [Sighting::Backend(id, Symptom::Refused)])
            })?;
            // An established connection may be reset for any reason.
            testbed.clear_flows()?;
            poll::until("nothing more to report at once", 20 * interval, || {
                testbed.clear_flows().is_ok()
                    && take_all(&mut testbed, &flow.established()).is_ok()
                    && take(&mut testbed, &flow.backend_sent(&flow.backend_sends(RST | ACK))).is_ok()
            })?;
            assert_eq!(testbed.reports()?, []);
            testbed.clear_flows()?;
        }
    }
    Ok(())
}
