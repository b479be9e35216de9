//! Each finding, from facts that have one thing wrong.

mod node;
mod segment;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use kplb_common::net::Mac;

use super::{
    facts::{Agent, Backend, Configuration, Facts, HeardAdvert, Host, Interface, NodeIps, Process, Segment},
    *,
};
use crate::{
    config::{self, Config},
    daemon::preflight::OwnPorts,
    dataplane::Mode,
    driver::Driver,
    health::outcome::{self, Code, Outcome},
    netlink::{
        facts::{KnownNeighbours, Snapshot},
        message::{InterfaceAddress, Link, Route, Suitability, VlanLink, XdpProgram},
        netdev::XdpFeatures,
    },
    terminal::Colour,
    vrrp::{
        receive::{Invalid, Remark},
        settings::{Settings, Transport},
    },
    who_has::question::Answer,
};

const CONFIGURATION: &str = "\
[vrrp]
peers = ['198.18.0.11', '198.18.0.12']
[[service]]
name = 'apiserver'
vip = '198.18.0.100:6443'
[[service.backend]]
name = 'cp1'
address = '198.18.0.11:6443'
[[service.backend]]
name = 'cp2'
address = '198.18.0.12:6443'
";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn config(text: &str) -> Config {
    config::parse(text, "kplb.toml").expect("a configuration")
}

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        mac: Some(Mac::new([2, 0, 0, 0, 1, 0x11])),
        is_up: true,
        has_carrier: true,
        xdp: None,
        kind: None,
        vlan: None,
    }
}

fn address(text: &str, prefix_length: u8, suitability: Suitability) -> InterfaceAddress {
    InterfaceAddress { interface: 2, address: ip(text), prefix_length, suitability }
}

fn outcome(finding: outcome::Finding, code: Code) -> Option<Outcome> {
    Some(Outcome { code, finding, latency: Duration::from_millis(12), words: String::new() })
}

fn backend(name: &str, address: &str) -> Backend {
    Backend {
        service: "apiserver".into(),
        name: name.into(),
        address: address.parse().expect("an endpoint"),
        outcome: outcome(outcome::Finding::Ready, Code::L7ok),
    }
}

/// A node with nothing wrong.
fn facts() -> Facts {
    let config = config(CONFIGURATION);
    let snapshot = Snapshot {
        link: link(2, "eth0"),
        addresses: vec![address("198.18.0.11", 16, Suitability::Primary)],
        routes: BTreeMap::from([
            (ip("198.18.0.11"), Route::Local),
            (ip("198.18.0.12"), Route::Via { interface: 2, gateway: None }),
        ]),
        neighbours: Vec::new(),
    };
    let survey = snapshot.survey(&config.vips(), &KnownNeighbours::default()).expect("it has a MAC address");
    let router = Settings {
        transport: Transport::Unicast(vec![ip("198.18.0.12")]),
        ..Settings::new(100, ip("198.18.0.11"), vec![ip("198.18.0.100")])
    };
    Facts {
        host: Host {
            release: "6.18.5".into(),
            capabilities: Ok(u64::MAX),
            realtime_limit: Ok(0),
            realtime_runtime: Some(950_000),
            lock_limit: Ok(8 << 20),
            pin_root: "/sys/fs/bpf/kplb".into(),
            has_bpf_file_system: Ok(true),
            forwarding: Some(Ok(())),
            sockets: Some(Ok(())),
            control_groups: Ok("/sys/fs/cgroup".into()),
            ends_sockets: Ok(true),
        },
        configuration: Configuration::Right { path: "/etc/kplb/kplb.toml".into(), config: Box::new(config) },
        interface: Some(Interface {
            name: "eth0".into(),
            links: vec![link(2, "eth0"), link(3, "eth1")],
            driver: Driver { name: Some("igc".into()), features: Ok(Some(XdpFeatures(0x23))) },
            active_features: Ok(BTreeSet::new()),
            agent: None,
            left: None,
            has_no_place_for_filters: false,
            has_pins: false,
            surroundings: Some((snapshot, survey)),
            election: Some(Ok(vec![router])),
        }),
        own_ports: Ok(Some(OwnPorts { range: 32_768..=60_999, reserved: Vec::new() })),
        ipvs: Ok(String::new()),
        processes: Vec::new(),
        node_ips: Vec::new(),
        segment: Some(Segment {
            listened: Some(Duration::from_millis(2500)),
            adverts: Ok(Vec::new()),
            owners: Ok(Vec::new()),
            peers: vec![ip("198.18.0.12")],
            answers: Ok(vec![Answer { address: ip("198.18.0.12"), mac: Mac::new([2, 0, 0, 0, 1, 0x12]) }]),
        }),
        backends: vec![backend("cp1", "198.18.0.11:6443"), backend("cp2", "198.18.0.12:6443")],
    }
}

