//! How haproxy checks servers, and how kplb does it then.

use std::time::Duration;

use super::{
    haproxy::{SERVER, backend, only},
    *,
};
use crate::config::{CheckConfig, CheckKind};

/// The check of the first server.
#[track_caller]
fn check(lines: &str) -> (Option<CheckConfig>, Vec<Finding>) {
    let (config, findings) = backend(lines);
    (config.services[0].backends[0].check.clone(), findings)
}

#[test]
fn checks_are_made_as_haproxy_makes_them() {
    for (lines, kind) in [
        (SERVER.to_owned(), None),
        (format!("{SERVER} check"), Some(CheckKind::Tcp)),
        (format!("{SERVER} check no-check"), None),
        (format!("{SERVER} check check-ssl verify none"), Some(CheckKind::Tls)),
        (format!("option httpchk\n{SERVER} check"), Some(CheckKind::Http)),
        (format!("option httpchk\n{SERVER} check check-ssl verify none"), Some(CheckKind::Https)),
        // The last one of them counts; seen of haproxy 2.6.
        (format!("option httpchk\noption ssl-hello-chk\n{SERVER} check"), Some(CheckKind::Tls)),
        (format!("option ssl-hello-chk\noption httpchk\n{SERVER} check"), Some(CheckKind::Http)),
        (format!("option tcp-check\ntcp-check connect ssl\n{SERVER} check verify none"), Some(CheckKind::Tls)),
        (format!("option tcp-check\ntcp-check connect\n{SERVER} check"), Some(CheckKind::Tcp)),
        // A rule says how to connect, and the server only where the rule says so.
        (format!("option httpchk\nhttp-check connect\n{SERVER} check check-ssl verify none"), Some(CheckKind::Http)),
        (
            format!("option httpchk\nhttp-check connect default\n{SERVER} check check-ssl verify none"),
            Some(CheckKind::Https),
        ),
        (format!("option httpchk\nhttp-check connect ssl\n{SERVER} check verify none"), Some(CheckKind::Https)),
        (format!("option mysql-check\n{SERVER} check"), Some(CheckKind::Tcp)),
        // The rules of another check have no effect.
        (format!("http-check connect ssl\n{SERVER} check verify none"), Some(CheckKind::Tcp)),
        (format!("default-server check\n{SERVER}"), Some(CheckKind::Tcp)),
        (format!("default-server check\n{SERVER} no-check"), None),
    ] {
        assert_eq!(check(&lines).0.map(|check| check.kind), kind, "{lines}");
    }
}

#[test]
fn requests_and_answers() {
    for (lines, path, host, expect, n_changed) in [
        ("option httpchk", "/", None, "200-399", 1),
        ("option httpchk /livez", "/livez", None, "200-399", 1),
        ("option httpchk GET /livez", "/livez", None, "200-399", 0),
        ("option httpchk HEAD /livez HTTP/1.0", "/livez", None, "200-399", 1),
        ("option httpchk GET /a HTTP/1.1\\r\\nHost:\\ api.example", "/a", Some("api.example"), "200-399", 0),
        ("option httpchk\nhttp-check send meth GET uri /b ver HTTP/1.1 hdr Host c", "/b", Some("c"), "200-399", 0),
        ("option httpchk GET /a\nhttp-check send hdr Host c\nhttp-check expect status 200", "/a", Some("c"), "200", 0),
        ("option httpchk GET /a\nhttp-check expect ! status 500-599", "/a", None, "100-499", 0),
        ("option httpchk GET /a\nhttp-check expect string ok", "/a", None, "200-399", 1),
        ("option httpchk GET *", "/", None, "200-399", 1),
    ] {
        let (check, findings) = check(&format!("{lines}\n{SERVER} check"));
        let check = check.expect("it is checked");
        assert_eq!((check.path.as_str(), check.host.as_deref()), (path, host), "{lines}");
        assert_eq!(check.expect.to_string(), expect, "{lines}");
        let changed = findings.iter().filter(|finding| finding.place.line() > 8 && finding.effect == Effect::Changed);
        assert_eq!(changed.count(), n_changed, "{lines}: {}", shown(&findings));
    }
    let rules = "option httpchk GET /a\nhttp-check disable-on-404\nhttp-check send-state\nhttp-check send hdr X y body z\n\
                 http-check expect status 200\nhttp-check send uri /b\nhttp-check expect status 201";
    let (_, findings) = check(&format!("{rules}\n{SERVER} check"));
    for (line, directive, words) in [
        (10, "http-check disable-on-404", "every answer that is not expected"),
        (11, "http-check send-state", "nothing like it"),
        (12, "hdr X y", "no headers but Host"),
        (12, "body z", "sends nothing with it"),
        (14, "http-check send uri /b", "asks once"),
        (15, "http-check expect status 201", "one answer"),
    ] {
        assert_found(&findings, line, directive, Effect::LeftOut, words);
    }
}

