//! What becomes of single directives of keepalived.

use std::time::Duration;

use super::*;
use crate::{
    config::{CheckKind, OnDown, Protocol},
    vrrp::settings::{Coverage, Preemption, Version},
};

/// A virtual router with more lines, the standard frontend, and what comes of them.
#[track_caller]
fn with(lines: &str) -> (Config, Vec<Finding>) {
    Scene::new().keepalived(router(lines)).haproxy(HAPROXY).imported()
}

#[track_caller]
fn vrrp(lines: &str) -> config::VrrpConfig {
    with(lines).0.vrrp.expect("there is a virtual router")
}

#[test]
fn what_keepalived_does_unless_told_otherwise() {
    let vrrp = vrrp("");
    assert_eq!(vrrp.version, Version::V2);
    assert_eq!(vrrp.interval, Duration::from_secs(1));
    assert_eq!(vrrp.priority, Some(100));
    assert_eq!(vrrp.preemption, Preemption::After(Duration::ZERO));
    assert_eq!(vrrp.password, None);
    assert!(vrrp.peers.is_empty());
    assert_eq!(vrrp.announcements, crate::vrrp::announcements::Schedule::default());
}

#[test]
fn intervals_are_rounded_as_keepalived_rounds_them() {
    for (lines, expected, words) in [
        ("  advert_int 2", Duration::from_secs(2), None),
        ("  advert_int 0.5", Duration::from_secs(1), Some("makes 1s of it")),
        ("  advert_int 1.4", Duration::from_secs(1), Some("makes 1s of it")),
        ("  advert_int 1.5", Duration::from_secs(2), Some("makes 2s of it")),
        ("  advert_int 300", Duration::from_secs(1), Some("out of range")),
        ("  advert_int 1s", Duration::from_secs(1), Some("is not a number of seconds")),
        ("  advert_int", Duration::from_secs(1), Some("is missing")),
        ("  advert_int 0.25\n  version 3", Duration::from_millis(250), None),
        ("  advert_int 0.129\n  version 3", Duration::from_millis(130), Some("makes 130ms of it")),
        ("  advert_int 60\n  version 3", Duration::from_millis(40_950), Some("makes 40s 950ms of it")),
    ] {
        let (config, findings) = with(lines);
        assert_eq!(config.vrrp.map(|vrrp| vrrp.interval), Some(expected), "{lines}");
        let found: Vec<_> = findings.iter().filter(|finding| finding.place.line() == 4).collect();
        assert_eq!(found.len(), usize::from(words.is_some()), "{lines}: {found:?}");
        assert!(words.is_none_or(|words| found[0].why.contains(words)), "{lines}: {found:?}");
    }
}

#[test]
fn the_version_of_all_and_of_one() {
    let globals = "global_defs {\n  vrrp_version 3\n}\n";
    let import = |text: String| Scene::new().keepalived(text).haproxy(HAPROXY).imported().0.vrrp.expect("a router");
    assert_eq!(import(format!("{globals}{}", router(""))).version, Version::V3);
    assert_eq!(import(format!("{globals}{}", router("  version 2"))).version, Version::V2);
    // A global that comes later holds as well.
    assert_eq!(import(format!("{}{globals}", router(""))).version, Version::V3);
    assert_eq!(import(format!("{}{globals}", router("  v3_checksum_as_v2"))).coverage, Coverage::Message);
    // It is about version 3 alone.
    assert_eq!(vrrp("  v3_checksum_as_v2").coverage, Coverage::PseudoHeader);
}

