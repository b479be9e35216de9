//! A proxy of haproxy with everything that it inherits.

use std::time::Duration;

use super::{lines::Line, parameters::Parameters, reason::reason, sections::Section, time};
use crate::import::finding::{At, Findings, NOTHING_TO_DO, Written};

/// What a section says, and what those say that it inherits from.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) mode: Option<At<Mode>>,
    pub(super) balance: Option<Line>,
    pub(super) hash_type: Option<Line>,
    /// That clients stay with their server.
    pub(super) stick: Option<Written>,
    /// What looks whether a server is alive: the last option of this kind.
    pub(super) method: Option<Line>,
    /// Those before it, which have no effect.
    pub(super) former_methods: Vec<Written>,
    pub(super) http_checks: Vec<Line>,
    pub(super) tcp_checks: Vec<Line>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) check_timeout: Option<Duration>,
    /// How long connections may be idle.
    pub(super) idle: [Option<Duration>; 3],
    pub(super) default_backend: Option<At<String>>,
    pub(super) is_disabled: bool,
    pub(super) has_all_backups: bool,
    /// `default-server`.
    pub(super) parameters: Parameters,
}

/// What a proxy understands of what it forwards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Tcp,
    Http,
    Other,
}

/// A `frontend`, `backend` or `listen`.
pub(super) struct Proxy {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) written: Written,
    pub(super) settings: Settings,
    pub(super) binds: Vec<Line>,
    pub(super) use_backends: Vec<Line>,
    pub(super) servers: Vec<(Line, Parameters)>,
    /// How many of them are spoken to in TLS.
    pub(super) n_tls: usize,
    /// Which section has its defaults.
    pub(super) defaults: Option<usize>,
    /// What is to be said if it is imported.
    pub(super) findings: Findings,
}

/// Kinds of proxies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Frontend,
    Backend,
    /// Both at once.
    Listen,
}

impl Kind {
    pub(super) fn of(section: &Section) -> Option<Self> {
        match section.kind.as_str() {
            "frontend" => Some(Self::Frontend),
            "backend" => Some(Self::Backend),
            "listen" => Some(Self::Listen),
            _ => None,
        }
    }

    /// Whether clients come in by it.
    pub(super) fn listens(self) -> bool {
        self != Self::Backend
    }

    /// Whether servers are behind it.
    pub(super) fn has_servers(self) -> bool {
        self != Self::Frontend
    }
}

/// Rules of a check: no server is checked by more.
const MAX_RULES: usize = 32;

/// Options that say how servers are checked.
const METHODS: [&str; 10] = [
    "httpchk",
    "tcp-check",
    "ssl-hello-chk",
    "external-check",
    "ldap-check",
    "mysql-check",
    "pgsql-check",
    "redis-check",
    "smtpchk",
    "spop-check",
];

impl Proxy {
    /// Reads a section that is one. `inherited`: what its defaults say.
    pub(super) fn read(section: &Section, kind: Kind, name: String, inherited: Settings) -> Self {
        let mut proxy = Self {
            kind,
            name,
            written: section.written.clone(),
            settings: inherited,
            binds: Vec::new(),
            use_backends: Vec::new(),
            servers: Vec::new(),
            n_tls: 0,
            defaults: section.defaults,
            findings: Findings::default(),
        };
        proxy.settings.forget_rules(&section.lines);
        for line in &section.lines {
            match line.keyword() {
                "bind" => proxy.binds.push(line.clone()),
                "use_backend" => proxy.use_backends.push(line.clone()),
                "server" => {
                    let mut parameters = proxy.settings.parameters.clone();
                    parameters.take(line, 3, &mut proxy.findings);
                    proxy.servers.push((line.clone(), parameters));
                }
                "server-template" => {
                    let mut parameters = proxy.settings.parameters.clone();
                    parameters.take(line, 4, &mut proxy.findings);
                    proxy.servers.push((line.clone(), parameters));
                }
                "dispatch" => proxy.servers.push((line.clone(), Parameters::default())),
                _ => proxy.settings.take(line, &mut proxy.findings),
            }
        }
        proxy.n_tls = proxy.servers.iter().filter(|(_, parameters)| parameters.is_tls).count();
        proxy
    }
}

