//! How haproxy checks a server, in kplb's words.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    expect,
    global::Global,
    lines::Line,
    parameters::{Parameters, Verify},
    proxy::Settings,
};
use crate::{
    config::{CheckConfig, CheckKind, ClientCertificate, Statuses, value},
    import::{
        finding::{Findings, NOTHING_TO_DO, Written, brief, shown},
        fit::Times,
    },
};

/// haproxy's own values (configuration manual, section 5.2).
const INTERVAL: Duration = Duration::from_secs(2);
const RISE: u32 = 2;
const FALL: u32 = 3;

/// What is asked of a server over HTTP.
struct Request {
    method: String,
    path: String,
    host: Option<String>,
}

/// The check of a server; none if it has none. `written` is the server.
pub(super) fn read(
    settings: &Settings,
    parameters: &Parameters,
    global: &Global,
    written: &Written,
    findings: &mut Findings,
) -> Option<CheckConfig> {
    if !parameters.is_checked {
        return None;
    }
    former_methods(settings, findings);
    let mut check = CheckConfig { port: parameters.port.map(Into::into), ..CheckConfig::default() };
    // Where it is checked elsewhere, it is not asked in the way that clients ask it.
    let is_elsewhere = parameters.port.is_some() || parameters.has_address;
    let mut speaks_tls = parameters.checks_tls || parameters.is_tls && !is_elsewhere;
    let mut sni = parameters.sni.clone();
    let method = settings.method.as_ref();
    let option = method.and_then(|line| line.argument(1)).unwrap_or_default();
    let rules = match option {
        "httpchk" => settings.http_checks.as_slice(),
        "tcp-check" => settings.tcp_checks.as_slice(),
        _ => &[],
    };
    connect(rules, &mut check, &mut speaks_tls, &mut sni, findings);
    idle_rules(settings, option, findings);
    check.kind = if speaks_tls { CheckKind::Tls } else { CheckKind::Tcp };
    match (option, method) {
        ("httpchk", Some(method)) => {
            check.kind = if speaks_tls { CheckKind::Https } else { CheckKind::Http };
            http(method, rules, &mut check, findings);
        }
        ("ssl-hello-chk", Some(method)) => {
            check.kind = CheckKind::Tls;
            let why = "kplb completes the handshake (TLS 1.2 or newer), where haproxy sent a first message of SSL 3.0";
            let advice = "better: `type = \"https\"`, which asks the apiserver whether it is ready";
            findings.changed(&method.written, why, advice);
        }
        ("tcp-check", _) => tcp_rules(rules, findings),
        (_, Some(method)) => {
            let why = "kplb has no such check, and looks whether the server accepts connections";
            findings.changed(&method.written, why, "set another `type` in [service.check] if there is one");
        }
        (_, None) => {}
    }
    if check.kind.is_tls() {
        tls(parameters, sni, global, &mut check, written, findings);
    }
    times(settings, parameters).write(&mut check, written, findings);
    if let Some(spread) = global.spread_checks {
        check.jitter = spread;
    }
    Some(check)
}

fn former_methods(settings: &Settings, findings: &mut Findings) {
    let Some(method) = &settings.method else { return };
    for former in &settings.former_methods {
        let why = format!("`option {}` comes after it, and takes its place", method.argument(1).unwrap_or_default());
        findings.left_out(former, why, "leave the one away that is not meant");
    }
}

/// Rules of another check than the one that is made.
fn idle_rules(settings: &Settings, option: &str, findings: &mut Findings) {
    for (rules, of) in [(&settings.http_checks, "httpchk"), (&settings.tcp_checks, "tcp-check")] {
        for rule in rules.iter().filter(|_| option != of) {
            let why = format!("haproxy takes no notice of it, as its check is not by `option {of}`");
            findings.left_out(&rule.written, why, NOTHING_TO_DO);
        }
    }
}

