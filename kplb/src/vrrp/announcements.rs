//! When a master tells the segment where its VIPs are, by gratuitous ARP or unsolicited neighbour advertisements: at
//! once, again when switches have settled, when somebody else was master, too, and now and then.
//!
//! Frames are lost, and a neighbour that has missed them sends to the old master until its cache entry ages.

use std::time::{Duration, Instant};

/// When to announce, and how often; one announcement is of each VIP once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// In each burst after becoming master; keepalived's `garp_master_repeat`.
    pub repeat: u32,
    /// From becoming master to the second burst, zero for none; keepalived's `garp_master_delay`.
    pub delay: Duration,
    /// Between the announcements of a burst, zero for all at once; keepalived's `garp_interval` and `gna_interval`.
    pub gap: Duration,
    /// Between bursts as long as it is master, zero for none; keepalived's `garp_master_refresh`.
    pub refresh: Duration,
    /// In each of these; keepalived's `garp_master_refresh_repeat`.
    pub refresh_repeat: u32,
    /// In each burst after another master was heard; keepalived's `garp_lower_prio_repeat`.
    pub lower_priority_repeat: u32,
    /// From when another master was heard last to the second burst, and the time in which there is but one first
    /// burst however often it is heard; keepalived's `garp_lower_prio_delay`.
    pub lower_priority_delay: Duration,
}

impl Default for Schedule {
    /// keepalived's, but for the gap (there zero) and the refresh (there none).
    fn default() -> Self {
        Self {
            repeat: 5,
            delay: Duration::from_secs(5),
            gap: Duration::from_millis(200),
            refresh: Duration::from_secs(60),
            refresh_repeat: 1,
            lower_priority_repeat: 5,
            lower_priority_delay: Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Burst {
    at: Instant,
    left: u32,
}

/// The announcements of one virtual router.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcements {
    schedule: Schedule,
    /// What is being announced now…
    burst: Option<Burst>,
    /// …and later, after becoming master…
    second: Option<Burst>,
    /// …after another master was heard…
    after_lower_priority: Option<Burst>,
    /// …and now and then.
    refresh: Option<Burst>,
    /// When the last burst for another master began.
    lower_priority_burst: Option<Instant>,
}

impl Announcements {
    /// Not master: nothing to announce.
    pub const fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            burst: None,
            second: None,
            after_lower_priority: None,
            refresh: None,
            lower_priority_burst: None,
        }
    }

    /// Master since now.
    pub fn start(&mut self, now: Instant) {
        let Schedule { repeat, delay, refresh, refresh_repeat, .. } = self.schedule;
        *self = Self::new(self.schedule);
        self.burst = burst(now, repeat);
        self.second = if delay.is_zero() { None } else { burst(now + delay, repeat) };
        self.refresh = if refresh.is_zero() { None } else { burst(now + refresh, refresh_repeat) };
    }

    /// Another master was heard, and went: what it announced must be corrected.
    pub fn lower_priority_heard(&mut self, now: Instant) {
        let Schedule { lower_priority_repeat: repeat, lower_priority_delay: delay, .. } = self.schedule;
        // A foreign router that does not go must not have everybody's caches rewritten with each of its adverts.
        if self.lower_priority_burst.is_none_or(|began| now >= began + delay) {
            self.lower_priority_burst = Some(now);
            self.begin(burst(now, repeat));
        }
        if !delay.is_zero() {
            self.after_lower_priority = burst(now + delay, repeat);
        }
    }

    /// Master no more.
    pub fn stop(&mut self) {
        *self = Self::new(self.schedule);
    }

    /// How often to announce now. What a late call has missed is not made up for at once.
    pub fn due(&mut self, now: Instant) -> u32 {
        let take = |slot: &mut Option<Burst>| slot.take_if(|burst| burst.at <= now);
        let (second, lower) = (take(&mut self.second), take(&mut self.after_lower_priority));
        let refresh = take(&mut self.refresh);
        if let Some(Burst { left, .. }) = refresh {
            self.refresh = burst(now + self.schedule.refresh, left);
        }
        [second, lower, refresh].into_iter().for_each(|later| self.begin(later));

        let Some(Burst { at, left }) = self.burst else { return 0 };
        if now < at {
            return 0;
        }
        if self.schedule.gap.is_zero() {
            self.burst = None;
            return left;
        }
        self.burst = burst(now + self.schedule.gap, left - 1);
        1
    }

