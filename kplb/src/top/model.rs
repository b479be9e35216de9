//! What is known, what is shown, and what keys do.

use std::time::{Duration, Instant};

use super::rates::Activity;
use crate::status::{EventStatus, Status};

/// What came of asking an agent.
#[derive(Clone, Debug)]
pub enum News {
    /// How it is.
    Status(Box<Status>),
    /// Nobody answers, and why.
    Silence(String),
}

/// What a key is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key {
    /// End.
    Quit,
    /// Stop and go on.
    Pause,
    /// Select another line: so many further down, or up.
    Move(i32),
    /// Select the first.
    First,
    /// Select the last.
    Last,
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flow {
    /// It does.
    On,
    /// It ends.
    End,
}

/// All that is shown.
#[derive(Clone, Debug, Default)]
pub struct Model {
    interface: Option<String>,
    last: Option<(Instant, Status)>,
    silence: Option<Silence>,
    activity: Activity,
    is_paused: bool,
    selected: usize,
}

/// Since when nobody answers.
#[derive(Clone, Debug)]
struct Silence {
    since: Instant,
    now: Instant,
    reason: String,
}

impl Model {
    /// Of an agent that nothing is known of yet; the interface, if it was named.
    pub fn new(interface: Option<String>) -> Self {
        Self { interface, ..Self::default() }
    }

    /// Takes news into account; while it is paused they are passed over.
    pub fn take(&mut self, news: News, now: Instant) {
        if self.is_paused {
            return;
        }
        match news {
            News::Status(status) => {
                let before = self.last.as_ref().map(|(then, before)| (before, now.saturating_duration_since(*then)));
                // What happened in a silence is no rate of now.
                self.activity.take(before.filter(|_| self.silence.is_none()), &status);
                self.silence = None;
                self.last = Some((now, *status));
                self.selected = self.selected.min(self.n_lines().saturating_sub(1));
            }
            News::Silence(reason) => {
                let since = self.silence.as_ref().map_or(now, |silence| silence.since);
                self.silence = Some(Silence { since, now, reason });
                self.activity.pause();
            }
        }
    }

    /// Does what a key is for.
    pub fn press(&mut self, key: Key) -> Flow {
        let last = self.n_lines().saturating_sub(1);
        match key {
            Key::Quit => return Flow::End,
            Key::Pause => self.is_paused = !self.is_paused,
            Key::Move(n) => {
                let steps = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
                let moved =
                    if n < 0 { self.selected.saturating_sub(steps) } else { self.selected.saturating_add(steps) };
                self.selected = moved.min(last);
            }
            Key::First => self.selected = 0,
            Key::Last => self.selected = last,
        }
        Flow::On
    }

    /// A line for each service and each backend.
    fn n_lines(&self) -> usize {
        self.status().map_or(0, |status| status.services.iter().map(|service| 1 + service.backends.len()).sum())
    }

    /// The last that was heard.
    pub(super) fn status(&self) -> Option<&Status> {
        self.last.as_ref().map(|(_, status)| status)
    }

    /// For how long nobody answers, and why; none if somebody does.
    pub(super) fn silence(&self) -> Option<(Duration, &str)> {
        let silence = self.silence.as_ref()?;
        Some((silence.now.saturating_duration_since(silence.since), &silence.reason))
    }

    pub(super) fn interface(&self) -> &str {
        let heard = self.status().map(|status| status.interface.as_str());
        heard.or(self.interface.as_deref()).unwrap_or("-")
    }

    /// What the agent has said, the newest first.
    pub(super) fn events(&self) -> impl Iterator<Item = &EventStatus> {
        self.status().into_iter().flat_map(|status| status.events.iter().rev())
    }

    pub(super) const fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(super) const fn selected(&self) -> usize {
        self.selected
    }
}
