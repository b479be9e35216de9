//! How long failures last with this configuration, at most.

use std::{collections::BTreeMap, time::Duration};

use super::{Facts, Finding};
use crate::{
    config::{CheckConfig, CheckKind},
    vrrp::{
        settings::Settings,
        timers::{master_down, skew},
    },
};

const TOPIC: &str = "failover";
/// Longer than clients should wait without somebody having wanted it.
const LONG: Duration = Duration::from_secs(15);

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Some(config) = facts.configuration.config() else { return Vec::new() };
    let mut findings = Vec::new();
    match facts.interface.as_ref().and_then(|interface| interface.election.as_ref()) {
        Some(Ok(routers)) => findings.extend(routers.iter().map(election)),
        Some(Err(_)) => {}
        None if config.vrrp.is_none() => findings.push(Finding::note(
            TOPIC,
            "the VIPs are on this node alone: without a table [vrrp] no other one takes over",
        )),
        None => {}
    }
    // Services with the same check are told of together.
    let mut checks: BTreeMap<String, (Vec<&str>, Option<&CheckConfig>)> = BTreeMap::new();
    for service in &config.services {
        for backend in &service.backends {
            let key = backend.check.as_ref().map_or_else(String::new, |check| format!("{:?}", Periods::of(check)));
            let (services, _) = checks.entry(key).or_insert((Vec::new(), backend.check.as_ref()));
            if services.last() != Some(&service.name.as_str()) {
                services.push(&service.name);
            }
        }
    }
    findings.extend(checks.into_values().map(|(services, check)| health(&services.join(", "), check)));
    findings
}

/// How long clients are without a VIP whose holder dies, if this node is the next.
fn election(router: &Settings) -> Finding {
    let Settings { version, priority, interval, address, .. } = router;
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let (dead, stopped) = (master_down(*version, *priority, *interval), skew(*version, *priority, *interval));
    let what = format!(
        "{family} VIPs: a master that dies is replaced by this node (priority {priority}) after {}, one that is stopped after {}",
        shown(dead),
        shown(stopped)
    );
    match dead > LONG {
        true => Finding::warning(TOPIC, what, "set a shorter `interval` in table [vrrp]"),
        false => Finding::ok(TOPIC, what),
    }
}

/// How long it takes at most until a backend that fails is noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Periods {
    /// Its process is gone, and nobody has tried to connect meanwhile.
    refused: Duration,
    /// Its host is gone.
    silent: Duration,
    /// It accepts connections, and says no more; none for a check that asks for no more.
    hung: Option<Duration>,
}

impl Periods {
    /// The first check that fails starts an interval after the last good one, at most. From then on checks follow each
    /// other quickly, whether the ones before have ended or not.
    fn of(check: &CheckConfig) -> Self {
        let CheckConfig { interval, fast_interval, jitter, fall, connect_timeout, timeout, kind, .. } = check;
        let last_start = interval.mul_f64(1.0 + f64::from(*jitter) / 100.0) + *fast_interval * fall.saturating_sub(1);
        Self {
            refused: last_start,
            silent: last_start + *connect_timeout,
            hung: (*kind != CheckKind::Tcp).then_some(last_start + *timeout),
        }
    }
}

fn health(services: &str, check: Option<&CheckConfig>) -> Finding {
    let Some(check) = check else {
        return Finding::note(TOPIC, format!("{services}: backends that are not checked are never taken away"));
    };
    let periods @ Periods { refused, silent, hung } = Periods::of(check);
    let hung = hung.map(|hung| format!(", one that accepts connections and says no more within {}", shown(hung)));
    let killed = match check.kind {
        CheckKind::Tcp => "by the first client that is refused",
        CheckKind::Tls | CheckKind::Http | CheckKind::Https => "at once",
    };
    let what = format!(
        "{services}: a killed backend is noticed {killed}, and within {} in any case, one that is silent within {}{}",
        shown(refused),
        shown(silent),
        hung.unwrap_or_default()
    );
    match periods.silent.max(periods.hung.unwrap_or_default()) > LONG {
        true => Finding::warning(TOPIC, what, "set shorter times, or a smaller `fall`, in table [service.check]"),
        false => Finding::ok(TOPIC, what),
    }
}

/// A period with as many digits as count.
fn shown(period: Duration) -> String {
    match period.as_secs() {
        0 => format!("{}ms", period.as_millis()),
        _ => format!("{:.2}s", period.as_secs_f64()),
    }
}
