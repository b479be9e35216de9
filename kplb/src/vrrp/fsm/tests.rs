//! Every row of the RFCs' state tables, what the RFCs leave out, and what holds whatever comes.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{
    super::settings::{INTERVAL_DEFAULT, PRIORITY_OWNER},
    *,
};

const OWN: IpAddr = address(10);
const INTERVAL: Duration = INTERVAL_DEFAULT;

const fn address(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last))
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn settings(priority: u8) -> Settings {
    Settings { priority, ..Settings::new(51, OWN, vec![address(100)]) }
}

fn preempting(priority: u8, delay: Duration) -> Settings {
    Settings { preemption: Preemption::After(delay), ..settings(priority) }
}

fn v2(priority: u8) -> Settings {
    Settings { version: Version::V2, interval: millis(1_000), ..settings(priority) }
}

/// From a node with another address than ours.
fn heard(last: u8, priority: u8) -> Heard {
    Heard { sender: address(last), priority, interval: INTERVAL }
}

/// A router and its clock.
struct Run {
    router: Router,
    now: Instant,
}

impl Run {
    fn new(settings: Settings) -> Self {
        Self { router: Router::new(settings), now: Instant::now() }
    }

    fn backup(settings: Settings) -> Self {
        let mut run = Self::new(settings);
        run.handle(Input::Start);
        assert_eq!(run.router.state(), State::Backup);
        run
    }

    fn master(settings: Settings) -> Self {
        let mut run = Self::new(settings);
        run.handle(Input::Start);
        if run.router.state() == State::Backup {
            run.expire();
        }
        assert_eq!(run.router.state(), State::Master);
        run
    }

    fn handle(&mut self, input: Input) -> Vec<Action> {
        self.router.handle(input, self.now)
    }

    fn hear(&mut self, last: u8, priority: u8) -> Vec<Action> {
        self.handle(Input::Advert(heard(last, priority)))
    }

    /// Time passes until the timer fires.
    fn expire(&mut self) -> Vec<Action> {
        let timer = self.timer();
        self.wait(timer - self.now);
        self.handle(Input::Timer)
    }

    /// Time passes, and a backup is awake. What is due at the end is not done yet.
    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.router.deadline()
            && self.router.state() == State::Backup
            && deadline < end
        {
            self.now = deadline;
            assert_eq!(self.handle(Input::Timer), []);
        }
        self.now = end;
    }

    /// Time passes, and this node is not awake.
    fn sleep(&mut self, duration: Duration) {
        self.now += duration;
    }

    fn timer(&self) -> Instant {
        match self.router.phase {
            Phase::Initialize => panic!("no timer"),
            Phase::Backup { timer, .. } | Phase::Master { timer, .. } => timer,
        }
    }

    /// Until the timer fires.
    fn left(&self) -> Duration {
        self.timer() - self.now
    }
}

const fn report(from: State, to: State, reason: Reason) -> Action {
    Action::Report(Transition { from, to, reason })
}

fn down(priority: u8) -> Duration {
    timers::master_down(Version::V3, priority, INTERVAL)
}

fn skew(priority: u8) -> Duration {
    timers::skew(Version::V3, priority, INTERVAL)
}

mod initialize {
    use super::*;

    #[test]
    fn at_startup_the_owner_becomes_master_at_once() {
        let mut run = Run::new(settings(PRIORITY_OWNER));
        assert_eq!(
            run.handle(Input::Start),
            [
                Action::Send { priority: 255 },
                Action::Acquire,
                report(State::Initialize, State::Master, Reason::Started),
            ]
        );
        assert_eq!(run.left(), INTERVAL);
    }

    #[test]
    fn at_startup_any_other_becomes_backup_and_waits_for_a_master_of_its_own_interval() {
        let mut run = Run::new(settings(100));
        assert_eq!(run.handle(Input::Start), [report(State::Initialize, State::Backup, Reason::Started)]);
        assert_eq!(run.left(), down(100));
        assert_eq!(run.handle(Input::Start), []);
    }

    #[test]
    fn nothing_else_counts() {
        let mut run = Run::new(settings(100));
        for input in [Input::Stop, Input::Timer, Input::Advert(heard(1, 0)), Input::HeldUp(millis(60_000))] {
            assert_eq!(run.handle(input), []);
        }
        assert_eq!((run.router.state(), run.router.deadline()), (State::Initialize, None));
    }
}

