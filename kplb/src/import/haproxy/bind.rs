//! `bind`: where clients connect to.

use super::{
    address::{self, Endpoint, Host},
    lines::Line,
};
use crate::import::{
    finding::{Findings, NOTHING_TO_DO, Written},
    reading::Reading,
    wanted::{Address, Families, Listener},
};

/// Longer ranges of ports are not meant for an apiserver.
const MAX_PORTS: u16 = 64;

/// What a `bind` says.
#[derive(Debug, Default)]
pub(super) struct Bind {
    pub(super) listeners: Vec<Listener>,
    /// That clients speak TLS to haproxy itself.
    pub(super) tls: Option<Written>,
}

/// Parameters that name or tune a socket, and the number of words that follow each.
const SILENT: [(&str, usize); 12] = [
    ("name", 1),
    ("id", 1),
    ("transparent", 0),
    ("v4v6", 0),
    ("v6only", 0),
    ("defer-accept", 0),
    ("tfo", 0),
    ("nice", 1),
    ("process", 1),
    ("thread", 1),
    ("shards", 1),
    ("backlog", 1),
];

/// Parameters that something follows, of those that are reported.
const VALUED: [&str; 40] = [
    "accept-netscaler-cip",
    "alpn",
    "ca-file",
    "ca-ignore-err",
    "ca-sign-file",
    "ca-sign-pass",
    "ca-verify-file",
    "cc",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "crl-file",
    "crt",
    "crt-ignore-err",
    "crt-list",
    "curves",
    "default-crt",
    "ecdhe",
    "expose-fd",
    "gid",
    "group",
    "guid-prefix",
    "idle-ping",
    "interface",
    "label",
    "level",
    "maxconn",
    "mode",
    "mss",
    "namespace",
    "npn",
    "proto",
    "quic-cc-algo",
    "quic-socket",
    "sigalgs",
    "severity-output",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-md5sig",
    "tcp-ut",
];

/// Reads one.
pub(super) fn read(line: &Line, reading: &mut Reading<'_>, findings: &mut Findings) -> Bind {
    let mut bind = Bind::default();
    let any6 = if line.words.iter().any(|word| word == "v6only") { Families::V6 } else { Families::Both };
    for text in line.argument(1).unwrap_or_default().split(',') {
        bind.listeners.extend(listeners(text, line, any6, reading, findings));
    }
    bind.parameters(line, findings);
    bind
}

/// What an address of a `bind` stands for; `any6`: what that of every address of IPv6 does.
fn listeners(
    text: &str,
    line: &Line,
    any6: Families,
    reading: &mut Reading<'_>,
    findings: &mut Findings,
) -> Vec<Listener> {
    let written = line.written.part(format!("bind {text}"));
    let Endpoint { host, port } = address::parse(text);
    let address = match host {
        Host::Any4 => Address::All(Families::V4),
        Host::Any6 => Address::All(any6),
        Host::Address(address) => Address::One(address),
        Host::Name(name) => match reading.resolve(&name).first() {
            Some(address) => {
                let why = format!("kplb resolves no names; this one stands for {address} now");
                findings.changed(&written, why, "check that it is the VIP");
                Address::One(*address)
            }
            None => {
                findings.left_out(&written, "the name cannot be resolved here", "write the address");
                return Vec::new();
            }
        },
        Host::Socket => {
            let why = "kplb balances what comes over TCP from other hosts";
            findings.left_out(&written, why, NOTHING_TO_DO);
            return Vec::new();
        }
    };
    match port.as_deref().and_then(address::ports) {
        Some((first, last)) if last - first < MAX_PORTS => {
            (first..=last).map(|port| Listener { address, port, written: line.written.clone() }).collect()
        }
        Some(_) => {
            let why = format!("it listens at more than {MAX_PORTS} ports, and each would be a service");
            findings.left_out(&written, why, "list those that are used");
            Vec::new()
        }
        None => {
            findings.left_out(&written, "it has no port", "haproxy refuses it as well: correct it");
            Vec::new()
        }
    }
}

impl Bind {
    /// What follows the address.
    fn parameters(&mut self, line: &Line, findings: &mut Findings) {
        let mut words = line.words.iter().skip(2).map(String::as_str);
        while let Some(word) = words.next() {
            if let Some((_, n)) = SILENT.into_iter().find(|(silent, _)| *silent == word) {
                words.by_ref().take(n).for_each(drop);
                continue;
            }
            let value = if VALUED.contains(&word) { words.next() } else { None };
            let written = line.written.part(value.map_or_else(|| word.to_owned(), |value| format!("{word} {value}")));
            match word {
                "ssl" => {
                    let why = "kplb ends no TLS: clients speak it with the backend, and see that one's certificate";
                    findings.changed(&written, why, "see that the backends' certificates are for the VIP, too");
                    self.tls = Some(written);
                }
                "accept-proxy" | "accept-netscaler-cip" => {
                    let why = "kplb reads nothing of what clients send, so the backends get these headers";
                    findings.changed(&written, why, "take the balancer away that sends them");
                }
                "interface" => {
                    let why = "kplb serves the interface that it is attached to";
                    findings.left_out(&written, why, "attach it to this one");
                }
                "maxconn" => findings.left_out(&written, "kplb sets no limit of connections", NOTHING_TO_DO),
                _ => findings.left_out(&written, "it is about haproxy's own socket or TLS", NOTHING_TO_DO),
            }
        }
    }
}
