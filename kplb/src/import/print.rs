//! A draft to the text of `kplb.toml`: what differs from kplb's defaults, and why it is so.

use std::{fmt::Write as _, time::Duration};

use humantime::format_duration;
use kplb_common::service::Persistence;

use super::{
    draft::{BackendNotes, Draft, ServiceNotes, VrrpNotes},
    finding::plain,
};
use crate::{
    config::{BackendConfig, CheckConfig, CheckKind, FlowsConfig, OnDown, Protocol, ServiceConfig, VrrpConfig},
    vrrp::{
        announcements::Schedule,
        settings::{Coverage, INTERVAL_DEFAULT, Password, Preemption, Version},
    },
};

/// What is within a service is set in.
const INDENT: &str = "    ";
/// Of a comment.
const WIDTH: usize = 118;

struct Printer {
    text: String,
    indent: &'static str,
}

/// The text. It means what the draft's configuration says.
pub(super) fn print(draft: &Draft) -> String {
    let mut printer = Printer { text: String::new(), indent: "" };
    draft.heading.iter().for_each(|line| printer.comment(line));
    printer.flows(&draft.config.flows);
    if let Some(vrrp) = &draft.config.vrrp {
        printer.vrrp(vrrp, &draft.vrrp);
    }
    for (service, notes) in draft.config.services.iter().zip(&draft.services) {
        printer.service(service, notes);
    }
    printer.text
}

impl Printer {
    fn line(&mut self, text: &str) {
        self.text.push_str(if text.is_empty() { "" } else { self.indent });
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn table(&mut self, header: &str) {
        self.line("");
        self.line(header);
    }

    /// A comment, on as many lines as it takes.
    fn comment(&mut self, text: &str) {
        let mut line = String::from("#");
        for word in plain(text).split(' ') {
            if line.len() > 1 && self.indent.len() + line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&std::mem::replace(&mut line, "#".to_owned()));
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line);
    }

    fn string(&mut self, key: &str, value: &str) {
        let value = quoted(value);
        self.line(&format!("{key} = {value}"));
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) {
        self.line(&format!("{key} = {value}"));
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.string(key, &format_duration(value).to_string());
    }

    fn duration_unless(&mut self, key: &str, value: Duration, default: Duration) {
        if value != default {
            self.duration(key, value);
        }
    }

    fn number_unless(&mut self, key: &str, value: u32, default: u32) {
        if value != default {
            self.number(key, value);
        }
    }

    fn flows(&mut self, flows: &FlowsConfig) {
        let default = FlowsConfig::default();
        if flows.established_lifetime != default.established_lifetime {
            self.table("[flows]");
            self.comment("haproxy let connections be idle for as long");
            self.duration("established_lifetime", flows.established_lifetime);
        }
    }

    fn vrrp(&mut self, vrrp: &VrrpConfig, notes: &VrrpNotes) {
        self.table("[vrrp]");
        notes.heading.iter().for_each(|line| self.comment(line));
        self.number("virtual_router_id", vrrp.router_id);
        if vrrp.version != Version::default() {
            self.number("version", vrrp.version);
        }
        let default = match vrrp.version {
            Version::V2 => vrrp.version.interval_unit(),
            Version::V3 => INTERVAL_DEFAULT,
        };
        self.duration_unless("interval", vrrp.interval, default);
        if let Some(password) = &vrrp.password {
            self.string("password", &text_of(password));
        }
        if vrrp.coverage == Coverage::Message {
            self.string("checksum", "message");
        }
        if !vrrp.peers.is_empty() {
            notes.peers.iter().for_each(|line| self.comment(line));
            let peers: Vec<_> = vrrp.peers.iter().map(|peer| format!("\"{peer}\"")).collect();
            self.line(&format!("peers = [{}]", peers.join(", ")));
        }
        if let Some(priority) = vrrp.priority {
            self.comment("This node's own: the other nodes have theirs.");
            self.number("priority", priority);
        }
        if let Preemption::After(delay) = vrrp.preemption {
            self.comment(
                "As keepalived does it. Each move resets connections: without it, the VIPs stay where they are.",
            );
            self.line("preempt = true");
            self.duration_unless("preempt_delay", delay, Duration::ZERO);
        }
        self.duration_unless("startup_delay", vrrp.startup_delay, Duration::ZERO);
        self.announcements(&vrrp.announcements);
        notes.ending.iter().for_each(|line| self.comment(line));
    }

