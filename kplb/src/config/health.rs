//! How a backend's health is checked: the values, where they come from, and which go together.

use std::{fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    Problems,
    draft::At,
    value::{Wrong, shown},
};

/// Table `[service.check]`, with what `[service.backend.check]` says instead.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckConfig {
    /// How deep to look.
    pub kind: CheckKind,
    /// Port to check, unless it is the backend's own.
    pub port: Option<u16>,
    /// HTTP: what to ask for.
    pub path: String,
    /// HTTP: the statuses of a backend that is ready.
    pub expect: Statuses,
    /// HTTP: the `Host` header, unless it is the backend's address and port.
    pub host: Option<String>,
    /// TLS: the name to ask for and to verify, unless it is the backend's address.
    pub server_name: Option<String>,
    /// TLS: certificates (PEM) of the authorities that the backend's is verified against; without, none is.
    pub ca_file: Option<PathBuf>,
    /// TLS: what this client proves itself with.
    pub client_certificate: Option<ClientCertificate>,
    /// HTTP: file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Time between the starts of two checks, within [`INTERVAL_RANGE`].
    pub interval: Duration,
    /// The same while the outcome is in doubt; at most `interval`.
    pub fast_interval: Duration,
    /// How long a TCP connection may take to be accepted, within [`TIMEOUT_RANGE`]; at most `timeout`.
    pub connect_timeout: Duration,
    /// How long a whole check may take, within [`TIMEOUT_RANGE`].
    pub timeout: Duration,
    /// Good checks in a row after which a backend is used again, within [`STREAK_RANGE`].
    pub rise: u32,
    /// Bad checks in a row after which it no longer is, within [`STREAK_RANGE`].
    pub fall: u32,
    /// Percentage of `interval` by which checks are moved at random, so that those of many nodes do not coincide.
    pub jitter: u32,
}

/// How deep a check looks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CheckKind {
    /// Whether a TCP connection is accepted.
    Tcp,
    /// Whether a TLS handshake succeeds.
    Tls,
    /// Which status a request over TCP is answered with.
    Http,
    /// Which status a request over TLS is answered with.
    Https,
}

impl CheckKind {
    /// Every kind, by name.
    pub const NAMES: [(&str, Self); 4] =
        [("tcp", Self::Tcp), ("tls", Self::Tls), ("http", Self::Http), ("https", Self::Https)];

    /// The kind as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Whether TLS is spoken.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }

    /// Whether HTTP is spoken.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// A client's certificate and its key, both PEM.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ClientCertificate {
    /// The certificate, and those that lead to its authority.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// A set of HTTP statuses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether the status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }

    /// Statuses and ranges of them, separated by commas.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let range = |item: &str| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (100 <= first && first <= last && last <= 599).then_some(first..=last)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| {
            Wrong::new(
                format!("{} is not a set of HTTP statuses", shown(text)),
                "write statuses from 100 to 599 and ranges of them, as in \"200\" or \"200-299,401\"",
            )
        })
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{first}")?,
                (first, last) => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Times between checks that make sense.
pub const INTERVAL_RANGE: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(60 * 60);
/// Times to wait for an answer that make sense.
pub const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// Checks in a row that make sense.
pub const STREAK_RANGE: RangeInclusive<u32> = 1..=100;
/// Percentages of jitter that make sense.
pub const JITTER_RANGE: RangeInclusive<u32> = 0..=50;

impl Default for CheckConfig {
    /// That of an apiserver.
    fn default() -> Self {
        Self {
            kind: CheckKind::Https,
            port: None,
            path: "/readyz".to_owned(),
            expect: Statuses(vec![200..=200]),
            host: None,
            server_name: None,
            ca_file: None,
            client_certificate: None,
            token_file: None,
            interval: Duration::from_millis(500),
            fast_interval: Duration::from_millis(200),
            connect_timeout: Duration::from_millis(500),
            timeout: Duration::from_secs(3),
            rise: 2,
            fall: 3,
            jitter: 10,
        }
    }
}

/// A check of a draft: what was written, each value for itself.
#[derive(Clone, Default)]
pub(super) struct DraftCheck {
    /// `Some(None)`: not to be checked at all.
    pub(super) kind: Option<At<Option<CheckKind>>>,
    pub(super) port: Option<At<u16>>,
    pub(super) path: Option<At<String>>,
    pub(super) expect: Option<At<Statuses>>,
    pub(super) host: Option<At<String>>,
    pub(super) server_name: Option<At<String>>,
    pub(super) ca_file: Option<At<PathBuf>>,
    pub(super) client_certificate_file: Option<At<PathBuf>>,
    pub(super) client_key_file: Option<At<PathBuf>>,
    pub(super) token_file: Option<At<PathBuf>>,
    pub(super) interval: Option<At<Duration>>,
    pub(super) fast_interval: Option<At<Duration>>,
    pub(super) connect_timeout: Option<At<Duration>>,
    pub(super) timeout: Option<At<Duration>>,
    pub(super) rise: Option<At<u32>>,
    pub(super) fall: Option<At<u32>>,
    pub(super) jitter: Option<At<u32>>,
}

