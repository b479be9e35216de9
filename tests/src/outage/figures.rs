//! What clients noticed of an event, in figures.
//!
//! Invariant: what had not ended when nobody looked any longer is counted to that moment and says so; no figure becomes better
//! because something was too bad to be measured.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Account, Fate, Manner, Record};
use crate::{
    figure::Value,
    vip_client::{Attempts, Outage},
};

/// When a new connection counts as slow.
const SLOW: Duration = Duration::from_millis(500);
/// Trouble has ended if there was none for so long: every one of the client's addresses has asked meanwhile.
const SETTLED: Duration = Duration::from_secs(1);

/// The figures of an event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Until so long after it, new connections failed or were slow.
    pub trouble: Value,
    /// How many new connections failed.
    pub n_failed: usize,
    /// The longest that a new connection took, failed or not.
    pub longest: Value,
    /// The longest time without a success.
    pub without_success: Value,
    /// Connections that were there before it.
    pub kept: Vec<Fates>,
}

/// What became of some of the connections that were there before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fates {
    /// Where they go to.
    pub to: End,
    /// Who speaks on them; none: all of them together.
    pub manner: Option<Manner>,
    /// How many there are.
    pub n: usize,
    /// How many clients were told that theirs has ended.
    pub n_told: usize,
    /// How many hang.
    pub n_hanging: usize,
    /// When the last one was told; none, if no connection ended.
    pub last_told: Option<Value>,
    /// The longest that nothing was heard on one that goes on; none, if none does.
    pub silence: Option<Value>,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The apiserver that is dead, or cut off.
    Dead,
    /// Another one.
    Living,
}

impl Figures {
    pub(super) fn of(record: &Record) -> Self {
        let Record { moment, end, dead, attempts, kept } = record;
        let (on_dead, on_living): (Vec<&Account>, Vec<&Account>) =
            kept.iter().partition(|account| account.node == *dead);
        let mut groups = Vec::new();
        for (to, accounts) in [(End::Dead, on_dead), (End::Living, on_living)] {
            for manner in [None].into_iter().chain(Manner::ALL.map(Some)) {
                let accounts = accounts.iter().filter(|account| manner.is_none_or(|manner| account.manner == manner));
                let fates: Vec<Fate> = accounts.map(|account| account.fate(*moment, *end)).collect();
                groups.push(Fates::of(to, manner, &fates, *end - *moment));
            }
        }
        Self {
            trouble: trouble(attempts, *moment, *end),
            n_failed: attempts.n_failed(),
            longest: Value::Time(attempts.longest_after(*moment)),
            without_success: without_success(attempts, *moment, *end),
            kept: groups,
        }
    }
}

impl Fates {
    /// Of connections that were looked at for so long.
    fn of(to: End, manner: Option<Manner>, fates: &[Fate], time: Duration) -> Self {
        let mut told = Vec::new();
        let mut silences = Vec::new();
        for fate in fates {
            match fate {
                Fate::Told { after } => told.push(*after),
                Fate::GoesOn { silence } => silences.push(*silence),
                Fate::Hangs => {}
            }
        }
        let n_hanging = fates.len() - told.len() - silences.len();
        let last_told = match told.iter().max() {
            _ if n_hanging > 0 => Some(Value::AtLeast(time)),
            last => last.copied().map(Value::Time),
        };
        let silence = silences.into_iter().max().map(Value::Time);
        Self { to, manner, n: fates.len(), n_told: told.len(), n_hanging, last_told, silence }
    }
}

/// How long new connections failed or were slow.
fn trouble(attempts: &Attempts, moment: Instant, end: Instant) -> Value {
    let time = attempts.trouble_after(moment, SLOW);
    if moment + time + SETTLED > end { Value::AtLeast(end - moment) } else { Value::Time(time) }
}

