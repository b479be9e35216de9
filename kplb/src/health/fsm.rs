//! From checks to a backend's state: a pure state machine, no clock, no socket.
//!
//! ```text
//!             first check decides
//!   Checking ----------------------> any of the others
//!
//!             fall x not good                    fall x dead, or refused when suspected
//!   Active ------------------> Draining        Active, Draining ------------------------> Down
//!          <------------------                 Down --- rise x good -------> Active
//!             rise x good                      Down --- rise x answered ---> Draining
//! ```
//!
//! Invariant: with limits above one, one check alone changes nothing but the start; but one that is refused takes away a
//! backend that is *suspected*: a client was refused as well, an idle connection was closed, or all that is known of it is
//! from elsewhere.

use super::outcome::Finding;

/// What is known of a backend's health.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Health {
    /// Nothing yet: its first check runs.
    Checking,
    /// It is ready.
    Active,
    /// It answers, but is not ready.
    Draining,
    /// It does not answer.
    Down,
}

/// How many checks in a row it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Good ones for better; at least one.
    pub rise: u32,
    /// Bad ones for worse; at least one.
    pub fall: u32,
}

/// How often to check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// As usual.
    Calm,
    /// More often: the last checks contradict the state.
    Fast,
}

/// The health of a backend, and the checks that may change it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Monitor {
    limits: Limits,
    is_checked: bool,
    health: Health,
    /// In a row, up to the last check: good ones…
    good: u32,
    /// …that were answered at all, good or not…
    answered: u32,
    /// …that were not good…
    bad: u32,
    /// …that were not answered.
    dead: u32,
    is_suspected: bool,
}

