//! What follows a server's address, and `default-server` (configuration manual, section 5.2).

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use super::{lines::Line, time};
use crate::import::finding::{Findings, NOTHING_TO_DO, Written, shown};

/// What servers are like.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    pub(super) is_checked: bool,
    /// Whether its check speaks TLS, whatever its clients do.
    pub(super) checks_tls: bool,
    /// Whether its clients' connections are put into TLS.
    pub(super) is_tls: bool,
    pub(super) is_backup: bool,
    pub(super) is_disabled: bool,
    pub(super) interval: Option<Duration>,
    pub(super) fast_interval: Option<Duration>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
    pub(super) weight: Option<u32>,
    pub(super) slow_start: Option<Duration>,
    /// That it is checked at.
    pub(super) port: Option<NonZeroU16>,
    /// Whether it is checked at another address.
    pub(super) has_address: bool,
    pub(super) verify: Option<Verify>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) sni: Option<String>,
    pub(super) verify_host: Option<String>,
    /// Whether its connections end when it goes down.
    pub(super) shuts_down: bool,
}

/// Whether a server's certificate is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verify {
    None,
    Required,
}

/// Keywords that mean nothing to kplb: how many words follow them, and why.
const OTHERS: [(&str, usize, &str, &str); 65] = {
    const AGENT: &str = "kplb asks no agent";
    const CHECKED: &str = "kplb checks a backend at its own address, as a client would reach it";
    const CONNECTIONS: &str = "kplb opens no connections to backends: clients' own packets go there";
    const DNS: &str = "kplb resolves no names";
    const HTTP: &str = "kplb does not look into connections";
    const LIMIT: &str = "kplb sets no limit of connections";
    const OBSERVE: &str = "what kplb sees of connections starts a check at once, and decides nothing alone";
    const PROXY: &str = "kplb adds nothing to connections";
    const PLAIN: &str = "see that the server takes connections without it";
    const TLS: &str = "kplb speaks TLS in checks only, and in its own way";

    [
        ("addr", 1, CHECKED, NOTHING_TO_DO),
        ("agent-addr", 1, AGENT, NOTHING_TO_DO),
        ("agent-check", 0, AGENT, "drain backends by `kplb backend drain`"),
        ("agent-inter", 1, AGENT, NOTHING_TO_DO),
        ("agent-port", 1, AGENT, NOTHING_TO_DO),
        ("agent-send", 1, AGENT, NOTHING_TO_DO),
        ("allow-0rtt", 0, TLS, NOTHING_TO_DO),
        ("alpn", 1, TLS, NOTHING_TO_DO),
        ("check-alpn", 1, TLS, NOTHING_TO_DO),
        ("check-proto", 1, TLS, NOTHING_TO_DO),
        ("check-send-proxy", 0, PROXY, PLAIN),
        ("check-via-socks4", 0, CHECKED, NOTHING_TO_DO),
        ("ciphers", 1, TLS, NOTHING_TO_DO),
        ("ciphersuites", 1, TLS, NOTHING_TO_DO),
        ("client-sigalgs", 1, TLS, NOTHING_TO_DO),
        ("cookie", 1, HTTP, NOTHING_TO_DO),
        ("crl-file", 1, TLS, NOTHING_TO_DO),
        ("curves", 1, TLS, NOTHING_TO_DO),
        ("error-limit", 1, OBSERVE, NOTHING_TO_DO),
        ("force-sslv3", 0, TLS, NOTHING_TO_DO),
        ("force-tlsv10", 0, TLS, NOTHING_TO_DO),
        ("force-tlsv11", 0, TLS, NOTHING_TO_DO),
        ("force-tlsv12", 0, TLS, NOTHING_TO_DO),
        ("force-tlsv13", 0, TLS, NOTHING_TO_DO),
        ("hash-key", 1, "kplb places backends on its ring by their addresses", NOTHING_TO_DO),
        ("id", 1, "kplb knows backends by name", NOTHING_TO_DO),
        ("init-addr", 1, DNS, NOTHING_TO_DO),
        ("init-state", 1, "kplb uses no backend before its first good check", NOTHING_TO_DO),
        ("interface", 1, "kplb serves one interface", NOTHING_TO_DO),
        ("log-bufsize", 1, HTTP, NOTHING_TO_DO),
        ("log-proto", 1, HTTP, NOTHING_TO_DO),
        ("max-reuse", 1, HTTP, NOTHING_TO_DO),
        ("maxconn", 1, LIMIT, NOTHING_TO_DO),
        ("maxqueue", 1, LIMIT, NOTHING_TO_DO),
        ("minconn", 1, LIMIT, NOTHING_TO_DO),
        ("namespace", 1, CONNECTIONS, NOTHING_TO_DO),
        ("npn", 1, TLS, NOTHING_TO_DO),
        ("observe", 1, OBSERVE, NOTHING_TO_DO),
        ("on-error", 1, OBSERVE, NOTHING_TO_DO),
        ("on-marked-up", 1, "connections stay with their backend when another one comes back", NOTHING_TO_DO),
        ("pool-low-conn", 1, CONNECTIONS, NOTHING_TO_DO),
        ("pool-max-conn", 1, CONNECTIONS, NOTHING_TO_DO),
        ("pool-purge-delay", 1, CONNECTIONS, NOTHING_TO_DO),
        ("proto", 1, HTTP, NOTHING_TO_DO),
        ("proxy-v2-options", 1, PROXY, PLAIN),
        ("redir", 1, HTTP, NOTHING_TO_DO),
        ("resolve-net", 1, DNS, NOTHING_TO_DO),
        ("resolve-opts", 1, DNS, NOTHING_TO_DO),
        ("resolve-prefer", 1, DNS, NOTHING_TO_DO),
        ("resolvers", 1, DNS, "write the addresses; change them by hand when they change"),
        ("send-proxy", 0, PROXY, PLAIN),
        ("send-proxy-v2", 0, PROXY, PLAIN),
        ("send-proxy-v2-ssl", 0, PROXY, PLAIN),
        ("send-proxy-v2-ssl-cn", 0, PROXY, PLAIN),
        ("set-proxy-v2-tlv-fmt", 1, PROXY, PLAIN),
        ("shard", 1, HTTP, NOTHING_TO_DO),
        ("sigalgs", 1, TLS, NOTHING_TO_DO),
        ("sni", 1, TLS, NOTHING_TO_DO),
        ("socks4", 1, CONNECTIONS, NOTHING_TO_DO),
        ("ssl-max-ver", 1, TLS, NOTHING_TO_DO),
        ("ssl-min-ver", 1, TLS, NOTHING_TO_DO),
        ("tcp-ut", 1, CONNECTIONS, NOTHING_TO_DO),
        ("tfo", 0, CONNECTIONS, NOTHING_TO_DO),
        ("usesrc", 1, CONNECTIONS, NOTHING_TO_DO),
        ("ws", 1, HTTP, NOTHING_TO_DO),
    ]
};

