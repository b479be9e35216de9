//! Every row of the RFCs' state tables, what the RFCs leave out, and what holds whatever comes.

mod backup;
mod faults;
mod held_up;
mod initialize;
mod master;
mod preemption;
mod startup_delay;

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
            Phase::Backup { timer, .. } | Phase::Master { timer, .. } | Phase::Leaving { timer } => timer,
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
        1 => Just(Input::Resume),
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
                        let is_leaving = matches!(router.phase, Phase::Leaving { .. } | Phase::Initialize);
                        prop_assert!(is_leaving && matches!(before.phase, Phase::Master { .. }), "{:?}", before);
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
