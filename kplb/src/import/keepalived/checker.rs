//! How keepalived checks a `real_server`: its checkers, and what they inherit.

use std::time::Duration;

use super::{globals, tree::Directive, value};
use crate::{
    config::{CheckConfig, CheckKind, Protocol, Statuses, value as config_value},
    import::{
        finding::{Findings, NOTHING_TO_DO, shown},
        fit,
    },
};

const CHECKERS: [&str; 10] = [
    "TCP_CHECK",
    "HTTP_GET",
    "SSL_GET",
    "MISC_CHECK",
    "SMTP_CHECK",
    "DNS_CHECK",
    "BFD_CHECK",
    "PING_CHECK",
    "UDP_CHECK",
    "FILE_CHECK",
];

/// What a checker has unless it says otherwise: from its server, and that from its virtual server.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    delay_loop: Option<Duration>,
    connect_timeout: Option<Duration>,
    retry: Option<u32>,
    delay_before_retry: Option<Duration>,
    virtualhost: Option<String>,
}

/// Whether this is the keyword of a checker.
pub(super) fn is_checker(keyword: &str) -> bool {
    CHECKERS.contains(&keyword)
}

impl Defaults {
    /// Takes a directive if it is one of these.
    pub(super) fn take(&mut self, directive: &Directive, findings: &mut Findings) -> bool {
        match directive.keyword() {
            "delay_loop" => self.delay_loop = value::seconds(directive, findings).or(self.delay_loop),
            "connect_timeout" => self.connect_timeout = value::seconds(directive, findings).or(self.connect_timeout),
            "retry" | "nb_get_retry" => {
                self.retry = value::number(directive, 0..=u32::MAX, findings).or(self.retry);
            }
            "delay_before_retry" => {
                self.delay_before_retry = value::seconds(directive, findings).or(self.delay_before_retry);
            }
            "virtualhost" => self.virtualhost = directive.argument().map(str::to_owned),
            "warmup" => {
                findings.left_out(&directive.written, "kplb's first checks start at once", NOTHING_TO_DO);
            }
            _ => return false,
        }
        true
    }
}

/// The check that does for these checkers; none if nothing is checked.
pub(super) fn read(
    checkers: &[&Directive],
    defaults: &Defaults,
    protocol: Protocol,
    findings: &mut Findings,
) -> Option<CheckConfig> {
    let is_kept = |checker: &&&Directive| matches!(checker.keyword(), "TCP_CHECK" | "HTTP_GET" | "SSL_GET");
    let kept = checkers.iter().find(is_kept);
    for checker in checkers {
        match kept {
            Some(kept) if std::ptr::eq(*kept, *checker) => {}
            Some(kept) => {
                let why = format!("kplb has one check for a backend, and that is the {}", kept.keyword());
                findings.left_out(&checker.written, why, NOTHING_TO_DO);
            }
            None => {
                let instead = match protocol {
                    Protocol::Tcp => "kplb has no such check, and looks whether the backend accepts connections",
                    Protocol::Udp => "kplb has no such check, and takes the backend for alive",
                };
                findings.left_out(&checker.written, instead, "set another `type` in [service.check] if there is one");
            }
        }
    }
    let checker = kept.or(checkers.first())?;
    let kind = match (checker.keyword(), protocol) {
        ("HTTP_GET", _) => CheckKind::Http,
        ("SSL_GET", _) => CheckKind::Https,
        ("TCP_CHECK", _) | (_, Protocol::Tcp) => CheckKind::Tcp,
        (_, Protocol::Udp) => return None,
    };
    // What a check that is left out says about itself is left out with it.
    let block = if kept.is_some() { checker.block.as_slice() } else { &[] };
    Some(check(checker, kind, defaults.clone(), block, findings))
}

