//! An imported configuration at work: it runs a cluster of its own, and takes one over from keepalived and haproxy while
//! clients go on.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    agent::Agent,
    banner::Banner,
    capture::{Advert, Capture, tshark},
    client,
    cluster::{self, VIPS},
    haproxy::Haproxy,
    keepalived::Keepalived,
    lab::{Host, Lab, LabOptions},
    poll,
    vip_client::VipClient,
};

use super::{MINIMAL, folder, imported};

/// Version 2 with an interval of a second: a dead master is replaced after more than three.
const SOON: Duration = Duration::from_secs(20);
const N_NODES: usize = 3;
const VIP: IpAddr = VIPS[0];
/// As the files have it.
const SERVICE: u16 = 6443;
/// Where backends listen that haproxy must not get in the way of: it listens at the same port on every node.
const BACKEND: u16 = 7443;
/// The first node's, one less for each one after it.
const HIGHEST: u8 = 102;

/// The minimal pair as a node of three has it, counted from 1: priorities differ.
fn files(number: usize) -> Result<[String; 2]> {
    let [keepalived, haproxy] = MINIMAL;
    let priority = format!("priority {}", usize::from(HIGHEST) + 1 - number);
    ensure!(keepalived.contains("priority 100"), "the file has another priority:\n{keepalived}");
    let keepalived = keepalived.replace("priority 100", &priority).replace("state MASTER", "state BACKUP");
    Ok([keepalived, haproxy.to_owned()])
}

/// kplb on a node, with what is imported from that node's own files.
fn attach<'l>(host: &'l Host, [keepalived, haproxy]: &[String; 2]) -> Result<Agent<'l>> {
    let folder = folder(keepalived, haproxy)?;
    let text = imported(host, folder.path(), &[])?;
    cluster::start_agent(host, &text)
}

/// Waits until a node, counted from 1, has the VIP, and no other has.
fn holder_is(lab: &Lab, number: usize) -> Result<()> {
    poll::until(&format!("node{number} to hold {VIP} alone"), SOON, || {
        (1..=N_NODES).all(|other| lab.node(other).has_address(VIP).is_ok_and(|has_it| has_it == (other == number)))
    })
}

fn serves(lab: &Lab) -> Result<()> {
    let service = SocketAddr::from((VIP, SERVICE));
    lab.client(1).namespace().block_on(client::get(service, "/version")).map(drop)
}

#[test]
fn an_imported_cluster_runs_and_fails_over() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: N_NODES, clients: 2 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let capture = Capture::start(lab.client(2).namespace(), "eth0", &[VIP])?;
    let mut agents = Vec::new();
    for number in 1..=N_NODES {
        agents.push(attach(lab.node(number), &files(number)?)?);
    }
    // The highest priority, as keepalived would have it.
    holder_is(&lab, 1)?;
    serves(&lab)?;
    are_keepalives(&capture, HIGHEST)?;

    // Connections are spread, each for itself.
    let nodes = lab.client(1).namespace().block_on(async {
        let mut nodes = std::collections::BTreeSet::new();
        for _ in 0..60 {
            nodes.insert(client::get((VIP, SERVICE).into(), "/version").await?.node);
        }
        anyhow::Ok(nodes)
    })?;
    assert_eq!(nodes.len(), N_NODES, "{nodes:?}");

    // The master is killed, which says nothing to anybody; the next one stops in good order.
    agents[0].process().kill()?;
    poll::until("node2 to hold the VIP", SOON, || lab.node(2).has_address(VIP).unwrap_or(false))?;
    serves(&lab)?;
    are_keepalives(&capture, HIGHEST - 1)?;
    agents.remove(1).stop()?;
    poll::until("node3 to hold the VIP", SOON, || lab.node(3).has_address(VIP).unwrap_or(false))?;
    serves(&lab)?;

    // The first one takes over again when it is back: it was not told `nopreempt`.
    let first = attach(lab.node(1), &files(1)?)?;
    holder_is(&lab, 1)?;
    serves(&lab)?;
    let status = first.status()?;
    let router = &status[0]["election"]["routers"][0];
    ensure!(router["dropped"].as_object().is_some_and(serde_json::Map::is_empty), "{router}");
    first.stop()
}