mod backup {
    use super::*;

    #[test]
    fn at_shutdown_it_goes_without_a_word() {
        let mut run = Run::backup(settings(100));
        assert_eq!(run.handle(Input::Stop), [report(State::Backup, State::Initialize, Reason::Stopped)]);
        assert_eq!(run.router.deadline(), None);
    }

    #[test]
    fn when_the_timer_fires_it_becomes_master() {
        let mut run = Run::backup(settings(100));
        assert_eq!(
            run.expire(),
            [
                Action::Send { priority: 100 },
                Action::Acquire,
                report(State::Backup, State::Master, Reason::NobodyHeard),
            ]
        );
        assert_eq!(run.left(), INTERVAL);
    }

    #[test]
    fn before_the_timer_fires_it_does_nothing() {
        let mut run = Run::backup(settings(100));
        run.wait(down(100) - Duration::from_nanos(1));
        assert_eq!(run.handle(Input::Timer), []);
    }

    #[test]
    fn when_the_master_gives_up_it_waits_for_its_skew_time() {
        let mut run = Run::backup(settings(100));
        run.hear(1, 200);
        assert_eq!(run.hear(1, 0), []);
        assert_eq!(run.left(), skew(100));
        let actions = run.expire();
        assert_eq!(actions.last(), Some(&report(State::Backup, State::Master, Reason::Released(heard(1, 0)))));
    }

    #[test]
    fn the_skew_time_is_of_the_masters_interval() {
        let mut run = Run::backup(settings(100));
        run.handle(Input::Advert(Heard { interval: millis(1_000), ..heard(1, 200) }));
        run.hear(1, 0);
        assert_eq!(run.left(), timers::skew(Version::V3, 100, millis(1_000)));
    }

    #[test]
    fn a_higher_or_equal_priority_puts_off_the_timer() {
        for settings in [settings(100), preempting(100, Duration::ZERO)] {
            for priority in [100, 101, 255] {
                let mut run = Run::backup(settings.clone());
                run.wait(millis(500));
                assert_eq!(run.hear(1, priority), []);
                assert_eq!(run.left(), down(100));
            }
        }
    }

    #[test]
    fn it_goes_by_the_masters_interval() {
        let mut run = Run::backup(settings(100));
        run.handle(Input::Advert(Heard { interval: millis(1_000), ..heard(1, 200) }));
        // The skew as well: RFC 5798 had left that out.
        assert_eq!(run.left(), timers::master_down(Version::V3, 100, millis(1_000)));
        // As master, by its own.
        run.expire();
        assert_eq!(run.left(), INTERVAL);
    }

    #[test]
    fn in_version_2_the_skew_is_of_a_second() {
        let settings = Settings { interval: millis(10_000), ..v2(100) };
        let mut run = Run::backup(settings);
        assert_eq!(run.left(), millis(30_000) + millis(1_000) * 156 / 256);
        run.hear(1, 0);
        assert_eq!(run.left(), millis(1_000) * 156 / 256);
    }

    #[test]
    fn in_version_2_it_goes_by_the_configured_interval() {
        let mut run = Run::backup(v2(100));
        run.handle(Input::Advert(Heard { interval: millis(7_000), ..heard(1, 200) }));
        assert_eq!(run.left(), timers::master_down(Version::V2, 100, millis(1_000)));
    }

    #[test]
    fn it_says_what_it_has_heard_of_a_master_that_died() {
        let mut run = Run::backup(settings(100));
        run.hear(1, 200);
        assert_eq!(run.router.heard(), Some(heard(1, 200)));
        let reason = Reason::MasterSilent(heard(1, 200));
        assert_eq!(run.expire().last(), Some(&report(State::Backup, State::Master, reason)));
        assert_eq!(reason.to_string(), "nothing more was heard of 192.0.2.1 (priority 200)");
    }
}

mod master {
    use super::*;

    #[test]
    fn at_shutdown_it_gives_up_and_then_releases() {
        let mut run = Run::master(settings(100));
        assert_eq!(
            run.handle(Input::Stop),
            [Action::Send { priority: 0 }, Action::Release, report(State::Master, State::Initialize, Reason::Stopped),]
        );
        assert_eq!(run.router.deadline(), None);
    }