fn check(
    checker: &Directive,
    kind: CheckKind,
    mut defaults: Defaults,
    block: &[Directive],
    findings: &mut Findings,
) -> CheckConfig {
    let mut check = CheckConfig { kind, ..CheckConfig::default() };
    let (mut urls, mut asks_for_name) = (Vec::new(), false);
    for directive in block {
        match directive.keyword() {
            "url" => urls.push(directive),
            "connect_port" => check.port = value::number(directive, 1..=u16::MAX, findings).or(check.port),
            "enable_sni" => asks_for_name = value::switch(directive, findings).unwrap_or(false),
            "connect_ip" | "bindto" | "bind_if" | "bind_port" | "fwmark" => {
                let why = "kplb checks the backend itself, as any program on this node would";
                findings.left_out(&directive.written, why, NOTHING_TO_DO);
            }
            "http_protocol" | "fast_recovery" | "alpha" => {
                findings.left_out(&directive.written, "kplb's checks are alike in this", NOTHING_TO_DO);
            }
            _ if defaults.take(directive, findings) => {}
            _ => globals::no_equivalent(directive, findings),
        }
    }
    let mut host = defaults.virtualhost.clone();
    if kind.is_http() {
        url(&urls, &mut check, &mut host, findings);
        let host = host.and_then(|host| config_value::header(&host).ok());
        if asks_for_name {
            check.server_name = host.as_deref().and_then(|host| config_value::server_name(host).ok());
        }
        check.host = host;
    }
    let connect_timeout = defaults.connect_timeout.unwrap_or(Duration::from_secs(5));
    let interval = defaults.delay_loop.unwrap_or(Duration::from_secs(60));
    // As keepalived has it where nothing is said.
    let (delay, retry) = match checker.keyword() {
        "HTTP_GET" | "SSL_GET" => (Duration::from_secs(3), 1),
        "MISC_CHECK" => (Duration::from_secs(1), 0),
        "DNS_CHECK" => (interval, 3),
        _ => (Duration::from_secs(1), 1),
    };
    // It must connect in this time, and then answer in it once more.
    let timeout = if kind.is_http() { connect_timeout * 2 } else { connect_timeout };
    let times = fit::Times {
        interval,
        fast_interval: defaults.delay_before_retry.unwrap_or(delay),
        connect_timeout,
        timeout,
        rise: 1,
        fall: defaults.retry.unwrap_or(retry).saturating_add(1),
    };
    times.write(&mut check, &checker.written, findings);
    check
}

/// What is asked for, and which answer is good.
fn url(urls: &[&Directive], check: &mut CheckConfig, host: &mut Option<String>, findings: &mut Findings) {
    check.path = "/".to_owned();
    check.expect = Statuses::parse("200-299").unwrap_or(check.expect.clone());
    for other in urls.iter().skip(1) {
        findings.left_out(&other.written, "kplb asks for one path", "choose the one that says most");
    }
    for directive in urls.first().iter().flat_map(|url| &url.block) {
        let text = directive.arguments().join(" ");
        match directive.keyword() {
            "path" => match config_value::path(&text) {
                Ok(path) => check.path = path,
                Err(_) => {
                    let why = format!("{} is not a path that kplb can ask for; it asks for /", shown(&text));
                    findings.changed(&directive.written, why, "set `path` in [service.check]");
                }
            },
            "status_code" => match Statuses::parse(&directive.arguments().join(",")) {
                Ok(statuses) => check.expect = statuses,
                Err(_) => {
                    let why = "it is no list of HTTP statuses; any 2xx is taken for good";
                    findings.changed(&directive.written, why, "set `expect` in [service.check]");
                }
            },
            "virtualhost" => *host = directive.argument().map(str::to_owned),
            "digest" | "regex" | "regex_no_match" | "regex_options" | "regex_stack" | "regex_min_offset"
            | "regex_max_offset" => {
                let why = "kplb goes by the status, and does not look at what is answered";
                findings.left_out(&directive.written, why, "have the server tell its state by the status");
            }
            _ => globals::no_equivalent(directive, findings),
        }
    }
}
