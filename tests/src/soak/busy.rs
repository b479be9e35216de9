//! Time that does not count, since the machine let nobody run: an agent that stands still answers no check, sends no advert
//! and follows no neighbour, and that is no fault of its own.
//!
//! A run of which too much does not count says nothing.

use std::{ops::Range, time::Duration};

use super::{
    STALL,
    excuse::{AFTERWARDS, ELECTION},
};

/// What is late by less is as it is on any machine.
pub const LATE: Duration = Duration::from_millis(300);

/// For so long before a pause all was slow already.
const BEFORE: Duration = Duration::from_secs(1);

/// Of a run, one in so many seconds need not count.
const MAX_PART: u32 = 4;

/// A look at the clock that was late.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pause {
    /// The look before it, since the start of the load.
    pub at: Duration,
    /// By how much it was late.
    pub late: Duration,
}

/// Spans of time that do not count, in their order and apart from each other: from before a pause until what it has done is
/// over, as after a move of the VIPs.
pub fn spans(pauses: &[Pause]) -> Vec<Range<Duration>> {
    let mut spans: Vec<Range<Duration>> = Vec::new();
    for Pause { at, late } in pauses {
        let span = at.saturating_sub(BEFORE)..*at + *late + ELECTION + STALL + AFTERWARDS;
        match spans.last_mut().filter(|last| span.start <= last.end) {
            Some(last) => last.end = span.end,
            None => spans.push(span),
        }
    }
    spans
}

/// Whether all of this time does not count.
pub fn covers(spans: &[Range<Duration>], from: Duration, until: Duration) -> bool {
    spans.iter().any(|span| span.contains(&from) && span.contains(&until))
}

/// How much of a run does not count.
pub fn sum(spans: &[Range<Duration>], load: Duration) -> Duration {
    spans.iter().map(|span| span.end.min(load).saturating_sub(span.start)).sum()
}

/// Whether a run says nothing, of which so much does not count.
pub fn is_too_much(sum: Duration, load: Duration) -> bool {
    sum * MAX_PART > load
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pauses_that_follow_each_other_are_one() {
        let tail = s(2) + ELECTION + STALL + AFTERWARDS;
        let pauses = [10, 15, 60].map(|at| Pause { at: s(at), late: s(2) });
        let all = spans(&pauses);
        assert_eq!(all, [s(9)..s(15) + tail, s(59)..s(60) + tail]);
        assert!(covers(&all, s(9), s(20)) && !covers(&all, s(8), s(20)) && !covers(&all, s(20), s(60)));
        assert_eq!(sum(&all, s(61)), s(6) + tail + s(2));
        assert_eq!(spans(&[]), []);
    }

    #[test]
    fn a_quarter_need_not_count() {
        assert!(!is_too_much(s(25), s(100)));
        assert!(is_too_much(s(26), s(100)));
    }
}