    #[test]
    fn when_the_timer_fires_it_sends_an_advert() {
        let mut run = Run::master(settings(100));
        for _ in 0..5 {
            assert_eq!(run.expire(), [Action::Send { priority: 100 }]);
            assert_eq!(run.left(), INTERVAL);
        }
    }

    #[test]
    fn before_the_timer_fires_it_does_nothing() {
        let mut run = Run::master(settings(100));
        run.wait(INTERVAL - Duration::from_nanos(1));
        assert_eq!(run.handle(Input::Timer), []);
    }

    #[test]
    fn when_another_gives_up_it_sends_an_advert_at_once() {
        let mut run = Run::master(settings(100));
        run.wait(millis(100));
        let other = heard(1, 0);
        assert_eq!(run.hear(1, 0), [Action::Send { priority: 100 }, Action::Reannounce { other }]);
        assert_eq!(run.left(), INTERVAL);
    }

    #[test]
    fn it_yields_to_a_higher_priority() {
        let mut run = Run::master(settings(100));
        let other = Heard { interval: millis(1_000), ..heard(1, 101) };
        assert_eq!(
            run.handle(Input::Advert(other)),
            [Action::Release, report(State::Master, State::Backup, Reason::HigherPriority(other)),]
        );
        assert_eq!(run.left(), timers::master_down(Version::V3, 100, millis(1_000)));
        assert_eq!(run.router.heard(), Some(other));
    }

    #[test]
    fn between_equal_priorities_the_greater_address_wins() {
        let mut run = Run::master(settings(100));
        assert_eq!(
            run.hear(11, 100),
            [Action::Release, report(State::Master, State::Backup, Reason::GreaterAddress(heard(11, 100))),]
        );
        assert_eq!(run.left(), down(100));

        let mut run = Run::master(settings(100));
        let other = heard(9, 100);
        assert_eq!(run.hear(9, 100), [Action::Send { priority: 100 }, Action::Reannounce { other }]);
    }

    #[test]
    fn addresses_are_compared_as_unsigned_numbers() {
        let own = |text: &str| Settings { address: text.parse().expect("an address"), ..settings(100) };
        for (mine, theirs, yields) in [
            ("10.0.0.200", "10.0.0.100", false),
            ("10.0.0.100", "10.0.0.200", true),
            ("9.0.0.1", "10.0.0.1", true),
            ("fe80::1", "fe80::ffff", true),
            ("fe80::8000:0:0:0", "fe80::7fff:ffff:ffff:ffff", false),
        ] {
            let mut run = Run::master(own(mine));
            let sender = theirs.parse().expect("an address");
            run.handle(Input::Advert(Heard { sender, ..heard(1, 100) }));
            assert_eq!(run.router.state() == State::Backup, yields, "{mine} {theirs}");
        }
    }

    #[test]
    fn it_answers_a_lower_priority_at_once_in_both_versions() {
        for settings in [settings(100), v2(100)] {
            let mut run = Run::master(settings.clone());
            run.wait(millis(100));
            let other = heard(200, 99);
            assert_eq!(run.hear(200, 99), [Action::Send { priority: 100 }, Action::Reannounce { other }]);
            assert_eq!(run.left(), settings.interval);
        }
    }
}

mod preemption {
    use super::*;

    /// What a backup of priority 100 makes of a master of another priority that goes on: after how long it takes over,
    /// if ever.
    fn takes_over(settings: Settings, priority: u8) -> Option<Duration> {
        let mut run = Run::backup(settings);
        let start = run.now;
        for _ in 0..200 {
            run.hear(1, priority);
            let next = run.now + INTERVAL;
            if run.timer() < next {
                run.expire();
                assert_eq!(run.router.state(), State::Master);
                return Some(run.now - start);
            }
            run.wait(INTERVAL);
        }
        None
    }

    #[test]
    fn matrix() {
        let delayed = millis(5_000) + down(100);
        for (settings, lower, others) in [
            (settings(100), None, None),
            (preempting(100, Duration::ZERO), Some(down(100)), None),
            // The last advert that counts is the one before the delay is over.
            (preempting(100, millis(5_000)), Some(delayed - INTERVAL), None),
        ] {
            for (priority, expected) in [(1, lower), (99, lower), (100, others), (101, others), (255, others)] {
                let case = format!("{:?} {priority}", settings.preemption);
                assert_eq!(takes_over(settings.clone(), priority), expected, "{case}");
            }
        }
    }

