//! What becomes of single directives of haproxy.

use kplb_common::service::Persistence;

use super::*;
use crate::config::ServiceConfig;

/// A backend with these lines, from line 9 on, behind the VIP.
pub(super) fn backend(lines: &str) -> (Config, Vec<Finding>) {
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 1s\n  timeout check 4s\nfrontend api\n  bind 198.18.0.100:6443\n  default_backend cps\nbackend cps\n{lines}\n"
    );
    Scene::new().haproxy(text).imported()
}

/// One service at the VIP, whatever listens how.
#[track_caller]
pub(super) fn only(config: &Config) -> &ServiceConfig {
    assert_eq!(config.services.len(), 1);
    &config.services[0]
}

/// One that is not checked.
pub(super) const SERVER: &str = "server a 198.18.0.11:6443";

#[test]
fn algorithms_are_hashes() {
    for (lines, persistence, words) in [
        ("", Persistence::Connection, "not to each in turn"),
        ("balance roundrobin", Persistence::Connection, "not to each in turn"),
        ("balance leastconn", Persistence::Connection, "however many"),
        ("balance random(2)", Persistence::Connection, "however busy"),
        ("balance first", Persistence::Connection, "one after the other"),
        ("balance hdr(host)", Persistence::Connection, "does not look into it"),
        ("balance source", Persistence::Client, "another hash"),
        (
            "balance roundrobin\nstick-table type ip size 1k\nstick on src",
            Persistence::Client,
            "without a table that ends",
        ),
    ] {
        let (config, findings) = backend(&format!("{lines}\n{SERVER}"));
        assert_eq!(only(&config).persistence, persistence, "{lines}");
        let why: Vec<_> =
            findings.iter().filter(|finding| finding.effect == Effect::Changed).map(|finding| &finding.why).collect();
        assert!(why.len() == 1 && why[0].contains(words), "{lines}: {why:?}");
    }
}

#[test]
fn servers_have_many_addresses() {
    let addresses = |lines: &str| {
        let scene = Scene::new()
            .host("cp1.example", &["198.18.0.11", "198.18.0.12"])
            .haproxy(format!("listen a\n bind 198.18.0.100:6443\n server z 198.18.0.99:1\n{lines}\n"));
        let (config, findings) = scene.imported();
        let backends = only(&config).backends.iter().skip(1);
        (
            backends.map(|backend| format!("{}={}", backend.name, backend.address)).collect::<Vec<_>>().join(" "),
            findings,
        )
    };
    for (lines, expected) in [
        ("server a 198.18.0.11:7443", "a=198.18.0.11:7443"),
        ("server a 198.18.0.11", "a=198.18.0.11:6443"),
        ("server a 198.18.0.11:+100", "a=198.18.0.11:6543"),
        ("server a 198.18.0.11:-443", "a=198.18.0.11:6000"),
        ("server a ipv4@198.18.0.11:1", "a=198.18.0.11:1"),
        ("server a cp1.example:1", "a=198.18.0.11:1"),
        ("server-template t 1-3 cp1.example:1", "t1=198.18.0.11:1 t2=198.18.0.12:1"),
        ("dispatch 198.18.0.11:1", "198.18.0.11:1=198.18.0.11:1"),
    ] {
        assert_eq!(addresses(lines).0, expected, "{lines}");
    }
    for (line, directive, words) in [
        ("server a none.example:1", "server a none.example:1", "cannot be resolved"),
        ("server a :1", "server a :1", "wherever the client wanted"),
        ("server a unix@/x", "server a unix@/x", "have addresses"),
        ("server a 127.0.0.1:1", "server a 127.0.0.1:1", "loopback"),
        ("server a 198.18.0.100:1", "server a 198.18.0.100:1", "address of a VIP"),
        ("server a [2001:2::11]:1", "server a [2001:2::11]:1", "of an IPv4 VIP to IPv6"),
        ("server a 198.18.0.11:+60000", "server a 198.18.0.11:+60000", "no port"),
        ("server a 198.18.0.11:x", "server a 198.18.0.11:x", "port is none"),
        ("server a", "server a", "no address"),
    ] {
        let (backends, findings) = addresses(line);
        assert_eq!(backends, "", "{line}");
        assert_found(&findings, 4, directive, Effect::LeftOut, words);
    }
    // A name for both families serves the VIPs of both.
    let both = Scene::new()
        .host("cp1.example", &["2001:2::11", "198.18.0.11"])
        .haproxy("listen a\n bind 198.18.0.100:1\n bind [2001:2::100]:1\n server a cp1.example:6443\n");
    let (config, findings) = both.imported();
    let backends: Vec<_> = config.services.iter().map(|service| service.backends[0].address.to_string()).collect();
    assert_eq!(backends, ["198.18.0.11:6443", "[2001:2::11]:6443"]);
    let (effect, why) = of(&findings, 4, "server a cp1.example:6443")[0];
    assert_eq!(
        (effect, why),
        (Effect::Changed, "kplb resolves no names; this one stands for 198.18.0.11, 2001:2::11 now")
    );
    let (_, findings) = addresses("server a cp1.example:1");
    assert_found(&findings, 4, "server a cp1.example:1", Effect::Changed, "stands for 198.18.0.11 now");
    // Two names for one server are one backend.
    let (config, findings) = backend(&format!("{SERVER} weight 3\nserver b 198.18.0.11:6443 weight 4"));
    assert_eq!(only(&config).backends.len(), 1);
    assert_eq!(only(&config).backends[0].weight, 7);
    assert_found(&findings, 10, "server b 198.18.0.11:6443", Effect::Changed, "already");
}

