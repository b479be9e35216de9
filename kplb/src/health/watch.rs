//! The watch over one backend: checks when they are due, when one is late, and when someone asks.

use std::{pin::Pin, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    fsm::Pace,
    outcome::{Finding, Outcome},
    probe::{Canary, Probe},
};
use crate::config::CheckConfig;

/// What a watch is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// Check now.
    Now,
    /// Check at this pace.
    Pace(Pace),
    /// Do not check until a pace is set.
    Rest,
}

/// What a watch tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// A check has ended.
    Checked(Outcome),
    /// The connection that an earlier check left open was closed; a check is on its way.
    Lost,
    /// A check is on its way, and the backend has not accepted its connection at once.
    Hesitates,
}

/// After so many idle connections that were closed although it was there, the backend is one that does not keep any.
const MAX_FALSE_ALARMS: u32 = 3;

/// Times of a watch.
#[derive(Clone, Copy, Debug)]
struct Times {
    interval: Duration,
    fast_interval: Duration,
    jitter: u32,
    /// Checks that may be on their way at once: as many as it takes to tell that a backend does not answer.
    max_pending: usize,
}

impl Times {
    fn new(check: &CheckConfig) -> Self {
        Self {
            interval: check.interval,
            fast_interval: check.fast_interval,
            jitter: check.jitter,
            max_pending: check.fall as usize,
        }
    }

    /// From the start of a check to that of the next one; `luck` is from -1 to 1.
    fn gap(&self, pace: Pace, n_pending: usize, luck: f64) -> Duration {
        // One that is not answered by now is late, and the next one does not wait for it.
        if pace == Pace::Fast || n_pending > 0 {
            return self.fast_interval;
        }
        self.interval.mul_f64(1.0 + luck * f64::from(self.jitter) / 100.0)
    }
}

/// Whether idle connections tell anything: there are servers that keep none.
#[derive(Debug, Default)]
struct Alarms {
    is_raised: bool,
    n_false: u32,
}

impl Alarms {
    fn raise(&mut self) {
        self.is_raised = true;
    }

    fn judge(&mut self, outcome: &Outcome) {
        // Whoever answers is there, ready or not; a check that could not be made says nothing.
        if outcome.finding.is_dead() {
            self.n_false = 0;
        } else if self.is_raised && outcome.finding != Finding::Unknown {
            self.n_false += 1;
        }
        self.is_raised = false;
    }

    const fn are_trusted(&self) -> bool {
        self.n_false < MAX_FALSE_ALARMS
    }
}

/// Checks a backend until nobody listens or gives orders any more. `tell` says whether somebody listens.
pub async fn watch(
    mut probe: Probe,
    check: CheckConfig,
    mut orders: mpsc::UnboundedReceiver<Order>,
    tell: impl Fn(News) -> bool,
) {
    let times = Times::new(&check);
    let mut pace = Some(Pace::Fast);
    let mut pending = FuturesUnordered::<Pending>::new();
    let mut canary: Option<Canary> = None;
    let mut alarms = Alarms::default();
    let mut due = Instant::now();
    let mut last_start = due;
    let mut luck = 0.0;
    let (hesitates, mut hesitations) = mpsc::unbounded_channel();
    loop {
        let may_start = pace.is_some() && pending.len() < times.max_pending;
        let starts = tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Now) => may_start,
                Some(Order::Pace(new)) => pace.replace(new).is_none(),
                Some(Order::Rest) => {
                    pace = None;
                    pending.clear();
                    canary = None;
                    false
                }
            },
            Some((outcome, idle)) = pending.next() => {
                alarms.judge(&outcome);
                canary = idle.filter(|_| alarms.are_trusted());
                if !tell(News::Checked(outcome)) {
                    return;
                }
                false
            },
            Some(()) = hesitations.recv() => {
                if !tell(News::Hesitates) {
                    return;
                }
                false
            },
            () = closed(&mut canary) => {
                canary = None;
                alarms.raise();
                if !tell(News::Lost) {
                    return;
                }
                may_start
            },
            () = sleep_until(due), if may_start => true,
        };
        if starts {
            let hesitates = hesitates.clone();
            pending.push(Box::pin(probe.check().run(move || {
                // The other end of the channel is above.
                let _ = hesitates.send(());
            })));
            last_start = Instant::now();
            luck = 2.0 * fastrand::f64() - 1.0;
        }
        due = last_start + times.gap(pace.unwrap_or(Pace::Calm), pending.len(), luck);
    }
}

/// A check on its way.
type Pending = Pin<Box<dyn Future<Output = (Outcome, Option<Canary>)> + Send>>;

async fn closed(canary: &mut Option<Canary>) {
    match canary {
        Some(canary) => canary.closed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::Code, *};

    fn times(settings: &str) -> Times {
        let text = format!(
            "[[service]]\nvip = '198.18.0.100:1'\ncheck = {{ {settings} }}\nbackend = [{{ address = '198.18.0.11:1' }}]"
        );
        let config = crate::config::parse(&text, "test").unwrap_or_else(|problems| panic!("{problems}"));
        Times::new(config.services[0].backends[0].check.as_ref().expect("TCP is checked"))
    }

    #[test]
    fn luck_moves_a_check_by_the_jitter() {
        let ms = Duration::from_millis;
        let times = times("interval = '1s', fast_interval = '100ms', jitter = 20, fall = 4");
        for (luck, expected) in [(0.0, ms(1000)), (1.0, ms(1200)), (-1.0, ms(800)), (0.5, ms(1100))] {
            assert_eq!(times.gap(Pace::Calm, 0, luck), expected, "{luck}");
            // In doubt nothing is left to luck.
            assert_eq!(times.gap(Pace::Fast, 0, luck), ms(100));
            assert_eq!(times.gap(Pace::Calm, 1, luck), ms(100));
        }
        assert_eq!(times.max_pending, 4);
    }

    #[test]
    fn alarms_are_trusted_until_they_were_false_too_often() {
        let judge = |alarms: &mut Alarms, finding| {
            alarms.judge(&Outcome { code: Code::L7ok, finding, latency: Duration::ZERO, words: String::new() });
        };
        let false_alarms = |n, finding| {
            let mut alarms = Alarms::default();
            for _ in 0..n {
                alarms.raise();
                judge(&mut alarms, finding);
            }
            alarms
        };
        for finding in [Finding::Ready, Finding::Unjudged, Finding::NotReady] {
            assert!(false_alarms(MAX_FALSE_ALARMS - 1, finding).are_trusted(), "{finding:?}");
            let mut alarms = false_alarms(MAX_FALSE_ALARMS, finding);
            assert!(!alarms.are_trusted(), "{finding:?}");
            // They stay what they are, unless the backend was dead.
            for without_alarm in [Finding::Ready, Finding::NotReady, Finding::Unknown] {
                judge(&mut alarms, without_alarm);
                assert!(!alarms.are_trusted(), "{finding:?}, {without_alarm:?}");
            }
            judge(&mut alarms, Finding::Unreachable);
            assert!(alarms.are_trusted(), "{finding:?}");
        }
        // True ones, and those of which nobody knows.
        for finding in [Finding::Refused, Finding::Unreachable, Finding::Unknown] {
            assert!(false_alarms(2 * MAX_FALSE_ALARMS, finding).are_trusted(), "{finding:?}");
        }
        // A check without an alarm is none.
        let mut alarms = Alarms::default();
        (0..2 * MAX_FALSE_ALARMS).for_each(|_| judge(&mut alarms, Finding::Ready));
        assert!(alarms.are_trusted());
    }
}