#[test]
fn nopreempt_does_not_go_with_state_master() {
    let (config, findings) = with("  state MASTER\n  nopreempt\n  preempt_delay 5");
    assert_eq!(config.vrrp.map(|vrrp| vrrp.preemption), Some(Preemption::After(Duration::ZERO)));
    assert_found(&findings, 5, "nopreempt", Effect::Changed, "`state MASTER` (line 4)");
    assert_found(&findings, 6, "preempt_delay 5", Effect::LeftOut, "`state MASTER` (line 4)");
    assert_found(&findings, 4, "state MASTER", Effect::LeftOut, "starts as a backup");

    assert_eq!(vrrp("  state BACKUP\n  nopreempt").preemption, Preemption::Never);
    assert_eq!(vrrp("  preempt_delay 2.5").preemption, Preemption::After(Duration::from_millis(2500)));
    assert_eq!(vrrp("  nopreempt\n  preempt").preemption, Preemption::After(Duration::ZERO));
    let (_, findings) = with("  nopreempt\n  preempt_delay 5");
    assert_found(&findings, 5, "preempt_delay 5", Effect::LeftOut, "nothing to delay");
}

#[test]
fn passwords_are_cut_or_refused() {
    let password = |lines: &str| {
        let (config, findings) = with(&format!("  authentication {{\n{lines}\n  }}"));
        let password = config.vrrp.and_then(|vrrp| vrrp.password);
        (password.map(|password| String::from_utf8_lossy(password.bytes()).into_owned()), findings)
    };
    let is = |text: &str| Some(format!("{text:\0<8}"));
    assert_eq!(password("auth_type PASS\nauth_pass 1234567").0, is("1234567"));
    let (cut, findings) = password("auth_type PASS\nauth_pass 123456789");
    assert_eq!(cut, is("12345678"));
    assert_found(&findings, 6, "auth_pass 123456789", Effect::Changed, "first 8 characters");
    assert_eq!(password("auth_type PASS\nauth_pass \"a b\"").0, is("a b"));
    for (lines, line, directive, words) in [
        ("auth_pass 1234", 4, "authentication", "keepalived sends no password"),
        ("auth_type AH\nauth_pass 1234", 5, "auth_type AH", "no AH"),
        ("auth_type pass\nauth_pass 1234", 5, "auth_type pass", "keepalived sends no password"),
        ("auth_type PASS", 4, "authentication", "no password in it"),
        ("auth_type PASS\nauth_pass é", 6, "auth_pass é", "ASCII"),
        ("auth_type PASS\nauth_pass", 6, "auth_pass", "ASCII"),
    ] {
        let (password, findings) = password(lines);
        assert_eq!(password, None, "{lines}");
        assert_found(&findings, line, directive, Effect::LeftOut, words);
    }
    let (config, findings) = with("  version 3\n  authentication {\n  auth_type PASS\n  auth_pass 1\n  }");
    assert_eq!(config.vrrp.and_then(|vrrp| vrrp.password), None);
    assert_found(&findings, 5, "authentication", Effect::LeftOut, "version 3 knows none");
}

