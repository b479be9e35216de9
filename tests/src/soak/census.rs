//! How many connections and datagram flows clients have and had: what the flow tables may hold follows from that.

use std::{collections::VecDeque, time::Duration};

/// Ends that are longer ago are forgotten.
const MEMORY: Duration = Duration::from_secs(60);

/// The clients' own count. All times are since the start of the load.
#[derive(Clone, Debug, Default)]
pub struct Census {
    attempts: u64,
    held: usize,
    answered: usize,
    ended: VecDeque<Duration>,
}

/// What a connection was when it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// It was begun; whether a backend knows of it, nobody can tell.
    Begun,
    /// It had been answered.
    Answered,
}

impl Census {
    /// Somebody begins a connection, or sends the first datagram from a port.
    pub fn begin(&mut self) {
        self.attempts += 1;
        self.held += 1;
    }

    /// A connection was answered for the first time.
    pub fn answer(&mut self) {
        self.answered += 1;
    }

    /// One ends, whatever the reason.
    pub fn end(&mut self, phase: Phase, now: Duration) {
        self.held -= 1;
        if phase == Phase::Answered {
            self.answered -= 1;
        }
        self.ended.push_back(now);
        while self.ended.front().is_some_and(|at| *at + MEMORY < now) {
            self.ended.pop_front();
        }
    }

    /// How many were begun in all.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// How many are answered and not ended.
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// How many ended at this time or after it.
    pub fn ended_since(&self, time: Duration) -> usize {
        self.ended.iter().filter(|at| **at >= time).count()
    }

    /// How many there were, at one moment or another, at this time or after it; it is not longer ago than a minute.
    pub fn existed_since(&self, time: Duration) -> usize {
        self.held + self.ended_since(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn who_has_ended_is_remembered_for_a_while() {
        let mut census = Census::default();
        (0..3).for_each(|_| census.begin());
        census.answer();
        census.end(Phase::Answered, s(10));
        census.end(Phase::Begun, s(20));
        assert_eq!((census.attempts(), census.answered()), (3, 0));
        assert_eq!([s(0), s(10), s(11), s(21)].map(|time| census.existed_since(time)), [3, 3, 2, 1]);
        census.end(Phase::Begun, s(100));
        assert_eq!((census.ended_since(s(0)), census.existed_since(s(0))), (1, 1), "the others are forgotten");
    }
}
