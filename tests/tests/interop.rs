//! kplb and the real keepalived as one virtual router's nodes, in every way that both can speak: each of them takes the
//! VIP from the other and gives it back.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    agent::Agent,
    banner::Banner,
    capture::{Advert, Capture, tshark},
    cluster::{self, VIPS},
    keepalived::{Keepalived, Options, Transport, Version},
    lab::{Host, Lab, LabOptions, LinkState},
    poll,
    vip_client::VipClient,
    who_has::WhoHas,
};

const SOON: Duration = Duration::from_secs(15);
const SHORT: Duration = Duration::from_millis(100);
const PORT: u16 = 7000;
/// keepalived's id unless told otherwise, and so everybody's.
const ROUTER_ID: u8 = 51;
const KEEPALIVED: u8 = 100;

/// How both speak.
struct Way {
    vip: IpAddr,
    version: Version,
    is_unicast: bool,
    interval: Duration,
    password: Option<&'static str>,
}

impl Way {
    /// keepalived on the second node.
    fn keepalived<'l>(&self, lab: &'l Lab, priority: u8) -> Result<Keepalived<'l>> {
        let transport = match self.is_unicast {
            true => Transport::Unicast(lab.node(1).addresses().to_vec()),
            false => Transport::Multicast,
        };
        let options = Options {
            router_id: ROUTER_ID,
            interval: self.interval,
            version: self.version,
            transport,
            password: self.password.map(str::to_owned),
            // Without it, its unicast over IPv6 has a hop limit that says nothing of where it comes from.
            settings: if self.is_unicast { "  unicast_ttl 255\n".to_owned() } else { String::new() },
            ..Options::new(priority, [self.vip])
        };
        Keepalived::start(lab.node(2), &options)
    }

    /// kplb on the first node, as a router that preempts, as keepalived does.
    fn kplb<'l>(&self, lab: &'l Lab, priority: u8) -> Result<Agent<'l>> {
        let peers: Vec<IpAddr> =
            if self.is_unicast { lab.nodes().iter().flat_map(Host::addresses).collect() } else { vec![] };
        let peers: Vec<String> = peers
            .into_iter()
            .filter(|peer| peer.is_ipv4() == self.vip.is_ipv4())
            .map(|peer| format!("\"{peer}\""))
            .collect();
        let version = match self.version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        let password = self.password.map(|password| format!("password = \"{password}\"\n")).unwrap_or_default();
        let service = SocketAddr::from((self.vip, PORT));
        let backend = lab.node(1).addresses().into_iter().find(|address| address.is_ipv4() == self.vip.is_ipv4());
        let backend = SocketAddr::from((backend.context("a host has addresses of both families")?, PORT));
        let text = format!(
            "[vrrp]\nvirtual_router_id = {ROUTER_ID}\nversion = {version}\npriority = {priority}\n\
             interval = \"{}ms\"\npeers = [{}]\npreempt = true\n{password}\
             [[service]]\nvip = \"{service}\"\ncheck.type = \"tcp\"\n[[service.backend]]\naddress = \"{backend}\"\n",
            self.interval.as_millis(),
            peers.join(", ")
        );
        cluster::start_agent(lab.node(1), &text)
    }
}

/// A lab with both of them, and a client that wants the VIP all the time.
struct Scene<'l> {
    lab: &'l Lab,
    way: &'l Way,
}

impl Scene<'_> {
    /// Waits until one node, counted from 1, has the VIP, and the other has not.
    fn holder_is(&self, node: usize) -> Result<()> {
        poll::until(&format!("node{node} to hold {} alone", self.way.vip), SOON, || {
            (1..=2).all(|number| {
                self.lab.node(number).has_address(self.way.vip).is_ok_and(|has_it| has_it == (number == node))
            })
        })
    }
}

