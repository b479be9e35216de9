//! keepalived alone in the lab: that the lab runs it, sees it and measures it as it is, and what its packets look like.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    banner::Banner,
    capture::{Advert, Capture, Claim, ClaimKind, Occasion, tshark},
    cluster::VIPS,
    keepalived::{Keepalived, Options, Part, Preemption, Transport, Version},
    lab::{Host, Lab, LabOptions, LinkState},
    packet_socket::Direction,
    poll,
    vip_client::VipClient,
    who_has::WhoHas,
};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(10);
/// As short as tests can have it: version 2 knows whole seconds only.
const SHORT: Duration = Duration::from_millis(100);
const PORT: u16 = 7000;
/// A link-local VIP, as an IPv6 virtual router has it first (RFC 9568, section 5.2.9).
const LINK_LOCAL: &str = "fe80::100";

fn lab() -> Result<Lab> {
    Lab::new(LabOptions { nodes: 2, clients: 2 })
}

/// Version 3 with short intervals, for the VIP of one family.
fn short(priority: u8, vip: IpAddr) -> Options {
    Options { interval: SHORT, ..Options::new(priority, [vip]) }
}

/// What the first node's adverts are like by `tshark`, as seen where `capture` is: fields, and their values.
fn check_adverts(capture: &Capture, from: IpAddr, expected: &[(&str, &str)]) -> Result<()> {
    let is_from = |advert: &Advert| advert.source == from && advert.priority() == Some(200);
    capture.wait_for_advert(Instant::now(), SOON, is_from)?;
    let frames: Vec<_> =
        capture.frames().into_iter().filter(|frame| Advert::of(frame).as_ref().is_some_and(is_from)).collect();
    let fields: Vec<_> = expected.iter().map(|(field, _)| *field).collect();
    for decoded in tshark::decode(&frames, &fields)? {
        for (field, value) in expected {
            assert_eq!(decoded.all(field).join(" "), *value, "{field} of {decoded:?}");
        }
    }
    Ok(())
}