impl Monitor {
    /// A backend of which nothing is known.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            is_checked: true,
            health: Health::Checking,
            good: 0,
            answered: 0,
            bad: 0,
            dead: 0,
            is_suspected: false,
        }
    }

    /// A backend that is not checked, and so counts as ready for ever.
    pub const fn unchecked() -> Self {
        let limits = Limits { rise: 1, fall: 1 };
        Self { is_checked: false, health: Health::Active, ..Self::new(limits) }
    }

    /// The same backend, of which nothing is known any more; one that is not checked stays ready.
    pub const fn restarted(&self) -> Self {
        if self.is_checked { Self::new(self.limits) } else { Self::unchecked() }
    }

    /// The same backend, known from elsewhere to be so: in doubt, until checks say the same. One that is not checked stays
    /// ready.
    pub const fn assumed(&self, health: Health) -> Self {
        if !self.is_checked {
            return Self::unchecked();
        }
        Self { health, is_suspected: true, ..Self::new(self.limits) }
    }

    /// The same backend after its check was configured anew, as `self` is: what was known of it as `earlier` holds.
    pub fn continued(&self, earlier: &Self) -> Self {
        match (self.is_checked, earlier.is_checked) {
            (true, true) => Self { limits: self.limits, ..earlier.clone() },
            (true, false) => self.assumed(earlier.health),
            (false, _) => Self::unchecked(),
        }
    }

    /// What is known.
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Somebody else was refused, or lost a connection: a check that is refused now is the second witness.
    pub const fn suspect(&mut self) {
        self.is_suspected = true;
    }

    /// Takes a check's finding into account.
    pub fn observe(&mut self, finding: Finding) {
        if finding == Finding::Unknown {
            return;
        }
        let next = |count: u32, goes_on: bool| if goes_on { count.saturating_add(1) } else { 0 };
        self.good = next(self.good, finding.is_good());
        self.answered = next(self.answered, !finding.is_dead());
        self.bad = next(self.bad, !finding.is_good());
        self.dead = next(self.dead, finding.is_dead());
        let is_confirmed = self.is_suspected && finding == Finding::Refused;
        self.is_suspected = false;

        let Limits { rise, fall } = self.limits;
        self.health = match self.health {
            Health::Checking if finding.is_dead() => Health::Down,
            Health::Checking if finding.is_good() => Health::Active,
            Health::Checking => Health::Draining,
            Health::Active | Health::Draining if self.dead >= fall || is_confirmed => Health::Down,
            Health::Active if self.bad >= fall => Health::Draining,
            Health::Draining | Health::Down if self.good >= rise => Health::Active,
            Health::Down if self.answered >= rise => Health::Draining,
            unchanged => unchanged,
        };
    }

    /// How often to check from now on.
    pub const fn pace(&self) -> Pace {
        let is_in_doubt = match self.health {
            Health::Checking => true,
            Health::Active => self.bad > 0,
            Health::Draining => self.good > 0 || self.dead > 0,
            Health::Down => self.answered > 0,
        };
        if is_in_doubt || self.is_suspected { Pace::Fast } else { Pace::Calm }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Finding::*, *};

    const LIMITS: Limits = Limits { rise: 2, fall: 3 };

    fn after(findings: &[Finding]) -> Health {
        let mut monitor = Monitor::new(LIMITS);
        findings.iter().for_each(|finding| monitor.observe(*finding));
        monitor.health()
    }

    #[test]
    fn the_first_check_decides() {
        assert_eq!(after(&[]), Health::Checking);
        assert_eq!(after(&[Unknown]), Health::Checking);
        for (finding, health) in [
            (Ready, Health::Active),
            (Unjudged, Health::Active),
            (NotReady, Health::Draining),
            (Refused, Health::Down),
            (Unreachable, Health::Down),
        ] {
            assert_eq!(after(&[finding]), health);
            assert_eq!(after(&[Unknown, finding]), health);
        }
    }

    #[test]
    fn transitions() {
        let cases: [(&[Finding], Health); 19] = [
            (&[Ready, NotReady, NotReady], Health::Active),
            (&[Ready, NotReady, NotReady, NotReady], Health::Draining),
            (&[Ready, NotReady, NotReady, Ready, NotReady, NotReady], Health::Active),
            (&[Ready, Refused, Refused], Health::Active),
            (&[Ready, Refused, Refused, Refused], Health::Down),
            (&[Ready, Refused, Unreachable, Refused], Health::Down),
            // Not good for the third time, but not dead for the third time.
            (&[Ready, NotReady, Refused, Refused], Health::Draining),
            (&[Ready, NotReady, Refused, Refused, Refused], Health::Down),
            (&[Ready, Refused, Refused, NotReady], Health::Draining),
            (&[Ready, Unreachable, Unknown, Unreachable, Unknown, Unreachable], Health::Down),
            (&[NotReady, Ready], Health::Draining),
            (&[NotReady, Ready, Unjudged], Health::Active),
            (&[NotReady, Ready, NotReady, Ready], Health::Draining),
            (&[NotReady, Refused, Refused, Refused], Health::Down),
            (&[Refused, Ready], Health::Down),
            (&[Refused, Ready, Ready], Health::Active),
            (&[Refused, NotReady, Ready], Health::Draining),
            (&[Refused, NotReady, Ready, Ready], Health::Active),
            (&[Refused, NotReady, Refused, NotReady], Health::Down),
        ];
        for (findings, health) in cases {
            assert_eq!(after(findings), health, "{findings:?}");
        }
    }

    #[test]
    fn a_second_witness_suffices() {
        let suspected = |before: &[Finding], finding| {
            let mut monitor = Monitor::new(LIMITS);
            before.iter().for_each(|finding| monitor.observe(*finding));
            monitor.suspect();
            assert_eq!(monitor.pace(), Pace::Fast);
            monitor.observe(finding);
            monitor
        };
        assert_eq!(suspected(&[Ready], Refused).health(), Health::Down);
        assert_eq!(suspected(&[NotReady], Refused).health(), Health::Down);
        // What does not answer may be slow.
        assert_eq!(suspected(&[Ready], Unreachable).health(), Health::Active);
        // A good check refutes it.
        let mut refuted = suspected(&[Ready], Ready);
        assert_eq!(refuted.pace(), Pace::Calm);
        refuted.observe(Refused);
        assert_eq!(refuted.health(), Health::Active);
    }

    #[test]
    fn pace() {
        let cases: [(&[Finding], Pace); 9] = [
            (&[], Pace::Fast),
            (&[Ready], Pace::Calm),
            (&[Ready, NotReady], Pace::Fast),
            (&[Ready, NotReady, Ready], Pace::Calm),
            (&[NotReady], Pace::Calm),
            (&[NotReady, Refused], Pace::Fast),
            (&[NotReady, Ready], Pace::Fast),
            (&[Refused], Pace::Calm),
            (&[Refused, NotReady], Pace::Fast),
        ];
        for (findings, pace) in cases {
            let mut monitor = Monitor::new(LIMITS);
            findings.iter().for_each(|finding| monitor.observe(*finding));
            assert_eq!(monitor.pace(), pace, "{findings:?}");
        }
    }

    fn findings() -> impl Strategy<Value = Finding> {
        prop::sample::select(vec![Ready, Unjudged, NotReady, Refused, Unreachable, Unknown])
    }

    proptest! {
        /// Whatever comes, a change for the worse has `fall` bad checks behind it, one for the better `rise` good ones.
        #[test]
        fn never_faster_than_the_limits(
            (rise, fall) in (1_u32..5, 1_u32..5),
            findings in prop::collection::vec((findings(), any::<bool>()), 1..200),
        ) {
            let mut monitor = Monitor::new(Limits { rise, fall });
            let mut seen: Vec<Finding> = Vec::new();
            // Since the last check that said something.
            let mut is_suspected = false;
            for (finding, is_newly_suspected) in findings {
                let before = monitor.health();
                if is_newly_suspected {
                    monitor.suspect();
                }
                is_suspected |= is_newly_suspected;
                monitor.observe(finding);
                if finding == Unknown {
                    prop_assert_eq!(monitor.health(), before);
                    continue;
                }
                seen.push(finding);
                let was_suspected = std::mem::take(&mut is_suspected);
                let last = |n: u32, holds: fn(Finding) -> bool| {
                    let n = n as usize;
                    seen.len() >= n && seen[seen.len() - n..].iter().all(|&finding| holds(finding))
                };
                if before == Health::Checking || monitor.health() == before {
                    continue;
                }
                let allowed = match (before, monitor.health()) {
                    (_, Health::Active) => last(rise, Finding::is_good),
                    (Health::Down, Health::Draining) => last(rise, |finding| !finding.is_dead()),
                    (_, Health::Draining) => last(fall, |finding| !finding.is_good()),
                    (_, Health::Down) => last(fall, Finding::is_dead) || was_suspected && finding == Refused,
                    (_, Health::Checking) => false,
                };
                prop_assert!(allowed, "{before:?} to {:?} after {seen:?}", monitor.health());
            }
        }

        /// Enough of the same always arrives.
        #[test]
        fn the_same_for_long_enough_arrives(
            (rise, fall) in (1_u32..5, 1_u32..5),
            before in prop::collection::vec(findings(), 0..50),
            finding in findings(),
        ) {
            prop_assume!(finding != Unknown);
            let mut monitor = Monitor::new(Limits { rise, fall });
            before.iter().for_each(|finding| monitor.observe(*finding));
            (0..rise.max(fall)).for_each(|_| monitor.observe(finding));
            let expected = match finding {
                Ready | Unjudged => Health::Active,
                NotReady => Health::Draining,
                Refused | Unreachable | Unknown => Health::Down,
            };
            prop_assert_eq!(monitor.health(), expected);
            prop_assert_eq!(monitor.pace(), Pace::Calm);
        }
    }
}