    #[test]
    fn the_owner_always_preempts() {
        for settings in [settings(PRIORITY_OWNER), preempting(PRIORITY_OWNER, millis(60_000))] {
            let mut run = Run::new(settings);
            run.handle(Input::Start);
            run.hear(1, 255);
            // From another owner.
            run.hear(11, 255);
            assert_eq!(run.router.state(), State::Backup);
            run.hear(1, 254);
            assert_eq!(run.left(), down(255));
            run.wait(millis(500));
            run.hear(1, 254);
            assert_eq!(run.left(), down(255) - millis(500));
        }
    }

    #[test]
    fn a_higher_priority_in_between_starts_the_delay_anew() {
        let mut run = Run::backup(preempting(100, millis(600)));
        run.hear(1, 50);
        run.wait(millis(500));
        run.hear(2, 200);
        run.wait(millis(500));
        run.hear(1, 50);
        assert_eq!(run.left(), down(100));
        run.wait(millis(590));
        run.hear(1, 50);
        assert_eq!(run.left(), down(100));
        run.wait(millis(10));
        run.hear(1, 50);
        assert_eq!(run.left(), down(100) - millis(10));
    }

    #[test]
    fn a_lower_master_that_dies_is_replaced_at_once_whatever_the_delay() {
        let mut run = Run::backup(preempting(100, millis(60_000)));
        run.hear(1, 50);
        let actions = run.expire();
        let reason = Reason::MasterSilent(heard(1, 50));
        assert_eq!(actions.last(), Some(&report(State::Backup, State::Master, reason)));
    }

    #[test]
    fn it_says_that_it_preempts() {
        let mut run = Run::backup(preempting(100, Duration::ZERO));
        run.hear(1, 50);
        let actions = run.expire();
        assert_eq!(actions.last(), Some(&report(State::Backup, State::Master, Reason::Preempts(heard(1, 50)))));
    }

    #[test]
    fn a_master_never_yields_to_a_lower_priority_whether_it_preempts_or_not() {
        for settings in [settings(100), preempting(100, Duration::ZERO)] {
            let mut run = Run::master(settings);
            run.hear(200, 99);
            assert_eq!(run.router.state(), State::Master);
        }
    }
}

mod startup_delay {
    use super::*;

    fn delayed(priority: u8) -> Settings {
        Settings { startup_delay: millis(10_000), ..settings(priority) }
    }

    #[test]
    fn silence_says_nothing_until_it_is_over() {
        let run = Run::backup(delayed(100));
        assert_eq!(run.left(), millis(10_000) + down(100));
    }

    #[test]
    fn the_owner_waits_as_well() {
        let mut run = Run::backup(delayed(PRIORITY_OWNER));
        assert_eq!(run.left(), millis(10_000));
        run.expire();
        assert_eq!(run.router.state(), State::Master);
    }

    #[test]
    fn what_is_heard_meanwhile_counts() {
        let mut run = Run::backup(delayed(100));
        run.wait(millis(4_000));
        run.hear(1, 200);
        assert_eq!(run.left(), millis(6_000) + down(100));
        run.hear(1, 0);
        assert_eq!(run.left(), millis(6_000) + skew(100));
        run.wait(millis(6_100));
        run.hear(1, 200);
        assert_eq!(run.left(), down(100));
    }

    #[test]
    fn it_is_for_the_start_alone() {
        let mut run = Run::backup(delayed(100));
        run.wait(millis(10_500));
        run.handle(Input::FaultRaised(Fault::LinkDown));
        run.handle(Input::FaultCleared(Fault::LinkDown));
        assert_eq!(run.left(), down(100));
    }
}

mod faults {
    use super::*;