#[test]
fn peers_are_all_nodes() {
    let list = |lines: &str| {
        let (config, findings) = with(lines);
        let peers = config.vrrp.map(|vrrp| vrrp.peers).unwrap_or_default();
        (peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), findings)
    };
    let (peers, findings) = list("  unicast_src_ip 198.18.0.12\n  unicast_peer {\n  198.18.0.13\n  198.18.0.11\n  }");
    assert_eq!(peers, "198.18.0.11 198.18.0.12 198.18.0.13");
    assert!(findings.iter().all(|finding| finding.place.file() != "keepalived.conf"), "{}", shown(&findings));

    let (peers, findings) =
        list("  unicast_peer {\n  198.18.0.13 min_ttl 3\n  2001:2::1\n  224.0.0.1\n  x\n  }\n  unicast_ttl 64");
    assert_eq!(peers, "198.18.0.13");
    assert_found(&findings, 4, "unicast_peer", Effect::Changed, "own address is not in the file");
    assert_found(&findings, 5, "198.18.0.13 min_ttl 3", Effect::Changed, "255");
    assert_found(&findings, 6, "2001:2::1", Effect::LeftOut, "no address of the VIPs' family");
    assert_found(&findings, 7, "224.0.0.1", Effect::LeftOut, "multicast");
    assert_found(&findings, 8, "x", Effect::LeftOut, "no address of the VIPs' family");
    assert_found(&findings, 10, "unicast_ttl 64", Effect::Changed, "255");

    // Over IPv6 keepalived has another TTL unless told.
    let ipv6 = router("  unicast_src_ip 2001:2::11\n  unicast_peer {\n  2001:2::12\n  }")
        .replace("198.18.0.100", "2001:2::100");
    let haproxy = "listen a\n bind [2001:2::100]:1\n server a [2001:2::11]:1\n";
    let (_, findings) = Scene::new().keepalived(&ipv6).haproxy(haproxy).imported();
    assert_found(&findings, 5, "unicast_peer", Effect::Changed, "255");
    let told = ipv6.replace("unicast_src_ip", "unicast_ttl 255\n  unicast_src_ip");
    let (_, findings) = Scene::new().keepalived(told).haproxy(haproxy).imported();
    assert!(findings.iter().all(|finding| finding.place.file() != "keepalived.conf"), "{}", shown(&findings));

    // keepalived falls back to multicast.
    assert_eq!(list("  unicast_src_ip 198.18.0.11").0, "");
    // A VIP is no node.
    let (peers, findings) = list("  unicast_peer {\n  198.18.0.100\n  198.18.0.11\n  }");
    assert_eq!(peers, "198.18.0.11");
    assert_found(&findings, 1, "vrrp_instance VI_1", Effect::LeftOut, "a VIP is among its peers");
}

#[test]
fn announcements_inherit_as_in_keepalived() {
    let import =
        |text: &str| Scene::new().keepalived(text).haproxy(HAPROXY).imported().0.vrrp.expect("a router").announcements;
    // What a router says does not reach the lower ones, what holds for all does.
    let own = import(&router("  garp_master_delay 1\n  garp_master_repeat 2"));
    assert_eq!((own.repeat, own.delay), (2, Duration::from_secs(1)));
    assert_eq!((own.lower_priority_repeat, own.lower_priority_delay), (5, Duration::from_secs(5)));
    let globals = "global_defs {\n vrrp_garp_master_delay 7\n vrrp_garp_master_repeat 3\n vrrp_garp_interval 0.5\n}\n";
    let all = import(&format!("{globals}{}", router("")));
    assert_eq!((all.repeat, all.delay), (3, Duration::from_secs(7)));
    assert_eq!((all.lower_priority_repeat, all.lower_priority_delay), (3, Duration::from_secs(7)));
    assert_eq!(all.gap, Duration::from_millis(500));
    let least = import(&format!("global_defs {{\n vrrp_min_garp\n}}\n{}", router("")));
    assert_eq!((least.repeat, least.delay), (1, Duration::ZERO));
    let group =
        "garp_group {\n garp_interval 0.001\n interface eth0\n}\ngarp_group {\n garp_interval 9\n interface eth9\n}\n";
    assert_eq!(import(&format!("{group}{}", router(""))).gap, Duration::from_millis(1));
    let (config, findings) = with("  garp_master_repeat 1000\n  garp_master_refresh 86400");
    let schedule = config.vrrp.expect("a router").announcements;
    assert_eq!((schedule.repeat, schedule.refresh), (100, Duration::from_secs(3600)));
    assert_found(&findings, 1, "vrrp_instance VI_1", Effect::Changed, "100 announcements at most");
    assert_found(&findings, 1, "vrrp_instance VI_1", Effect::Changed, "makes 1h of it");
}