/// `http-check connect` and `tcp-check connect`.
fn connect(
    rules: &[Line],
    check: &mut CheckConfig,
    speaks_tls: &mut bool,
    sni: &mut Option<String>,
    findings: &mut Findings,
) {
    let mut connects = rules.iter().filter(|rule| rule.argument(1) == Some("connect"));
    let Some(rule) = connects.next() else { return };
    let mut words = rule.words.iter().skip(2).map(String::as_str);
    let (mut has_tls, mut is_default) = (false, false);
    while let Some(word) = words.next() {
        match word {
            "ssl" => has_tls = true,
            "default" => is_default = true,
            "sni" => *sni = words.next().map(str::to_owned),
            "port" => {
                let port = words.next().unwrap_or_default();
                check.port = port.parse().ok().filter(|port| *port != 0).or(check.port);
                if check.port.is_none() {
                    let why = format!("{} is not a port; the server's own is checked", shown(port));
                    findings.changed(&rule.written, why, "set `port` in [service.check]");
                }
            }
            "comment" => drop(words.next()),
            "linger" => {}
            "addr" | "alpn" | "proto" => {
                let part = rule.written.part(format!("{word} {}", words.next().unwrap_or_default()));
                findings.left_out(&part, "kplb connects to the backend itself, and speaks HTTP/1.1", NOTHING_TO_DO);
            }
            _ => {
                let part = rule.written.part(word);
                findings.left_out(&part, "kplb connects as any client would", NOTHING_TO_DO);
            }
        }
    }
    *speaks_tls = has_tls || is_default && *speaks_tls;
    for other in connects {
        findings.left_out(&other.written, "a check of kplb connects once", NOTHING_TO_DO);
    }
}

fn tcp_rules(rules: &[Line], findings: &mut Findings) {
    for rule in rules {
        if !matches!(rule.argument(1), Some("connect" | "comment")) {
            let why = "kplb looks whether the server accepts connections, and talks nothing but HTTP to it";
            findings.left_out(&rule.written, why, "set `type` to \"http\" or \"https\" if the server speaks it");
        }
    }
}

/// `option httpchk` and its rules.
fn http(method: &Line, rules: &[Line], check: &mut CheckConfig, findings: &mut Findings) {
    let mut request = request_of_option(method);
    let mut sends = rules.iter().filter(|rule| rule.argument(1) == Some("send"));
    let mut written = &method.written;
    if let Some(send) = sends.next() {
        send_rule(send, &mut request, findings);
        written = &send.written;
    }
    for other in sends {
        findings.left_out(&other.written, "a check of kplb asks once", NOTHING_TO_DO);
    }
    if request.method != "GET" {
        let why = format!("kplb asks with GET, and not with {}", brief(&request.method));
        findings.changed(written, why, "see that GET is answered alike");
    }
    match value::path(&request.path) {
        Ok(path) => check.path = path,
        Err(_) => {
            check.path = "/".to_owned();
            let why = format!("{} is not a path that kplb can ask for; it asks for /", shown(&request.path));
            findings.changed(written, why, "set `path` in [service.check]");
        }
    }
    check.host = request.host.filter(|host| value::header(host).is_ok());
    let mut expects = rules.iter().filter(|rule| rule.argument(1) == Some("expect"));
    let expected = expects.next().and_then(|rule| expect::statuses(rule, findings));
    // Without a rule, any 2xx and 3xx is good.
    check.expect = expected.or_else(|| Statuses::parse("200-399").ok()).unwrap_or(check.expect.clone());
    for other in expects {
        findings.left_out(&other.written, "a check of kplb looks at one answer", NOTHING_TO_DO);
    }
    for rule in rules {
        let (why, advice) = match rule.argument(1).unwrap_or_default() {
            "connect" | "send" | "expect" | "comment" => continue,
            "disable-on-404" => (
                "to kplb every answer that is not expected means: no new connections, and what it has, it keeps",
                NOTHING_TO_DO,
            ),
            _ => ("a check of kplb has nothing like it", NOTHING_TO_DO),
        };
        findings.left_out(&rule.written, why, advice);
    }
}

/// `option httpchk [[METHOD] PATH [VERSION]]`. A version may have headers behind it.
fn request_of_option(line: &Line) -> Request {
    let (method, path, version) = match line.words.get(2..).unwrap_or_default() {
        [] => ("OPTIONS", "/", ""),
        [path] => ("OPTIONS", path.as_str(), ""),
        [method, path] => (method.as_str(), path.as_str(), ""),
        [method, path, version @ ..] => (
            method.as_str(),
            path.as_str(),
            version.iter().map(String::as_str).find(|text| text.contains('\n')).unwrap_or(""),
        ),
    };
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("host").then(|| value.trim().to_owned())
    };
    Request { method: method.to_owned(), path: path.to_owned(), host: version.lines().find_map(header) }
}