/// The node of higher priority takes the VIPs from the other one; returns both, running.
fn elect<'l>(lab: &'l Lab, options: impl Fn(u8, &Host) -> Options) -> Result<[Keepalived<'l>; 2]> {
    let [first, second] = [lab.node(1), lab.node(2)];
    let (high, low) = (options(200, second), options(100, first));
    let low = Keepalived::start(second, &low)?;
    for vip in &high.vips {
        low.wait_until_holds(*vip, SOON)?;
    }
    let vips = high.vips.clone();
    let high = Keepalived::start(first, &high)?;
    for vip in vips {
        high.wait_until_holds(vip, SOON)?;
        low.wait_until_released(vip, SOON)?;
        ensure!(high.holds(vip)?, "nobody has {vip}");
    }
    Ok([high, low])
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn version_2_with_a_password() -> Result<()> {
    let lab = lab()?;
    let capture = Capture::start(lab.client(1).namespace(), "eth0", &VIPS)?;
    let options = |priority, _: &Host| Options {
        version: Version::V2,
        password: Some("secret".to_owned()),
        ..Options::new(priority, [VIPS[0]])
    };
    let _routers = elect(&lab, options)?;
    let expected = [
        ("eth.src", "02:00:00:00:01:11"),
        ("eth.dst", "01:00:5e:00:00:12"),
        ("ip.src", "198.18.0.11"),
        ("ip.dst", "224.0.0.18"),
        ("ip.ttl", "255"),
        ("ip.dsfield", "0xc0"),
        ("ip.len", "40"),
        ("ip.checksum.status", "1"),
        ("vrrp.version", "2"),
        ("vrrp.type", "1"),
        ("vrrp.virt_rtr_id", "51"),
        ("vrrp.prio", "200"),
        ("vrrp.addr_count", "1"),
        ("vrrp.auth_type", "1"),
        ("vrrp.adver_int", "1"),
        ("vrrp.checksum.status", "1"),
        ("vrrp.ip_addr", "198.18.0.100"),
        ("vrrp.auth_string", "secret"),
    ];
    check_adverts(&capture, lab.node(1).ipv4().into(), &expected)
}

#[test]
fn version_3_by_multicast() -> Result<()> {
    let lab = lab()?;
    let capture = Capture::start(lab.client(1).namespace(), "eth0", &VIPS)?;
    let _routers = elect(&lab, |priority, _| short(priority, VIPS[0]))?;
    // The checksum is good by the dissector's default: with a pseudo-header, unlike RFC 9568, section 5.2.8.
    let expected = [
        ("eth.src", "02:00:00:00:01:11"),
        ("eth.dst", "01:00:5e:00:00:12"),
        ("ip.src", "198.18.0.11"),
        ("ip.dst", "224.0.0.18"),
        ("ip.ttl", "255"),
        ("ip.dsfield", "0xc0"),
        ("ip.len", "32"),
        ("vrrp.version", "3"),
        ("vrrp.type", "1"),
        ("vrrp.virt_rtr_id", "51"),
        ("vrrp.prio", "200"),
        ("vrrp.addr_count", "1"),
        ("vrrp.reserved_mbz", "0"),
        ("vrrp.short_adver_int", "10"),
        ("vrrp.checksum.status", "1"),
        ("vrrp.ip_addr", "198.18.0.100"),
    ];
    check_adverts(&capture, lab.node(1).ipv4().into(), &expected)
}

#[test]
fn version_3_by_unicast() -> Result<()> {
    let lab = lab()?;
    let capture = Capture::start(lab.node(2).namespace(), "eth0", &VIPS)?;
    let options = |priority, peer: &Host| Options {
        transport: Transport::Unicast(peer.addresses().to_vec()),
        interval: SHORT,
        ..Options::new(priority, VIPS)
    };
    let _routers = elect(&lab, options)?;
    let ipv4 = [
        ("eth.dst", "02:00:00:00:01:12"),
        ("ip.dst", "198.18.0.12"),
        ("ip.ttl", "255"),
        ("ip.dsfield", "0xc0"),
        ("vrrp.checksum.status", "1"),
    ];
    check_adverts(&capture, lab.node(1).ipv4().into(), &ipv4)?;
    // The hop limit is the kernel's default: who demands 255 refuses keepalived's unicast over IPv6.
    let ipv6 = [
        ("eth.dst", "02:00:00:00:01:12"),
        ("ipv6.dst", "2001:2::12"),
        ("ipv6.hlim", "64"),
        ("ipv6.tclass", "0x000000c0"),
        ("vrrp.checksum.status", "1"),
    ];
    check_adverts(&capture, lab.node(1).ipv6().into(), &ipv6)
}

#[test]
fn ipv6_by_multicast() -> Result<()> {
    let lab = lab()?;
    let capture = Capture::start(lab.client(1).namespace(), "eth0", &VIPS)?;
    let vips = [LINK_LOCAL.parse()?, VIPS[1]];
    let _routers = elect(&lab, |priority, _| Options { interval: SHORT, ..Options::new(priority, vips) })?;
    let link_local: IpAddr = "fe80::ff:fe00:111".parse()?;
    let expected = [
        ("eth.src", "02:00:00:00:01:11"),
        ("eth.dst", "33:33:00:00:00:12"),
        ("ipv6.src", "fe80::ff:fe00:111"),
        ("ipv6.dst", "ff02::12"),
        ("ipv6.hlim", "255"),
        ("ipv6.tclass", "0x000000c0"),
        ("vrrp.version", "3"),
        ("vrrp.prio", "200"),
        ("vrrp.addr_count", "2"),
        ("vrrp.short_adver_int", "10"),
        ("vrrp.checksum.status", "1"),
        ("vrrp.ipv6_addr", "fe80::100 2001:2::100"),
    ];
    check_adverts(&capture, link_local, &expected)
}

#[test]
fn a_planned_stop_hands_over_in_both_families() -> Result<()> {
    for (family, vip) in VIPS.into_iter().enumerate() {
        let lab = lab()?;
        let capture = Capture::start(lab.client(1).namespace(), "eth0", &VIPS)?;
        let _servers = lab.nodes().iter().map(|node| Banner::start(node, PORT)).collect::<Result<Vec<_>>>()?;
        let [high, low] = elect(&lab, |priority, _| short(priority, vip))?;
        let client = VipClient::start(lab.client(1), SocketAddr::from((vip, PORT)))?;
        ensure!(client.wait_for_answer_after(Instant::now(), SOON)?.result == Ok("node1".to_owned()));

        let stop = Instant::now();
        high.stop()?;
        low.wait_until_holds(vip, SOON)?;
        let over = Instant::now();
        client.wait_for_answer_after(over, SOON)?;
        let attempts = client.stop();
        let outage = attempts.outage_after(stop).and_then(|outage| outage.length()).context("it has no end")?;
        println!("{vip}: the client was without it for {outage:?}; {:?}", attempts.errors());
        ensure!(outage < Duration::from_secs(2), "{outage:?}");
        assert_eq!(attempts.servers_after(over), BTreeSet::from(["node2"]));

        let goodbye = capture.wait_for_advert(stop, SOON, |advert| advert.priority() == Some(0))?;
        assert_eq!(goodbye.source_mac, lab.node(1).mac());
        let is_announcement =
            |claim: &Claim| claim.occasion == Occasion::Announcement && claim.mac == lab.node(2).mac();
        let announced = capture.wait_for_claim(stop, SOON, is_announcement)?;
        assert_eq!(announced.kind, [ClaimKind::ArpRequest, ClaimKind::NeighbourAdvertisement][family]);
        assert_eq!(announced.direction, Direction::Received);
    }
    Ok(())
}

#[test]
fn a_cut_cable_hands_over() -> Result<()> {
    let lab = lab()?;
    let vip = VIPS[0];
    let _servers = lab.nodes().iter().map(|node| Banner::start(node, PORT)).collect::<Result<Vec<_>>>()?;
    let [high, low] = elect(&lab, |priority, _| short(priority, vip))?;
    let client = VipClient::start(lab.client(1), SocketAddr::from((vip, PORT)))?;
    ensure!(client.wait_for_answer_after(Instant::now(), SOON)?.result == Ok("node1".to_owned()));

    let cut = Instant::now();
    lab.set_cable(high.host(), LinkState::Down)?;
    low.wait_until_holds(vip, SOON)?;
    high.wait_until_released(vip, SOON)?;
    let over = Instant::now();
    client.wait_for_answer_after(over, SOON)?;
    // It has the higher priority still.
    lab.set_cable(high.host(), LinkState::Up)?;
    high.wait_until_holds(vip, SOON)?;
    low.wait_until_released(vip, SOON)?;
    let back = Instant::now();
    client.wait_for_answer_after(back, SOON)?;
    let attempts = client.stop();
    let outage = attempts.outage_after(cut).and_then(|outage| outage.length()).context("it has no end")?;
    println!("the client was without the VIP for {outage:?}; {:?}", attempts.errors());
    ensure!(outage > 2 * SHORT, "a cable was cut, and the client was without the VIP for {outage:?} only");
    ensure!(outage < Duration::from_secs(3), "{outage:?}");
    assert_eq!(attempts.servers_after(back), BTreeSet::from(["node1"]));
    Ok(())
}

#[test]
fn killed_it_leaves_the_vip_and_no_process() -> Result<()> {
    let lab = lab()?;
    let vip = VIPS[0];
    let [high, low] = elect(&lab, |priority, _| short(priority, vip))?;
    let who_has = WhoHas::start(lab.client(2), vip)?;
    poll::until("an answer", SOON, || who_has.answers().iter().next().is_some())?;
    assert_eq!(who_has.answers().macs_after(Instant::now() - SHORT), BTreeSet::from([lab.node(1).mac()]));

    let pids = [high.pid(Part::Parent)?, high.pid(Part::Vrrp)?];
    high.kill()?;
    ensure!(!pids.into_iter().any(exists), "of the processes {pids:?} one is left");
    low.wait_until_holds(vip, SOON)?;
    ensure!(lab.node(1).has_address(vip)?, "who took it from the dead node?");
    poll::until("two answers to one question", SOON, || who_has.answers().n_contested() > 0)?;
    let answers = who_has.stop()?;
    assert_eq!(answers.macs_after(Instant::now() - SOON), BTreeSet::from([lab.node(1).mac(), lab.node(2).mac()]));
    Ok(())
}

#[test]
fn its_processes_end_with_what_the_lab_started() -> Result<()> {
    let lab = lab()?;
    let router = Keepalived::start(lab.node(1), &short(200, VIPS[0]))?;
    let pids = [router.pid(Part::Parent)?, router.pid(Part::Vrrp)?];
    // The parent starts another, which begins as a backup.
    router.signal(Part::Vrrp, Signal::SIGKILL)?;
    poll::until("another VRRP process", SOON, || router.pid(Part::Vrrp).is_ok_and(|pid| pid != pids[1]))?;
    let pids = [pids[0], router.pid(Part::Vrrp)?];
    // As the kernel does when the lab's own process ends, whatever ends it.
    router.process().signal(Signal::SIGKILL)?;
    poll::until("the end of keepalived", SOON, || !pids.into_iter().any(exists))?;

    let router = Keepalived::start(lab.node(2), &short(200, VIPS[0]))?;
    let pids = [router.pid(Part::Parent)?, router.pid(Part::Vrrp)?];
    drop(router);
    ensure!(!pids.into_iter().any(exists), "of the processes {pids:?} one is left");
    Ok(())
}

#[test]
fn without_preemption_the_first_keeps_the_vip() -> Result<()> {
    let lab = lab()?;
    let vip = VIPS[0];
    let options = |priority| Options { preemption: Preemption::Never, ..short(priority, vip) };
    let low = Keepalived::start(lab.node(2), &options(100))?;
    low.wait_until_holds(vip, SOON)?;
    let high = Keepalived::start(lab.node(1), &options(200))?;
    let start = Instant::now();
    poll::until("ten intervals", SOON, || start.elapsed() > 10 * SHORT)?;
    ensure!(low.holds(vip)? && !high.holds(vip)?, "the higher priority took over");
    low.stop()?;
    high.wait_until_holds(vip, SOON)
}

#[test]
fn a_wrong_password_is_refused_and_logged() -> Result<()> {
    let lab = lab()?;
    let vip = VIPS[0];
    let options = |priority, password: &str| Options {
        version: Version::V2,
        password: Some(password.to_owned()),
        ..Options::new(priority, [vip])
    };
    let high = Keepalived::start(lab.node(1), &options(200, "secret"))?;
    let low = Keepalived::start(lab.node(2), &options(100, "another"))?;
    high.wait_until_holds(vip, SOON)?;
    low.wait_until_holds(vip, SOON)?;
    low.process().wait_for_line("received an invalid passwd", SOON)?;
    Ok(())
}