fn interface(facts: &mut Facts) -> &mut Interface {
    facts.interface.as_mut().expect("there is one")
}

fn segment(facts: &mut Facts) -> &mut Segment {
    facts.segment.as_mut().expect("there is one")
}

fn link_of(facts: &mut Facts) -> &mut Link {
    &mut interface(facts).links[0]
}

fn configure(facts: &mut Facts, text: &str) {
    facts.configuration = Configuration::Right { path: "kplb.toml".into(), config: Box::new(config(text)) };
}

/// What is not as it should be.
fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = facts();
    change(&mut facts);
    examine(&facts).findings.into_iter().filter(|finding| finding.level > Level::Ok).collect()
}

/// What is said of a topic.
fn said(topic: &str, change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = facts();
    change(&mut facts);
    let finding = examine(&facts).findings.into_iter().find(|finding| finding.topic == topic);
    finding.map(|finding| finding.what).unwrap_or_default()
}

/// The one thing that is not as it should be, of this level and topic, and what is said of it.
fn only(level: Level, topic: &str, change: impl FnOnce(&mut Facts)) -> String {
    let wrong = wrong(change);
    let [finding] = wrong.as_slice() else { panic!("{topic}: {wrong:?}") };
    assert_eq!((finding.level, finding.topic), (level, topic), "{finding:?}");
    assert_eq!(finding.advice.is_some(), level > Level::Note, "{finding:?}");
    finding.what.clone()
}

#[test]
fn nothing_is_wrong_with_a_good_node() {
    assert_eq!(wrong(|_| ()), []);
    let report = examine(&facts());
    assert!(report.is_fit);
    assert_eq!(report.interface.as_deref(), Some("eth0"));
    assert_eq!(report.configuration.as_deref(), Some("/etc/kplb/kplb.toml"));
}

#[test]
fn for_people() {
    let finding = |level, topic, what: &str, advice: Option<&str>| Finding {
        level,
        topic,
        what: what.into(),
        advice: advice.map(str::to_owned),
    };
    let report = Report {
        interface: Some("eth0".into()),
        configuration: None,
        is_fit: false,
        findings: vec![
            finding(Level::Ok, "kernel", "6.18.5", None),
            finding(Level::Error, "nat-ports", "they overlap\nby a lot", Some("move them")),
        ],
    };
    let expected = "\
ok     kernel     6.18.5
error  nat-ports  they overlap
                  by a lot
                  -> move them

eth0 is not fit for kplb: 1 error, 0 warnings, 0 notes
";
    assert_eq!(text(&report, Colour::Unused), expected);
    assert!(text(&report, Colour::Used).starts_with("\x1b[32mok   \x1b[0m  kernel"));
    let json = serde_json::to_value(&report).expect("encodable");
    assert_eq!(json["findings"][1]["level"], "error");
    assert_eq!(json["is_fit"], false);
    assert_eq!(json["findings"][0]["advice"], serde_json::Value::Null);
}