/// `http-check send`.
fn send_rule(rule: &Line, request: &mut Request, findings: &mut Findings) {
    let mut words = rule.words.iter().skip(2).map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "meth" => request.method = words.next().unwrap_or("GET").to_owned(),
            "uri" => request.path = words.next().unwrap_or("/").to_owned(),
            "hdr" => {
                let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                if name.eq_ignore_ascii_case("host") {
                    request.host = Some(value.to_owned());
                } else {
                    let part = rule.written.part(format!("hdr {name} {value}"));
                    let why = "kplb sends no headers but Host, and a token if there is one";
                    findings.left_out(&part, why, "for `Authorization: Bearer`, set `token_file`");
                }
            }
            "ver" | "comment" => drop(words.next()),
            "uri-lf" | "body" | "body-lf" => {
                let part = rule.written.part(format!("{word} {}", words.next().unwrap_or_default()));
                findings.left_out(&part, "kplb asks for a path, and sends nothing with it", NOTHING_TO_DO);
            }
            _ => {
                let part = rule.written.part(word);
                findings.left_out(&part, "`kplb import` does not know it", "look it up in haproxy's manual");
            }
        }
    }
}

/// Whose certificate is believed, and by what name.
fn tls(
    parameters: &Parameters,
    sni: Option<String>,
    global: &Global,
    check: &mut CheckConfig,
    written: &Written,
    findings: &mut Findings,
) {
    let verify = parameters.verify.unwrap_or(global.verify);
    if let (Verify::Required, Some(file)) = (verify, &parameters.ca_file) {
        check.ca_file = absolute(file, global.ca_base.as_deref());
        let part = written.part(format!("ca-file {}", file.display()));
        if check.ca_file.is_none() {
            let why = "kplb needs a path that begins with a slash; it takes any certificate now";
            findings.changed(&part, why, "set `ca_file` in [service.check]");
        } else if parameters.verify_host.is_none() && sni.is_none() {
            let why = "kplb looks, too, whether the certificate is for the backend's address";
            findings.changed(&part, why, "set `server_name` if it is for a name");
        }
    }
    if let Some(file) = &parameters.certificate {
        let part = written.part(format!("crt {}", file.display()));
        match absolute(file, global.crt_base.as_deref()) {
            Some(file) => {
                let why = "kplb reads both certificate and key from it; haproxy looks for the key in FILE.key, too";
                findings.changed(&part, why, "set `client_key_file` if the key is in a file of its own");
                check.client_certificate = Some(ClientCertificate { certificate_file: file.clone(), key_file: file });
            }
            None => {
                let why = "kplb needs a path that begins with a slash, and proves nothing of itself now";
                findings.changed(&part, why, "set `client_certificate_file` and `client_key_file`");
            }
        }
    }
    let name = if check.ca_file.is_some() { parameters.verify_host.clone().or(sni) } else { sni };
    if let Some(name) = name {
        match value::server_name(&name) {
            Ok(name) => check.server_name = Some(name),
            Err(_) => {
                let part = written.part(format!("check-sni {name}"));
                findings.left_out(&part, "it is no host's name", "set `server_name` in [service.check]");
            }
        }
    }
}

/// A path that does not depend on where kplb is started. Names with `@` are of no files.
fn absolute(file: &Path, base: Option<&Path>) -> Option<PathBuf> {
    if file.to_string_lossy().starts_with('@') {
        return None;
    }
    let path = base.map_or_else(|| file.to_owned(), |base| base.join(file));
    let is_fine = path.is_absolute() && path.to_str().is_some_and(|text| !text.chars().any(char::is_control));
    is_fine.then_some(path)
}

/// When it starts, and when it gives up.
///
/// Without `timeout check`, all of it has as long as `inter`; with it, the connection has `timeout connect`, at most as
/// long as `inter`, and the answer `timeout check` after that (configuration manual, `timeout check`).
fn times(settings: &Settings, parameters: &Parameters) -> Times {
    let interval = parameters.interval.unwrap_or(INTERVAL);
    let connect_timeout = settings.connect_timeout.filter(|time| !time.is_zero()).map_or(interval, |t| t.min(interval));
    let timeout = settings.check_timeout.map_or(interval, |time| connect_timeout.saturating_add(time));
    Times {
        interval,
        fast_interval: parameters.fast_interval.unwrap_or(interval),
        connect_timeout,
        timeout,
        rise: parameters.rise.unwrap_or(RISE),
        fall: parameters.fall.unwrap_or(FALL),
    }
}
