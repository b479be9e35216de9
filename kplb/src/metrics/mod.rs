//! What `kplb status` shows, as metrics for Prometheus, served over HTTP where the configuration says so.
//!
//! Invariant: all of it is of one [`Status`], so what is counted goes down only when who counts begins anew: the data path,
//! the agent or its election; and every metric has its samples for as long as what it is about is configured, so that a
//! query never mistakes "none" for "unknown".

mod process;
pub mod server;

use std::fmt;

use kplb_common::verdict::Verdict;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, NoLabelSet, prometheus_text},
    metrics::MetricType,
    registry::Registry,
};

use self::process::ProcessStats;
use crate::{
    election::{ElectionReport, RouterReport},
    health::board::State,
    status::{BackendStatus, FlowsStatus, Status},
    vrrp::fsm,
};

/// The `Content-Type` of [`text`].
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All metrics, in the text format that every version of Prometheus reads (0.0.4).
fn text(status: Status, process: ProcessStats) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot { status, process }));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes every write");
    text
}

/// What one scrape shows.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    process: ProcessStats,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let Self { status, process } = self;
        agent(&mut page, status)?;
        traffic(&mut page, status)?;
        flow_tables(&mut page, status)?;
        backends(&mut page, status)?;
        if let Some(report) = &status.election {
            election(&mut page, report)?;
        }
        process.encode(&mut page)
    }
}

/// Names and values.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Where metrics are written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// A counter; `_total` is added to its name.
    fn counter<'l, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, V, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

fn agent(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    page.gauge("kplb_build_info", "The agent's version; always 1.", [(vec![("version", &*status.version)], 1.0)])?;
    page.gauge(
        "kplb_interface_info",
        "The interface, and where in its receive path the XDP program runs; always 1.",
        [(vec![("interface", &*status.interface), ("mode", &*status.mode)], 1.0)],
    )?;
    page.gauge("kplb_uptime_seconds", "How long the agent has run.", [(Vec::new(), status.uptime_seconds as f64)])?;
    page.gauge(
        "kplb_configuration_generation",
        "How many configurations the data path has followed.",
        [(Vec::new(), status.generation as f64)],
    )
}

fn traffic(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    let verdicts = Verdict::all().map(|verdict| {
        let packets = status.verdicts.get(verdict.name()).copied().unwrap_or(0);
        (vec![("action", action(verdict)), ("verdict", verdict.name())], packets)
    });
    page.counter("kplb_packets", "Packets by what kplb decided about them; every packet is counted once.", verdicts)?;
    let resets = &status.resets;
    page.counter(
        "kplb_resets_sent",
        "Resets that the agent has sent to the ends of idle flows that are over, by who got them.",
        [(vec![("to", "client")], resets.to_clients), (vec![("to", "backend")], resets.to_backends)],
    )?;
    page.counter(
        "kplb_backend_flows_opened",
        "Flows opened to the backend.",
        by_backend(status).map(|(labels, backend)| (labels, backend.traffic.flows_opened)),
    )?;
    page.counter(
        "kplb_backend_packets",
        "Packets forwarded, by direction.",
        by_direction(status, |backend| [backend.traffic.packets_to_backend, backend.traffic.packets_to_client]),
    )?;
    page.counter(
        "kplb_backend_bytes",
        "Bytes of IP packets forwarded, by direction.",
        by_direction(status, |backend| [backend.traffic.bytes_to_backend, backend.traffic.bytes_to_client]),
    )
}

/// What becomes of a packet with this verdict.
const fn action(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass(_) => "pass",
        Verdict::Forward(_) => "forward",
        Verdict::Reset(_) => "reset",
        Verdict::Drop(_) => "drop",
    }
}

fn flow_tables(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    let families = [("ipv4", &status.flows_v4), ("ipv6", &status.flows_v6)];
    let flows = families.into_iter().flat_map(|(family, flows)| {
        flows_by_state(flows).map(|(state, n)| (vec![("family", family), ("state", state)], n))
    });
    page.gauge("kplb_flows", "Live flows.", flows)?;
    let limits = &status.flow_limits;
    let limits = families.into_iter().flat_map(|(family, _)| {
        [("flows", limits.max), ("half-open", limits.max_half_open)]
            .map(|(table, n)| (vec![("family", family), ("table", table)], f64::from(n)))
    });
    page.gauge(
        "kplb_flows_limit",
        "Flows that there is room for: half-open ones in a table of their own, so that a flood of them pushes out no \
         others.",
        limits,
    )
}

fn flows_by_state(flows: &FlowsStatus) -> [(&'static str, f64); 3] {
    [("established", flows.established), ("half-open", flows.half_open), ("closing", flows.closing)]
        .map(|(state, n)| (state, n as f64))
}

/// Every backend, with the labels that name it.
fn by_backend(status: &Status) -> impl Iterator<Item = (Labels<'_>, &BackendStatus)> {
    status.services.iter().flat_map(|service| {
        let labels = |backend| vec![("service", &*service.name), ("backend", backend)];
        service.backends.iter().map(move |backend| (labels(&*backend.name), backend))
    })
}

/// Every backend, once for each direction, that to the backend first.
fn by_direction(status: &Status, values: fn(&BackendStatus) -> [u64; 2]) -> impl Iterator<Item = (Labels<'_>, u64)> {
    by_backend(status).flat_map(move |(labels, backend)| {
        let [to_backend, to_client] = values(backend);
        [("to-backend", to_backend), ("to-client", to_client)]
            .map(|(direction, value)| (with(&labels, "direction", direction), value))
    })
}

/// One more label.
fn with<'a>(labels: &Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    let mut labels = labels.clone();
    labels.push((name, value));
    labels
}

