//! Which failures a fault explains, and for how long. Whatever none explains is a fault of kplb.
//!
//! All times are since the start of the load.

use std::{ops::Range, time::Duration};

use super::{
    INTERVAL, STALL, busy,
    fault::{Fault, Kind, Victim},
};

/// For how long a killed or frozen master's lease lasts: for less than any backup waits, which is three adverts.
pub const LEASE: Duration = Duration::from_millis(3 * INTERVAL.as_millis() as u64);

/// For how long the backups wait for a master that has asked them to: three adverts a second apart.
pub const LEAVE: Duration = Duration::from_secs(3);

/// Until another master is there: three adverts, the skew of the last backup, and a second for a busy machine.
pub const ELECTION: Duration = Duration::from_millis(4 * INTERVAL.as_millis() as u64 + 1000);

/// Until nobody is led to a backend that refuses: milliseconds, and what a busy machine takes.
const REFUSED: Duration = Duration::from_secs(1);

/// The same if the backend accepts and says nothing: the first check after the fault, `fall` checks until their timeout,
/// the waits between them, and a second for a busy machine.
const SILENT: Duration = Duration::from_millis(550 + 3 * 1000 + 2 * 200 + 1000);

/// The same if nothing comes back at all, so that checks fail by their `connect_timeout`.
const CUT: Duration = Duration::from_millis(550 + 3 * 500 + 2 * 200 + 1000);

/// Within this, a neighbour that moves is followed.
const FOLLOWED: Duration = Duration::from_secs(1);

/// Until both ends are told of a connection that is over, or somebody who went on in vain notices.
pub const AFTERWARDS: Duration = Duration::from_secs(1);

/// A fault that happened.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    /// As it was planned.
    pub fault: Fault,
    /// The node that it happened to, from 1 on.
    pub node: usize,
    /// What that was then.
    pub role: Role,
    /// When it began.
    pub from: Duration,
    /// When all had been done to end it: the process was there again, the cable was plugged in.
    pub undone: Option<Duration>,
    /// When everything was as it should be again.
    pub settled: Option<Duration>,
}

/// Whether a node held the VIPs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Those of a family or both.
    Master,
    /// None.
    Backup,
}

/// What failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failed {
    /// A connection was not set up, or its first request was not answered. With whom is not known.
    Opening,
    /// An established connection ended or hung.
    Established {
        /// When it had been set up.
        opened: Duration,
        /// The node at its other end.
        backend: usize,
    },
    /// A datagram was not answered.
    Datagram {
        /// The node that answered the one before it on this flow.
        backend: Option<usize>,
    },
}

/// A failure: what, when it was begun, and when it had failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// What failed.
    pub failed: Failed,
    /// When what failed was begun.
    pub begun: Duration,
    /// When it had failed.
    pub ended: Duration,
}

/// What one fault explains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Excuse {
    covers: Covers,
    from: Duration,
    until: Duration,
}

/// Which failures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Covers {
    /// Of connections to one node, and of whoever has not got through to any.
    Backend(usize),
    /// Of all that was there or begun.
    Everything,
    /// Of datagrams alone.
    Datagrams,
}

impl Episode {
    /// Whether the VIPs may move by it, and so for a moment be nowhere, or at two nodes.
    pub fn may_move_master(&self) -> bool {
        self.fault.victim() == Victim::Master
            || self.role == Role::Master
                && match self.fault.kind {
                    Kind::AgentStop | Kind::LinkFlap => true,
                    Kind::AgentKill | Kind::AgentUpgrade => !self.was_replaced_within_lease(),
                    _ => false,
                }
    }

    /// Whether the next agent was there before the lease of the one before it had ended.
    fn was_replaced_within_lease(&self) -> bool {
        let has_left = self.fault.kind == Kind::AgentUpgrade && self.fault.variant.is_multiple_of(2);
        let lease = if has_left { LEAVE } else { LEASE };
        self.undone.is_some_and(|undone| undone < self.from + lease)
    }

    /// Whether it is on: it has begun, and not all is as it should be again.
    pub fn is_on(&self, at: Duration) -> bool {
        (self.from..=self.end()).contains(&at)
    }

