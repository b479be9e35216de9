//! Verdicts and events, side by side where there is room.

use kplb_common::verdict::Verdict;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use super::{Ink, title};
use crate::{
    status::EventStatus,
    terminal::Tone,
    top::{
        model::Model,
        number::{period, short},
    },
};

/// Of the names of verdicts, with a rate and a count.
const VERDICTS_WIDTH: u16 = 46;
/// Narrower than both of them need, the window has events alone.
const BOTH_WIDTH: u16 = 2 * VERDICTS_WIDTH;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, ink: Ink, area: Rect) {
    let rows = usize::from(area.height).saturating_sub(1);
    if area.width < BOTH_WIDTH {
        super::lines(frame, area, events(model, ink, rows));
        return;
    }
    let [left, right] = Layout::horizontal([Constraint::Length(VERDICTS_WIDTH), Constraint::Min(0)]).areas(area);
    super::lines(frame, left, verdicts(model, ink, rows));
    super::lines(frame, right, events(model, ink, rows));
}

/// Those that packets have now, and of drops those that there ever were; drops first, the most frequent above.
fn verdicts(model: &Model, ink: Ink, rows: usize) -> Vec<Line<'static>> {
    let Some(status) = model.status() else { return Vec::new() };
    let mut verdicts: Vec<(bool, f64, u64, &str)> = Verdict::all()
        .map(|verdict| {
            let name = verdict.name();
            let total = status.verdicts.get(name).copied().unwrap_or(0);
            (matches!(verdict, Verdict::Drop(_)), model.activity().verdict(name), total, name)
        })
        .filter(|(is_drop, rate, total, _)| *rate > 0.0 || *is_drop && *total > 0)
        .collect();
    verdicts.sort_by(|a, b| (b.0, b.1).partial_cmp(&(a.0, a.1)).unwrap_or(std::cmp::Ordering::Equal));
    let line = |(is_drop, rate, total, name): &(bool, f64, u64, &str)| {
        let tone = if *is_drop && *rate > 0.0 { Tone::Bad } else { Tone::Plain };
        Line::from(ink.span(tone, format!("{name:24} {:>7} {total:>10}", short(*rate))))
    };
    let head = title(format!("{:24} {:>7} {:>10}", "VERDICT", "/S", "PACKETS"));
    [head].into_iter().chain(verdicts.iter().take(rows).map(line)).collect()
}

/// The newest above.
fn events(model: &Model, ink: Ink, rows: usize) -> Vec<Line<'static>> {
    let line = |event: &EventStatus| {
        let tone = match event.level.as_str() {
            "error" => Tone::Bad,
            "warn" => Tone::Doubtful,
            _ => Tone::Plain,
        };
        Line::from(vec![Span::raw(format!("{:>5}  ", period(event.age_seconds))), ink.span(tone, event.text.clone())])
    };
    [title("  AGO  EVENT")].into_iter().chain(model.events().take(rows).map(line)).collect()
}
