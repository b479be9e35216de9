//! What was seen of an event.

use std::{cmp::Ordering, time::Instant};

use serde_json::json;

use super::{Fate, Figures, kept::Account};
use crate::{
    figure::Value,
    plot::Point,
    vip_client::{Attempt, Attempts},
};

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
        let point = |attempt: &Attempt| Point {
            at: self.seconds(attempt.start),
            took: attempt.time().as_secs_f64() * 1000.0,
            is_answered: attempt.result.is_ok(),
        };
        self.attempts.iter().map(point).collect()
    }

    /// All kept connections, for files: who speaks, with which node, when something was heard (in seconds since it happened, to a
    /// thousandth), and what became of it.
    pub fn accounts(&self) -> Vec<serde_json::Value> {
        let at = |instant: Instant| (self.seconds(instant) * 1000.0).round() / 1000.0;
        let account = |account: &Account| {
            let (fate, seconds) = match account.fate(self.moment, self.end) {
                Fate::GoesOn { silence } => ("goes on", Some(silence.as_secs_f64())),
                Fate::Told { after } => ("told", Some(after.as_secs_f64())),
                Fate::Hangs => ("hangs", None),
            };
            json!({
                "manner": account.manner,
                "node": account.node,
                "is_to_the_dead": account.node == self.dead,
                "heard": account.heard.iter().copied().map(at).collect::<Vec<f64>>(),
                "ended": account.ended.map(at),
                "fate": fate,
                // The longest silence of one that goes on; when one that was told was.
                "seconds": seconds,
            })
        };
        self.kept.iter().map(account).collect()
    }

    /// The one of several with the median trouble.
    ///
    /// # Panics
    /// If there is none.
    pub fn median(records: &[Self]) -> &Self {
        let mut sorted: Vec<(Value, &Self)> = records.iter().map(|record| (record.figures().trouble, record)).collect();
        sorted.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        sorted[sorted.len() / 2].1
    }

    /// What clients noticed.
    pub fn figures(&self) -> Figures {
        Figures::of(self)
    }

    /// Since it happened; negative before that.
    fn seconds(&self, instant: Instant) -> f64 {
        let (after, before) =
            (instant.saturating_duration_since(self.moment), self.moment.saturating_duration_since(instant));
        after.as_secs_f64() - before.as_secs_f64()
    }
}