    #[test]
    fn a_master_gives_up_and_comes_back_as_backup() {
        let mut run = Run::master(settings(100));
        assert_eq!(
            run.handle(Input::FaultRaised(Fault::DataPathDown)),
            [
                Action::Send { priority: 0 },
                Action::Release,
                report(State::Master, State::Initialize, Reason::Fault(Fault::DataPathDown)),
            ]
        );
        assert_eq!(run.router.faults().collect::<Vec<_>>(), [Fault::DataPathDown]);
        let reason = Reason::FaultCleared(Fault::DataPathDown);
        assert_eq!(
            run.handle(Input::FaultCleared(Fault::DataPathDown)),
            [report(State::Initialize, State::Backup, reason)]
        );
        assert_eq!(run.left(), down(100));
    }

    #[test]
    fn a_backup_goes_without_a_word() {
        let mut run = Run::backup(settings(100));
        let reason = Reason::Fault(Fault::LinkDown);
        assert_eq!(run.handle(Input::FaultRaised(Fault::LinkDown)), [report(State::Backup, State::Initialize, reason)]);
        assert_eq!(run.handle(Input::Timer), []);
    }

    #[test]
    fn all_must_be_cleared() {
        let mut run = Run::backup(settings(100));
        run.handle(Input::FaultRaised(Fault::LinkDown));
        assert_eq!(run.handle(Input::FaultRaised(Fault::AddressLost)), []);
        assert_eq!(run.handle(Input::FaultRaised(Fault::AddressLost)), []);
        assert_eq!(run.handle(Input::FaultCleared(Fault::LinkDown)), []);
        assert_eq!(run.handle(Input::FaultCleared(Fault::LinkDown)), []);
        assert_eq!(run.handle(Input::FaultCleared(Fault::AddressLost)).len(), 1);
        assert_eq!(run.router.state(), State::Backup);
    }

    #[test]
    fn one_that_is_there_before_the_start_keeps_it_from_starting() {
        for priority in [100, PRIORITY_OWNER] {
            let mut run = Run::new(settings(priority));
            assert_eq!(run.handle(Input::FaultRaised(Fault::LinkDown)), []);
            assert_eq!(run.handle(Input::Start), []);
            run.handle(Input::FaultCleared(Fault::LinkDown));
            let expected = if priority == PRIORITY_OWNER { State::Master } else { State::Backup };
            assert_eq!(run.router.state(), expected);
        }
    }

    #[test]
    fn clearing_starts_nothing_that_was_stopped() {
        let mut run = Run::backup(settings(100));
        run.handle(Input::FaultRaised(Fault::LinkDown));
        run.handle(Input::Stop);
        assert_eq!(run.handle(Input::FaultCleared(Fault::LinkDown)), []);
        assert_eq!(run.router.state(), State::Initialize);
    }
}

mod held_up {
    use super::*;

    #[test]
    fn a_master_that_was_away_gives_up_before_anything_else() {
        for input in [Input::Timer, Input::Advert(heard(1, 50)), Input::Advert(heard(1, 0))] {
            let mut run = Run::master(settings(100));
            run.sleep(millis(5_000));
            let actions = run.handle(input);
            let reason = Reason::HeldUp(millis(5_000));
            // No advert: neither of its own priority, nor of zero.
            assert_eq!(actions, [Action::Release, report(State::Master, State::Backup, reason)]);
        }
    }

    #[test]
    fn it_stays_with_the_new_master_even_of_lower_priority() {
        let mut run = Run::master(settings(200));
        run.sleep(millis(5_000));
        run.hear(1, 50);
        for _ in 0..100 {
            run.wait(INTERVAL);
            assert_eq!(run.hear(1, 50), []);
            assert_eq!(run.handle(Input::Timer), []);
        }
        assert_eq!(run.router.state(), State::Backup);
    }

    #[test]
    fn it_claims_again_if_nobody_else_has() {
        let mut run = Run::master(settings(100));
        run.sleep(millis(5_000));
        run.handle(Input::Timer);
        assert_eq!(run.left(), down(100));
        run.expire();
        assert_eq!(run.router.state(), State::Master);
    }

    #[test]
    fn the_owner_listens_as_well_and_then_takes_over() {
        let mut run = Run::master(settings(PRIORITY_OWNER));
        run.sleep(millis(5_000));
        run.handle(Input::Timer);
        assert_eq!((run.router.state(), run.left()), (State::Backup, down(255)));
    }

