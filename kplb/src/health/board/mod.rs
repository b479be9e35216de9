//! What every backend is to be used for: its health, what was decided by hand, and how long it has been so. Pure: the
//! time is a parameter.
//!
//! Invariant: backends are in the order of the configuration, and known by their places in it.

use std::{
    fmt,
    ops::Range,
    time::{Duration, Instant},
};

use kplb_common::{backend::BackendState, service::WhenEmpty};
use serde::{Deserialize, Serialize};

use super::{
    fsm::{Health, Limits, Monitor, Pace},
    outcome::{Finding, Outcome},
};
use crate::{
    config::{Config, OnDown},
    model::{Condition, Conditions, FULL_SHARE},
};

/// What a backend is used for, as users see it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// For nothing new: its first check runs.
    Checking,
    /// For everything.
    Active,
    /// For the flows it has, no new ones.
    Draining,
    /// For nothing: it does not answer.
    Down,
    /// For nothing: so decided by hand.
    Maintenance,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Checking, Self::Active, Self::Draining, Self::Down, Self::Maintenance];

    /// The state as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was decided by hand for a backend.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// No new flows.
    Drain,
    /// Nothing at all, not even checks.
    Maintenance,
    /// No new flows: the configuration has it no more.
    Removed,
}

impl Decision {
    /// The decision as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
            Self::Removed => "removed",
        }
    }
}

/// A change of a backend's state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transition {
    /// Which one, by its place.
    pub backend: usize,
    /// Before.
    pub from: State,
    /// Since now.
    pub to: State,
    /// Why, in words.
    pub reason: String,
}

/// What is known of one backend.
#[derive(Clone, Debug)]
pub struct Entry {
    service: usize,
    monitor: Monitor,
    by_hand: Option<Decision>,
    state: State,
    since: Instant,
    last: Option<(Instant, Outcome)>,
    /// Whether nothing was known of it ever.
    is_new: bool,
    /// Since when its share of new flows grows.
    ramp: Option<Instant>,
    is_unjudged: bool,
}

impl Entry {
    /// What it is used for.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// When the last check ended, and what it found.
    pub const fn last(&self) -> Option<&(Instant, Outcome)> {
        self.last.as_ref()
    }

    /// What was decided by hand.
    pub const fn by_hand(&self) -> Option<Decision> {
        self.by_hand
    }

    const fn decide(&self) -> State {
        match (self.by_hand, self.monitor.health()) {
            (Some(Decision::Maintenance), _) => State::Maintenance,
            (_, Health::Checking) => State::Checking,
            (_, Health::Down) => State::Down,
            (Some(Decision::Drain | Decision::Removed), _) | (_, Health::Draining) => State::Draining,
            (None, Health::Active) => State::Active,
        }
    }
}

/// What a service says of all its backends.
#[derive(Clone, Debug)]
struct Rules {
    /// Their places.
    backends: Range<usize>,
    on_down: OnDown,
    drain_timeout: Option<Duration>,
    slow_start: Option<Duration>,
    /// When every first check has ended, one way or the other.
    first_checks_end: Instant,
}

/// All backends.
#[derive(Clone, Debug)]
pub struct Board {
    entries: Vec<Entry>,
    rules: Vec<Rules>,
}

/// What became of an outcome.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Noted {
    /// The change that it has made, if any.
    pub transition: Option<Transition>,
    /// Whether, for the first time in a row, the backend must not tell whether it is ready.
    pub is_newly_unjudged: bool,
}

/// In how many steps a share grows.
const RAMP_STEPS: u32 = 32;

impl Board {
    /// Nothing is known yet; what is not checked is active.
    pub fn new(config: &Config, now: Instant) -> Self {
        let mut entries = Vec::new();
        let mut rules = Vec::with_capacity(config.services.len());
        for (service, config) in config.services.iter().enumerate() {
            let patience =
                config.backends.iter().filter_map(|backend| backend.check.as_ref()).map(|check| check.timeout);
            rules.push(Rules {
                backends: entries.len()..entries.len() + config.backends.len(),
                on_down: config.on_down,
                drain_timeout: config.drain_timeout,
                slow_start: config.slow_start,
                first_checks_end: now + patience.max().unwrap_or_default(),
            });
            entries.extend(config.backends.iter().map(|backend| {
                let monitor = match &backend.check {
                    Some(check) => Monitor::new(Limits { rise: check.rise, fall: check.fall }),
                    None => Monitor::unchecked(),
                };
                let mut entry = Entry {
                    service,
                    monitor,
                    by_hand: None,
                    state: State::Checking,
                    since: now,
                    last: None,
                    is_new: true,
                    ramp: None,
                    is_unjudged: false,
                };
                entry.state = entry.decide();
                entry.is_new = entry.state == State::Checking;
                entry
            }));
        }
        Self { entries, rules }
    }

    /// Takes a backend for what an earlier agent knew of it, until checks say otherwise.
    pub fn assume(&mut self, backend: usize, health: Health) {
        let entry = &mut self.entries[backend];
        entry.monitor = entry.monitor.assumed(health);
        entry.state = entry.decide();
        entry.is_new = false;
    }

    /// Takes a backend for what it was under an earlier configuration, but for what is decided by hand from now on.
    pub fn inherit(&mut self, backend: usize, earlier: &Entry, by_hand: Option<Decision>, now: Instant) {
        let Entry { service, ref monitor, .. } = self.entries[backend];
        let monitor = monitor.continued(&earlier.monitor);
        let entry = &mut self.entries[backend];
        *entry = Entry { service, monitor, by_hand, ..earlier.clone() };
        entry.state = entry.decide();
        if entry.state != earlier.state {
            entry.since = now;
        }
    }

