//! A `virtual_server`: what keepalived has IPVS balance.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use kplb_common::service::Persistence;

use super::{
    checker::{self, Defaults},
    globals,
    tree::Directive,
    value,
};
use crate::{
    config::{OnDown, Protocol},
    import::{
        finding::{Findings, NOTHING_TO_DO, Written},
        wanted::{Address, Listener, Port, Server, Wanted},
    },
};

/// A range of VIPs longer than this is not meant for an apiserver.
const MAX_RANGE: u128 = 256;

/// Groups of virtual servers, by name.
pub(super) type Groups<'d> = HashMap<&'d str, &'d Directive>;

/// The groups of a file.
pub(super) fn groups(file: &[Directive]) -> Groups<'_> {
    let groups = file.iter().filter(|directive| directive.keyword() == "virtual_server_group");
    groups.filter_map(|group| Some((group.argument()?, group))).collect()
}

/// Reads one; none if kplb can do nothing of it, which is said in `findings`.
pub(super) fn read(block: &Directive, groups: &Groups<'_>, findings: &mut Findings) -> Option<Wanted> {
    let listeners = match block.arguments() {
        [kind, name, ..] if kind == "group" => group(name, block, groups, findings)?,
        [kind, ..] if kind == "fwmark" => {
            let why = "kplb tells services by address and port, and not by marks of a firewall";
            findings.left_out(&block.written, why, "write the address and the port that were marked");
            return None;
        }
        arguments => match arguments.first().and_then(|address| value::address(address)) {
            Some(address) => vec![listener(address, arguments.get(1), &block.written, findings)?],
            None => {
                findings.left_out(&block.written, "it has no address", "write it, and a port, after the keyword");
                return None;
            }
        },
    };
    let mut own_findings = Findings::default();
    let reader = Reader::new(block).read(&mut own_findings);
    let Some(wanted) = reader.wanted(listeners, &mut own_findings) else {
        findings.left_out(&block.written, "there is no server behind it", "list one, as a real_server");
        return None;
    };
    findings.append(own_findings);
    Some(wanted)
}

fn listener(address: IpAddr, port: Option<&String>, written: &Written, findings: &mut Findings) -> Option<Listener> {
    let port = port.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
    if port.is_none() {
        findings.left_out(written, "kplb's services have one port each", "write one for each port that is in use");
    }
    port.map(|port| Listener { address: Address::One(address), port, written: written.clone() })
}

/// The addresses and ports of a `virtual_server_group`.
fn group(name: &str, block: &Directive, groups: &Groups<'_>, findings: &mut Findings) -> Option<Vec<Listener>> {
    let Some(group) = groups.get(name) else {
        findings.left_out(&block.written, "there is no virtual_server_group of this name", "add it");
        return None;
    };
    let mut listeners = Vec::new();
    for line in &group.block {
        let Some(addresses) = range(line.keyword()) else {
            let why = "it is neither an address nor a range of some; kplb has no marks of a firewall";
            findings.left_out(&line.written, why, "write a virtual_server for each address");
            continue;
        };
        for address in addresses {
            listeners.extend(listener(address, line.arguments().first(), &line.written, findings));
        }
    }
    (!listeners.is_empty()).then_some(listeners)
}

/// `198.18.0.1`, `198.18.0.1-10`, `198.18.0.1-198.18.0.10`, `198.18.0.8/29`, and the same of IPv6.
fn range(text: &str) -> Option<Vec<IpAddr>> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let first: IpAddr = text.split(['-', '/']).next()?.parse().ok()?;
    let (bits, start) = (if first.is_ipv4() { 32 } else { 128 }, number(first));
    let end = if let Some((_, last)) = text.split_once('-') {
        match last.parse::<IpAddr>() {
            Ok(last) => number(last),
            // The last part alone.
            Err(_) if first.is_ipv4() => start & !0xff | u128::from(last.parse::<u8>().ok()?),
            Err(_) => start & !0xffff | u128::from(u16::from_str_radix(last, 16).ok()?),
        }
    } else if let Some((_, length)) = text.split_once('/') {
        let length: u32 = length.parse().ok().filter(|length| *length <= bits)?;
        let host = u128::MAX.checked_shr(128 - (bits - length)).unwrap_or(0);
        start | host
    } else {
        start
    };
    let n = end.checked_sub(start)?;
    if n >= MAX_RANGE {
        return None;
    }
    let address = |number: u128| match first {
        IpAddr::V4(_) => u32::try_from(number).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(_) => Some(Ipv6Addr::from_bits(number).into()),
    };
    (start..=end).map(address).collect()
}

