//! What becomes of a connection when something dies.

use std::time::{Duration, Instant};

/// How late a word may be that was to come by now.
const SLACK: Duration = Duration::from_secs(1);

/// What has become of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It goes on.
    GoesOn {
        /// The longest that nothing was heard since it happened.
        silence: Duration,
    },
    /// The client was told that it has ended.
    Told {
        /// So long after it happened.
        after: Duration,
    },
    /// Nothing comes any more, and the client was told nothing.
    Hangs,
}

impl Fate {
    /// The fate by `now` of a connection on which something is to be heard at every interval, and was heard at these times.
    pub(super) fn of(
        heard: &[Instant],
        ended: Option<Instant>,
        moment: Instant,
        now: Instant,
        interval: Duration,
    ) -> Self {
        if let Some(ended) = ended {
            return Self::Told { after: ended.saturating_duration_since(moment) };
        }
        if heard.last().is_none_or(|last| now.saturating_duration_since(*last) > interval + SLACK) {
            return Self::Hangs;
        }
        let ends = heard.iter().copied().skip(1).chain([now]);
        let silences = heard.iter().zip(ends).filter(|(_, end)| *end > moment);
        Self::GoesOn { silence: silences.map(|(start, end)| end - *start).max().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_not_the_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let interval = Duration::from_millis(100);
        let of = |heard: &[u64], ended: Option<u64>| {
            let heard: Vec<Instant> = heard.iter().map(|ms| at(*ms)).collect();
            Fate::of(&heard, ended.map(at), at(1000), at(5000), interval)
        };
        let silence = Duration::from_millis;
        // One from before does not count, one that goes on at the moment does.
        assert_eq!(of(&[0, 900, 1500, 4900], None), Fate::GoesOn { silence: silence(3400) });
        assert_eq!(of(&[0, 950, 1500, 3200, 4000, 5000], None), Fate::GoesOn { silence: silence(1700) });
        assert_eq!(of(&[0, 950, 3899], None), Fate::Hangs);
        assert_eq!(of(&[], None), Fate::Hangs);
        assert_eq!(of(&[0, 950], Some(1300)), Fate::Told { after: silence(300) });
    }
}
