//! A line for each service and each backend.

use ratatui::{
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{Ink, title};
use crate::{
    status::{BackendStatus, ServiceStatus},
    terminal::Tone,
    top::{
        model::Model,
        number::{bars, period, short},
        rates::Past,
    },
};

/// Room for bars, if there is any.
const BARS: usize = 24;
/// Between two columns.
const GAP: usize = 2;

/// A column.
struct Column {
    title: &'static str,
    /// The columns of the highest rank are the first to go where there is no room.
    rank: u8,
    is_number: bool,
    cell: fn(&BackendStatus, &Past) -> String,
}

const COLUMNS: [Column; 10] = [
    Column { title: "BACKEND", rank: 0, is_number: false, cell: |backend, _| format!("  {}", backend.name) },
    Column { title: "ADDRESS", rank: 7, is_number: false, cell: |backend, _| backend.address.to_string() },
    Column { title: "STATE", rank: 0, is_number: false, cell: |backend, _| backend.state.clone() },
    Column { title: "SINCE", rank: 6, is_number: true, cell: |backend, _| period(backend.state_seconds) },
    Column { title: "CHECK", rank: 4, is_number: false, cell: |backend, _| check(backend) },
    Column {
        title: "SHARE",
        rank: 8,
        is_number: true,
        cell: |backend, _| format!("{:.0}%", 100.0 * backend.ring_share),
    },
    Column {
        title: "FLOWS",
        rank: 3,
        is_number: true,
        cell: |backend, _| (backend.flows.established + backend.flows.half_open).to_string(),
    },
    Column { title: "NEW/S", rank: 5, is_number: true, cell: |_, past| short(past.rates.flows) },
    Column { title: "PKT/S", rank: 1, is_number: true, cell: |_, past| short(past.rates.packets) },
    Column { title: "BIT/S", rank: 2, is_number: true, cell: |_, past| short(past.rates.bits) },
];

fn check(backend: &BackendStatus) -> String {
    match &backend.check {
        Some(check) => format!("{} {:.0} ms", check.code, check.latency_ms),
        None => "-".to_owned(),
    }
}

/// A line of the list.
enum Entry<'m> {
    Service(&'m ServiceStatus),
    Backend(&'m BackendStatus, Past),
}

fn entries(model: &Model) -> Vec<Entry<'_>> {
    let services = model.status().into_iter().flat_map(|status| &status.services);
    let mut entries = Vec::new();
    for service in services {
        entries.push(Entry::Service(service));
        entries.extend(
            service
                .backends
                .iter()
                .map(|backend| Entry::Backend(backend, model.activity().backend(&service.name, &backend.name))),
        );
    }
    entries
}

/// As many as there is room for, with the selected one among them.
pub(super) fn lines(model: &Model, ink: Ink, area: Rect) -> Vec<Line<'static>> {
    let entries = entries(model);
    if entries.is_empty() {
        return Vec::new();
    }
    let (columns, widths) = fitting(&entries, area.width.into());
    let used: usize = widths.iter().map(|width| width + GAP).sum();
    let n_bars = usize::from(area.width).saturating_sub(used).min(BARS);
    let heads = columns.iter().zip(&widths).map(|(column, width)| padded(column.title, *width, column.is_number));
    let mut lines = vec![title(heads.collect::<String>())];
    let room = usize::from(area.height).saturating_sub(1);
    // The selected one is in the middle, where the list is long enough.
    let first = model.selected().saturating_sub(room / 2).min(entries.len().saturating_sub(room));
    for (i, entry) in entries.iter().enumerate().skip(first).take(room) {
        let mut line = match entry {
            Entry::Service(service) => service_line(service, ink),
            Entry::Backend(backend, past) => backend_line(backend, past, &columns, &widths, n_bars, ink),
        };
        if i == model.selected() {
            line = line.patch_style(Style::new().add_modifier(Modifier::REVERSED));
        }
        if model.silence().is_some() {
            line = line.patch_style(Style::new().add_modifier(Modifier::DIM));
        }
        lines.push(line);
    }
    lines
}

