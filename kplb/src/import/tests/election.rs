//! Which virtual routers go together, and which VIPs are served.

use super::*;
use crate::vrrp::settings::Version;

fn instance(name: &str, interface: &str, id: u8, vip: &str, lines: &str) -> String {
    format!(
        "vrrp_instance {name} {{\n  interface {interface}\n  virtual_router_id {id}\n  virtual_ipaddress {{\n    {vip}\n  }}\n{lines}}}\n"
    )
}

/// Both families, with a server of each.
const DUAL: &str = "\
defaults
  mode tcp
frontend api
  bind :::6443
  default_backend cps
backend cps
  server cp1 198.18.0.11:6443
  server cp1-6 [2001:2::11]:6443
";

fn vips(config: &Config) -> Vec<String> {
    config.services.iter().map(|service| service.vip.to_string()).collect()
}

#[test]
fn one_of_each_family_with_the_same_id() {
    let text = instance("V4", "eth0", 51, "198.18.0.100", "") + &instance("V6", "eth0", 51, "2001:2::100", "");
    let (config, findings) = Scene::new().keepalived(text).haproxy(DUAL).imported();
    assert_eq!(vips(&config), ["198.18.0.100:6443", "[2001:2::100]:6443"]);
    assert!(findings.iter().all(|finding| finding.place.file() != "keepalived.conf"), "{}", shown(&findings));
}

#[test]
fn others_are_left_out() {
    let first = instance("V4", "eth0", 51, "198.18.0.100", "");
    for (other, words) in [
        (instance("X", "eth0", 52, "198.18.0.101", ""), "one virtual router for an address family"),
        (instance("X", "eth0", 52, "2001:2::100", ""), "one router id for both"),
        (instance("X", "eth1", 51, "2001:2::100", ""), "one interface"),
        (
            instance("X", "eth0", 51, "2001:2::100", "  unicast_peer {\n  2001:2::12\n  }\n"),
            "of both address families or of none",
        ),
    ] {
        let (config, findings) = Scene::new().keepalived(format!("{first}{other}")).haproxy(DUAL).imported();
        assert_eq!(vips(&config), ["198.18.0.100:6443"], "{other}");
        assert_found(&findings, 8, "vrrp_instance X", Effect::LeftOut, words);
    }
}

#[test]
fn values_that_cannot_differ() {
    let text = instance("V4", "eth0", 51, "198.18.0.100", "  priority 120\n")
        + &instance(
            "V6",
            "eth0",
            51,
            "2001:2::100",
            "  priority 110\n  advert_int 0.5\n  nopreempt\n  garp_master_delay 1\n",
        );
    let (config, findings) = Scene::new().keepalived(text).haproxy(DUAL).imported();
    let vrrp = config.vrrp.expect("a router");
    assert_eq!((vrrp.priority, vrrp.version), (Some(120), Version::V2));
    for words in ["one priority", "one interval", "one way to preempt", "one way to announce"] {
        assert_found(&findings, 9, "vrrp_instance V6", Effect::Changed, words);
    }
}

/// That of IPv6 is the first one, and its interval is nothing that version 2 could say.
#[test]
fn an_interval_that_ipv4_cannot_express() {
    let text = instance("V6", "eth0", 51, "2001:2::100", "  advert_int 0.5\n")
        + &instance("V4", "eth0", 51, "198.18.0.100", "");
    let (config, findings) = Scene::new().keepalived(text).haproxy(DUAL).imported();
    let vrrp = config.vrrp.expect("a router");
    assert_eq!((vrrp.version, vrrp.interval), (Version::V2, std::time::Duration::from_secs(1)));
    assert_found(&findings, 1, "vrrp_instance V6", Effect::Changed, "cannot express its interval");
}

#[test]
fn ipv6_alone_is_version_3() {
    let text = instance("V6", "eth0", 51, "2001:2::100", "  version 2\n");
    let (config, _) = Scene::new().keepalived(text).haproxy(DUAL).imported();
    assert_eq!(config.vrrp.map(|vrrp| vrrp.version), Some(Version::V3));
}

#[test]
fn the_interface_and_the_listeners_choose() {
    let text = instance("A", "eth0", 51, "198.18.0.100", "") + &instance("B", "eth1", 52, "198.18.0.101", "");
    let scene = Scene::new().keepalived(&text).haproxy(HAPROXY);
    assert_eq!(vips(&scene.imported().0), ["198.18.0.100:6443"]);
    let (config, findings) = scene.clone().interface("eth1").imported();
    assert_eq!(vips(&config), ["198.18.0.101:6443"]);
    assert_eq!(config.vrrp.map(|vrrp| vrrp.router_id), Some(52));
    assert_found(&findings, 1, "vrrp_instance A", Effect::LeftOut, "another interface");
    assert!(matches!(scene.clone().interface("eth2").refused(), ImportError::Nothing { .. }));
    // A listener that names a VIP is a reason to import its router.
    let named = Scene::new().keepalived(&text).haproxy(HAPROXY.replace("*:6443", "198.18.0.101:6443"));
    assert_eq!(vips(&named.imported().0), ["198.18.0.101:6443"]);
}

#[test]
fn vips_without_a_service_are_told() {
    let text =
        router("").replace("198.18.0.100", "198.18.0.100\n    198.18.0.101\n    198.18.0.102 dev eth1\n    fe80::1");
    let haproxy = HAPROXY.replace("*:6443", "198.18.0.100:6443,198.18.0.102:6443,127.0.0.1:6443");
    let (config, findings) = Scene::new().keepalived(text).haproxy(haproxy).imported();
    assert_eq!(vips(&config), ["198.18.0.100:6443"]);
    assert_found(&findings, 7, "198.18.0.101", Effect::LeftOut, "nothing is behind it");
    assert_found(&findings, 8, "198.18.0.102 dev eth1", Effect::LeftOut, "one interface");
    assert_found(&findings, 9, "fe80::1", Effect::LeftOut, "not of the family of the first VIP");
    let listener = "bind 198.18.0.100:6443,198.18.0.102:6443,127.0.0.1:6443";
    assert_found(&findings, 4, listener, Effect::LeftOut, "198.18.0.102 is no VIP");
    assert_found(&findings, 4, listener, Effect::LeftOut, "127.0.0.1 is no VIP");
}

/// RFC 9568 wants a link-local address first, and kplb has none.
#[test]
fn a_link_local_vip_is_none() {
    let text = instance("V6", "eth0", 51, "fe80::100\n    2001:2::100", "");
    let (config, findings) = Scene::new().keepalived(text).haproxy(DUAL).imported();
    assert_eq!(vips(&config), ["[2001:2::100]:6443"]);
    assert_found(&findings, 5, "fe80::100", Effect::LeftOut, "link-local");
}

#[test]
fn vips_with_more_than_an_address() {
    for (line, is_changed) in [
        ("198.18.0.100", false),
        ("198.18.0.100/32", false),
        ("198.18.0.100 dev eth0", false),
        ("198.18.0.100/24", true),
        ("198.18.0.100 label eth0:1", true),
        ("198.18.0.100 dev eth0 brd +", true),
    ] {
        let (config, findings) =
            Scene::new().keepalived(router("").replace("198.18.0.100", line)).haproxy(HAPROXY).imported();
        assert_eq!(vips(&config), ["198.18.0.100:6443"], "{line}");
        assert_eq!(of(&findings, 6, line).len(), usize::from(is_changed), "{line}: {}", shown(&findings));
    }
}