/// The longest time without a success.
fn without_success(attempts: &Attempts, moment: Instant, end: Instant) -> Value {
    match attempts.outage_after(moment) {
        Some(Outage { from, until: Some(until) }) => Value::Time(until - from),
        Some(Outage { from, until: None }) => Value::AtLeast(end - from),
        None => Value::AtLeast(end - moment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A new connection every tenth of a second for 20 s, from 2 s before the moment on; those that are begun in these tenths fail
    /// at once.
    fn attempts(start: Instant, failing: std::ops::Range<u32>) -> Attempts {
        let attempt = |tenth: u32| {
            let result = if failing.contains(&tenth) { Err("no".to_owned()) } else { Ok("node1".to_owned()) };
            (start + tenth * SECOND / 10, SECOND / 1000, result)
        };
        Attempts::of((0..220).map(attempt))
    }

    #[test]
    fn an_outage_that_never_ends_is_counted_to_the_end() {
        let start = Instant::now();
        let (moment, end) = (start + 2 * SECOND, start + 22 * SECOND);
        let of = |failing| {
            let attempts = attempts(start, failing);
            (without_success(&attempts, moment, end), trouble(&attempts, moment, end))
        };
        // From the end of the last success to that of the next one; and to the last that failed.
        assert_eq!(of(30..61), (Value::Time(SECOND * 32 / 10), Value::Time(4 * SECOND)));
        let (Value::AtLeast(without), Value::AtLeast(trouble)) = of(30..220) else { panic!("it has ended") };
        assert!(without > 19 * SECOND && trouble == 20 * SECOND, "{without:?}, {trouble:?}");
        // Nothing ever succeeded.
        assert_eq!(of(0..220), (Value::AtLeast(20 * SECOND), Value::AtLeast(20 * SECOND)));
        // All was well.
        assert_eq!(of(0..0).1, Value::Time(Duration::ZERO));
    }

    #[test]
    fn one_that_hangs_was_told_later_than_all() {
        let told = |ms| Fate::Told { after: Duration::from_millis(ms) };
        let of = |fates: &[Fate]| Fates::of(End::Dead, None, fates, 20 * SECOND);
        let some = of(&[told(90), told(70), Fate::GoesOn { silence: SECOND }]);
        assert_eq!((some.n, some.n_told, some.n_hanging), (3, 2, 0));
        assert_eq!(some.last_told, Some(Value::Time(Duration::from_millis(90))));
        assert_eq!(some.silence, Some(Value::Time(SECOND)));
        let hanging = of(&[told(90), Fate::Hangs]);
        assert_eq!((hanging.n_told, hanging.n_hanging), (1, 1));
        assert_eq!((hanging.last_told, hanging.silence), (Some(Value::AtLeast(20 * SECOND)), None));
        assert_eq!(of(&[]).last_told, None);
    }

    #[test]
    fn fates_are_told_by_manner() {
        let start = Instant::now();
        let (moment, end) = (start + 2 * SECOND, start + 22 * SECOND);
        let account = |manner, node: &str, last: Instant, ended| Account {
            manner,
            node: node.to_owned(),
            heard: vec![start, last],
            ended,
        };
        let kept = vec![
            account(Manner::Asks, "node1", start, Some(moment + SECOND)),
            account(Manner::Watches, "node1", moment, None),
            account(Manner::Idles, "node1", moment, None),
            account(Manner::Idles, "node2", end - 10 * SECOND, None),
        ];
        let record = Record { moment, end, dead: "node1".to_owned(), attempts: attempts(start, 0..0), kept };
        let figures = record.figures();
        let of = |to, manner| {
            let fates = figures.kept.iter().find(|fates| fates.to == to && fates.manner == manner).expect("each");
            (fates.n, fates.n_told, fates.n_hanging, fates.last_told, fates.silence)
        };
        let endless = Some(Value::AtLeast(20 * SECOND));
        assert_eq!(of(End::Dead, None), (3, 1, 2, endless, None));
        assert_eq!(of(End::Dead, Some(Manner::Asks)), (1, 1, 0, Some(Value::Time(SECOND)), None));
        assert_eq!(of(End::Dead, Some(Manner::Idles)), (1, 0, 1, endless, None));
        assert_eq!(of(End::Living, Some(Manner::Idles)), (1, 0, 0, None, Some(Value::Time(12 * SECOND))));
        assert_eq!(of(End::Living, Some(Manner::Asks)), (0, 0, 0, None, None));
        // All of it is in the files, too.
        let accounts = record.accounts();
        assert_eq!((&accounts[0]["manner"], &accounts[0]["ended"]), (&"asking".into(), &1.0.into()));
        assert_eq!((&accounts[3]["fate"], &accounts[3]["is_to_the_dead"]), (&"goes on".into(), &false.into()));
    }
}
