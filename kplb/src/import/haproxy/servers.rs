//! `server`, `server-template` and `dispatch`: what is behind a proxy.

use std::net::IpAddr;

use super::{
    address::{self, Endpoint, Host},
    check,
    global::Global,
    lines::Line,
    parameters::Parameters,
    proxy::Proxy,
};
use crate::{
    config::MAX_WEIGHT,
    import::{
        finding::{Findings, NOTHING_TO_DO, Written, brief},
        reading::Reading,
        wanted::{Port, Server},
    },
};

/// Servers that a template makes at most.
const MAX_TEMPLATE: usize = 64;

/// The servers of a proxy, in their order.
pub(super) fn read(proxy: &Proxy, global: &Global, reading: &mut Reading<'_>, findings: &mut Findings) -> Vec<Server> {
    let mut servers = Vec::new();
    let mut stand_by = StandBy::new(proxy);
    for (line, parameters) in &proxy.servers {
        let written = short(line);
        for (name, address, port) in addresses(line, &written, reading, findings) {
            let check = check::read(&proxy.settings, parameters, global, &written, findings);
            let weight = parameters.weight.unwrap_or(1).min(u32::from(MAX_WEIGHT));
            let mut server = Server { name, written: written.clone(), address, port, weight, check, note: None };
            stand_by.put(&mut server, parameters, findings);
            servers.push(server);
        }
    }
    servers
}

/// A server in short: keyword, name and address.
fn short(line: &Line) -> Written {
    let n = if line.keyword() == "server-template" { 4 } else { 3 };
    line.written.part(line.words.iter().take(n).cloned().collect::<Vec<_>>().join(" "))
}

/// Names and addresses that a line stands for.
fn addresses(
    line: &Line,
    written: &Written,
    reading: &mut Reading<'_>,
    findings: &mut Findings,
) -> Vec<(Option<String>, IpAddr, Port)> {
    let (mut names, text) = match (line.keyword(), line.arguments()) {
        ("dispatch", [address, ..]) => (vec![None], address),
        ("server", [name, address, ..]) => (vec![Some(name.clone())], address),
        ("server-template", [prefix, number, address, ..]) => (template(prefix, number), address),
        _ => {
            findings.left_out(written, "it has no address", "haproxy refuses it as well: correct it");
            return Vec::new();
        }
    };
    let Endpoint { host, port } = address::parse(text);
    let Some(port) = self::port(port.as_deref()) else {
        findings.left_out(written, "its port is none", "haproxy refuses it as well: correct it");
        return Vec::new();
    };
    let addresses = match host {
        Host::Address(address) => vec![address],
        Host::Name(name) => {
            let mut addresses = reading.resolve(&name);
            match names.as_slice() {
                // It has an address for the clients of each family.
                [only] => {
                    let first = |is_like: fn(&IpAddr) -> bool| addresses.iter().copied().find(is_like);
                    addresses = [first(IpAddr::is_ipv4), first(IpAddr::is_ipv6)].into_iter().flatten().collect();
                    names = vec![only.clone(); addresses.len()];
                }
                _ => addresses.truncate(names.len()),
            }
            let list: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
            if list.is_empty() {
                let why = format!("kplb resolves no names, and {} cannot be resolved here", brief(&name));
                findings.left_out(written, why, "add a [[service.backend]] with its address");
            } else {
                let why = format!("kplb resolves no names; this one stands for {} now", list.join(", "));
                findings.changed(written, why, "write the address; change it by hand when it changes");
            }
            addresses
        }
        Host::Any4 | Host::Any6 => {
            let why = "haproxy sends to wherever the client wanted to; kplb's backends have addresses";
            findings.left_out(written, why, "add a [[service.backend]] with its address");
            Vec::new()
        }
        Host::Socket => {
            findings.left_out(written, "kplb's backends have addresses", "let the server listen at one");
            Vec::new()
        }
    };
    names.into_iter().zip(addresses).map(|(name, address)| (name, address, port)).collect()
}

/// `prefix` and the numbers of a range, or from 1 on.
fn template(prefix: &str, number: &str) -> Vec<Option<String>> {
    let (first, last) = number.split_once('-').unwrap_or(("1", number));
    let (first, last) = (first.parse::<usize>().unwrap_or(1), last.parse::<usize>().unwrap_or(0));
    (first..=last).take(MAX_TEMPLATE).map(|number| Some(format!("{prefix}{number}"))).collect()
}

/// The port of a server; without one, that of the listener.
fn port(text: Option<&str>) -> Option<Port> {
    let Some(text) = text else { return Some(Port::Offset(0)) };
    if text.starts_with(['+', '-']) {
        return text.parse::<i32>().ok().map(Port::Offset);
    }
    text.parse().ok().map(|port| if port == 0 { Port::Offset(0) } else { Port::Fixed(port) })
}

/// Servers that have no connections unless something happens: backups, and those that are switched off.
struct StandBy {
    /// Whether there are servers that backups stand in for.
    has_others: bool,
    has_all_backups: bool,
    /// Whether a backup is in use already.
    has_first: bool,
}

impl StandBy {
    fn new(proxy: &Proxy) -> Self {
        let has_others = proxy.servers.iter().any(|(_, parameters)| !parameters.is_backup && !parameters.is_disabled);
        Self { has_others, has_all_backups: proxy.settings.has_all_backups, has_first: false }
    }

    /// Takes a server's weight if it is one of them.
    fn put(&mut self, server: &mut Server, parameters: &Parameters, findings: &mut Findings) {
        if parameters.is_disabled {
            server.weight = 0;
            server.note = Some("disabled in haproxy: `weight = 1` to use it".to_owned());
            let why = "kplb has no backend that starts switched off; with weight 0 it gets no new connections";
            let advice = "`kplb backend maintenance` switches one off";
            findings.changed(&server.written.part("disabled"), why, advice);
            return;
        }
        if !parameters.is_backup {
            return;
        }
        let written = server.written.part("backup");
        if !self.has_others && (!self.has_first || self.has_all_backups) {
            self.has_first = true;
            let why = "there is no server that it could stand in for, so it is used";
            findings.changed(&written, why, NOTHING_TO_DO);
            return;
        }
        server.weight = 0;
        server.note = Some("a backup in haproxy: `weight = 1` when the others are gone".to_owned());
        let why = "no backend of kplb stands in for others; with weight 0 it gets no new connections";
        findings.changed(&written, why, "give it a weight if it may serve like the others");
    }
}