/// What stands in a `virtual_server`.
struct Reader<'d> {
    block: &'d Directive,
    defaults: Defaults,
    scheduler: Option<&'d Directive>,
    /// `sh-port`, `mh-port`.
    hashes_ports: Option<&'d Directive>,
    persistence: Option<&'d Directive>,
    method: Option<&'d Directive>,
    protocol: Option<&'d Directive>,
    inhibits: bool,
    servers: Vec<&'d Directive>,
}

impl<'d> Reader<'d> {
    fn new(block: &'d Directive) -> Self {
        Self {
            block,
            defaults: Defaults::default(),
            scheduler: None,
            hashes_ports: None,
            persistence: None,
            method: None,
            protocol: None,
            inhibits: false,
            servers: Vec::new(),
        }
    }

    fn read(mut self, findings: &mut Findings) -> Self {
        for directive in &self.block.block {
            match directive.keyword() {
                "real_server" => self.servers.push(directive),
                "lvs_sched" | "lb_algo" => self.scheduler = Some(directive),
                "lvs_method" | "lb_kind" => self.method = Some(directive),
                "sh-port" | "mh-port" => self.hashes_ports = Some(directive),
                "persistence_timeout" => self.persistence = Some(directive),
                "protocol" => self.protocol = Some(directive),
                "inhibit_on_failure" => self.inhibits = value::switch(directive, findings).unwrap_or(false),
                "sorry_server" | "sorry_server_inhibit" | "sorry_server_lvs_method" => {
                    let why = "without a backend kplb refuses clients at once, and leads them nowhere else";
                    findings.left_out(&directive.written, why, "give it as a real_server if it can serve clients");
                }
                "quorum" | "hysteresis" | "quorum_up" | "quorum_down" => {
                    let why = "kplb uses whichever backends there are, down to the last one";
                    findings.left_out(&directive.written, why, NOTHING_TO_DO);
                }
                "persistence_granularity" | "persistence_engine" => {
                    findings.left_out(&directive.written, "kplb goes by whole addresses", NOTHING_TO_DO);
                }
                "alpha" => {
                    let why =
                        "kplb uses no backend before its first good check, and does not wait for it to use others";
                    findings.left_out(&directive.written, why, NOTHING_TO_DO);
                }
                "ha_suspend" => {
                    let why = "kplb checks backends on every node, so that the next master knows them";
                    findings.left_out(&directive.written, why, NOTHING_TO_DO);
                }
                "omega" | "ops" | "flag-1" | "flag-2" | "flag-3" | "sh-fallback" | "mh-fallback" | "ip_family" => {
                    let why = "it is about IPVS, which kplb does not use";
                    findings.left_out(&directive.written, why, NOTHING_TO_DO);
                }
                _ if self.defaults.take(directive, findings) => {}
                _ => globals::no_equivalent(directive, findings),
            }
        }
        self
    }

    fn wanted(&self, listeners: Vec<Listener>, findings: &mut Findings) -> Option<Wanted> {
        let block = self.block;
        let protocol = match self.protocol.map(|protocol| (protocol, protocol.argument())) {
            Some((_, Some("TCP" | "tcp"))) => Protocol::Tcp,
            Some((_, Some("UDP" | "udp"))) => Protocol::Udp,
            Some((protocol, _)) => {
                findings.left_out(&protocol.written, "kplb balances TCP and UDP", "use one of them");
                return None;
            }
            None => {
                let why = "it has no `protocol`, and keepalived takes UDP then";
                findings.changed(&block.written, why, "write `protocol TCP` if that is what is meant");
                Protocol::Udp
            }
        };
        let (persistence, persistence_by) = self.persistence(findings);
        self.forwarding(self.method, findings);
        let mut inhibits = self.inhibits;
        let mut servers = Vec::new();
        for server in &self.servers {
            let (server, server_inhibits) = self.server(server, protocol, findings);
            inhibits |= server_inhibits;
            servers.extend(server);
        }
        let on_down = if inhibits { OnDown::Keep } else { OnDown::Reset };
        (!servers.is_empty()).then(|| Wanted {
            name: None,
            written: block.written.clone(),
            listeners,
            protocol,
            persistence,
            persistence_by: persistence_by.cloned(),
            on_down,
            slow_start: None,
            servers,
        })
    }