/// Keywords that nothing follows.
const FLAGS: [&str; 10] = [
    "check",
    "no-check",
    "check-ssl",
    "no-check-ssl",
    "ssl",
    "no-ssl",
    "backup",
    "no-backup",
    "disabled",
    "no-verifyhost",
];

/// Keywords that a value follows.
const VALUED: [&str; 16] = [
    "inter",
    "fastinter",
    "downinter",
    "slowstart",
    "rise",
    "fall",
    "weight",
    "port",
    "verify",
    "ca-file",
    "crt",
    "check-sni",
    "verifyhost",
    "on-marked-down",
    "track",
    "source",
];

/// Keywords that say what kplb does anyway, or that have no effect on what it does.
const SILENT: [&str; 19] = [
    "enabled",
    "no-agent-check",
    "no-check-send-proxy",
    "no-send-proxy",
    "no-send-proxy-v2",
    "no-send-proxy-v2-ssl",
    "no-send-proxy-v2-ssl-cn",
    "no-ssl-reuse",
    "no-sslv3",
    "no-tfo",
    "no-tls-tickets",
    "no-tlsv10",
    "no-tlsv11",
    "no-tlsv12",
    "no-tlsv13",
    "non-stick",
    "ssl-reuse",
    "stick",
    "tls-tickets",
];

