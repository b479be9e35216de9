//! How often the segment is asked for a neighbour: at once when there is a reason, and less often while the reason stays.
//! Pure: the time is a parameter.
//!
//! A question is a frame for all hosts of the segment, and switches that inspect ARP shut a port that sends more than
//! some fifteen a second. So there is a limit for all neighbours together, too: whoever was not asked for gives reason
//! again.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Between the first two questions for a neighbour; later ones are twice as far apart each…
const FIRST_GAP: Duration = Duration::from_millis(100);
/// …and at last so far.
const LAST_GAP: Duration = Duration::from_millis(500);
/// Without a reason for so long after a question, the next reason is a new one.
const REST: Duration = Duration::from_secs(3);
/// Questions within a second, for all neighbours together.
const LIMIT: usize = 5;
const SECOND: Duration = Duration::from_secs(1);

/// When what was asked for.
#[derive(Clone, Debug, Default)]
pub struct Pacing {
    neighbours: HashMap<IpAddr, Asked>,
    /// Of the last second.
    recent: VecDeque<Instant>,
}

/// The last question for a neighbour.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    /// Until the next one may follow.
    gap: Duration,
}

impl Pacing {
    /// Whether a neighbour for which there is reason to ask is asked for now. If so, it counts as asked for.
    pub fn may_ask(&mut self, neighbour: IpAddr, now: Instant) -> bool {
        self.neighbours.retain(|_, asked| now < asked.at + REST);
        while self.recent.front().is_some_and(|at| now >= *at + SECOND) {
            self.recent.pop_front();
        }
        let before = self.neighbours.get(&neighbour);
        if self.recent.len() >= LIMIT || before.is_some_and(|asked| now < asked.at + asked.gap) {
            return false;
        }
        let gap = before.map_or(FIRST_GAP, |asked| (2 * asked.gap).min(LAST_GAP));
        self.neighbours.insert(neighbour, Asked { at: now, gap });
        self.recent.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ip(last: u8) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, last))
    }

    /// When a neighbour is asked for while there is reason all the time, in milliseconds.
    fn asked(pacing: &mut Pacing, start: Instant, milliseconds: std::ops::Range<u64>) -> Vec<u64> {
        milliseconds.filter(|ms| pacing.may_ask(ip(1), start + Duration::from_millis(*ms))).collect()
    }

    #[test]
    fn less_and_less_often() {
        let (mut pacing, start) = (Pacing::default(), Instant::now());
        assert_eq!(asked(&mut pacing, start, 0..3000), [0, 100, 300, 700, 1200, 1700, 2200, 2700]);
        // The reason was gone for a while.
        assert_eq!(asked(&mut pacing, start, 5700..5900), [5700, 5800]);
        // Not long enough.
        assert_eq!(asked(&mut pacing, start, 8000..8400), [8000]);
    }

    #[test]
    fn all_together_are_limited() {
        let (mut pacing, start) = (Pacing::default(), Instant::now());
        let mut n_asked = |from: u64| {
            let moments = (from..from + 1000).map(|ms| start + Duration::from_millis(ms));
            moments
                .flat_map(|now| (0..100).map(move |n| (ip(n), now)))
                .filter(|(ip, now)| pacing.may_ask(*ip, *now))
                .count()
        };
        assert_eq!([n_asked(0), n_asked(1000), n_asked(2000)], [LIMIT; 3]);
        assert_eq!(pacing.neighbours.len(), LIMIT);
        // Of what is over nothing is kept.
        assert!(pacing.may_ask(ip(200), start + Duration::from_secs(60)));
        assert_eq!((pacing.neighbours.len(), pacing.recent.len()), (1, 1));
    }
}