impl DraftCheck {
    /// What this one says, else what `other` says.
    pub(super) fn or(self, other: &Self) -> Self {
        let other = other.clone();
        Self {
            kind: self.kind.or(other.kind),
            port: self.port.or(other.port),
            path: self.path.or(other.path),
            expect: self.expect.or(other.expect),
            host: self.host.or(other.host),
            server_name: self.server_name.or(other.server_name),
            ca_file: self.ca_file.or(other.ca_file),
            client_certificate_file: self.client_certificate_file.or(other.client_certificate_file),
            client_key_file: self.client_key_file.or(other.client_key_file),
            token_file: self.token_file.or(other.token_file),
            interval: self.interval.or(other.interval),
            fast_interval: self.fast_interval.or(other.fast_interval),
            connect_timeout: self.connect_timeout.or(other.connect_timeout),
            timeout: self.timeout.or(other.timeout),
            rise: self.rise.or(other.rise),
            fall: self.fall.or(other.fall),
            jitter: self.jitter.or(other.jitter),
        }
    }

    /// The check, with defaults for what nobody says; none where nothing is to be checked. `default_kind`: where
    /// nobody says how.
    pub(super) fn check(self, default_kind: Option<CheckKind>, problems: &mut Problems) -> Option<CheckConfig> {
        let kind = self.kind.as_ref().map_or(default_kind, |kind| kind.value);
        self.refuse_idle(kind, problems);
        self.refuse_contradictions(problems);
        let defaults = CheckConfig::default();
        let client_certificate = match (self.client_certificate_file, self.client_key_file) {
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate { certificate_file: certificate.value, key_file: key.value })
            }
            _ => None,
        };
        let interval = self.interval.map_or(defaults.interval, |at| at.value);
        let timeout = self.timeout.map_or(defaults.timeout, |at| at.value);
        Some(CheckConfig {
            kind: kind?,
            port: self.port.map(|at| at.value),
            path: self.path.map_or(defaults.path, |at| at.value),
            expect: self.expect.map_or(defaults.expect, |at| at.value),
            host: self.host.map(|at| at.value),
            server_name: self.server_name.map(|at| at.value),
            ca_file: self.ca_file.map(|at| at.value),
            client_certificate,
            token_file: self.token_file.map(|at| at.value),
            interval,
            // Defaults follow what was written.
            fast_interval: self.fast_interval.map_or(defaults.fast_interval.min(interval), |at| at.value),
            connect_timeout: self.connect_timeout.map_or(defaults.connect_timeout.min(timeout), |at| at.value),
            timeout,
            rise: self.rise.map_or(defaults.rise, |at| at.value),
            fall: self.fall.map_or(defaults.fall, |at| at.value),
            jitter: self.jitter.map_or(defaults.jitter, |at| at.value),
        })
    }

    /// A value that the kind of check has no use for is a misunderstanding.
    fn refuse_idle(&self, kind: Option<CheckKind>, problems: &mut Problems) {
        let (has_tls, has_http) = (kind.is_some_and(CheckKind::is_tls), kind.is_some_and(CheckKind::is_http));
        let settings = [
            ("path", place(&self.path), has_http),
            ("expect", place(&self.expect), has_http),
            ("host", place(&self.host), has_http),
            ("token_file", place(&self.token_file), has_http),
            ("server_name", place(&self.server_name), has_tls),
            ("ca_file", place(&self.ca_file), has_tls),
            ("client_certificate_file", place(&self.client_certificate_file), has_tls),
            ("client_key_file", place(&self.client_key_file), has_tls),
        ];
        let name = kind.map_or("none", CheckKind::name);
        for (key, place, is_used) in settings {
            if let Some(place) = place
                && !is_used
            {
                let hint = "leave it out, or set the `type` of the check that it belongs to";
                problems.add(place, format!("a check of type \"{name}\" has no use for `{key}`"), hint);
            }
        }
    }

    fn refuse_contradictions(&self, problems: &mut Problems) {
        let defaults = CheckConfig::default();
        let longer = |short: &Option<At<Duration>>, long: &Option<At<Duration>>, default: Duration| {
            let long = long.as_ref().map_or(default, |at| at.value);
            short.as_ref().filter(|short| short.value > long).map(|short| short.place.clone())
        };
        if let Some(place) = longer(&self.fast_interval, &self.interval, defaults.interval) {
            problems.add(&place, "`fast_interval` is longer than `interval`", "make it shorter, or `interval` longer");
        }
        if let Some(place) = longer(&self.connect_timeout, &self.timeout, defaults.timeout) {
            problems.add(&place, "`connect_timeout` is longer than `timeout`", "make it shorter, or `timeout` longer");
        }
        match (&self.client_certificate_file, &self.client_key_file) {
            (Some(certificate), None) => problems.add(
                &certificate.place,
                "the client's certificate has no key",
                "add `client_key_file`, which may be the same file",
            ),
            (None, Some(key)) => {
                problems.add(&key.place, "the client's key has no certificate", "add `client_certificate_file`");
            }
            _ => {}
        }
    }
}

fn place<T>(at: &Option<At<T>>) -> Option<&super::Place> {
    at.as_ref().map(|at| &at.place)
}