    /// Which connections go to one server.
    fn persistence(&self, findings: &mut Findings) -> (Persistence, Option<&'d Written>) {
        let scheduler = self.scheduler.and_then(Directive::argument).unwrap_or("wlc");
        let by = self.scheduler.map(|directive| &directive.written);
        let missing = self.block.written.part("lvs_sched wlc");
        let written = by.unwrap_or(&missing);
        if let Some(persistence) = self.persistence {
            let why = "all connections of a client go to one backend, and not only for a time";
            findings.changed(&persistence.written, why, NOTHING_TO_DO);
            return (Persistence::Client, Some(&persistence.written));
        }
        let is_by_client = matches!(scheduler, "sh" | "mh") && self.hashes_ports.is_none();
        let why = match scheduler {
            // Maglev, as kplb has it.
            "mh" => None,
            "sh" => Some("kplb hashes as `mh` does, so clients go to other backends than before"),
            "rr" | "wrr" => Some("kplb gives a connection to the backend that its hash falls on, not to the next one"),
            _ => {
                Some("kplb gives a connection to the backend that its hash falls on, whatever else that one has to do")
            }
        };
        if let Some(why) = why {
            findings.changed(written, why, NOTHING_TO_DO);
        }
        (if is_by_client { Persistence::Client } else { Persistence::Connection }, by)
    }

    /// How packets reach servers.
    fn forwarding(&self, method: Option<&Directive>, findings: &mut Findings) {
        let Some(method) = method else { return };
        let why = match method.argument() {
            Some("NAT") => {
                "servers see a node's address as their client's, and need no route back through the balancer any more"
            }
            Some("DR") => {
                "kplb rewrites addresses: servers are asked at their own, answer the node, and need no VIP on a loopback"
            }
            Some("TUN") => "kplb rewrites addresses: servers are asked at their own, and need no tunnel",
            _ => "kplb rewrites addresses",
        };
        findings.changed(&method.written, why, "take what was set up for it off the servers, once all nodes run kplb");
    }

    /// A `real_server`, and whether it keeps its connections when it fails.
    fn server(&self, block: &Directive, protocol: Protocol, findings: &mut Findings) -> (Option<Server>, bool) {
        let Some(address) = block.argument().and_then(value::address) else {
            findings.left_out(&block.written, "it has no address", "write it after the keyword");
            return (None, false);
        };
        let port = match block.arguments().get(1).filter(|port| *port != "{").map(|port| port.parse()) {
            Some(Ok(port)) if port != 0 => Port::Fixed(port),
            _ => Port::Offset(0),
        };
        let mut defaults = self.defaults.clone();
        let (mut weight, mut inhibits, mut checkers) = (1, false, Vec::new());
        for directive in &block.block {
            match directive.keyword() {
                "weight" => globals::set(&mut weight, value::number(directive, 0..=u32::from(u16::MAX), findings)),
                "inhibit_on_failure" => inhibits = value::switch(directive, findings).unwrap_or(false),
                "lvs_method" | "lb_kind" => self.forwarding(Some(directive), findings),
                "uthreshold" | "lthreshold" => {
                    findings.left_out(&directive.written, "kplb sets no limit of connections", NOTHING_TO_DO);
                }
                "notify_up" | "notify_down" => {
                    let why = "kplb runs no command for a backend";
                    findings.left_out(&directive.written, why, "watch its log, or `kplb status --json`");
                }
                "alpha" => findings.left_out(&directive.written, "kplb always does so", NOTHING_TO_DO),
                keyword if checker::is_checker(keyword) => checkers.push(directive),
                _ if defaults.take(directive, findings) => {}
                _ => globals::no_equivalent(directive, findings),
            }
        }
        let check = checker::read(&checkers, &defaults, protocol, findings);
        let server = Server { name: None, written: block.written.clone(), address, port, weight, check, note: None };
        (Some(server), inhibits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_addresses() {
        let ends = |text: &str| {
            let addresses = range(text)?;
            Some((addresses.len(), addresses.first()?.to_string(), addresses.last()?.to_string()))
        };
        let some = |n, first: &str, last: &str| Some((n, first.to_owned(), last.to_owned()));
        for (text, expected) in [
            ("198.18.0.1", some(1, "198.18.0.1", "198.18.0.1")),
            ("198.18.0.1-10", some(10, "198.18.0.1", "198.18.0.10")),
            ("198.18.0.250-198.18.1.5", some(12, "198.18.0.250", "198.18.1.5")),
            ("198.18.0.8/29", some(8, "198.18.0.8", "198.18.0.15")),
            ("198.18.0.8/32", some(1, "198.18.0.8", "198.18.0.8")),
            ("2001:2::1-f", some(15, "2001:2::1", "2001:2::f")),
            ("2001:2::/126", some(4, "2001:2::", "2001:2::3")),
            ("198.18.0.0/8", None),
            ("0.0.0.0/0", None),
            ("::/0", None),
            ("198.18.0.10-1", None),
            ("198.18.0.1-2001:2::1", None),
            ("198.18.0.1/33", None),
            ("fwmark", None),
        ] {
            assert_eq!(ends(text), expected, "{text}");
        }
    }
}