/// Everything that can happen between the two of them.
fn play(way: &Way) -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 2 })?;
    let _servers = lab.nodes().iter().map(|node| Banner::start(node, PORT)).collect::<Result<Vec<_>>>()?;
    let capture = Capture::start(lab.client(2).namespace(), "eth0", &VIPS)?;
    let scene = Scene { lab: &lab, way };

    // The higher priority takes over from a master, whichever of them it is.
    let keepalived = way.keepalived(&lab, KEEPALIVED)?;
    scene.holder_is(2)?;
    let client = VipClient::start(lab.client(1), SocketAddr::from((way.vip, PORT)))?;
    client.wait_for_answer_after(Instant::now(), SOON)?;
    let kplb = way.kplb(&lab, KEEPALIVED + 50)?;
    scene.holder_is(1)?;
    client.wait_for_answer_after(Instant::now(), SOON)?;

    // A planned stop of kplb, and its return.
    let stop = Instant::now();
    kplb.stop()?;
    scene.holder_is(2)?;
    if !way.is_unicast {
        let goodbye = capture.wait_for_advert(stop, SOON, |advert| advert.priority() == Some(0))?;
        assert_eq!(goodbye.source_mac, lab.node(1).mac());
    }
    client.wait_for_answer_after(Instant::now(), SOON)?;
    let mut kplb = way.kplb(&lab, KEEPALIVED + 50)?;
    scene.holder_is(1)?;

    // It is cut off, and returns.
    lab.set_cable(lab.node(1), LinkState::Down)?;
    scene.holder_is(2)?;
    client.wait_for_answer_after(Instant::now(), SOON)?;
    lab.set_cable(lab.node(1), LinkState::Up)?;
    scene.holder_is(1)?;
    client.wait_for_answer_after(Instant::now(), SOON)?;

    // It is killed: its node keeps the address, and answers for it no more.
    kplb.process().kill()?;
    poll::until("node2 to hold the VIP", SOON, || lab.node(2).has_address(way.vip).is_ok_and(|has_it| has_it))?;
    let over = Instant::now();
    let who_has = WhoHas::start(lab.client(2), way.vip)?;
    client.wait_for_answer_after(over, SOON)?;
    poll::until("an answer", SOON, || !who_has.answers().macs_after(over).is_empty())?;
    assert_eq!(who_has.stop()?.macs_after(over), BTreeSet::from([lab.node(2).mac()]));
    drop(kplb);

    // keepalived with the higher priority.
    keepalived.stop()?;
    let kplb = way.kplb(&lab, KEEPALIVED - 50)?;
    scene.holder_is(1)?;
    let keepalived = way.keepalived(&lab, KEEPALIVED)?;
    scene.holder_is(2)?;
    keepalived.stop()?;
    scene.holder_is(1)?;
    let keepalived = way.keepalived(&lab, KEEPALIVED)?;
    scene.holder_is(2)?;
    keepalived.kill()?;
    poll::until("node1 to hold the VIP", SOON, || lab.node(1).has_address(way.vip).is_ok_and(|has_it| has_it))?;

    // Neither has found anything to complain of in the other.
    let status = kplb.status()?;
    let router = &status[0]["election"]["routers"][0];
    ensure!(router["state"] == "master", "{router}");
    ensure!(router["dropped"].as_object().is_some_and(serde_json::Map::is_empty), "{router}");
    ensure!(router["remarks"].as_object().is_some_and(serde_json::Map::is_empty), "{router}");
    kplb.stop()?;
    if !way.is_unicast {
        are_alike(&capture, way)?;
    }
    Ok(())
}

/// To an independent decoder, adverts of both are the same but for what tells the nodes apart.
fn are_alike(capture: &Capture, way: &Way) -> Result<()> {
    let mut fields = vec!["eth.dst", "vrrp.version", "vrrp.type", "vrrp.virt_rtr_id", "vrrp.addr_count"];
    fields.push("vrrp.checksum.status");
    match way.vip {
        IpAddr::V4(_) => {
            fields.extend(["ip.dst", "ip.ttl", "ip.dsfield", "ip.len", "ip.checksum.status", "vrrp.ip_addr"])
        }
        IpAddr::V6(_) => fields.extend(["ipv6.dst", "ipv6.hlim", "ipv6.tclass", "ipv6.plen", "vrrp.ipv6_addr"]),
    }
    match way.version {
        Version::V2 => fields.extend(["vrrp.auth_type", "vrrp.adver_int", "vrrp.auth_string"]),
        Version::V3 => fields.extend(["vrrp.reserved_mbz", "vrrp.short_adver_int"]),
    }
    let frames = capture.frames();
    let (kplb, keepalived) =
        (frames.iter().filter(|frame| is_from(frame, 1)), frames.iter().filter(|frame| is_from(frame, 2)));
    let (kplb, keepalived): (Vec<_>, Vec<_>) = (kplb.cloned().collect(), keepalived.cloned().collect());
    ensure!(!kplb.is_empty() && !keepalived.is_empty(), "{} and {} adverts", kplb.len(), keepalived.len());
    let decode = |frames: &[_]| -> Result<BTreeSet<Vec<String>>> {
        let values = |decoded: &tshark::Decoded| fields.iter().map(|field| decoded.all(field).join(" ")).collect();
        Ok(tshark::decode(frames, &fields)?.iter().map(values).collect())
    };
    let (kplb, keepalived) = (decode(&kplb)?, decode(&keepalived)?);
    assert_eq!(kplb.len(), 1, "{fields:?}: {kplb:?}");
    assert_eq!(kplb, keepalived, "{fields:?}");
    let good = kplb.iter().all(|values| values[fields.len().min(5)] == "1");
    ensure!(good, "a checksum is wrong: {kplb:?}");
    Ok(())
}

/// Whether a frame is an advert of this node, counted from 1.
fn is_from(frame: &kplb_tests::packet_socket::Frame, node: u8) -> bool {
    Advert::of(frame).is_some_and(|advert| advert.source_mac == [2, 0, 0, 0, 1, 0x10 + node])
}

#[test]
fn version_2_with_a_password_by_multicast() -> Result<()> {
    let interval = Duration::from_secs(1);
    play(&Way { vip: VIPS[0], version: Version::V2, is_unicast: false, interval, password: Some("secret") })
}

#[test]
fn version_3_by_multicast() -> Result<()> {
    play(&Way { vip: VIPS[0], version: Version::V3, is_unicast: false, interval: SHORT, password: None })
}

#[test]
fn version_3_by_unicast() -> Result<()> {
    play(&Way { vip: VIPS[0], version: Version::V3, is_unicast: true, interval: SHORT, password: None })
}

#[test]
fn ipv6_by_multicast() -> Result<()> {
    play(&Way { vip: VIPS[1], version: Version::V3, is_unicast: false, interval: SHORT, password: None })
}

#[test]
fn ipv6_by_unicast() -> Result<()> {
    play(&Way { vip: VIPS[1], version: Version::V3, is_unicast: true, interval: SHORT, password: None })
}