#[test]
fn scripts_move_no_vips() {
    let scripts = "vrrp_script a {\n script \"/usr/bin/killall -0 haproxy\"\n weight -2\n}\n\
                   vrrp_script b {\n script \"curl -k https://localhost:6443/healthz\"\n}\n\
                   vrrp_script c {\n script \"/bin/true\"\n}\n";
    let text = format!("{scripts}{}", router("  nopreempt\n  track_script {\n  a\n  b\n  c weight 5\n  d\n  }"));
    let (_, findings) = Scene::new().keepalived(text).haproxy(HAPROXY).imported();
    let changed = Effect::LeftOut;
    assert_found(
        &findings,
        2,
        "script \"/usr/bin/killall -0 haproxy\"",
        changed,
        "haproxy, which is not there any more",
    );
    assert_found(&findings, 3, "weight -2", changed, "nothing adds to it");
    assert_found(&findings, 6, "script \"curl -k https://localhost:6443/healthz\"", changed, "watches the apiserver");
    assert_found(&findings, 9, "script \"/bin/true\"", changed, "on no script");
    assert_found(&findings, 16, "a", changed, "by -2, which moves nothing where nodes do not preempt (line 14)");
    assert_found(&findings, 17, "b", changed, "gives the VIPs up");
    assert_found(&findings, 18, "c weight 5", changed, "by 5");
    assert_found(&findings, 19, "d", changed, "gives the VIPs up");
}

#[test]
fn what_kplb_does_otherwise() {
    let cases = [
        ("  no_accept", "no_accept", Effect::Changed, "kplb forwards it"),
        ("  strict_mode", "strict_mode", Effect::Changed, "kplb forwards it"),
        ("  use_vmac", "use_vmac", Effect::LeftOut, "own MAC address"),
        ("  mcast_dst_ip 224.0.0.19", "mcast_dst_ip 224.0.0.19", Effect::LeftOut, "group of the RFC"),
        ("  mcast_src_ip 198.18.0.11", "mcast_src_ip 198.18.0.11", Effect::LeftOut, "first address"),
        ("  down_timer_adverts 5", "down_timer_adverts 5", Effect::LeftOut, "three missed adverts"),
        ("  notify_master \"/x a\"", "notify_master \"/x a\"", Effect::LeftOut, "one command"),
        ("  smtp_alert", "smtp_alert", Effect::LeftOut, "no mail"),
        ("  track_file {\n  f\n  }", "track_file", Effect::LeftOut, "link, address, data path"),
        ("  auth_hmac {\n  key 1 hex:00\n  }", "auth_hmac", Effect::LeftOut, "no HMAC"),
        ("  priority 0", "priority 0", Effect::LeftOut, "not a number from 1 to 255"),
        ("  frobnicate 1", "frobnicate 1", Effect::LeftOut, "does not know it"),
        ("  frobnicate {\n  priority 1\n  }", "frobnicate", Effect::LeftOut, "does not know it"),
    ];
    for (lines, directive, effect, words) in cases {
        let (config, findings) = with(lines);
        assert_eq!(config.vrrp.and_then(|vrrp| vrrp.priority), Some(100), "{lines}");
        assert_found(&findings, 4, directive, effect, words);
    }
    for lines in
        ["  accept", "  strict_mode off", "  down_timer_adverts 3", "  native_ipv6", "  track_interface {\n  eth0\n  }"]
    {
        let (_, findings) = with(lines);
        assert!(
            findings.iter().all(|finding| finding.place.file() != "keepalived.conf"),
            "{lines}: {}",
            shown(&findings)
        );
    }
    let (config, _) = with("  notify /usr/local/bin/notify.sh");
    assert_eq!(config.vrrp.and_then(|vrrp| vrrp.notify), None);
    let text = Scene::new().keepalived(router("  notify /usr/local/bin/notify.sh")).haproxy(HAPROXY).import().text;
    let text = text.expect("it is printed");
    assert!(text.contains("notify /usr/local/bin/notify.sh"), "{text}");
}