    #[test]
    fn a_master_that_was_late_but_cannot_have_been_replaced_goes_on() {
        let mut run = Run::master(settings(100));
        run.sleep(timers::patience(INTERVAL) - Duration::from_nanos(1));
        assert_eq!(run.handle(Input::Timer), [Action::Send { priority: 100 }]);
        run.sleep(timers::patience(INTERVAL));
        run.handle(Input::Timer);
        assert_eq!(run.router.state(), State::Backup);
    }

    #[test]
    fn at_shutdown_it_does_not_speak_for_the_new_master() {
        for input in [Input::Stop, Input::FaultRaised(Fault::LinkDown)] {
            let mut run = Run::master(settings(100));
            run.sleep(millis(5_000));
            let actions = run.handle(input);
            assert!(!actions.iter().any(|action| matches!(action, Action::Send { .. })), "{actions:?}");
            assert_eq!(actions.iter().filter(|action| **action == Action::Release).count(), 1);
            assert_eq!(run.router.state(), State::Initialize);
        }
    }

    #[test]
    fn a_backup_that_was_away_listens_first() {
        let mut run = Run::backup(settings(100));
        run.hear(1, 200);
        run.sleep(millis(10_000));
        let late = millis(10_000) - INTERVAL;
        assert_eq!(run.handle(Input::Timer), [Action::Relisten { late }]);
        assert_eq!(run.left(), down(100));
        run.expire();
        assert_eq!(run.router.state(), State::Master);
    }

    #[test]
    fn a_backup_that_was_away_listens_first_even_if_its_timer_has_not_run_out() {
        let mut run = Run::backup(settings(100));
        run.hear(1, 200);
        run.sleep(2 * INTERVAL);
        assert_eq!(run.handle(Input::Timer), [Action::Relisten { late: INTERVAL }]);
        assert_eq!(run.left(), down(100));
    }

    #[test]
    fn a_backup_that_was_away_goes_by_what_waited_in_its_socket() {
        let mut run = Run::backup(settings(100));
        run.sleep(millis(10_000));
        assert_eq!(run.hear(1, 50), []);
        assert_eq!(run.handle(Input::Timer), []);
        assert_eq!(run.left(), down(100));
    }

    #[test]
    fn a_backup_that_is_a_little_late_takes_over() {
        let mut run = Run::backup(settings(100));
        run.wait(down(100));
        run.sleep(INTERVAL - Duration::from_nanos(1));
        run.handle(Input::Timer);
        assert_eq!(run.router.state(), State::Master);
    }

    #[test]
    fn another_clock_may_tell() {
        let mut run = Run::master(settings(100));
        assert_eq!(run.handle(Input::HeldUp(millis(700))), []);
        run.wait(millis(50));
        let reason = Reason::HeldUp(millis(750));
        assert_eq!(
            run.handle(Input::HeldUp(millis(700))),
            [Action::Release, report(State::Master, State::Backup, reason)]
        );

        let mut run = Run::backup(settings(100));
        run.wait(millis(800));
        assert_eq!(run.handle(Input::HeldUp(INTERVAL - Duration::from_nanos(1))), []);
        assert_eq!(run.handle(Input::HeldUp(millis(60_000))), [Action::Relisten { late: millis(60_000) }]);
        assert_eq!(run.left(), down(100));
    }

    #[test]
    fn a_clock_that_goes_back_is_not_late() {
        let mut run = Run::master(settings(100));
        let before = run.now.checked_sub(millis(100)).expect("an uptime of more than that");
        assert_eq!(run.router.handle(Input::Timer, before), []);
    }
}

#[test]
fn names_are_different() {
    let names = Fault::ALL.map(Fault::name).into_iter().chain(State::ALL.map(State::name));
    assert_eq!(names.collect::<BTreeSet<_>>().len(), Fault::ALL.len() + State::ALL.len());
    let transition = Transition { from: State::Master, to: State::Backup, reason: Reason::HigherPriority(heard(1, 7)) };
    assert_eq!(transition.to_string(), "master -> backup: 192.0.2.1 is master and has the higher priority (7)");
}