impl Settings {
    /// A section with check rules of its own has none of others.
    pub(super) fn forget_rules(&mut self, lines: &[Line]) {
        if lines.iter().any(|line| line.keyword() == "http-check") {
            self.http_checks.clear();
        }
        if lines.iter().any(|line| line.keyword() == "tcp-check") {
            self.tcp_checks.clear();
        }
    }

    /// Takes a line. What has no equivalent, whatever else there is, is reported at once.
    pub(super) fn take(&mut self, line: &Line, findings: &mut Findings) {
        let written = &line.written;
        let first = line.argument(1).unwrap_or_default();
        match line.keyword() {
            "mode" => {
                let mode = match first {
                    "tcp" => Mode::Tcp,
                    "http" => Mode::Http,
                    _ => Mode::Other,
                };
                self.mode = Some(At::new(mode, written));
            }
            "balance" => self.balance = Some(line.clone()),
            "hash-type" => self.hash_type = Some(line.clone()),
            "hash-balance-factor" => {
                findings.left_out(written, "kplb's backends have their share, whatever they have to do", NOTHING_TO_DO);
            }
            "option" => self.option(line, first, findings),
            // What they take back kplb does not do.
            "no" | "default" => {
                if line.argument(2) == Some("allbackups") {
                    self.has_all_backups = false;
                }
            }
            "http-check" if self.http_checks.len() < MAX_RULES => self.http_checks.push(line.clone()),
            "tcp-check" if self.tcp_checks.len() < MAX_RULES => self.tcp_checks.push(line.clone()),
            "http-check" | "tcp-check" => {
                findings.left_out(written, "a check of kplb is nothing that long", NOTHING_TO_DO);
            }
            "external-check" => {
                findings.left_out(written, "kplb runs no commands to check backends", NOTHING_TO_DO);
            }
            "timeout" => self.timeout(line, first, findings),
            "default_backend" => self.default_backend = Some(At::new(first.to_owned(), written)),
            "default-server" => self.parameters.take(line, 1, findings),
            "disabled" => self.is_disabled = true,
            "enabled" => self.is_disabled = false,
            "stick-table" | "stick" => {
                let is_by_address =
                    matches!(line.arguments(), [_, what, ..] if what == "src") && matches!(first, "on" | "match");
                if is_by_address {
                    self.stick = Some(written.clone());
                } else {
                    let why = "kplb keeps no table of clients: its ring leads each to the same backend by its address";
                    findings.left_out(written, why, NOTHING_TO_DO);
                }
            }
            _ => {
                let (why, advice) = reason(line);
                findings.left_out(written, why, advice);
            }
        }
    }

    fn option(&mut self, line: &Line, option: &str, findings: &mut Findings) {
        if METHODS.contains(&option) {
            let former = self.method.replace(line.clone()).map(|former| former.written);
            self.former_methods.extend(former.filter(|_| self.former_methods.len() < MAX_RULES));
            return;
        }
        if option == "allbackups" {
            self.has_all_backups = true;
        }
        let (why, advice) = reason(line);
        findings.left_out(&line.written, why, advice);
    }

    fn timeout(&mut self, line: &Line, which: &str, findings: &mut Findings) {
        let value = line.argument(2).and_then(time::parse);
        if value.is_none() {
            findings.left_out(&line.written, "it has no time", "haproxy refuses it as well: correct it");
            return;
        }
        match which {
            "connect" => self.connect_timeout = value,
            "check" => self.check_timeout = value,
            _ => {
                match which {
                    "tunnel" => self.idle[0] = value,
                    "client" => self.idle[1] = value,
                    "server" => self.idle[2] = value,
                    _ => {}
                }
                let (why, advice) = reason(line);
                findings.left_out(&line.written, why, advice);
            }
        }
    }

    /// How long haproxy lets a connection be idle; none: for ever.
    pub(super) fn idle(&self) -> Option<Duration> {
        let [tunnel, client, server] = self.idle;
        tunnel.or_else(|| [client, server].into_iter().flatten().min())
    }
}
