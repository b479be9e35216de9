//! Tests of the configuration: texts and flags in, a configuration or messages out.

mod health;
mod metrics;
mod vlan;
mod vrrp;

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../../kplb.example.toml");

/// Line 1 to 6; more follows from line 7.
const SERVICE: &str = "\
[[service]]
vip = \"198.18.0.100:6443\"
[[service.backend]]
address = \"198.18.0.11:6443\"
[[service.backend]]
address = \"198.18.0.12:6443\"
";

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

fn backend(name: &str, address: &str) -> BackendConfig {
    BackendConfig { name: name.to_owned(), address: socket(address), weight: 1, check: Some(CheckConfig::default()) }
}

#[test]
fn the_example_passes() {
    let config = parse(EXAMPLE, "kplb.example.toml").expect("valid");
    assert_eq!(config.node, NodeConfig::default());
    assert_eq!(config.flows, FlowsConfig::default());
    let expected = ServiceConfig {
        name: "apiserver".to_owned(),
        vip: socket("198.18.0.100:6443"),
        protocol: Protocol::Tcp,
        persistence: Persistence::Client,
        local_clients: LocalClients::PreferLocal,
        seed: 0,
        on_down: OnDown::Reset,
        drain_timeout: None,
        slow_start: None,
        backends: vec![
            backend("cp1", "198.18.0.11:6443"),
            backend("cp2", "198.18.0.12:6443"),
            backend("cp3", "198.18.0.13:6443"),
        ],
    };
    assert_eq!(config.services, [expected]);
    let vrrp = config.vrrp.expect("an election");
    assert_eq!((vrrp.router_id, vrrp.peers.len()), (100, 3));
}