#[test]
fn servers_that_stand_by() {
    let weights = |lines: &str| {
        let (config, findings) = backend(lines);
        (only(&config).backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), findings)
    };
    let two = |a: &str, b: &str| format!("{SERVER} {a}\nserver b 198.18.0.12:6443 {b}");
    let (all, findings) = weights(&two("", "backup weight 5"));
    assert_eq!(all, [1, 0]);
    assert_found(&findings, 10, "backup", Effect::Changed, "stands in for others");
    assert_eq!(weights(&two("backup", "backup")).0, [1, 0]);
    assert_eq!(weights(&format!("option allbackups\n{}", two("backup", "backup"))).0, [1, 1]);
    let (all, findings) = weights(&two("disabled", "weight 100"));
    assert_eq!(all, [0, 100]);
    assert_found(&findings, 9, "disabled", Effect::Changed, "switched off");
    assert_eq!(weights(&two("weight 256", "weight 0")).0, [256, 0]);
}

#[test]
fn defaults_are_inherited() {
    let text = "\
defaults
 balance source
defaults named
 option httpchk GET /a
 http-check expect status 200
 default-server inter 5s check
defaults second from named
 timeout check 1s
defaults
listen one from named
 bind 198.18.0.100:1
 server a 198.18.0.11:1
listen two from second
 bind 198.18.0.100:2
 http-check expect status 201
 server a 198.18.0.11:1 inter 1s
listen three
 bind 198.18.0.100:3
 server a 198.18.0.11:1
listen four from none
 bind 198.18.0.100:4
 server a 198.18.0.11:1
";
    let (config, findings) = Scene::new().haproxy(text).imported();
    let facts = config.services.iter().map(|service| {
        let check = service.backends[0].check.as_ref();
        (
            service.persistence,
            check.map(|check| (check.expect.to_string(), check.interval.as_secs(), check.timeout.as_secs())),
        )
    });
    let some = |expect: &str, interval, timeout| Some((expect.to_owned(), interval, timeout));
    assert_eq!(
        facts.collect::<Vec<_>>(),
        [
            (Persistence::Connection, some("200", 5, 5)),
            (Persistence::Connection, some("201", 1, 2)),
            (Persistence::Connection, None),
            (Persistence::Connection, None),
        ]
    );
    assert_found(&findings, 20, "listen four from none", Effect::LeftOut, "no `defaults none`");
}