/// The columns that there is room for, and how wide each is.
fn fitting(entries: &[Entry<'_>], room: usize) -> (Vec<&'static Column>, Vec<usize>) {
    let width = |column: &Column| {
        let cells = entries.iter().filter_map(|entry| match entry {
            Entry::Backend(backend, past) => Some((column.cell)(backend, past).chars().count()),
            Entry::Service(_) => None,
        });
        cells.max().unwrap_or(0).max(column.title.len())
    };
    let mut columns: Vec<(&Column, usize)> = COLUMNS.iter().map(|column| (column, width(column))).collect();
    while columns.iter().map(|(_, width)| width + GAP).sum::<usize>() > room + GAP {
        let Some(worst) = columns.iter().map(|(column, _)| column.rank).max().filter(|rank| *rank > 0) else { break };
        columns.retain(|(column, _)| column.rank != worst);
    }
    columns.into_iter().unzip()
}

fn padded(text: &str, width: usize, is_number: bool) -> String {
    let blank = " ".repeat(GAP);
    if is_number { format!("{text:>width$}{blank}") } else { format!("{text:width$}{blank}") }
}

fn service_line(service: &ServiceStatus, ink: Ink) -> Line<'static> {
    let ServiceStatus { name, vip, protocol, flows, backends, .. } = service;
    let endpoint = format!("{vip}/{protocol}");
    let name = if *name == endpoint { String::new() } else { format!("{name}  ") };
    let n_active = backends.iter().filter(|backend| backend.state == "active").count();
    let tone = match n_active {
        0 => Tone::Bad,
        n if n < backends.len() => Tone::Doubtful,
        _ => Tone::Good,
    };
    Line::from(vec![
        ink.strong(Tone::Plain, format!("{name}{endpoint}  ")),
        ink.span(tone, format!("{n_active} of {} active", backends.len())),
        Span::raw(format!(", {} flows", flows.established + flows.half_open)),
    ])
}

fn backend_line(
    backend: &BackendStatus,
    past: &Past,
    columns: &[&Column],
    widths: &[usize],
    n_bars: usize,
    ink: Ink,
) -> Line<'static> {
    let cell = |(column, width): (&&Column, &usize)| {
        let tone = match column.title {
            "STATE" => state_tone(&backend.state),
            "CHECK" if backend.check.as_ref().is_some_and(|check| !check.is_good) => Tone::Bad,
            _ => Tone::Plain,
        };
        ink.span(tone, padded(&(column.cell)(backend, past), *width, column.is_number))
    };
    let mut spans: Vec<Span<'static>> = columns.iter().zip(widths).map(cell).collect();
    spans.push(ink.span(Tone::Good, bars(past.packets.iter(), n_bars)));
    Line::from(spans)
}

fn state_tone(state: &str) -> Tone {
    match state {
        "active" => Tone::Good,
        "down" => Tone::Bad,
        _ => Tone::Doubtful,
    }
}

/// What has no room in the line of the selected backend.
pub(super) fn detail(model: &Model, ink: Ink) -> Option<Line<'static>> {
    let entries = entries(model);
    let Entry::Backend(backend, _) = entries.get(model.selected())? else { return None };
    let BackendStatus { name, address, check, by_hand, next_hop, location, .. } = backend;
    let hop = match next_hop {
        Some(mac) => format!("next hop {mac}"),
        None if location == "local" => "on this node".to_owned(),
        None => "next hop not resolved".to_owned(),
    };
    let mut spans = vec![ink.strong(Tone::Plain, format!("{name} {address}")), Span::raw(format!("  {hop}"))];
    if let Some(check) = check {
        let tone = if check.is_good { Tone::Plain } else { Tone::Bad };
        let words = if check.words.is_empty() { String::new() } else { format!(" ({})", check.words) };
        spans.push(ink.span(tone, format!("  {}{words} {} ago", check.code, period(check.age_seconds))));
    }
    if let Some(decision) = by_hand {
        let by = if decision == "removed" { " from the configuration" } else { ", decided by hand" };
        spans.push(ink.span(Tone::Doubtful, format!("  {decision}{by}")));
    }
    Some(Line::from(spans))
}
