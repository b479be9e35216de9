//! From what is known to a picture: what matters most is above, and what there is no room for is left out.
//!
//! ```text
//! head       the agent, all traffic
//! election   a line for each family
//! backends   a line for each service and backend; the selected one is always in sight
//! detail     of the selected one, what has no room in a line
//! foot       verdicts | events
//! keys
//! ```

mod backends;
mod foot;
mod head;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::model::Model;
use crate::terminal::{Colour, Tone};

/// Rows of verdicts and events, where there is room.
const FOOT_ROWS: u16 = 8;
/// Rows that backends have before anything has room below them.
const BACKENDS_FIRST: u16 = 6;

/// Draws it all.
pub fn draw(frame: &mut Frame<'_>, model: &Model, colour: Colour) {
    let area = frame.area();
    let ink = Ink(colour);
    let election = head::election(model, ink);
    let detail = backends::detail(model, ink);
    let n_lines = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let (n_election, n_detail) = (n_lines(election.len()), n_lines(detail.iter().count()));
    let left = area.height.saturating_sub(2 + n_election + n_detail + 1);
    let foot = if left >= BACKENDS_FIRST + 3 { (left - BACKENDS_FIRST).min(FOOT_ROWS) } else { 0 };
    let [head, elected, table, detailed, foot, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(n_election),
        Constraint::Min(0),
        Constraint::Length(n_detail),
        Constraint::Length(foot),
        Constraint::Length(1),
    ])
    .areas(area);
    lines(frame, head, head::lines(model, ink, usize::from(head.width)));
    lines(frame, elected, election);
    lines(frame, table, backends::lines(model, ink, table));
    lines(frame, detailed, detail.into_iter().collect());
    foot::draw(frame, model, ink, foot);
    lines(frame, keys, vec![keys_line(model)]);
}

fn lines(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines), area);
}

fn keys_line(model: &Model) -> Line<'static> {
    let pause = if model.is_paused() { "p go on" } else { "p pause" };
    Line::styled(format!("q end  {pause}  arrows select"), Style::new().add_modifier(Modifier::DIM))
}

/// How things are written.
#[derive(Clone, Copy)]
struct Ink(Colour);

impl Ink {
    fn style(self, tone: Tone) -> Style {
        if self.0 == Colour::Unused {
            return Style::new();
        }
        match tone {
            Tone::Good => Style::new().fg(Color::Green),
            Tone::Doubtful => Style::new().fg(Color::Yellow),
            Tone::Bad => Style::new().fg(Color::Red),
            Tone::Plain => Style::new(),
        }
    }

    fn span(self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }

    fn strong(self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.style(tone).add_modifier(Modifier::BOLD))
    }
}

/// Of what titles are made.
fn title(text: impl Into<String>) -> Line<'static> {
    Line::styled(text.into(), Style::new().add_modifier(Modifier::BOLD))
}