#[test]
fn times_of_checks() {
    let times = |parameters: &str, lines: &str| {
        let check = check(&format!("{lines}\n{SERVER} check {parameters}")).0.expect("it is checked");
        [check.interval, check.fast_interval, check.connect_timeout, check.timeout].map(|time| time.as_millis())
    };
    // haproxy's own: 2 s; 1 s to connect, and 4 s for the answer, as the defaults of this test say.
    assert_eq!(times("", ""), [2000, 2000, 1000, 5000]);
    assert_eq!(times("inter 500", ""), [500, 500, 500, 4500]);
    assert_eq!(times("inter 3s fastinter 100ms", ""), [3000, 100, 1000, 5000]);
    // Without `timeout check`, all of it has as long as `inter`.
    let text = "listen a\n bind 198.18.0.100:1\n timeout connect 5s\n server a 198.18.0.11:1 check\n server b 198.18.0.12:1 check inter 10s\n";
    let (config, _) = Scene::new().haproxy(text).imported();
    let times = only(&config)
        .backends
        .iter()
        .map(|backend| backend.check.as_ref().map(|check| (check.connect_timeout, check.timeout)));
    let seconds = Duration::from_secs;
    assert_eq!(times.collect::<Vec<_>>(), [Some((seconds(2), seconds(2))), Some((seconds(5), seconds(10)))]);
    // Port 0 is none.
    assert_eq!(check(&format!("{SERVER} check port 0")).0.and_then(|check| check.port), None);
    assert_eq!(check(&format!("{SERVER} check port 80")).0.and_then(|check| check.port), Some(80));
    // What is beyond kplb's bounds.
    let (check, findings) = check(&format!("{SERVER} check inter 2h fastinter 3h rise 1000 fall 1000"));
    let check = check.expect("it is checked");
    assert_eq!((check.interval, check.fast_interval, check.rise, check.fall), (seconds(3600), seconds(3600), 100, 100));
    for words in
        ["`interval` cannot be 2h", "`fast_interval` cannot be 3h", "`rise` cannot be 1000", "`fall` cannot be 1000"]
    {
        assert_found(&findings, 9, SERVER, Effect::Changed, words);
    }
}

#[test]
fn certificates_of_checks() {
    let tls = |parameters: &str, global: &str| {
        let text = format!(
            "global\n{global}\nlisten a\n bind 198.18.0.100:1\n server a 198.18.0.11:1 check check-ssl {parameters}\n"
        );
        let (config, findings) = Scene::new().haproxy(text).imported();
        (only(&config).backends[0].check.clone().expect("it is checked"), findings)
    };
    let (check, _) = tls("verify none ca-file /ca.crt check-sni kubernetes", "");
    assert_eq!((check.ca_file, check.server_name.as_deref()), (None, Some("kubernetes")));
    let (check, findings) = tls("ca-file /ca.crt", "");
    assert_eq!(check.ca_file.as_deref(), Some(Path::new("/ca.crt")));
    assert_found(&findings, 5, "ca-file /ca.crt", Effect::Changed, "for the backend's address");
    let (check, findings) =
        tls("ca-file ca.crt verifyhost kubernetes check-sni other crt c.pem", "ca-base /etc/ssl\ncrt-base /etc/crt");
    assert_eq!(check.ca_file.as_deref(), Some(Path::new("/etc/ssl/ca.crt")));
    assert_eq!(check.server_name.as_deref(), Some("kubernetes"));
    let certificate = check.client_certificate.expect("there is one");
    assert_eq!(
        (certificate.certificate_file, certificate.key_file),
        ("/etc/crt/c.pem".into(), "/etc/crt/c.pem".into())
    );
    assert!(of(&findings, 6, "ca-file ca.crt").is_empty(), "{}", shown(&findings));
    assert_found(&findings, 6, "crt c.pem", Effect::Changed, "FILE.key");
    // No file at all.
    assert_eq!(tls("ca-file @system-ca", "ca-base /etc/ssl").0.ca_file, None);
    let (check, findings) = tls("ca-file ca.crt crt c.pem check-sni -", "");
    assert_eq!((check.ca_file, check.client_certificate, check.server_name), (None, None, None));
    assert_found(&findings, 5, "ca-file ca.crt", Effect::Changed, "any certificate");
    assert_found(&findings, 5, "crt c.pem", Effect::Changed, "begins with a slash");
    assert_found(&findings, 5, "check-sni -", Effect::LeftOut, "no host's name");
    assert_eq!(tls("ca-file /ca.crt", "ssl-server-verify none").0.ca_file, None);
    assert_eq!(tls("", "spread-checks 20").0.jitter, 20);
}
