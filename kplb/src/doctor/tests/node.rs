//! What is on the node.

use super::*;

#[test]
fn interfaces() {
    let missing = wrong(|facts| interface(facts).name = "eth9".into());
    assert_eq!((missing[0].level, missing[0].topic), (Level::Error, "interface"), "{missing:?}");
    assert!(missing[0].advice.as_deref().is_some_and(|advice| advice.contains("eth0, eth1")), "{missing:?}");
    let down = wrong(|facts| link_of(facts).is_up = false);
    assert!(down[0].what.contains("eth0 is down"), "{down:?}");
    only(Level::Warning, "interface", |facts| link_of(facts).has_carrier = false);
    only(Level::Note, "interface", |facts| {
        facts.interface = None;
        facts.segment = None;
    });
}

#[test]
fn configurations() {
    let wrong_one = Configuration::Wrong { path: "kplb.toml".into(), problem: "kplb.toml:3: bogus".into() };
    let what = only(Level::Error, "configuration", |facts| facts.configuration = wrong_one);
    assert_eq!(what, "kplb.toml:3: bogus");
    only(Level::Note, "configuration", |facts| facts.configuration = Configuration::None);
}

#[test]
fn modes() {
    let mode = |change: &dyn Fn(&mut Facts)| said("mode", change);
    let has = |features: Result<Option<XdpFeatures>, String>| {
        move |facts: &mut Facts| interface(facts).driver.features = features.clone()
    };
    assert!(mode(&|_| ()).starts_with("native XDP: the driver igc says it can"));
    let tc = mode(&has(Ok(Some(XdpFeatures(0)))));
    assert!(tc.starts_with("TC ingress, as the driver igc has no native XDP; it costs "), "{tc}");
    // An old kernel, and a driver that is known, or not.
    assert!(mode(&has(Ok(None))).starts_with("native XDP, most likely: the driver igc is known to have it"));
    let unknown = only(Level::Note, "mode", |facts| {
        interface(facts).driver = Driver { name: Some("bcmgenet".into()), features: Ok(None) };
    });
    assert!(unknown.starts_with("not known: "), "{unknown}");
    only(Level::Note, "mode", has(Err("no such family".into())));
    let vlan = mode(&|facts| link_of(facts).vlan = Some(VlanLink { lower: 3, identifier: 42 }));
    assert!(vlan.starts_with("TC ingress, as the interface of a VLAN has no native XDP"), "{vlan}");
    let veth = mode(&|facts| link_of(facts).kind = Some("veth".into()));
    assert!(veth.starts_with("TC ingress, as a veth copies each packet"), "{veth}");
}

#[test]
fn programs_on_the_interface() {
    let program = || Some(XdpProgram { ids: vec![12], mode: "native" });
    let what = only(Level::Note, "programs", |facts| link_of(facts).xdp = program());
    assert!(what.starts_with("an XDP program (id 12, native mode) of somebody else is on eth0"), "{what}");
    only(Level::Warning, "programs", |facts| {
        link_of(facts).xdp = program();
        interface(facts).left = Some(Mode::Native);
    });
    let agent = |mode: &str| Some(Agent { pid: 7, mode: mode.into(), mode_reason: "asked for".into() });
    for mode in ["native", "tc"] {
        assert_eq!(
            wrong(|facts| {
                link_of(facts).xdp = program();
                interface(facts).agent = agent(mode);
            }),
            []
        );
    }
    only(Level::Warning, "programs", |facts| interface(facts).agent = agent("generic"));
    let what = only(Level::Error, "programs", |facts| interface(facts).has_no_place_for_filters = true);
    assert!(what.starts_with("eth0 has the queueing discipline `ingress`"), "{what}");
}

#[test]
fn vlans() {
    let text = format!("[node]\nvlan = 42\n{CONFIGURATION}");
    let what = only(Level::Error, "vlan", |facts| configure(facts, &text));
    assert!(what.contains("has no interface for VLAN 42"), "{what}");
    let with_vlan = |facts: &mut Facts| {
        configure(facts, &text);
        let mut vlan = link(4, "eth0.42");
        vlan.vlan = Some(VlanLink { lower: 2, identifier: 42 });
        interface(facts).links.push(vlan);
    };
    assert_eq!(wrong(with_vlan), []);
    let stripping = |active: Result<BTreeSet<String>, String>| {
        said("mode", |facts| {
            with_vlan(facts);
            interface(facts).active_features = active;
        })
    };
    let mode = stripping(Ok(BTreeSet::from(["rx-vlan-hw-parse".to_owned()])));
    assert!(mode.starts_with("TC ingress, as eth0 takes VLAN tags off before an XDP program sees them"), "{mode}");
    assert!(stripping(Err("no answer".into())).starts_with("native XDP"));
}

#[test]
fn addresses_to_serve_from() {
    let what = only(Level::Error, "addresses", |facts| {
        interface(facts).surroundings.as_mut().expect("there are").1.ipv4 = None;
    });
    assert!(what.contains("no IPv4 address"), "{what}");
    let what = only(Level::Error, "election", |facts| {
        interface(facts).election = Some(Err("peer 198.18.0.11 is this node, but eth0 does not have it".into()));
    });
    assert!(what.starts_with("peer 198.18.0.11"), "{what}");
}