/// To an independent decoder, the adverts of this priority are those of the keepalived.conf.
fn are_keepalives(capture: &Capture, priority: u8) -> Result<()> {
    let is_it = |advert: &Advert| advert.priority() == Some(priority);
    capture.wait_for_advert(Instant::now(), SOON, is_it)?;
    let frames: Vec<_> =
        capture.frames().into_iter().filter(|frame| Advert::of(frame).as_ref().is_some_and(is_it)).collect();
    let expected = [
        ("ip.dst", "224.0.0.18".to_owned()),
        ("ip.ttl", "255".to_owned()),
        ("vrrp.version", "2".to_owned()),
        ("vrrp.virt_rtr_id", "51".to_owned()),
        ("vrrp.prio", priority.to_string()),
        ("vrrp.adver_int", "1".to_owned()),
        ("vrrp.auth_type", "1".to_owned()),
        ("vrrp.auth_string", "secret".to_owned()),
        ("vrrp.ip_addr", VIP.to_string()),
        ("vrrp.checksum.status", "1".to_owned()),
    ];
    let fields: Vec<_> = expected.iter().map(|(field, _)| *field).collect();
    for decoded in tshark::decode(&frames, &fields)? {
        for (field, value) in &expected {
            assert_eq!(decoded.all(field).join(" "), *value, "{field} of {decoded:?}");
        }
    }
    Ok(())
}

/// What a node runs.
enum Balancer<'l> {
    Old(Keepalived<'l>, Haproxy),
    New(Agent<'l>),
}

fn start_old<'l>(host: &'l Host, [keepalived, haproxy]: &[String; 2]) -> Result<Balancer<'l>> {
    // It listens at the VIP on every node, whoever holds it.
    let mut sysctl = Command::new("sysctl");
    sysctl.args(["-w", "net.ipv4.ip_nonlocal_bind=1"]);
    host.namespace().check_output(sysctl)?;
    let haproxy = Haproxy::start(host, haproxy, SERVICE)?;
    Ok(Balancer::Old(Keepalived::start_with(host, keepalived, &["VI_1"], &[])?, haproxy))
}

/// Node by node, the backups first: the real keepalived and haproxy go, kplb comes, and the VIP is always somewhere.
#[test]
fn a_cluster_moves_from_keepalived_and_haproxy_node_by_node() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: N_NODES, clients: 1 })?;
    let _backends = lab.nodes().iter().map(|node| Banner::start(node, BACKEND)).collect::<Result<Vec<_>>>()?;
    let files = (1..=N_NODES)
        .map(|number| {
            let [keepalived, haproxy] = files(number)?;
            Ok([keepalived, haproxy.replace(":6443 check", ":7443 check")])
        })
        .collect::<Result<Vec<_>>>()?;
    let mut balancers = Vec::new();
    for (host, files) in lab.nodes().iter().zip(&files) {
        balancers.push(Some(start_old(host, files)?));
    }
    holder_is(&lab, 1)?;
    let client = VipClient::start(lab.client(1), SocketAddr::from((VIP, SERVICE)))?;
    client.wait_for_answer_after(Instant::now(), SOON)?;

    for number in (1..=N_NODES).rev() {
        let (host, balancer) = (lab.node(number), &mut balancers[number - 1]);
        if let Some(Balancer::Old(keepalived, haproxy)) = balancer.take() {
            keepalived.stop()?;
            haproxy.stop()?;
        }
        // The master's place is taken by a node that runs kplb already.
        holder_is(&lab, if number == 1 { 2 } else { 1 })?;
        client.wait_for_answer_after(Instant::now(), SOON).context("one balancer is gone")?;
        *balancer = Some(Balancer::New(attach(host, &files[number - 1])?));
        holder_is(&lab, 1)?;
        client.wait_for_answer_after(Instant::now(), SOON).context("kplb has taken its place")?;
    }

    // Nobody has found anything to complain of in anybody's adverts.
    for balancer in balancers.iter().flatten() {
        let Balancer::New(agent) = balancer else { continue };
        let status = agent.status()?;
        let router = &status[0]["election"]["routers"][0];
        ensure!(router["dropped"].as_object().is_some_and(serde_json::Map::is_empty), "{router}");
        ensure!(router["remarks"].as_object().is_some_and(serde_json::Map::is_empty), "{router}");
    }
    let attempts = client.stop();
    let n = attempts.iter().count();
    let longest = attempts.iter().next().and_then(|first| attempts.outage_after(first.start)?.length());
    eprintln!(
        "{n} connections, {} failed ({:?}), the longest outage {longest:?}",
        attempts.n_failed(),
        attempts.errors()
    );
    // A planned move is announced: nobody waits for a dead master.
    ensure!(longest.is_some_and(|longest| longest < Duration::from_secs(3)), "an outage of {longest:?}");
    Ok(())
}