    /// Whether there are agents meanwhile that cannot act on what else happens.
    fn is_without_agent(&self) -> bool {
        matches!(
            self.fault.kind,
            Kind::AgentKill | Kind::AgentStop | Kind::AgentUpgrade | Kind::LinkFlap | Kind::MasterMove
        )
    }

    /// When it can explain nothing new any more.
    fn end(&self) -> Duration {
        self.settled.unwrap_or(Duration::MAX)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.from <= other.end() && other.from <= self.end()
    }

    /// What it explains, given all that happened. Whatever else went on at the same time may have kept agents from
    /// seeing it.
    pub fn excuses(&self, all: &[Self]) -> Vec<Excuse> {
        let others = all.iter().filter(|other| other.from != self.from && other.overlaps(self));
        let seen = others.filter(|other| other.is_without_agent()).map(Self::end).fold(self.from, Duration::max);
        let undone = self.undone.unwrap_or(Duration::MAX);
        let excuse = |covers, until| Excuse { covers, from: self.from, until };
        let mut excuses = Vec::new();
        match self.fault.kind {
            Kind::BackendKill => {
                excuses.push(excuse(Covers::Backend(self.node), seen.saturating_add(REFUSED)));
            }
            // One that goes on serves whom it has.
            Kind::BackendPause | Kind::LinkFlap => {
                let unseen = if self.fault.kind == Kind::LinkFlap { CUT } else { SILENT };
                let until = seen.saturating_add(unseen).min(undone.saturating_add(AFTERWARDS));
                excuses.push(excuse(Covers::Backend(self.node), until));
            }
            Kind::NeighbourChange => {
                excuses.push(excuse(Covers::Datagrams, self.from + FOLLOWED));
                if let Some(from) = self.undone {
                    excuses.push(Excuse { covers: Covers::Datagrams, from, until: from + FOLLOWED });
                }
            }
            // Nothing is lost, unless the VIPs move.
            Kind::BackendSlow
            | Kind::AgentKill
            | Kind::AgentStop
            | Kind::AgentUpgrade
            | Kind::AgentReload
            | Kind::MasterMove => {}
        }
        if self.may_move_master() {
            excuses.push(excuse(Covers::Everything, seen.saturating_add(self.election())));
        }
        excuses
    }

    /// How long it takes to elect another master after it.
    fn election(&self) -> Duration {
        match self.fault.kind {
            Kind::AgentUpgrade => LEAVE + ELECTION,
            // One that is preferred waits for as long as if there were no master, after it has followed.
            Kind::MasterMove => 2 * ELECTION,
            _ => ELECTION,
        }
    }

    /// Until when the VIPs may move by it, given all that happened: what a killed or frozen agent has left is taken away
    /// when the next one is there or it goes on, and a node whose cable is plugged in again may still believe that it is
    /// master. Nothing moves after all has settled.
    pub fn moves_until(&self, all: &[Self]) -> Duration {
        let others = all.iter().filter(|other| other.overlaps(self));
        let undone = others.map(|other| other.undone.unwrap_or(Duration::MAX)).fold(self.from, Duration::max);
        undone.saturating_add(self.election()).min(self.end())
    }
}

impl Excuse {
    /// Whether it explains a failure.
    ///
    /// What was begun before the excuse ends may fail, and what was established by then may still do so when somebody
    /// notices.
    pub fn explains(&self, span: &Span) -> bool {
        let is_covered = match (self.covers, span.failed) {
            (Covers::Everything, _)
            | (Covers::Backend(_), Failed::Opening)
            | (Covers::Datagrams, Failed::Datagram { .. }) => true,
            (Covers::Backend(node), Failed::Established { backend, .. }) => backend == node,
            (Covers::Backend(node), Failed::Datagram { backend }) => backend.is_none_or(|backend| backend == node),
            (Covers::Datagrams, _) => false,
        };
        let begun = match span.failed {
            Failed::Opening | Failed::Datagram { .. } => span.begun,
            Failed::Established { opened, .. } => opened,
        };
        is_covered && begun <= self.until && (self.from..=self.last()).contains(&span.ended)
    }

    /// When the last failure that it explains may come to light.
    pub fn last(&self) -> Duration {
        self.until.saturating_add(STALL + AFTERWARDS)
    }
}