impl Parameters {
    /// Takes the words from `first` on; what they do not say stays as it is.
    pub(super) fn take(&mut self, line: &Line, first: usize, findings: &mut Findings) {
        let mut words = line.words.get(first..).unwrap_or_default().iter().map(String::as_str).peekable();
        while let Some(keyword) = words.next() {
            if SILENT.contains(&keyword) || self.flag(keyword) {
                continue;
            }
            if VALUED.contains(&keyword) {
                self.value(keyword, words.next(), &line.written, findings);
            } else if let Some((_, n, why, advice)) = OTHERS.into_iter().find(|(other, ..)| *other == keyword) {
                let text = [keyword].into_iter().chain(words.by_ref().take(n)).collect::<Vec<_>>().join(" ");
                findings.left_out(&line.written.part(text), why, advice);
                self.has_address |= keyword == "addr";
            } else {
                let (why, advice) = ("`kplb import` does not know it", "look it up in haproxy's manual");
                findings.left_out(&line.written.part(keyword), why, advice);
                // It may have a value.
                words.next_if(|value| !is_known(value));
            }
        }
    }

    /// Keywords that nothing follows.
    fn flag(&mut self, keyword: &str) -> bool {
        match keyword {
            "check" => self.is_checked = true,
            "no-check" => self.is_checked = false,
            "check-ssl" => self.checks_tls = true,
            "no-check-ssl" => self.checks_tls = false,
            "ssl" => self.is_tls = true,
            "no-ssl" => self.is_tls = false,
            "backup" => self.is_backup = true,
            "no-backup" => self.is_backup = false,
            "disabled" => self.is_disabled = true,
            "no-verifyhost" => self.verify_host = None,
            _ => return false,
        }
        true
    }

    /// Keywords that a value follows.
    fn value(&mut self, keyword: &str, value: Option<&str>, written: &Written, findings: &mut Findings) {
        let part = written.part(value.map_or_else(|| keyword.to_owned(), |value| format!("{keyword} {value}")));
        let mut time = |field: &mut Option<Duration>| match value.and_then(time::parse) {
            Some(time) => *field = Some(time),
            None => wrong(&part, "a time", findings),
        };
        match keyword {
            "inter" => time(&mut self.interval),
            "fastinter" => time(&mut self.fast_interval),
            "slowstart" => time(&mut self.slow_start),
            "downinter" => {
                let why = "kplb checks a backend that is down as often as one that is up";
                findings.left_out(&part, why, "set `interval` to the shorter one, if that matters");
            }
            "rise" => number(&mut self.rise, value, &part, findings),
            "fall" => number(&mut self.fall, value, &part, findings),
            "weight" => number(&mut self.weight, value, &part, findings),
            "port" => number(&mut self.port, value, &part, findings),
            "verify" => match value {
                Some("none") => self.verify = Some(Verify::None),
                Some("required") => self.verify = Some(Verify::Required),
                _ => wrong(&part, "none or required", findings),
            },
            "ca-file" => self.ca_file = value.map(PathBuf::from),
            "crt" => self.certificate = value.map(PathBuf::from),
            "check-sni" => self.sni = value.map(str::to_owned),
            "verifyhost" => self.verify_host = value.map(str::to_owned),
            "on-marked-down" => self.shuts_down = value == Some("shutdown-sessions"),
            "track" => {
                self.is_checked = true;
                let why = "kplb checks each backend by itself";
                findings.changed(&part, why, "see that the check fits the backend");
            }
            _ => {
                // The source of its connections.
                let why = "a backend sees the node's address, or, on the node itself, the client's";
                findings.left_out(&part, why, NOTHING_TO_DO);
            }
        }
    }
}

/// Whether a word is a keyword of servers.
fn is_known(word: &str) -> bool {
    FLAGS.contains(&word)
        || VALUED.contains(&word)
        || SILENT.contains(&word)
        || OTHERS.iter().any(|(other, ..)| *other == word)
}

fn number<T: std::str::FromStr>(
    field: &mut Option<T>,
    value: Option<&str>,
    written: &Written,
    findings: &mut Findings,
) {
    match value.and_then(|value| value.parse().ok()) {
        Some(number) => *field = Some(number),
        None => wrong(written, "a number", findings),
    }
}

fn wrong(written: &Written, expected: &str, findings: &mut Findings) {
    let why = format!("{} is not followed by {expected}", shown(&written.text));
    findings.left_out(written, why, "haproxy refuses it as well: correct it");
}