#[test]
fn braces_that_do_not_fit() {
    let (_, findings) = Scene::new().keepalived(format!("{}}}\n", router(""))).haproxy(HAPROXY).imported();
    assert_found(&findings, 9, "}", Effect::LeftOut, "no block is open");
    let text = router("");
    let text = text.trim_end().strip_suffix('}').expect("it ends in one");
    let (_, findings) = Scene::new().keepalived(text).haproxy(HAPROXY).imported();
    assert_found(&findings, 1, "vrrp_instance VI_1", Effect::Changed, "not closed");
    let (_, findings) = Scene::new().keepalived(format!("{{\n a\n}}\n{}", router(""))).haproxy(HAPROXY).imported();
    assert_found(&findings, 1, "{", Effect::LeftOut, "belongs to no directive");
}

#[test]
fn files_that_are_included() {
    let scene = Scene::new()
        .keepalived("include conf.d/*.conf\ninclude none.conf\nincludea /etc/keepalived/x\n")
        .file("conf.d/b.conf", "  priority 150\n")
        .file("conf.d/a.conf", "include more/router.conf\n")
        .file("conf.d/more/router.conf", router("include ../b.conf").replace("../b.conf", "p.conf"))
        .file("conf.d/more/p.conf", "priority 120\n")
        .haproxy(HAPROXY);
    let (config, findings) = scene.imported();
    assert_eq!(config.vrrp.and_then(|vrrp| vrrp.priority), Some(120));
    assert_found(&findings, 2, "include none.conf", Effect::LeftOut, "cannot be read");
    assert_found(&findings, 3, "includea /etc/keepalived/x", Effect::LeftOut, "cannot be read");
    let stray = findings.iter().find(|finding| finding.directive == "priority 150").expect("it is outside of a block");
    assert_eq!((stray.place.file(), stray.place.line()), ("conf.d/b.conf", 1));
}

#[test]
fn a_file_that_is_not_there() {
    let mut scene = Scene::new();
    scene.sources.keepalived = Some("none.conf".into());
    assert!(matches!(scene.refused(), ImportError::Read { path, .. } if path == Path::new("none.conf")));
    let scene = Scene::new().keepalived("").haproxy("");
    assert!(matches!(scene.refused(), ImportError::Nothing { .. }));
}

/// A virtual server with more lines from line 2 on, and what its only service is.
fn virtual_server(lines: &str) -> (config::ServiceConfig, Vec<Finding>) {
    let text = format!("virtual_server 198.18.0.100 6443 {{\n{lines}\n}}\n");
    let (config, findings) = Scene::new().keepalived(text).imported();
    assert_eq!(config.vrrp, None);
    (config.services[0].clone(), findings)
}

const REAL: &str = "real_server 198.18.0.11 6443 {\n TCP_CHECK {\n }\n}";

#[test]
fn what_ipvs_does_unless_told_otherwise() {
    let (service, findings) = virtual_server(REAL);
    assert_eq!(service.protocol, Protocol::Udp);
    assert_found(&findings, 1, "virtual_server 198.18.0.100 6443", Effect::Changed, "keepalived takes UDP");
    let (service, findings) = virtual_server(&format!("protocol TCP\n{REAL}"));
    let check = service.backends[0].check.clone().expect("it is checked");
    assert_eq!(
        (check.kind, check.interval, check.timeout),
        (CheckKind::Tcp, Duration::from_secs(60), Duration::from_secs(5))
    );
    assert_eq!((check.rise, check.fall, check.fast_interval), (1, 2, Duration::from_secs(1)));
    assert_found(&findings, 1, "lvs_sched wlc", Effect::Changed, "whatever else that one has to do");
    assert_eq!(service.on_down, OnDown::Reset);
}

#[test]
fn schedulers_and_what_they_hash() {
    use kplb_common::service::Persistence::{Client, Connection};
    for (lines, persistence, n_findings) in [
        ("lvs_sched mh", Client, 0),
        ("lvs_sched mh\nmh-port", Connection, 0),
        ("lvs_sched sh", Client, 1),
        ("lb_algo rr", Connection, 1),
        ("lvs_sched wlc", Connection, 1),
        ("lvs_sched rr\npersistence_timeout 50", Client, 1),
    ] {
        let (service, findings) = virtual_server(&format!("protocol TCP\n{lines}\n{REAL}"));
        assert_eq!(service.persistence, persistence, "{lines}");
        assert_eq!(findings.len(), n_findings, "{lines}: {}", shown(&findings));
    }
}

