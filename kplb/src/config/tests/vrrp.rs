//! Tests of the election's settings.

use std::{collections::BTreeSet, net::IpAddr};

use super::*;
use crate::vrrp::{
    announcements::Schedule,
    settings::{Coverage, Password, Preemption, Transport, Version},
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn elected(settings: &str) -> VrrpConfig {
    let text = format!("[vrrp]\n{settings}\n{SERVICE}");
    parse(&text, "vrrp").unwrap_or_else(|problems| panic!("{problems}")).vrrp.expect("a table [vrrp]")
}

#[test]
fn no_table_no_election() {
    let config = parse(SERVICE, "alone").expect("valid");
    assert_eq!(config.vrrp, None);
    assert_eq!(config.fenced_vips(), BTreeSet::new());
}

#[test]
fn an_empty_table_is_an_election() {
    let vrrp = elected("");
    let expected = VrrpConfig {
        router_id: 100,
        version: Version::V3,
        priority: None,
        interval: Duration::from_millis(250),
        preemption: Preemption::Never,
        startup_delay: Duration::ZERO,
        peers: Vec::new(),
        password: None,
        coverage: Coverage::PseudoHeader,
        announcements: Schedule::default(),
        notify: None,
    };
    assert_eq!(vrrp, expected);
    let config = parse(&format!("[vrrp]\n{SERVICE}"), "vrrp").expect("valid");
    assert_eq!(config.fenced_vips(), BTreeSet::from([ip("198.18.0.100")]));
}

#[test]
fn every_setting_of_the_election_is_taken() {
    let vrrp = elected(
        r#"
        virtual_router_id = 51
        version = 2
        priority = 254
        interval = "2s"
        preempt = true
        preempt_delay = "30s"
        startup_delay = "5s"
        peers = ["198.18.0.11", "198.18.0.12", "2001:2::11"]
        password = "secret"
        garp_master_repeat = 1
        garp_master_delay = "2s"
        garp_interval = "0s"
        garp_master_refresh = "0s"
        garp_master_refresh_repeat = 2
        garp_lower_prio_repeat = 3
        garp_lower_prio_delay = "4s"
        notify = ["/usr/bin/logger", "-t", "kplb"]
        notify_user = "daemon"
        notify_timeout = "1s"
    "#,
    );
    let expected = VrrpConfig {
        router_id: 51,
        version: Version::V2,
        priority: Some(254),
        interval: Duration::from_secs(2),
        preemption: Preemption::After(Duration::from_secs(30)),
        startup_delay: Duration::from_secs(5),
        peers: ["198.18.0.11", "198.18.0.12", "2001:2::11"].map(ip).into(),
        password: Some(Password::from_text("secret")),
        coverage: Coverage::PseudoHeader,
        announcements: Schedule {
            repeat: 1,
            delay: Duration::from_secs(2),
            gap: Duration::ZERO,
            refresh: Duration::ZERO,
            refresh_repeat: 2,
            lower_priority_repeat: 3,
            lower_priority_delay: Duration::from_secs(4),
        },
        notify: Some(NotifyConfig {
            command: ["/usr/bin/logger", "-t", "kplb"].map(str::to_owned).into(),
            user: "daemon".to_owned(),
            timeout: Duration::from_secs(1),
        }),
    };
    assert_eq!(vrrp, expected);
    assert_eq!(elected("checksum = 'message'").coverage, Coverage::Message);
    assert_eq!(elected("preempt = true").preemption, Preemption::After(Duration::ZERO));
    // Whole seconds are all that version 2 can say.
    assert_eq!(elected("version = 2").interval, Duration::from_secs(1));
}

/// All nodes have the same table, and each finds its place in it.
#[test]
fn each_node_finds_its_place_among_the_peers() {
    let vrrp = elected("peers = ['198.18.0.11', '2001:2::11', '198.18.0.12', '2001:2::12', '198.18.0.13']");
    let vips = BTreeSet::from(["198.18.0.100", "2001:2::100"].map(ip));
    let settings = |own: &str| vrrp.settings(ip(own), &vips, |peer| *peer == ip(own));
    let first = settings("198.18.0.11");
    assert_eq!((first.priority, first.version), (160, Version::V3));
    assert_eq!(first.addresses, [ip("198.18.0.100")]);
    assert_eq!(first.transport, Transport::Unicast(["198.18.0.12", "198.18.0.13"].map(ip).into()));
    assert_eq!(settings("198.18.0.12").priority, 130);
    assert_eq!(settings("198.18.0.13").priority, 100);
    let v6 = settings("2001:2::11");
    assert_eq!((v6.priority, v6.addresses), (130, vec![ip("2001:2::100")]));
    assert_eq!(v6.transport, Transport::Unicast(vec![ip("2001:2::12")]));
    // A list of one is a list: another that is added later must not find this one elsewhere.
    let alone =
        elected("peers = ['198.18.0.11']").settings(ip("198.18.0.11"), &vips, |peer| *peer == ip("198.18.0.11"));
    assert_eq!(alone.transport, Transport::Unicast(Vec::new()));
    assert_eq!(elected("").settings(ip("198.18.0.11"), &vips, |_| false).transport, Transport::Multicast);
    // One that is not listed comes last.
    assert_eq!(settings("198.18.0.14").priority, 100);
    // What is given holds.
    let vrrp = elected("priority = 7\npeers = ['198.18.0.11', '198.18.0.12']");
    assert_eq!(vrrp.settings(ip("198.18.0.11"), &vips, |peer| *peer == ip("198.18.0.11")).priority, 7);
}

/// The same flags on every node.
#[test]
fn the_nodes_of_the_backends_can_elect_one() {
    let vips = ["198.18.0.100:6443", "198.18.0.100:443", "[2001:2::100]:6443"];
    let backends = ["198.18.0.11:6443", "198.18.0.12:6443", "198.18.0.12:7443", "[2001:2::11]:6443"];
    let config = Config::from_flags(&vips, &backends, Balancers::Backends).expect("valid");
    let vrrp = config.vrrp.expect("an election");
    assert_eq!(vrrp.peers, ["198.18.0.11", "198.18.0.12", "2001:2::11"].map(ip));
    assert_eq!((vrrp.router_id, vrrp.priority), (100, None));
    assert_eq!(Config::from_flags(&vips, &backends, Balancers::One).expect("valid").vrrp, None);
}

#[test]
fn version_2_is_spoken_over_ipv4_alone() {
    let vrrp = elected("version = 2\npassword = 'secret'");
    let vips = BTreeSet::from(["198.18.0.100", "2001:2::100"].map(ip));
    let v4 = vrrp.settings(ip("198.18.0.11"), &vips, |_| false);
    let v6 = vrrp.settings(ip("fe80::1"), &vips, |_| false);
    assert_eq!((v4.version, v4.password), (Version::V2, Some(Password::from_text("secret"))));
    assert_eq!((v6.version, v6.password), (Version::V3, None));
    assert_eq!((v4.check(), v6.check()), (Ok(()), Ok(())));
}

#[test]
fn clusters_on_one_segment_differ_by_their_vip() {
    for (vip, id) in [("198.18.0.7:1", 7), ("198.18.0.0:1", 255), ("[2001:2::ab]:1", 0xab)] {
        let text = format!(
            "[vrrp]\n[[service]]\nvip = '{vip}'\n[[service.backend]]\naddress = '{}'\n",
            match vip {
                _ if vip.starts_with('[') => "[2001:2::11]:1",
                _ => "198.18.0.11:1",
            }
        );
        let config = parse(&text, "id").unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.vrrp.map(|vrrp| vrrp.router_id), Some(id), "{vip}");
    }
}

