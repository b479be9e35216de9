//! Tests of the settings of health checks, and of what follows from health.

use super::*;

/// A service with this check, and that of its one backend.
fn checked(service: &str, backend: &str) -> Option<CheckConfig> {
    let text = format!(
        "[[service]]\nvip = '198.18.0.100:1'\n[service.check]\n{service}\n[[service.backend]]\naddress = '198.18.0.11:1'\n\
         [service.backend.check]\n{backend}\n"
    );
    let config = parse(&text, "check").unwrap_or_else(|problems| panic!("{problems}"));
    config.services[0].backends[0].check.clone()
}

#[test]
fn checks_are_of_an_apiserver_unless_said_otherwise() {
    assert_eq!(checked("", ""), Some(CheckConfig::default()));
    assert_eq!(checked("type = 'none'", ""), None);
    assert_eq!(checked("", "type = 'none'"), None);
    assert_eq!(checked("type = 'none'", "type = 'https'"), Some(CheckConfig::default()));
    // Nobody knows how to ask a UDP service.
    let udp = "[[service]]\nvip = '198.18.0.100:1'\nprotocol = 'udp'\nbackend = [{ address = '198.18.0.11:1' }]";
    assert_eq!(parse(udp, "udp").expect("valid").services[0].backends[0].check, None);
}

#[test]
fn every_setting_of_a_check_is_taken() {
    let all = r#"
        type = "https"
        port = 8443
        path = "/livez?verbose"
        expect = "200-299, 401"
        host = "api.example:6443"
        server_name = "api.example"
        ca_file = "/etc/kplb/ca.pem"
        client_certificate_file = "/etc/kplb/client.pem"
        client_key_file = "/etc/kplb/key.pem"
        token_file = "/etc/kplb/token"
        interval = "5s"
        fast_interval = "1s"
        connect_timeout = "100ms"
        timeout = "2s"
        rise = 1
        fall = 100
        jitter = 0
    "#;
    let expected = CheckConfig {
        kind: CheckKind::Https,
        port: Some(8443),
        path: "/livez?verbose".to_owned(),
        expect: Statuses::parse("200-299,401").unwrap_or_else(|wrong| panic!("{}", wrong.message)),
        host: Some("api.example:6443".to_owned()),
        server_name: Some("api.example".to_owned()),
        ca_file: Some("/etc/kplb/ca.pem".into()),
        client_certificate: Some(ClientCertificate {
            certificate_file: "/etc/kplb/client.pem".into(),
            key_file: "/etc/kplb/key.pem".into(),
        }),
        token_file: Some("/etc/kplb/token".into()),
        interval: Duration::from_secs(5),
        fast_interval: Duration::from_secs(1),
        connect_timeout: Duration::from_millis(100),
        timeout: Duration::from_secs(2),
        rise: 1,
        fall: 100,
        jitter: 0,
    };
    assert_eq!(checked(all, ""), Some(expected.clone()));
    assert_eq!(expected.expect.to_string(), "200-299,401");
    // A backend says only what is different.
    assert_eq!(checked(all, "port = 6443").map(|check| check.port), Some(Some(6443)));
    assert_eq!(checked("", all), Some(expected));
}

#[test]
fn defaults_follow_what_is_said() {
    let check = checked("interval = '100ms'\ntimeout = '200ms'", "").expect("checked");
    assert_eq!((check.fast_interval, check.connect_timeout), (Duration::from_millis(100), Duration::from_millis(200)));
}

#[test]
fn wrong_checks() {
    let cases: &[(&str, &str, &[&[&str]])] = &[
        (
            "no table",
            "check = 'tcp'",
            &[&["k.toml:3:9: `service.check` cannot be of type string: write it as the table [service.check]"]],
        ),
        (
            "unknown type",
            "check = { type = 'ping' }",
            &[&["k.toml:3:18: unknown type `ping`: use \"tcp\" or \"tls\" or \"http\" or \"https\" or \"none\""]],
        ),
        ("misspelled", "check = { intervall = '1s' }", &[&["unknown key `intervall`: did you mean `interval`?"]]),
        (
            "path without HTTP",
            "check = { type = 'tls', path = '/x' }",
            &[&["k.toml:3:32: a check of type \"tls\" has no use for `path`: leave it out"]],
        ),
        ("name without TLS", "check = { type = 'http', server_name = 'a' }", &[&["no use for `server_name`"]]),
        (
            "nothing to check",
            "check = { type = 'none', token_file = '/t' }",
            &[&["type \"none\" has no use for `token_file`"]],
        ),
        ("path", "check = { path = 'readyz' }", &[&["`readyz` is not a path: begin with a slash"]]),
        ("status", "check = { expect = '20' }", &[&["`20` is not a set of HTTP statuses"]]),
        ("statuses reversed", "check = { expect = '299-200' }", &[&["is not a set of HTTP statuses"]]),
        ("host", "check = { host = 'a b' }", &[&["`a b` cannot stand in a header"]]),
        ("server name", "check = { server_name = 'a_b!' }", &[&["`a_b!` is not a host's name or address"]]),
        ("relative file", "check = { ca_file = 'ca.pem' }", &[&["`ca.pem` is not an absolute path"]]),
        ("key alone", "check = { client_key_file = '/k' }", &[&["the client's key has no certificate: add"]]),
        ("certificate alone", "check = { client_certificate_file = '/c' }", &[&["certificate has no key: add"]]),
        ("interval", "check = { interval = '1ms' }", &[&["`1ms` makes no sense here: it must be 20ms to 1h"]]),
        ("fast is slow", "check = { fast_interval = '2s' }", &[&["`fast_interval` is longer than `interval`"]]),
        ("late", "check = { connect_timeout = '4s' }", &[&["`connect_timeout` is longer than `timeout`"]]),
        ("fall", "check = { fall = 0 }", &[&["0 is out of range: it must be 1 to 100"]]),
        ("jitter", "check = { jitter = 51 }", &[&["51 is out of range: it must be 0 to 50"]]),
        ("port", "check = { port = 0 }", &[&["0 is out of range: it must be 1 to 65535"]]),
        ("on_down", "on_down = 'drop'", &[&["unknown on_down `drop`: use \"reset\" or \"keep\""]]),
        ("drain_timeout", "drain_timeout = '0s'", &[&["`0s` makes no sense here: it must be 1s to 7days"]]),
    ];
    for (name, added, expected) in cases {
        let service = "[[service]]\nvip = '198.18.0.100:1'\n";
        check(name, &format!("{service}{added}\nbackend = [{{ address = '198.18.0.11:1' }}]\n"), expected);
    }
}