#[test]
fn checkers_that_kplb_has_and_others() {
    let checked = |checker: &str| {
        let lines = format!("protocol TCP\nlvs_sched mh\ndelay_loop 7\nreal_server 198.18.0.11 6443 {{\n{checker}\n}}");
        let (service, findings) = virtual_server(&lines);
        (service.backends[0].check.clone(), findings)
    };
    let (check, findings) = checked(
        "SSL_GET {\n enable_sni\n virtualhost api.example\n url {\n path /livez\n status_code 200-299 401\n}\n connect_port 6444\n}",
    );
    let check = check.expect("it is checked");
    assert_eq!((check.kind, check.path.as_str(), check.port), (CheckKind::Https, "/livez", Some(6444)));
    assert_eq!(check.expect.to_string(), "200-299,401");
    assert_eq!((check.host.as_deref(), check.server_name.as_deref()), (Some("api.example"), Some("api.example")));
    assert_eq!((check.interval, check.fall, check.fast_interval), (Duration::from_secs(7), 2, Duration::from_secs(3)));
    assert!(findings.is_empty(), "{}", shown(&findings));

    let (check, findings) =
        checked("HTTP_GET {\n url {\n path x\n digest 9b3\n}\n url {\n path /\n}\n}\nTCP_CHECK {\n}");
    let check = check.expect("it is checked");
    assert_eq!((check.kind, check.path.as_str(), check.expect.to_string().as_str()), (CheckKind::Http, "/", "200-299"));
    assert_found(&findings, 8, "path x", Effect::Changed, "it asks for /");
    assert_found(&findings, 9, "digest 9b3", Effect::LeftOut, "goes by the status");
    assert_found(&findings, 11, "url", Effect::LeftOut, "one path");
    assert_found(&findings, 15, "TCP_CHECK", Effect::LeftOut, "one check for a backend");

    for checker in ["MISC_CHECK", "DNS_CHECK", "PING_CHECK", "FILE_CHECK"] {
        let (check, findings) = checked(&format!("{checker} {{\n frob 1\n}}"));
        assert_eq!(check.expect("it is checked").kind, CheckKind::Tcp, "{checker}");
        assert_found(&findings, 6, checker, Effect::LeftOut, "accepts connections");
        assert_eq!(findings.len(), 1, "{}", shown(&findings));
    }
    assert_eq!(checked("weight 3").0, None);
}

#[test]
fn groups_of_virtual_servers() {
    let text = "virtual_server_group g {\n 198.18.0.100 6443\n 198.18.0.102-103 443\n fwmark 1\n 198.18.0.104\n}\n\
                virtual_server group g {\n protocol TCP\n lvs_sched mh\n real_server 198.18.0.11 {\n TCP_CHECK {\n }\n }\n}\n\
                virtual_server group none {\n}\n";
    let (config, findings) = Scene::new().keepalived(text).imported();
    let endpoints: Vec<_> = config
        .services
        .iter()
        .map(|service| (service.vip.to_string(), service.backends[0].address.to_string()))
        .collect();
    assert_eq!(
        endpoints,
        [
            ("198.18.0.100:6443".to_owned(), "198.18.0.11:6443".to_owned()),
            ("198.18.0.102:443".to_owned(), "198.18.0.11:443".to_owned()),
            ("198.18.0.103:443".to_owned(), "198.18.0.11:443".to_owned()),
        ]
    );
    assert_found(&findings, 4, "fwmark 1", Effect::LeftOut, "marks of a firewall");
    assert_found(&findings, 5, "198.18.0.104", Effect::LeftOut, "one port each");
    assert_found(&findings, 15, "virtual_server group none", Effect::LeftOut, "no virtual_server_group of this name");
}