#[test]
fn vips_on_interfaces() {
    let put =
        |facts: &mut Facts, entry| interface(facts).surroundings.as_mut().expect("there are").0.addresses.push(entry);
    let what = only(Level::Error, "vips", |facts| put(facts, address("198.18.0.100", 16, Suitability::Secondary)));
    assert!(what.contains("198.18.0.100 is on eth0 as an address of its network (/16)"), "{what}");
    let what = only(Level::Error, "vips", |facts| put(facts, address("198.18.0.100", 32, Suitability::Primary)));
    assert!(what.ends_with("no kplb runs"), "{what}");
    // As kube-proxy's IPVS mode has addresses on `kube-ipvs0`.
    let elsewhere = || InterfaceAddress { interface: 3, ..address("198.18.0.100", 32, Suitability::Primary) };
    let what = only(Level::Error, "vips", |facts| put(facts, elsewhere()));
    assert!(what.contains("is on eth1, so that"), "{what}");
    only(Level::Warning, "vips", |facts| {
        put(facts, address("198.18.0.100", 32, Suitability::Primary));
        interface(facts).has_pins = true;
    });
    let agent = || Some(Agent { pid: 7, mode: "native".into(), mode_reason: String::new() });
    assert_eq!(
        wrong(|facts| {
            put(facts, address("198.18.0.100", 32, Suitability::Primary));
            interface(facts).agent = agent();
        }),
        []
    );
    let v6 = CONFIGURATION.replace("198.18.0.100:6443", "[2001:2::100]:6443").replace("198.18.0.", "2001:2::");
    let v6 = v6.replace("'2001:2::11:6443'", "'[2001:2::11]:6443'").replace("'2001:2::12:6443'", "'[2001:2::12]:6443'");
    let what = wrong(|facts| {
        configure(facts, &v6);
        put(facts, address("2001:2::100", 128, Suitability::Primary));
        interface(facts).agent = agent();
    });
    assert!(what.iter().any(|finding| finding.topic == "vips" && finding.what.contains("not deprecated")), "{what:?}");
}

#[test]
fn ports() {
    let own = |range, reserved| Ok(Some(OwnPorts { range, reserved }));
    let what = only(Level::Error, "nat-ports", |facts| facts.own_ports = own(15_000..=60_999, Vec::new()));
    assert!(what.starts_with("the NAT ports 10000-32767 overlap"), "{what}");
    assert_eq!(wrong(|facts| facts.own_ports = own(15_000..=60_999, vec![10_000..=32_767])), []);
    assert_eq!(wrong(|facts| facts.own_ports = Ok(None)), []);
    only(Level::Note, "nat-ports", |facts| facts.own_ports = Err("no /proc".into()));
}

#[test]
fn ipvs_services() {
    let what = only(Level::Error, "ipvs", |facts| facts.ipvs = Ok("TCP  C6120064:192B wlc \n".into()));
    assert!(what.contains("198.18.0.100:6443/tcp"), "{what}");
    assert_eq!(wrong(|facts| facts.ipvs = Ok("UDP  C6120064:192B wlc \n".into())), []);
    only(Level::Note, "ipvs", |facts| facts.ipvs = Err("permission denied".into()));
}

#[test]
fn kubelets() {
    let node_ips = |text: &str| NodeIps { place: "kubelet (pid 9)".into(), addresses: vec![ip(text)] };
    let what = only(Level::Error, "kubelet", |facts| facts.node_ips = vec![node_ips("198.18.0.100")]);
    assert!(what.starts_with("kubelet (pid 9): `--node-ip` is the VIP 198.18.0.100"), "{what}");
    assert_eq!(wrong(|facts| facts.node_ips = vec![node_ips("198.18.0.11")]), []);
    assert_eq!(wrong(|facts| facts.node_ips = vec![NodeIps { place: "kubelet".into(), addresses: Vec::new() }]), []);
}

#[test]
fn other_balancers() {
    let process = |name: &str, text: &str| {
        vec![Process { pid: 9, name: name.into(), file: Some(("/etc/x.conf".into(), text.into())) }]
    };
    for (name, text, what) in [
        ("keepalived", "vrrp_instance V {\n virtual_router_id 100\n}", "virtual_router_id 100"),
        ("keepalived", "virtual_ipaddress {\n 198.18.0.100/32 dev eth0\n}", "the VIP 198.18.0.100"),
        ("haproxy", "frontend f\n  bind 198.18.0.100:6443\n", "the VIP 198.18.0.100"),
        ("haproxy", "frontend f\n  bind ipv4@198.18.0.100:6443\n", "the VIP 198.18.0.100"),
    ] {
        let said = only(Level::Error, name, |facts| facts.processes = process(name, text));
        assert!(said.ends_with(&format!("/etc/x.conf has {what}, too")), "{said}");
    }
    for (name, text) in [
        ("keepalived", "virtual_router_id 51\n# 198.18.0.100\n! 198.18.0.100\n"),
        ("keepalived", "virtual_router_id\n"),
        ("haproxy", "bind *:6443\nserver a 198.18.0.11:6443\n"),
        ("haproxy", ""),
    ] {
        only(Level::Note, name, |facts| facts.processes = process(name, text));
    }
    let unreadable = vec![Process { pid: 9, name: "keepalived".into(), file: None }];
    only(Level::Warning, "keepalived", |facts| facts.processes = unreadable);
}
