//! What was seen of an event, and the figures of it.

use std::time::{Duration, Instant};

use super::{Fate, kept::Account};
use crate::{
    figure::{Figure, Value},
    plot::Point,
    vip_client::{Attempt, Attempts},
};

/// When a new connection counts as slow.
const SLOW: Duration = Duration::from_millis(500);

/// What the figures are called.
pub(super) const NAMES: [&str; 12] = [
    "new connections: some fail or take over 500 ms for",
    "new connections: failed",
    "new connections: the longest took",
    "new connections: the longest time without a success",
    "kept connections to living apiservers",
    "    broken",
    "    hang after 20 s",
    "    the last broken one is told after",
    "kept connections to the dead apiserver",
    "    told of it",
    "    still hang after 20 s",
    "    the last is told of it after",
];

/// What was seen.
#[derive(Debug)]
pub struct Record {
    /// When it happened.
    pub moment: Instant,
    /// Until when connections were looked at.
    pub end: Instant,
    /// The node whose apiserver is dead.
    pub dead: String,
    /// New connections.
    pub attempts: Attempts,
    /// Connections from before.
    pub kept: Vec<Account>,
}

impl Record {
    /// All new connections, in the order of their ends.
    pub fn points(&self) -> Vec<Point> {
        let seconds = |instant: Instant| {
            let (after, before) =
                (instant.saturating_duration_since(self.moment), self.moment.saturating_duration_since(instant));
            after.as_secs_f64() - before.as_secs_f64()
        };
        let point = |attempt: &Attempt| Point {
            at: seconds(attempt.start),
            took: attempt.time().as_secs_f64() * 1000.0,
            is_answered: attempt.result.is_ok(),
        };
        self.attempts.iter().map(point).collect()
    }

    /// The one of several with the median trouble.
    ///
    /// # Panics
    /// If there is none.
    pub fn median(records: &[Self]) -> &Self {
        let mut sorted: Vec<&Self> = records.iter().collect();
        sorted.sort_by_key(|record| record.trouble());
        sorted[sorted.len() / 2]
    }

    /// How long new connections failed or were slow.
    pub fn trouble(&self) -> Duration {
        self.attempts.trouble_after(self.moment, SLOW)
    }

    /// The figures, in the order of their names. A time that nothing took is left out.
    pub fn figures(&self) -> Vec<Figure> {
        let Self { moment, attempts, .. } = self;
        let (on_dead, on_living): (Vec<_>, Vec<_>) = self.kept.iter().partition(|account| account.node == self.dead);
        let values = [
            Some(Value::Time(self.trouble())),
            Some(Value::Count(attempts.n_failed())),
            Some(Value::Time(attempts.longest_after(*moment))),
            attempts.outage_after(*moment).and_then(|outage| outage.length()).map(Value::Time),
        ];
        let values = values.into_iter().chain(fates(&self.of(&on_living))).chain(fates(&self.of(&on_dead)));
        NAMES
            .into_iter()
            .zip(values)
            .filter_map(|(name, value)| Some(Figure { name, value: value?, reach: None }))
            .collect()
    }

    fn of(&self, accounts: &[&Account]) -> Vec<Fate> {
        accounts.iter().map(|account| account.fate(self.moment, self.end)).collect()
    }
}

/// How many there are, were told of an end, and hang; and when the last one was told, if one was.
fn fates(fates: &[Fate]) -> [Option<Value>; 4] {
    let told = || fates.iter().filter_map(|fate| if let Fate::Told { after } = fate { Some(*after) } else { None });
    let n_hanging = fates.iter().filter(|fate| **fate == Fate::Hangs).count();
    [
        Some(Value::Count(fates.len())),
        Some(Value::Count(told().count())),
        Some(Value::Count(n_hanging)),
        told().max().map(Value::Time),
    ]
}