#[test]
fn frontends_lead_to_backends() {
    let frontend = |lines: &str| {
        let text = format!(
            "frontend api\n bind 198.18.0.100:6443\n{lines}\nbackend a\n server a 198.18.0.11:1\nbackend b\n server b 198.18.0.12:1\nlisten c\n bind 198.18.0.100:9\n server c 198.18.0.13:1\n"
        );
        let (config, findings) = Scene::new().haproxy(text).imported();
        let service = config.services.iter().find(|service| service.vip.port() == 6443);
        (service.map(|service| service.backends[0].name.clone()), findings)
    };
    let is = |name: &str| Some(name.to_owned());
    assert_eq!(frontend("default_backend b").0, is("b"));
    assert_eq!(frontend("use_backend a\ndefault_backend b").0, is("a"));
    assert_eq!(frontend("default_backend c").0, is("c"));
    let (name, findings) = frontend("acl x src 198.18.0.1\nuse_backend a if x\ndefault_backend b");
    assert_eq!(name, is("b"));
    assert_found(&findings, 4, "use_backend a if x", Effect::LeftOut, "all of them go to b");
    assert_found(&findings, 3, "acl x src 198.18.0.1", Effect::LeftOut, "every client");
    assert_eq!(frontend("use_backend a if TRUE").0, is("a"));
    for (lines, words) in [
        ("use_backend a if X\nuse_backend b unless X", "chooses among backends"),
        ("default_backend none", "there is no backend none"),
        ("", "no server is behind it"),
        ("disabled\ndefault_backend a", "it is disabled"),
        ("default_backend a\nbind :7 ssl crt x", "ends the TLS of clients"),
    ] {
        let (name, findings) = frontend(lines);
        assert_eq!(name, None, "{lines}");
        assert_found(&findings, 1, "frontend api", Effect::LeftOut, words);
    }
    // TLS from both sides, and from none, can do without a proxy.
    let tls = |bind: &str, server: &str| {
        let text = format!("listen a\n bind 198.18.0.100:1 {bind}\n server a 198.18.0.11:1 {server}\n");
        let imported = Scene::new().haproxy(text).import();
        (imported.text.is_ok(), imported.findings)
    };
    assert!(tls("ssl crt x", "ssl verify none").0);
    let (is_imported, findings) = tls("", "ssl verify none");
    assert!(is_imported);
    assert_found(&findings, 1, "listen a", Effect::Changed, "hands on what clients send");
    assert!(!tls("ssl crt x", "").0);
    let (_, findings) = frontend("default_backend b");
    assert_found(&findings, 4, "backend a", Effect::LeftOut, "no frontend that is imported uses it");
}

#[test]
fn listeners_have_many_forms() {
    let listen = |bind: &str| {
        let scene = Scene::new().vip("198.18.0.100").vip("2001:2::100").host("vip.example", &["198.18.0.101"]).haproxy(format!(
            "listen a\n {bind}\n server a 198.18.0.11:1\n server b [2001:2::11]:1\nlisten z\n bind 198.18.0.99:1\n server a 198.18.0.11:1\n"
        ));
        let (config, findings) = scene.imported();
        let vips =
            config.services.iter().map(|service| service.vip).filter(|vip| vip.ip().to_string() != "198.18.0.99");
        (vips.map(|vip| vip.to_string()).collect::<Vec<_>>().join(" "), findings)
    };
    for (bind, vips) in [
        ("bind 198.18.0.100:6443", "198.18.0.100:6443"),
        ("bind *:6443", "198.18.0.100:6443"),
        ("bind :6443", "198.18.0.100:6443"),
        ("bind :::6443 v4v6", "198.18.0.100:6443 [2001:2::100]:6443"),
        ("bind :::6443 v6only", "[2001:2::100]:6443"),
        ("bind ipv6@:6443 v6only", "[2001:2::100]:6443"),
        ("bind [2001:2::100]:6443", "[2001:2::100]:6443"),
        ("bind *:80-82", "198.18.0.100:80 198.18.0.100:81 198.18.0.100:82"),
        ("bind 198.18.0.100:80,198.18.0.101:80", "198.18.0.100:80 198.18.0.101:80"),
        ("bind vip.example:80", "198.18.0.101:80"),
    ] {
        assert_eq!(listen(bind).0, vips, "{bind}");
    }
    for (bind, words) in [
        ("bind /run/a.sock", "over TCP"),
        ("bind fd@3", "over TCP"),
        ("bind none.example:80", "cannot be resolved"),
        ("bind 198.18.0.100", "no port"),
        ("bind *:1-65535", "more than 64 ports"),
        ("bind 127.0.0.1:80", "loopback"),
    ] {
        let (vips, findings) = listen(bind);
        assert_eq!(vips, "", "{bind}");
        assert_found(&findings, 2, bind, Effect::LeftOut, words);
    }
    let (_, findings) = listen("bind *:80 accept-proxy interface eth1 maxconn 5 mss 1400 name x");
    assert_found(&findings, 2, "accept-proxy", Effect::Changed, "reads nothing");
    assert_found(&findings, 2, "interface eth1", Effect::LeftOut, "attached to");
    assert_found(&findings, 2, "maxconn 5", Effect::LeftOut, "no limit");
    assert_found(&findings, 2, "mss 1400", Effect::LeftOut, "own socket");
    assert!(of(&findings, 2, "name x").is_empty());
}