fn inputs() -> impl Strategy<Value = Input> {
    let heard = (1_u8..20, 0_u8..=255, 1_u64..100).prop_map(|(last, priority, centis)| Heard {
        sender: address(if last == 10 { 20 } else { last }),
        priority,
        interval: millis(10 * centis),
    });
    let fault = || prop::sample::select(Fault::ALL.to_vec());
    prop_oneof![
        2 => Just(Input::Start),
        1 => Just(Input::Stop),
        8 => heard.prop_map(Input::Advert),
        8 => Just(Input::Timer),
        1 => fault().prop_map(Input::FaultRaised),
        2 => fault().prop_map(Input::FaultCleared),
        1 => (0_u64..2_000).prop_map(|away| Input::HeldUp(millis(away))),
    ]
}

fn any_settings() -> impl Strategy<Value = Settings> {
    (
        prop::sample::select(vec![Version::V2, Version::V3]),
        1_u8..=255,
        prop::option::of(0_u64..3_000),
        prop_oneof![Just(0_u64), 0_u64..5_000],
    )
        .prop_map(|(version, priority, preempt_delay, startup_delay)| Settings {
            version,
            interval: if version == Version::V2 { millis(1_000) } else { INTERVAL },
            preemption: preempt_delay.map_or(Preemption::Never, |delay| Preemption::After(millis(delay))),
            startup_delay: millis(startup_delay),
            ..settings(priority)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_comes(
        settings in any_settings(),
        inputs in prop::collection::vec((inputs(), 0_u64..1_500, any::<bool>()), 1..80),
    ) {
        let mut router = Router::new(settings.clone());
        let mut now = Instant::now();
        let (mut is_held, mut faults) = (false, BTreeSet::new());
        for (input, wait, is_on_time) in inputs {
            let deadline = router.deadline();
            now = match deadline {
                Some(deadline) if is_on_time && input == Input::Timer => deadline.max(now),
                _ => now + millis(wait),
            };
            let before = router.clone();
            let actions = router.handle(input, now);
            prop_assert_eq!(&before.clone().handle(input, now), &actions);

            match input {
                Input::FaultRaised(fault) => { faults.insert(fault); }
                Input::FaultCleared(fault) => { faults.remove(&fault); }
                _ => {}
            }
            for action in &actions {
                match action {
                    Action::Acquire => {
                        prop_assert!(!is_held);
                        is_held = true;
                    }
                    Action::Release => {
                        prop_assert!(is_held);
                        is_held = false;
                    }
                    Action::Send { priority: 0 } => {
                        prop_assert_eq!((before.state(), router.state()), (State::Master, State::Initialize));
                    }
                    Action::Send { priority } => {
                        prop_assert_eq!((router.state(), *priority), (State::Master, settings.priority));
                    }
                    Action::Report(transition) => prop_assert_ne!(transition.from, transition.to),
                    Action::Reannounce { other } => {
                        prop_assert_eq!(router.state(), State::Master);
                        prop_assert!(other.priority <= settings.priority);
                    }
                    Action::Relisten { .. } => prop_assert_eq!(router.state(), State::Backup),
                }
            }
            prop_assert_eq!(is_held, router.state() == State::Master);
            prop_assert_eq!(router.deadline().is_none(), router.state() == State::Initialize);
            prop_assert!(input != Input::Timer || router.deadline().is_none_or(|deadline| deadline > now));
            if !faults.is_empty() {
                prop_assert_eq!(router.state(), State::Initialize);
            }
            let reports: Vec<_> = actions.iter().filter_map(|action| match action {
                Action::Report(transition) => Some((transition.from, transition.to)),
                _ => None,
            }).collect();
            let path = reports.iter().try_fold(before.state(), |at, (from, to)| (at == *from).then_some(*to));
            prop_assert_eq!(path, Some(router.state()));

            if input == Input::Timer && deadline.is_some_and(|deadline| now < deadline) {
                let is_late_master = matches!(before.phase, Phase::Master { .. }) && router.state() == State::Backup;
                prop_assert!(actions.is_empty() || is_late_master);
            }
            if let (Input::Advert(heard), Phase::Backup { timer, .. }) = (input, router.phase)
                && settings.preemption == Preemption::Never
                && heard.priority > 0
                && !settings.is_owner()
                && before.state() == State::Backup
            {
                let interval = if settings.version == Version::V2 { settings.interval } else { heard.interval };
                prop_assert!(timer >= now + timers::patience(interval));
            }
        }
    }
}