#[test]
fn wrong_elections() {
    let cases: &[(&str, &str, &[&[&str]])] = &[
        ("misspelled", "prority = 1", &[&["k.toml:2:1: unknown key `prority`: did you mean `priority`?"]]),
        ("id", "virtual_router_id = 0", &[&["0 is out of range: it must be 1 to 255"]]),
        ("version", "version = 4", &[&["4 is out of range: it must be 2 to 3"]]),
        ("priority", "priority = 256", &[&["256 is out of range: it must be 1 to 255"]]),
        ("no boolean", "preempt = 'yes'", &[&["`preempt` cannot be of type string: write true or false"]]),
        ("no list", "peers = '198.18.0.11'", &[&["`peers` cannot be of type string: write a list of strings"]]),
        ("no address", "peers = ['cp1']", &[&["k.toml:2:10: `cp1` is not an IP address: write a node's address"]]),
        ("with a port", "peers = ['198.18.0.11:6443']", &[&["`198.18.0.11:6443` is not an IP address"]]),
        ("loopback", "peers = ['127.0.0.1']", &[&["127.0.0.1 is a loopback address"]]),
        ("a VIP", "peers = ['198.18.0.100']", &[&["peer 198.18.0.100 is a VIP: give the nodes' own addresses"]]),
        ("twice", "peers = ['198.18.0.11', '198.18.0.11']", &[&["k.toml:2:25: peer 198.18.0.11 is listed twice"]]),
        (
            "other family",
            "peers = ['2001:2::11']",
            &[&["there are IPv4 VIPs, and no peer has an IPv4 address: list the nodes' IPv4 addresses as well"]],
        ),
        ("odd interval", "interval = '255ms'", &[&["version 3 can express only intervals of hundredths of a second"]]),
        ("long interval", "interval = '41s'", &[&["version 3 can express only intervals of hundredths of a second"]]),
        (
            "part of a second",
            "version = 2\ninterval = '1500ms'",
            &[&["k.toml:3:12: version 2 can express only intervals of whole seconds up to 255: write whole seconds"]],
        ),
        ("too short", "interval = '5ms'", &[&["`5ms` makes no sense here: it must be 10ms to"]]),
        ("password in 3", "password = 'x'", &[&["version 3 knows no password: leave it out, or use version = 2"]]),
        ("long password", "version = 2\npassword = '123456789'", &[&["the password cannot be sent: use 1 to 8"]]),
        ("checksum in 2", "version = 2\nchecksum = 'message'", &[&["`checksum` is about version 3"]]),
        ("delay alone", "preempt_delay = '1s'", &[&["`preempt_delay` without `preempt`: add preempt = true"]]),
        ("user alone", "notify_user = 'nobody'", &[&["`notify_user` without `notify`: add the command"]]),
        ("no command", "notify = []", &[&["the command is empty: write the program and its arguments"]]),
        ("relative", "notify = ['logger']", &[&["`logger` is not an absolute path"]]),
    ];
    for (name, added, expected) in cases {
        check(name, &format!("[vrrp]\n{added}\n{SERVICE}"), expected);
    }
}