    fn announcements(&mut self, schedule: &Schedule) {
        let default = Schedule::default();
        self.number_unless("garp_master_repeat", schedule.repeat, default.repeat);
        self.duration_unless("garp_master_delay", schedule.delay, default.delay);
        self.duration_unless("garp_interval", schedule.gap, default.gap);
        self.duration_unless("garp_master_refresh", schedule.refresh, default.refresh);
        self.number_unless("garp_master_refresh_repeat", schedule.refresh_repeat, default.refresh_repeat);
        self.number_unless("garp_lower_prio_repeat", schedule.lower_priority_repeat, default.lower_priority_repeat);
        self.duration_unless("garp_lower_prio_delay", schedule.lower_priority_delay, default.lower_priority_delay);
    }

    fn service(&mut self, service: &ServiceConfig, notes: &ServiceNotes) {
        self.table("[[service]]");
        self.comment(&notes.origin);
        if notes.is_named {
            self.string("name", &service.name);
        }
        self.string("vip", &service.vip.to_string());
        if service.protocol != Protocol::Tcp {
            self.string("protocol", service.protocol.name());
        }
        if service.persistence == Persistence::Connection {
            notes.persistence.iter().for_each(|line| self.comment(line));
            self.string("persistence", "connection");
        }
        if service.on_down == OnDown::Keep {
            self.string("on_down", "keep");
        }
        if let Some(slow_start) = service.slow_start {
            self.duration("slow_start", slow_start);
        }
        self.indent = INDENT;
        let checks = Checks::new(service);
        let default = default_check(service.protocol);
        let usual = default.as_ref().map(|check| check.kind);
        if let Some(check) = checks.shared.filter(|check| **check != default) {
            self.check("[service.check]", check.as_ref(), None, usual);
        }
        for (backend, notes) in service.backends.iter().zip(&notes.backends) {
            self.backend(backend, notes);
            let shared = checks.shared.and_then(Option::as_ref);
            if Some(&backend.check) != checks.shared.or(Some(&default)) {
                let usual = shared.map_or(usual, |check| Some(check.kind));
                self.check("[service.backend.check]", backend.check.as_ref(), shared, usual);
            }
        }
        self.indent = "";
    }

    fn backend(&mut self, backend: &BackendConfig, notes: &BackendNotes) {
        self.table("[[service.backend]]");
        if notes.is_named {
            self.string("name", &backend.name);
        }
        self.string("address", &backend.address.to_string());
        if backend.weight != 1 {
            notes.note.iter().for_each(|line| self.comment(line));
            self.number("weight", backend.weight);
        }
    }

    /// A check. `shared`: what the service says already; `usual`: the type where nothing else is said.
    fn check(
        &mut self,
        header: &str,
        check: Option<&CheckConfig>,
        shared: Option<&CheckConfig>,
        usual: Option<CheckKind>,
    ) {
        self.table(header);
        let Some(check) = check else {
            self.string("type", "none");
            return;
        };
        let default = CheckConfig::default();
        let base = shared.unwrap_or(&default);
        if Some(check.kind) != usual {
            self.string("type", check.kind.name());
        }
        if check.port != base.port {
            check.port.iter().for_each(|port| self.number("port", port));
        }
        if check.kind.is_http() {
            if check.path != base.path {
                self.string("path", &check.path);
            }
            if check.expect != base.expect {
                self.string("expect", &check.expect.to_string());
            }
            if check.host != base.host {
                check.host.iter().for_each(|host| self.string("host", host));
            }
        }
        if check.kind.is_tls() {
            if check.server_name != base.server_name {
                check.server_name.iter().for_each(|name| self.string("server_name", name));
            }
            if check.ca_file != base.ca_file {
                check.ca_file.iter().for_each(|file| self.string("ca_file", &file.to_string_lossy()));
            }
            if let Some(certificate) =
                check.client_certificate.as_ref().filter(|_| check.client_certificate != base.client_certificate)
            {
                self.string("client_certificate_file", &certificate.certificate_file.to_string_lossy());
                self.string("client_key_file", &certificate.key_file.to_string_lossy());
            }
        }
        self.times(check, shared);
    }