    /// The backends, by place.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The backends of the same service, the backend itself included.
    pub fn siblings(&self, backend: usize) -> Range<usize> {
        self.rules[self.entries[backend].service].backends.clone()
    }

    /// How often to check a backend, if it is to be checked.
    pub fn pace(&self, backend: usize) -> Option<Pace> {
        let entry = &self.entries[backend];
        if entry.by_hand == Some(Decision::Maintenance) {
            return None;
        }
        // Somebody is waited for.
        if !self.entries[self.siblings(backend)].iter().any(|sibling| sibling.state == State::Active) {
            return Some(Pace::Fast);
        }
        Some(entry.monitor.pace())
    }

    /// A client was refused by the backend, or a connection to it was lost.
    pub fn suspect(&mut self, backend: usize) {
        self.entries[backend].monitor.suspect();
    }

    /// Takes a check's outcome into account.
    pub fn observe(&mut self, backend: usize, outcome: Outcome, now: Instant) -> Noted {
        let entry = &mut self.entries[backend];
        entry.monitor.observe(outcome.finding);
        let is_unjudged = outcome.finding == Finding::Unjudged;
        let is_newly_unjudged = is_unjudged && !entry.is_unjudged;
        entry.is_unjudged = is_unjudged;
        let reason = outcome.to_string();
        entry.last = Some((now, outcome));
        Noted { transition: self.settle(backend, reason, now), is_newly_unjudged }
    }

    /// Decides by hand, or leaves it to the backend's health again.
    pub fn decide(&mut self, backend: usize, by_hand: Option<Decision>, now: Instant) -> Option<Transition> {
        const MAINTENANCE: Option<Decision> = Some(Decision::Maintenance);
        let entry = &mut self.entries[backend];
        if entry.by_hand == MAINTENANCE && by_hand != MAINTENANCE {
            // It was not checked: whatever was known is old.
            entry.monitor = entry.monitor.restarted();
        }
        entry.by_hand = by_hand;
        let reason = match by_hand {
            Some(Decision::Removed) => "the configuration has it no more",
            _ => "by hand",
        };
        self.settle(backend, reason.to_owned(), now)
    }

    fn settle(&mut self, backend: usize, reason: String, now: Instant) -> Option<Transition> {
        let entry = &mut self.entries[backend];
        let (from, to) = (entry.state, entry.decide());
        if from == to {
            return None;
        }
        let slow_start = self.rules[entry.service].slow_start;
        // At the start there is no one else to take the load meanwhile.
        entry.ramp = (to == State::Active && !entry.is_new && slow_start.is_some()).then_some(now);
        entry.is_new = false;
        entry.state = to;
        entry.since = now;
        Some(Transition { backend, from, to, reason })
    }

    /// What follows for the data path.
    pub fn conditions(&self, now: Instant) -> Conditions {
        let backends = self.entries.iter().map(|entry| self.condition(entry, now)).collect();
        let when_empty = (0..self.rules.len())
            .map(|service| {
                let Rules { backends, first_checks_end, .. } = &self.rules[service];
                let waits = now < *first_checks_end
                    && self.entries[backends.clone()].iter().any(|entry| entry.state == State::Checking);
                if waits { WhenEmpty::Wait } else { WhenEmpty::Refuse }
            })
            .collect();
        Conditions { backends, when_empty }
    }

    fn condition(&self, entry: &Entry, now: Instant) -> Condition {
        let rules = &self.rules[entry.service];
        let is_over = |period: Option<Duration>| period.is_some_and(|period| now >= entry.since + period);
        let (share, state) = match entry.state {
            State::Active => (self.share(entry, now), BackendState::Serving),
            State::Checking => (0, BackendState::Serving),
            State::Draining if is_over(rules.drain_timeout) => (0, BackendState::Down),
            State::Draining => (0, BackendState::Serving),
            State::Down if rules.on_down == OnDown::Keep => (0, BackendState::Serving),
            State::Down | State::Maintenance => (0, BackendState::Down),
        };
        Condition { share, state }
    }

    /// Grows in steps, so that the ring is not built anew all the time.
    fn share(&self, entry: &Entry, now: Instant) -> u32 {
        let (Some(start), Some(period)) = (entry.ramp, self.rules[entry.service].slow_start) else { return FULL_SHARE };
        let step = period / RAMP_STEPS;
        let n_steps = (now.saturating_duration_since(start).as_nanos() / step.as_nanos().max(1)) + 1;
        let n_steps = u32::try_from(n_steps).unwrap_or(RAMP_STEPS).min(RAMP_STEPS);
        FULL_SHARE / RAMP_STEPS * n_steps
    }

    /// When the conditions change by themselves next.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let of_entry = |entry: &Entry| {
            let rules = &self.rules[entry.service];
            let change = match entry.state {
                State::Checking => Some(rules.first_checks_end),
                State::Draining => rules.drain_timeout.map(|timeout| entry.since + timeout),
                State::Active => entry.ramp.zip(rules.slow_start).and_then(|(start, period)| {
                    let step = period / RAMP_STEPS;
                    (1..RAMP_STEPS).map(|n| start + step * n).find(|change| *change > now)
                }),
                State::Down | State::Maintenance => None,
            };
            change.filter(|change| *change > now)
        };
        self.entries.iter().filter_map(of_entry).min()
    }

    /// Whether there may still be news of a first check.
    pub fn awaits_first_checks(&self, now: Instant) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.state == State::Checking && now < self.rules[entry.service].first_checks_end)
    }

    /// Whether something is known of every backend.
    pub fn is_settled(&self) -> bool {
        self.entries.iter().all(|entry| entry.state != State::Checking)
    }
}

#[cfg(test)]
mod tests;