/// What the example says of the defaults is true: with the values switched on, nothing changes.
#[test]
fn the_example_shows_the_defaults() {
    let is_setting = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let mut n = 0;
    let switched_on: String = (EXAMPLE.lines())
        .map(|line| match line.trim().strip_prefix("# ") {
            Some(setting) if is_setting(setting) => {
                n += 1;
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(n, 36, "settings with a default");
    assert_eq!(parse(&switched_on, "on"), parse(EXAMPLE, "off"));
}

#[test]
fn every_setting_is_taken() {
    let text = r#"
        [node]
        nat_ports = "20000 - 20999"
        vlan = 42
        [flows]
        max = 1_024
        max_half_open = 0x1000
        half_open_lifetime = "500ms"
        established_lifetime = "1h 30m"
        closing_lifetime = "1s"
        udp_lifetime = "30days"
        [[service]]
        name = "dns"
        vip = "[2001:2::100]:53"
        protocol = "udp"
        persistence = "connection"
        local_clients = "off"
        seed = 9223372036854775807
        on_down = "keep"
        drain_timeout = "1m"
        slow_start = "30s"
        backend = [{ name = "ns1", address = "[2001:2::11]:53", weight = 256 }, { address = "[2001:2::12]:53", weight = 0 }]
        [[service]]
        vip = "[2001:2::100]:53"
        backend = [{ address = "[2001:2::11]:53" }]
    "#;
    let config = parse(text, "all").expect("valid");
    assert_eq!(config.node, NodeConfig { nat_ports: 20_000..=20_999, vlan: Vlan([42, 0]) });
    let flows = FlowsConfig {
        max: 1024,
        max_half_open: 4096,
        half_open_lifetime: Duration::from_millis(500),
        established_lifetime: Duration::from_secs(5400),
        closing_lifetime: Duration::from_secs(1),
        udp_lifetime: Duration::from_secs(2_592_000),
    };
    assert_eq!(config.flows, flows);
    let dns = ServiceConfig {
        name: "dns".to_owned(),
        vip: socket("[2001:2::100]:53"),
        protocol: Protocol::Udp,
        persistence: Persistence::Connection,
        local_clients: LocalClients::Off,
        seed: i64::MAX as u64,
        on_down: OnDown::Keep,
        drain_timeout: Some(Duration::from_secs(60)),
        slow_start: Some(Duration::from_secs(30)),
        backends: vec![
            BackendConfig { weight: 256, check: None, ..backend("ns1", "[2001:2::11]:53") },
            BackendConfig { weight: 0, check: None, ..backend("[2001:2::12]:53", "[2001:2::12]:53") },
        ],
    };
    assert_eq!(config.services[0], dns);
    assert_eq!(config.services[1].name, "[2001:2::100]:53/tcp");
}

#[test]
fn flags_make_services() {
    let vips = ["198.18.0.100:6443", "[2001:2::100]:6443"];
    let backends = ["198.18.0.11:6443", "[2001:2::11]:6443", "198.18.0.12:6443"];
    let config = Config::from_flags(&vips, &backends, Balancers::One).expect("valid");
    let text = r#"
        [[service]]
        vip = "198.18.0.100:6443"
        backend = [{ address = "198.18.0.11:6443" }, { address = "198.18.0.12:6443" }]
        [[service]]
        vip = "[2001:2::100]:6443"
        backend = [{ address = "[2001:2::11]:6443" }]
    "#;
    assert_eq!(Ok(config), parse(text, "text"));
}

#[test]
fn wrong_flags_are_named() {
    let vip = "198.18.0.100:6443";
    let cases: [(&[&str], &[&str], &str); 7] = [
        (&[], &[], "--vip: there is no service: "),
        (&[vip], &[], "--vip 198.18.0.100:6443: service `198.18.0.100:6443/tcp` has no backend: "),
        (
            &["198.18.0.100"],
            &["198.18.0.11:1"],
            "--vip 198.18.0.100: `198.18.0.100` has no port: add it, as in 198.18.0.100:6443",
        ),
        (&[vip], &["198.18.0.11:0"], "--backend 198.18.0.11:0: port 0 in `198.18.0.11:0`: "),
        (&[vip], &["198.18.0.11:1", "[2001:2::1]:1"], "--backend [2001:2::1]:1: no VIP is of the family of backend "),
        (&[vip, vip], &["198.18.0.11:1"], "--vip 198.18.0.100:6443: a service 198.18.0.100:6443/tcp exists already "),
        (&[vip], &["198.18.0.100:1"], "--backend 198.18.0.100:1: backend 198.18.0.100:1 has the address of a VIP "),
    ];
    for (vips, backends, expected) in cases {
        let message = Config::from_flags(vips, backends, Balancers::One).expect_err(expected).to_string();
        assert!(message.starts_with(expected), "{message}\ninstead of\n{expected}");
    }
}

/// Adds `lines` to a valid configuration, and expects these problems and no others.
#[track_caller]
fn check(name: &str, text: &str, expected: &[&[&str]]) {
    let problems = parse(text, "k.toml").map(|_| ()).expect_err(name).to_string();
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{name}: {problems}");
    for (line, fragments) in lines.iter().zip(expected) {
        for fragment in *fragments {
            assert!(line.contains(fragment), "{name}: {line:?} without {fragment:?}");
        }
    }
}

#[test]
fn what_follows_a_valid_service() {
    let cases: &[(&str, &str, &[&[&str]])] = &[
        ("no TOML", "x = = 1", &[&["k.toml:7:5: ", "see https://toml.io"]]),
        ("a key twice", "name = 'a'\nname = 'b'", &[&["k.toml:8:1: ", "duplicate key"]]),
        ("misspelled key", "wieght = 2", &[&["k.toml:7:1: unknown key `wieght`: did you mean `weight`?"]]),
        ("unknown key", "zone = 'a'", &[&["k.toml:7:1: unknown key `zone`: known here: name, address, weight, check"]]),
        (
            "unknown table",
            "[health]",
            &[&["k.toml:7:2: unknown key `health`: known here: node, flows, vrrp, metrics, service"]],
        ),
        ("misspelled table", "[[services]]", &[&["k.toml:7:3: unknown key `services`: did you mean `service`?"]]),
        (
            "key of node",
            "[node]\nnat_port = '1'",
            &[&["k.toml:8:1: unknown key `nat_port`: did you mean `nat_ports`?"]],
        ),
        (
            "key of flows misspelled",
            "[flows]\nhalfopen_lifetime = '1s'",
            &[&["k.toml:8:1: unknown key `halfopen_lifetime`: did you mean `half_open_lifetime`?"]],
        ),
        (
            "key of flows",
            "[flows]\nmaximum = 1",
            &[&["k.toml:8:1: unknown key `maximum`: known here: max, max_half_open, "]],
        ),
        ("weight too heavy", "weight = 257", &[&["k.toml:7:10: 257 is out of range: it must be 0 to 256"]]),
        ("weight negative", "weight = -1", &[&["k.toml:7:10: -1 is out of range: it must be 0 to 256"]]),
        ("weight a string", "weight = '1'", &[&["k.toml:7:10: `weight` cannot be of type string: write an integer"]]),
        ("weight enormous", "weight = 9999999999999999999999999999999999999999999", &[&["k.toml:7:10: "]]),
        ("name empty", "name = ''", &[&["k.toml:7:8: `` cannot be a name: use 1 to 64 printable"]]),
        ("name of control", r#"name = "a\u001b[2J""#, &[&["k.toml:7:8: ", r"`a\u{1b}[2J` cannot be a name"]]),
        ("name long", &format!("name = '{}'", "n".repeat(65)), &[&["k.toml:7:8: ", "cannot be a name"]]),
        (
            "node an array",
            "[[node]]",
            &[&["k.toml:7:", "`node` cannot be of type array: write it as the table [node]"]],
        ),
        (
            "ports reversed",
            "[node]\nnat_ports = '2000-1024'",
            &[&["k.toml:8:13: ", "`2000-1024` is reversed: write 1024-2000"]],
        ),
        ("ports of the system", "[node]\nnat_ports = '1023-2000'", &[&["k.toml:8:13: ", "below port 1024"]]),
        (
            "ports too high",
            "[node]\nnat_ports = '2000-65536'",
            &[&["k.toml:8:13: `2000-65536` is not a range of ports"]],
        ),
        ("ports a number", "[node]\nnat_ports = 2000", &[&["k.toml:8:13: `nat_ports` cannot be of type integer"]]),
        ("no flows", "[flows]\nmax = 0", &[&["k.toml:8:7: 0 is out of range: it must be 1024 to 4194304"]]),
        ("too many flows", "[flows]\nmax_half_open = 4194305", &[&["k.toml:8:17: 4194305 is out of range"]]),
        (
            "no lifetime",
            "[flows]\nclosing_lifetime = '0s'",
            &[&["k.toml:8:20: `0s` makes no sense here: it must be 100ms to 30days"]],
        ),
        ("absurd lifetime", "[flows]\nudp_lifetime = '31days'", &[&["k.toml:8:16: `31days` makes no sense here"]]),
        (
            "no unit",
            "[flows]\nhalf_open_lifetime = '10'",
            &[&["k.toml:8:22: `10` is not a duration: write a number and a unit"]],
        ),
        (
            "lifetime a number",
            "[flows]\nestablished_lifetime = 10",
            &[&["k.toml:8:24: `established_lifetime` cannot be of type integer"]],
        ),
        (
            "backend twice",
            "[[service.backend]]\naddress = '198.18.0.11:6443'",
            &[&["k.toml:8:11: backend 198.18.0.11:6443 exists already in this service (line 4): "]],
        ),
        (
            "backend without address",
            "[[service.backend]]\nweight = 2",
            &[&["k.toml:7:1: the backend has no `address`"]],
        ),
        (
            "backend misspelled",
            "[[service.backend]]\nadress = '198.18.0.13:6443'",
            &[&["k.toml:8:1: unknown key `adress`: did you mean `address`?"]],
        ),
        (
            "mixed families",
            "[[service.backend]]\naddress = '[2001:2::13]:6443'",
            &[&[
                "k.toml:8:11: ",
                "not of the family of its VIP 198.18.0.100:6443 (line 2): use a service for each family",
            ]],
        ),
        (
            "backend is the VIP",
            "[[service.backend]]\naddress = '198.18.0.100:443'",
            &[&["k.toml:8:11: ", "has the address of a VIP (line 2): give the backend's own address"]],
        ),
        (
            "backend's name twice",
            "name = 'x'\n[[service.backend]]\nname = 'x'\naddress = '198.18.0.13:6443'",
            &[&["k.toml:9:8: a backend named `x` exists already (line 7)"]],
        ),
        (
            "name like another's default",
            "name = '198.18.0.11:6443'",
            &[&["k.toml:7:8: a backend named `198.18.0.11:6443` exists already (line 4)"]],
        ),
        (
            "service without backend",
            "[[service]]\nvip = '198.18.0.100:443'",
            &[&["k.toml:7:1: service `198.18.0.100:443/tcp` has no backend: add a [[service.backend]]"]],
        ),
        (
            "service without VIP",
            "[[service]]\nbackend = [{ address = '198.18.0.11:1' }]",
            &[&["k.toml:7:1: the service has no `vip`"]],
        ),
        (
            "VIP misspelled",
            "[[service]]\nvp = '198.18.0.99:1'\nbackend = [{ address = '198.18.0.11:1' }]",
            &[&["k.toml:8:1: unknown key `vp`: did you mean `vip`?"]],
        ),
        (
            "a VIP that is a backend",
            "[[service]]\nvip = '198.18.0.12:1'\nbackend = [{ address = '198.18.0.13:1' }]",
            &[&["k.toml:6:11: backend 198.18.0.12:6443 has the address of a VIP (line 8)"]],
        ),
        (
            "service twice",
            "[[service]]\nname = 'x'\nvip = '198.18.0.100:6443'\nbackend = [{ address = '198.18.0.13:1' }]",
            &[&["k.toml:9:7: a service 198.18.0.100:6443/tcp exists already (line 2): "]],
        ),
        (
            "unknown protocol",
            "[[service]]\nprotocol = 'sctp'\nvip = '198.18.0.100:1'\nbackend = [{ address = '198.18.0.13:1' }]",
            &[&["k.toml:8:12: unknown protocol `sctp`: use \"tcp\" or \"udp\""]],
        ),
        (
            "unknown place",
            "[[service]]\nlocal_clients = 'here'\nvip = '198.18.0.100:1'\nbackend = [{ address = '198.18.0.13:1' }]",
            &[&["k.toml:8:17: unknown local_clients `here`: use \"prefer-local\" or \"hash\" or \"off\""]],
        ),
        (
            "unknown persistence",
            "[[service]]\npersistence = 'ip'\nvip = '198.18.0.100:1'\nbackend = [{ address = '198.18.0.13:1' }]",
            &[&["k.toml:8:15: unknown persistence `ip`: use \"client\" or \"connection\""]],
        ),
        (
            "seed negative",
            "[[service]]\nseed = -5\nvip = '198.18.0.100:1'\nbackend = [{ address = '198.18.0.13:1' }]",
            &[&["k.toml:8:8: -5 is out of range: it must be 0 to 9223372036854775807"]],
        ),
        (
            "service's name twice",
            "[[service]]\nname = '198.18.0.100:6443/tcp'\nvip = '198.18.0.100:1'\nbackend = [{ address = '198.18.0.13:1' }]",
            &[&["k.toml:8:8: a service named `198.18.0.100:6443/tcp` exists already (line 2)"]],
        ),
        (
            "columns are characters",
            "[[service]]\n'ä' = 1\nvip = '198.18.0.100:1'\nbackend = [{ name = 'ä', weight = 300, address = '198.18.0.13:1' }]",
            &[&["k.toml:8:1: unknown key `ä`"], &["k.toml:10:35: 300 is"]],
        ),
    ];
    assert!(parse(SERVICE, "k.toml").is_ok());
    for (name, added, expected) in cases {
        check(name, &format!("{SERVICE}{added}\n"), expected);
    }
}

#[test]
fn whole_texts() {
    check("nothing", "", &[&["k.toml:1:1: there is no service: add a [[service]]"]]);
    check(
        "one service in single brackets",
        "[service]\nvip = '198.18.0.100:1'",
        &[&["k.toml:1:1: ", "start each with [[service]]"]],
    );
    check("services of no tables", "service = [1]", &[&["k.toml:1:12: `service` cannot be of type integer"]]);
    check("Windows lines", "[node]\r\nnat_ports = 1\r\n", &[&["k.toml:1:1: there is no service"], &["k.toml:2:13: "]]);
}

#[test]
fn all_problems_are_reported_in_order() {
    let text = "\
[[service]]
name = 'b c'
vip = 'localhost:6443'
weight = 2
[[service.backend]]
address = '198.18.0.11'
[[service.backend]]
address = '198.18.0.12:6443'
weight = 1000
[node]
nat_ports = '1-2'
";
    let expected: [&[&str]; 6] = [
        &["k.toml:2:8: `b c` cannot be a name"],
        &["k.toml:3:7: `localhost:6443` is not an IP address and port: names are not resolved"],
        &[
            "k.toml:4:1: unknown key `weight`: known here: name, vip, protocol, persistence, local_clients, seed, check, on_down, drain_timeout, ",
        ],
        &["k.toml:6:11: `198.18.0.11` has no port: add it, as in 198.18.0.11:6443"],
        &["k.toml:9:10: 1000 is out of range"],
        &["k.toml:11:13: ", "below port 1024"],
    ];
    check("six problems", text, &expected);
}

#[test]
fn addresses_that_no_server_has() {
    let cases = [
        ("0.0.0.0:6443", "is the unspecified address"),
        ("[::]:6443", "is the unspecified address"),
        ("127.0.0.1:6443", "is a loopback address"),
        ("[::1]:6443", "is a loopback address"),
        ("224.0.0.18:6443", "is a multicast address"),
        ("[ff02::12]:6443", "is a multicast address"),
        ("255.255.255.255:6443", "is the broadcast address"),
        ("169.254.1.1:6443", "is a link-local address"),
        ("[fe80::1]:6443", "is a link-local address"),
        ("[fe80::1%2]:6443", "is a link-local address"),
        ("0.1.2.3:6443", "is a reserved address"),
        ("240.0.0.1:6443", "is a reserved address"),
        ("[::ffff:198.18.0.1]:6443", "is an IPv4 address in IPv6 form: write 198.18.0.1"),
        ("[2001:2::1%2]:6443", "names an interface"),
        ("198.18.0.1:0", "port 0"),
        ("198.18.0.1:65536", "is not an IP address and port"),
        ("198.18.0.1", "has no port: add it, as in 198.18.0.1:6443"),
        ("2001:2::1", "has no port: add brackets and the port, as in [2001:2::1]:6443"),
        ("198.18.0.1/24:6443", "is not an IP address and port: write it as 198.18.0.100:6443"),
        ("cp1.example:6443", "is not an IP address and port: names are not resolved"),
        ("", "is not an IP address and port"),
    ];
    for (address, expected) in cases {
        let text = format!(
            "[[service]]\nvip = '{address}'\nbackend = [{{ address = '198.18.0.11:1' }}, {{ address = '{address}' }}]"
        );
        check(address, &text, &[&["k.toml:2:7: ", expected], &["k.toml:3:55: ", expected]]);
    }
}

#[test]
fn there_is_only_so_much_room() {
    let service = |vip: usize, n: usize| {
        let backends: String =
            (0..n).map(|i| format!("{{ address = '198.19.{}.{}:6443' }}, ", i / 250, i % 250 + 1)).collect();
        format!("[[service]]\nvip = '198.18.0.100:{}'\nbackend = [{backends}]\n", vip + 1)
    };
    let full: String = (0..4).map(|vip| service(vip, 1024)).collect();
    assert!(parse(&full, "k.toml").is_ok());
    check("too many backends", &(full + &service(4, 1)), &[&["k.toml:13:1: too many backends", "at most 4096"]]);
    let full: String = (0..1024).map(|vip| service(vip, 1)).collect();
    assert!(parse(&full, "k.toml").is_ok());
    check("too many services", &(full + &service(1024, 1)), &[&["k.toml:3073:1: 1025 services: at most 1024"]]);
}

#[test]
fn files_are_loaded() {
    let directory = std::env::temp_dir().join(format!("kplb-config-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let file = directory.join("kplb.toml");
    fs::write(&file, SERVICE).expect("written");
    let loaded = load(&file);
    fs::remove_dir_all(&directory).expect("removed");
    assert_eq!(loaded.expect("valid"), parse(SERVICE, "text").expect("valid"));
    assert!(matches!(load(&file), Err(LoadError::Read { path, .. }) if path == file));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = parse(&text, "any");
    }

    #[test]
    fn no_tokens_make_it_panic(tokens in prop::collection::vec(
        prop::sample::select(vec![
            "[[service]]", "[service]", "[[service.backend]]", "[node]", "[flows]", "[[", "]", "\n", "\n", " = ", "vip", "address",
            "max", "nat_ports", "'10s'", "'198.18.0.1:1'", "'1-2'", "1", "-1", "0x", "1e9", "true", "{", "}", ",", "\"", "é",
        ]),
        0..40,
    )) {
        let _ = parse(&tokens.concat(), "any");
    }

    /// Nor does a slip in a valid text, and what it says points into the text.
    #[test]
    fn no_slip_makes_it_panic(at: prop::sample::Index, length in 0_usize..20, inserted in ".{0,5}") {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, inserted.chars());
        let text: String = text.into_iter().collect();
        if let Err(problems) = parse(&text, "any") {
            prop_assert!(problems.iter().count() > 0);
            let n_lines = text.split('\n').count();
            for problem in problems.iter() {
                let Place::Text { line, column } = problem.place else { panic!("a place in the text") };
                prop_assert!((1..=n_lines).contains(&line) && column > 0);
            }
        }
    }
}