/// What explains a failure.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Cause {
    /// A fault of this kind.
    Fault(Kind),
    /// The machine: the time does not count.
    Busy,
}

/// What explains a failure, if anything does; `busy` is the time that does not count.
pub fn explanation(episodes: &[Episode], busy: &[Range<Duration>], span: &Span) -> Option<Cause> {
    let explains = |episode: &&Episode| episode.excuses(episodes).iter().any(|excuse| excuse.explains(span));
    // The latest is the likeliest.
    let fault = episodes.iter().rev().find(explains).map(|episode| Cause::Fault(episode.fault.kind));
    fault.or_else(|| busy::covers(busy, span.ended, span.ended).then_some(Cause::Busy))
}

/// When no failure at all is to be expected any more.
pub fn quiet_from(episodes: &[Episode]) -> Duration {
    let excuses = episodes.iter().flat_map(|episode| episode.excuses(episodes));
    let ends = excuses.map(|excuse| excuse.last()).chain(episodes.iter().map(Episode::end));
    ends.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A fault on node2 from 10 s on, that is undone after a second, and settled after two.
    fn episode(kind: Kind, role: Role) -> Episode {
        let fault = Fault { at: ms(10_000), kind, node: 2, hold: ms(1000), variant: 1 };
        Episode { fault, node: 2, role, from: ms(10_000), undone: Some(ms(11_000)), settled: Some(ms(12_000)) }
    }

    fn opening(begun: u64, ended: u64) -> Span {
        Span { failed: Failed::Opening, begun: ms(begun), ended: ms(ended) }
    }

    fn broken(opened: u64, backend: usize, ended: u64) -> Span {
        Span { failed: Failed::Established { opened: ms(opened), backend }, begun: ms(ended - 10), ended: ms(ended) }
    }

    fn lost(begun: u64) -> Span {
        Span { failed: Failed::Datagram { backend: Some(2) }, begun: ms(begun), ended: ms(begun + 2000) }
    }

    #[track_caller]
    fn check(episodes: &[Episode], cases: &[(Span, bool)]) {
        for (span, is_explained) in cases {
            assert_eq!(explanation(episodes, &[], span).is_some(), *is_explained, "{span:?}");
        }
    }

    #[test]
    fn nothing_explains_nothing() {
        check(&[], &[(opening(1, 2), false), (broken(1, 2, 11), false), (lost(1), false)]);
    }

    #[test]
    fn a_killed_backend_takes_its_own_connections_along() {
        check(
            &[episode(Kind::BackendKill, Role::Master)],
            &[
                (opening(9000, 9999), false),
                (opening(9990, 10_001), true),
                (opening(10_900, 10_950), true),
                (opening(11_100, 11_150), false),
                (broken(5000, 2, 10_005), true),
                (broken(5000, 1, 10_005), false),
                (broken(5000, 2, 9000), false),
                (broken(12_000, 2, 12_500), false),
                (lost(10_500), true),
                (lost(11_500), false),
                (Span { failed: Failed::Datagram { backend: Some(1) }, ..lost(10_500) }, false),
                (Span { failed: Failed::Datagram { backend: None }, ..lost(10_500) }, true),
            ],
        );
    }

    #[test]
    fn who_follows_in_time_loses_nothing() {
        for (kind, role) in [
            (Kind::AgentKill, Role::Master),
            (Kind::AgentKill, Role::Backup),
            (Kind::AgentUpgrade, Role::Master),
            (Kind::AgentReload, Role::Master),
            (Kind::AgentStop, Role::Backup),
            (Kind::BackendSlow, Role::Master),
        ] {
            let all = [episode(kind, role)];
            check(&all, &[(opening(10_100, 10_200), false), (broken(5000, 2, 10_100), false), (lost(10_100), false)]);
            assert!(!all[0].may_move_master(), "{kind}");
        }
    }

    #[test]
    fn a_killed_master_that_nobody_follows_in_time_moves_the_vips() {
        let mut late = episode(Kind::AgentKill, Role::Master);
        late.undone = Some(late.from + LEASE);
        check(&[late], &[(opening(10_100, 10_200), true), (broken(5000, 3, 10_100), true), (lost(10_100), true)]);
        late.role = Role::Backup;
        check(&[late], &[(opening(10_100, 10_200), false), (broken(5000, 3, 10_100), false), (lost(10_100), false)]);
    }

    #[test]
    fn a_master_that_leaves_is_waited_for() {
        let mut left = episode(Kind::AgentUpgrade, Role::Master);
        left.fault.variant = 0;
        left.undone = Some(left.from + LEAVE - ms(1));
        assert!(!left.may_move_master());
        left.undone = Some(left.from + LEAVE);
        assert!(left.may_move_master());
    }

    #[test]
    fn after_a_move_only_what_was_there_before_may_break() {
        let all = [episode(Kind::AgentStop, Role::Master)];
        let over = 10_000 + u64::try_from(ELECTION.as_millis()).expect("it is short");
        check(
            &all,
            &[
                (opening(over - 1, over + 900), true),
                (opening(over + 1, over + 900), false),
                (broken(over - 1, 1, over + 2000), true),
                (broken(over + 1, 1, over + 2000), false),
                (broken(5000, 1, over + 8000), false),
            ],
        );
    }

    #[test]
    fn a_neighbour_that_moves_costs_datagrams_alone_both_ways() {
        check(
            &[episode(Kind::NeighbourChange, Role::Backup)],
            &[
                (lost(10_100), true),
                (lost(11_900), true),
                (lost(12_100), false),
                (opening(10_100, 10_200), false),
                (broken(5000, 2, 10_100), false),
            ],
        );
    }

    #[test]
    fn a_pause_explains_no_more_than_it_takes_to_see_it() {
        let mut long = episode(Kind::BackendPause, Role::Backup);
        (long.undone, long.settled) = (Some(ms(17_000)), Some(ms(18_000)));
        check(&[long], &[(opening(14_900, 16_000), true), (opening(15_000, 16_000), false)]);
        let short = episode(Kind::BackendPause, Role::Backup);
        check(&[short], &[(opening(11_900, 13_000), true), (opening(12_100, 13_000), false)]);
    }

    #[test]
    fn without_an_agent_nobody_sees_what_backends_do() {
        let killed = episode(Kind::BackendKill, Role::Backup);
        let mut agent = episode(Kind::AgentKill, Role::Backup);
        agent.from = ms(9000);
        check(&[agent, killed], &[(opening(12_900, 12_950), true), (opening(13_100, 13_150), false)]);
    }

    #[test]
    fn what_never_settles_explains_for_ever() {
        let mut moved = episode(Kind::AgentStop, Role::Master);
        let mut cut = Episode { node: 3, from: ms(10_500), ..episode(Kind::LinkFlap, Role::Backup) };
        (moved.settled, cut.settled) = (None, None);
        check(&[moved, cut], &[(opening(9000, 9999), false), (opening(60_000, 61_000), true)]);
        assert_eq!(moved.moves_until(&[moved, cut]), ms(11_000) + ELECTION);
        (moved.undone, cut.undone) = (None, None);
        assert_eq!(moved.moves_until(&[moved, cut]), Duration::MAX);
        assert_eq!(quiet_from(&[moved, cut]), Duration::MAX);
    }

    #[test]
    fn time_that_does_not_count_explains_what_nothing_else_does() {
        let busy = [ms(10_000)..ms(20_000)];
        assert_eq!(explanation(&[], &busy, &opening(9000, 11_000)), Some(Cause::Busy));
        assert_eq!(explanation(&[], &busy, &opening(19_000, 21_000)), None);
        let killed = [episode(Kind::BackendKill, Role::Backup)];
        assert_eq!(explanation(&killed, &busy, &opening(10_100, 10_200)), Some(Cause::Fault(Kind::BackendKill)));
    }

    #[test]
    fn it_is_quiet_when_the_last_failure_has_come_to_light() {
        assert_eq!(quiet_from(&[]), Duration::ZERO);
        assert_eq!(quiet_from(&[episode(Kind::AgentReload, Role::Master)]), ms(12_000));
        let moved = quiet_from(&[episode(Kind::AgentStop, Role::Master)]);
        assert_eq!(moved, ms(10_000) + ELECTION + STALL + AFTERWARDS);
    }
}