#[test]
fn without_a_vip_it_is_asked_for() {
    let error = Scene::new().haproxy(HAPROXY).refused().to_string();
    assert!(error.contains("--vip"), "{error}");
    let (config, _) = Scene::new().haproxy(HAPROXY).vip("198.18.0.100").imported();
    assert_eq!(only(&config).vip.to_string(), "198.18.0.100:6443");
    assert_eq!(config.vrrp, None);
    // keepalived may have none, or has said it.
    let (config, _) = Scene::new().keepalived("").haproxy(HAPROXY).vip("198.18.0.100").imported();
    assert_eq!(only(&config).vip.to_string(), "198.18.0.100:6443");
    let error = Scene::new().keepalived(router("")).haproxy(HAPROXY).vip("198.18.0.100").refused().to_string();
    assert!(error.contains("leave --vip out"), "{error}");
    // Two listeners at one place are one service.
    let twice = format!("{HAPROXY}listen again\n bind 198.18.0.100:6443\n server a 198.18.0.12:1\n");
    let (config, findings) = Scene::new().haproxy(twice).vip("198.18.0.100").imported();
    assert_eq!(only(&config).name, "api");
    assert_found(&findings, 9, "bind 198.18.0.100:6443", Effect::LeftOut, "is a service already");
}

#[test]
fn everything_else_has_its_reason() {
    let text = "\
global
 log /dev/log local0
 chroot /var/lib/haproxy
 stats socket /run/haproxy/admin.sock
 tune.bufsize 1
 ssl-default-bind-options no-sslv3
 frobnicate
defaults
 maxconn 5
 option redispatch
 timeout tunnel 1h
 timeout foo
resolvers r
 nameserver a 198.18.0.1:53
listen a
 mode http
 bind 198.18.0.100:1
 tcp-request connection reject if TRUE
 http-request deny
 monitor-uri /x
 frobnicate
 server a 198.18.0.11:1 send-proxy maxconn 9 frob x check weight y observe layer4
stray
";
    let (_, findings) = Scene::new().haproxy(text).imported();
    for (line, directive, effect, words) in [
        (2, "log /dev/log local0", Effect::LeftOut, "logs no connections"),
        (3, "chroot /var/lib/haproxy", Effect::LeftOut, "own process"),
        (4, "stats socket /run/haproxy/admin.sock", Effect::LeftOut, "no page or socket"),
        (5, "tune.bufsize 1", Effect::LeftOut, "own process"),
        (6, "ssl-default-bind-options no-sslv3", Effect::LeftOut, "leaves TLS"),
        (7, "frobnicate", Effect::LeftOut, "does not know it"),
        (9, "maxconn 5", Effect::LeftOut, "limits no connections"),
        (10, "option redispatch", Effect::LeftOut, "does not connect for clients"),
        (11, "timeout tunnel 1h", Effect::LeftOut, "for being idle"),
        (12, "timeout foo", Effect::LeftOut, "no time"),
        (13, "resolvers r", Effect::LeftOut, "resolves no names"),
        (16, "mode http", Effect::Changed, "does not look into them"),
        (18, "tcp-request connection reject if TRUE", Effect::LeftOut, "every client"),
        (19, "http-request deny", Effect::LeftOut, "HTTP is between"),
        (20, "monitor-uri /x", Effect::LeftOut, "no page or socket"),
        (21, "frobnicate", Effect::LeftOut, "does not know it"),
        (22, "send-proxy", Effect::LeftOut, "adds nothing"),
        (22, "maxconn 9", Effect::LeftOut, "no limit"),
        (22, "frob", Effect::LeftOut, "does not know it"),
        (22, "weight y", Effect::LeftOut, "not followed by a number"),
        (22, "observe layer4", Effect::LeftOut, "starts a check at once"),
        (23, "stray", Effect::LeftOut, "does not know it"),
    ] {
        assert_found(&findings, line, directive, effect, words);
    }
}