/// Which of its states something is in: one is 1, the others are 0.
fn states<'a, const N: usize>(
    labels: &Labels<'a>,
    label: &'static str,
    all: [&'static str; N],
    current: &str,
) -> [(Labels<'a>, f64); N] {
    all.map(|state| (with(labels, label, state), f64::from(u8::from(state == current))))
}

fn backends(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    page.gauge(
        "kplb_backend_state",
        "What the backend is used for: 1 for the state that it is in, 0 for the others.",
        by_backend(status)
            .flat_map(|(labels, backend)| states(&labels, "state", State::ALL.map(State::name), &backend.state)),
    )?;
    page.gauge(
        "kplb_backend_ring_share_ratio",
        "The backend's part of its service's ring, that is of new flows.",
        by_backend(status).map(|(labels, backend)| (labels, backend.ring_share)),
    )?;
    let flows = by_backend(status).flat_map(|(labels, backend)| {
        flows_by_state(&backend.flows).map(|(state, n)| (with(&labels, "state", state), n))
    });
    page.gauge("kplb_backend_flows", "Live flows of the backend.", flows)?;
    let checks = || by_backend(status).filter_map(|(labels, backend)| Some((labels, backend.check.as_ref()?)));
    page.gauge(
        "kplb_backend_check_success",
        "Whether a backend with the outcome of its last check may have new flows.",
        checks().map(|(labels, check)| (labels, f64::from(u8::from(check.is_good)))),
    )?;
    page.gauge(
        "kplb_backend_check_duration_seconds",
        "How long the backend's last check took.",
        checks().map(|(labels, check)| (labels, check.latency_ms / 1000.0)),
    )?;
    page.gauge(
        "kplb_backend_check_age_seconds",
        "How long ago the backend's last check ended.",
        checks().map(|(labels, check)| (labels, check.age_seconds)),
    )?;
    page.gauge(
        "kplb_backend_check_info",
        "How far the backend's last check came, as HAProxy names it; always 1.",
        checks().map(|(labels, check)| (with(&labels, "code", &check.code), 1.0)),
    )
}

fn election(page: &mut Page<'_>, report: &ElectionReport) -> fmt::Result {
    let seconds = |microseconds: f64| [(Vec::new(), microseconds / 1e6)];
    page.gauge(
        "kplb_election_scheduling_delay_seconds",
        "By how much the election's thread woke too late, last.",
        seconds(report.delay_last_us),
    )?;
    page.gauge(
        "kplb_election_scheduling_delay_worst_seconds",
        "By how much the election's thread woke too late, at its worst since the agent's start.",
        seconds(report.delay_worst_us),
    )?;
    let ids: Vec<String> = report.routers.iter().map(|router| router.router_id.to_string()).collect();
    let routers: Vec<(Labels<'_>, &RouterReport)> = (report.routers.iter().zip(&ids))
        .map(|(router, id)| {
            let family = if router.is_ipv4 { "ipv4" } else { "ipv6" };
            (vec![("family", family), ("router_id", id.as_str())], router)
        })
        .collect();
    roles(page, &routers)?;
    adverts(page, &routers)
}

/// A value of every virtual router.
fn by_router<'a, V>(
    routers: &[(Labels<'a>, &RouterReport)],
    value: fn(&RouterReport) -> V,
) -> impl Iterator<Item = (Labels<'a>, V)> {
    routers.iter().map(move |(labels, router)| (labels.clone(), value(router)))
}

fn roles(page: &mut Page<'_>, routers: &[(Labels<'_>, &RouterReport)]) -> fmt::Result {
    page.gauge(
        "kplb_election_role",
        "Whether this node holds the VIPs: 1 for the role that it has, 0 for the others.",
        (routers.iter())
            .flat_map(|(labels, router)| states(labels, "role", fsm::State::ALL.map(fsm::State::name), &router.state)),
    )?;
    let each = |value: fn(&RouterReport) -> u64| by_router(routers, value);
    page.counter("kplb_election_transitions", "Changes of this node's role.", each(|router| router.transitions))?;
    page.counter(
        "kplb_election_relistened",
        "How often this node, as a backup, ran too late to tell whether the master is silent.",
        each(|router| router.relistened),
    )?;
    let gauges = |value: fn(&RouterReport) -> f64| by_router(routers, value);
    page.gauge(
        "kplb_election_priority",
        "This node's priority; the highest becomes master.",
        gauges(|router| f64::from(router.priority)),
    )?;
    page.gauge(
        "kplb_election_faults",
        "How many reasons keep this node from being master.",
        gauges(|router| router.faults.len() as f64),
    )?;
    page.gauge(
        "kplb_election_lease_seconds",
        "For how long this node may still answer for the VIPs; 0 on one that is not master.",
        gauges(|router| router.lease_seconds.unwrap_or(0.0)),
    )
}

fn adverts(page: &mut Page<'_>, routers: &[(Labels<'_>, &RouterReport)]) -> fmt::Result {
    let each = |value: fn(&RouterReport) -> u64| by_router(routers, value);
    page.counter("kplb_election_adverts_sent", "Adverts sent.", each(|router| router.adverts_sent))?;
    page.counter("kplb_election_send_errors", "Adverts that could not be sent.", each(|router| router.send_errors))?;
    page.counter(
        "kplb_election_adverts_received",
        "Adverts received that counted.",
        each(|router| router.adverts_received),
    )?;
    page.counter(
        "kplb_election_adverts_dropped",
        "Adverts received that did not count.",
        each(|router| router.dropped.values().sum()),
    )
}

#[cfg(test)]
mod tests;
