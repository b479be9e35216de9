//! The agent, all traffic together, and the election.

use ratatui::text::{Line, Span};

use super::Ink;
use crate::{
    election::RouterReport,
    status::{FlowsStatus, Status},
    terminal::Tone,
    top::{
        model::Model,
        number::{bars, period, short},
    },
};

/// Two lines.
pub(super) fn lines(model: &Model, ink: Ink, width: usize) -> Vec<Line<'static>> {
    let mut first = vec![ink.strong(Tone::Plain, format!("kplb {}", model.interface()))];
    match (model.silence(), model.status()) {
        (Some((period, reason)), _) => {
            first.push(ink.strong(Tone::Bad, format!("  no agent for {}s", period.as_secs())));
            first.push(Span::raw(format!("  {reason}")));
        }
        (None, Some(status)) => first.push(Span::raw(agent(status))),
        (None, None) => first.push(Span::raw("  asking the agent")),
    }
    if model.is_paused() {
        first.insert(1, ink.strong(Tone::Doubtful, "  paused"));
    }
    let past = model.activity().total();
    let mut flows = FlowsStatus::default();
    if let Some(status) = model.status() {
        flows.add(&status.flows_v4);
        flows.add(&status.flows_v6);
    }
    let rates = past.rates;
    let second = format!(
        "{} pkt/s  {}bit/s  {} new/s  flows {} established, {} half open  ",
        short(rates.packets),
        short(rates.bits),
        short(rates.flows),
        flows.established,
        flows.half_open
    );
    let room = width.saturating_sub(second.chars().count());
    let history = bars(past.packets.iter(), room);
    vec![Line::from(first), Line::from(vec![Span::raw(second), ink.span(Tone::Good, history)])]
}

fn agent(status: &Status) -> String {
    let Status { pid, version, uptime_seconds, .. } = status;
    let pid = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    format!("  {}, up {}, kplb {version}{pid}", status.title(), period(*uptime_seconds as f64))
}

/// A line for each family, and one for what keeps this node from being master.
pub(super) fn election(model: &Model, ink: Ink) -> Vec<Line<'static>> {
    let election = model.status().and_then(|status| status.election.as_ref());
    election.into_iter().flat_map(|election| &election.routers).map(|router| line(router, ink)).collect()
}

fn line(router: &RouterReport, ink: Ink) -> Line<'static> {
    let family = if router.is_ipv4 { "IPv4" } else { "IPv6" };
    let role = match router.state.as_str() {
        "master" => Tone::Good,
        "backup" => Tone::Plain,
        _ => Tone::Doubtful,
    };
    let since = router.state_seconds.map(|seconds| format!(" for {}", period(seconds))).unwrap_or_default();
    let mut spans = vec![
        Span::raw(format!("{family} ")),
        ink.strong(role, router.state.clone()),
        Span::raw(format!("{since}, priority {}", router.priority)),
    ];
    match router.master {
        Some(master) if master != router.address => spans.push(Span::raw(format!(", master {master}"))),
        Some(_) => {}
        None => spans.push(ink.span(Tone::Doubtful, ", no master")),
    }
    if let Some(lease) = router.lease_seconds.filter(|lease| *lease > 0.0) {
        spans.push(Span::raw(format!(", lease {}", period(lease))));
    }
    if !router.faults.is_empty() {
        spans.push(ink.span(Tone::Bad, format!(", not to be master: {}", router.faults.join(", "))));
    }
    Line::from(spans)
}