    fn times(&mut self, check: &CheckConfig, shared: Option<&CheckConfig>) {
        let default = CheckConfig::default();
        let base = shared.unwrap_or(&default);
        if shared.is_none() && check.interval > default.interval {
            self.comment("Times as they were. Without them kplb's own hold, which notice a failure sooner.");
        }
        self.duration_unless("interval", check.interval, base.interval);
        // Where nobody says what they are, these two are no more than they may be.
        let fast_interval = |interval: Duration| default.fast_interval.min(interval);
        let connect_timeout = |timeout: Duration| default.connect_timeout.min(timeout);
        let said = shared.map(|shared| shared.fast_interval).filter(|time| *time != fast_interval(base.interval));
        self.duration_unless("fast_interval", check.fast_interval, said.unwrap_or(fast_interval(check.interval)));
        let said = shared.map(|shared| shared.connect_timeout).filter(|time| *time != connect_timeout(base.timeout));
        self.duration_unless("connect_timeout", check.connect_timeout, said.unwrap_or(connect_timeout(check.timeout)));
        self.duration_unless("timeout", check.timeout, base.timeout);
        self.number_unless("rise", check.rise, base.rise);
        self.number_unless("fall", check.fall, base.fall);
        self.number_unless("jitter", check.jitter, base.jitter);
    }
}

/// What the checks of a service's backends have in common.
struct Checks<'s> {
    /// The one that most of them have, if the others can be told by what is different; none: each is told by itself.
    shared: Option<&'s Option<CheckConfig>>,
}

impl<'s> Checks<'s> {
    fn new(service: &'s ServiceConfig) -> Self {
        let checks = || service.backends.iter().map(|backend| &backend.check);
        let frequency = |check: &Option<CheckConfig>| checks().take(MANY).filter(|other| *other == check).count();
        // The first of several that are as frequent.
        let most = checks().take(MANY).rev().max_by_key(|check| frequency(check));
        let shared = most.filter(|most| checks().all(|check| check == *most || differs_only(most, check)));
        Self { shared }
    }
}

/// As many backends as are looked at to find the check that most of them have.
const MANY: usize = 32;

/// Whether one check can be told by what is different in it from the other: values can be replaced, and not taken away.
fn differs_only(shared: &Option<CheckConfig>, check: &Option<CheckConfig>) -> bool {
    let (Some(shared), Some(check)) = (shared, check) else { return false };
    let keeps = |shared: bool, check: bool| check || !shared;
    shared.kind == check.kind
        && keeps(shared.port.is_some(), check.port.is_some())
        && keeps(shared.host.is_some(), check.host.is_some())
        && keeps(shared.server_name.is_some(), check.server_name.is_some())
        && keeps(shared.ca_file.is_some(), check.ca_file.is_some())
        && keeps(shared.client_certificate.is_some(), check.client_certificate.is_some())
}

/// The check of a service that says nothing of it.
fn default_check(protocol: Protocol) -> Option<CheckConfig> {
    (protocol == Protocol::Tcp).then(CheckConfig::default)
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            _ if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The password as it is written down: without the zeros that fill it up.
fn text_of(password: &Password) -> String {
    String::from_utf8_lossy(password.bytes()).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_strings_of_toml() {
        for text in ["a", "a\"b\\c", "\u{7f}\u{0}\n", "é`'"] {
            let toml: toml::Table = format!("a = {}", quoted(text)).parse().expect("TOML");
            assert_eq!(toml["a"].as_str(), Some(text));
        }
    }

    #[test]
    fn comments_are_broken_into_lines() {
        let mut printer = Printer { text: String::new(), indent: INDENT };
        printer.comment(&"word ".repeat(60));
        assert!(printer.text.lines().count() > 2);
        assert!(
            printer.text.lines().all(|line| line.len() <= WIDTH && line.starts_with("    # word")),
            "{}",
            printer.text
        );
    }
}