    /// When to ask [`Self::due`] next.
    pub fn next(&self) -> Option<Instant> {
        [self.burst, self.second, self.after_lower_priority, self.refresh].into_iter().flatten().map(|b| b.at).min()
    }

    /// What is being announced already counts: of two bursts at once, the longer.
    fn begin(&mut self, other: Option<Burst>) {
        self.burst = match (self.burst, other) {
            (Some(one), Some(other)) => burst(one.at.min(other.at), one.left.max(other.left)),
            (one, other) => one.or(other),
        };
    }
}

fn burst(at: Instant, left: u32) -> Option<Burst> {
    (left > 0).then_some(Burst { at, left })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// All at once, so that the bursts show.
    fn bursts() -> Announcements {
        Announcements::new(Schedule { gap: Duration::ZERO, ..Schedule::default() })
    }

    /// What is announced, by milliseconds since `start`.
    fn run(announcements: &mut Announcements, start: Instant, until: Duration) -> Vec<(u128, u32)> {
        let mut log = Vec::new();
        while let Some(next) = announcements.next().filter(|next| *next <= start + until) {
            match announcements.due(next) {
                0 => {}
                n => log.push((next.duration_since(start).as_millis(), n)),
            }
        }
        log
    }

    #[test]
    fn nothing_to_announce_as_backup() {
        let mut announcements = bursts();
        assert_eq!(announcements.next(), None);
        assert_eq!(announcements.due(Instant::now()), 0);
    }

    #[test]
    fn at_once_later_and_now_and_then() {
        let now = Instant::now();
        let mut announcements = bursts();
        announcements.start(now);
        assert_eq!(
            run(&mut announcements, now, seconds(200)),
            [(0, 5), (5_000, 5), (60_000, 1), (120_000, 1), (180_000, 1)]
        );
        announcements.stop();
        assert_eq!(announcements.next(), None);
    }

    #[test]
    fn a_burst_is_spread() {
        let now = Instant::now();
        let mut announcements = Announcements::new(Schedule::default());
        announcements.start(now);
        let first = [(0, 1), (200, 1), (400, 1), (600, 1), (800, 1)];
        assert_eq!(run(&mut announcements, now, seconds(4)), first);
        assert_eq!(run(&mut announcements, now, seconds(7)), first.map(|(at, n)| (at + 5_000, n)));
    }

    #[test]
    fn what_is_zero_is_off() {
        let now = Instant::now();
        let off = Schedule { delay: Duration::ZERO, refresh: Duration::ZERO, repeat: 0, ..Schedule::default() };
        let mut announcements = Announcements::new(off);
        announcements.start(now);
        assert_eq!(announcements.next(), None);
    }

    #[test]
    fn another_master_is_corrected_at_once_and_after_it_was_heard_last() {
        let now = Instant::now();
        let mut announcements = bursts();
        announcements.start(now);
        run(&mut announcements, now, seconds(10));
        announcements.lower_priority_heard(now + seconds(10));
        announcements.lower_priority_heard(now + seconds(11));
        announcements.lower_priority_heard(now + seconds(12));
        assert_eq!(run(&mut announcements, now, seconds(50)), [(10_000, 5), (17_000, 5)]);
    }

    #[test]
    fn one_that_does_not_go_is_not_answered_all_the_time() {
        let now = Instant::now();
        let mut announcements = bursts();
        announcements.start(now);
        run(&mut announcements, now, seconds(9));
        let mut n = 0;
        for millis in (10_000..50_000).step_by(250) {
            let now = now + Duration::from_millis(millis);
            announcements.lower_priority_heard(now);
            n += announcements.due(now);
        }
        assert_eq!(n, 8 * 5);
    }

    #[test]
    fn a_late_call_makes_up_for_nothing() {
        let now = Instant::now();
        let mut announcements = bursts();
        announcements.start(now);
        assert_eq!(announcements.due(now + seconds(1_000)), 5);
        assert_eq!(announcements.next(), Some(now + seconds(1_060)));
        let mut announcements = Announcements::new(Schedule::default());
        announcements.start(now);
        assert_eq!(announcements.due(now + seconds(1)), 1);
        assert_eq!(announcements.due(now + seconds(1)), 0);
    }
}