#[test]
fn files_are_read_in_their_order() {
    let mut scene = Scene::new()
        .file("conf/b.cfg", "backend cps\n server cp1 198.18.0.11:1\n")
        .file("conf/a.cfg", "frontend api\n bind 198.18.0.100:1\n default_backend cps\n")
        .file("conf/c.txt", "frontend other\n bind 198.18.0.100:2\n default_backend cps\n")
        .file("last.cfg", "listen last\n bind 198.18.0.100:3\n server a 198.18.0.11:1\n");
    scene.sources.haproxy = vec!["conf".into(), "last.cfg".into()];
    let (config, findings) = scene.imported();
    assert_eq!(config.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["api", "last"]);
    let places: Vec<_> = findings.iter().map(|finding| finding.place.to_string()).collect();
    assert_eq!(places, ["conf/b.cfg:1", "last.cfg:1"], "{}", shown(&findings));
}

#[test]
fn what_haproxy_refuses_is_refused() {
    for (text, line, words) in [
        ("listen a\n bind \"198.18.0.100:1\n", 2, "a quote (\") is not closed"),
        (".if defined(A)\nlisten a\n", 1, "no .endif"),
        (".endif\n", 1, "no .if"),
        (".else\n", 1, "no .if"),
        (".if foo(\n.endif\n", 1, "no condition"),
        (".foo\n", 1, "no such word"),
    ] {
        match Scene::new().haproxy(text).refused() {
            ImportError::Syntax { place, message, .. } => {
                assert_eq!(place.line(), line, "{text}");
                assert!(message.contains(words), "{text}: {message}");
            }
            error => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn variables_and_conditions() {
    let text = "\
global
 setenv A 198.18.0.11
 presetenv B 198.18.0.12
 presetenv PORT 1
 unsetenv GONE
.if defined(GONE)
listen never
 bind 198.18.0.100:9
 server a 198.18.0.11:1
.elif version_atleast(2.4)
.notice hello
listen a
 bind \"198.18.0.100:$PORT\"
 server a $A:1
 server b \"${B}:1\"
 server c \"${NONE}198.18.0.13:1\"
.else
listen never \"
.endif
";
    let scene = Scene::new().haproxy(text).variable("PORT", "6443").variable("GONE", "1");
    let (config, findings) = scene.imported();
    let service = only(&config);
    assert_eq!(service.vip.to_string(), "198.18.0.100:6443");
    let addresses: Vec<_> = service.backends.iter().map(|backend| backend.address.to_string()).collect();
    assert_eq!(addresses, ["198.18.0.11:1", "198.18.0.12:1", "198.18.0.13:1"]);
    assert_found(&findings, 10, ".elif version_atleast(2.4)", Effect::Changed, "taken as haproxy");
    assert_found(&findings, 11, ".notice hello", Effect::LeftOut, "says it");
    assert_found(&findings, 16, "server c \"${NONE}198.18.0.13:1\"", Effect::Changed, "NONE is not set");
}
