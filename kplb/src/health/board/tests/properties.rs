//! What holds whatever comes: any checks, suspicions and decisions, at any time.

use proptest::prelude::*;

use super::*;

/// Something that the board is told, or nothing for a time.
#[derive(Clone, Copy, Debug)]
enum Input {
    Check(usize, Finding),
    Suspect(usize),
    Decide(usize, Option<Decision>),
    Pass(Duration),
}

/// What a service says, and one that says nothing besides it.
#[derive(Clone, Copy, Debug)]
struct Settings {
    rise: u32,
    fall: u32,
    on_down: OnDown,
    drain_timeout: Option<Duration>,
    slow_start: Option<Duration>,
}

/// Two of the first service, and one of the second.
const N_BACKENDS: usize = 3;

const FOR_EVER: Duration = Duration::from_secs(1_000_000);

impl Settings {
    fn scene(&self) -> Scene {
        let Self { rise, fall, on_down, drain_timeout, slow_start } = self;
        let on_down = if *on_down == OnDown::Keep { "keep" } else { "reset" };
        let period = |name, period: Option<Duration>| {
            period.map(|period| format!("{name} = '{}ms'\n", period.as_millis())).unwrap_or_default()
        };
        let check = format!("check = {{ rise = {rise}, fall = {fall} }}\n");
        let first = format!(
            "{check}on_down = '{on_down}'\n{}{}",
            period("drain_timeout", *drain_timeout),
            period("slow_start", *slow_start)
        );
        Scene::with_services(&[(&first, 2), (&check, 1)])
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let period = || prop::option::of((1000_u64..20_000).prop_map(Duration::from_millis));
    (1_u32..4, 1_u32..4, prop::sample::select(vec![OnDown::Reset, OnDown::Keep]), period(), period()).prop_map(
        |(rise, fall, on_down, drain_timeout, slow_start)| Settings { rise, fall, on_down, drain_timeout, slow_start },
    )
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    // Runs of the same finding, or limits would be reached rarely.
    let finding = prop::sample::select(vec![Ready, Unjudged, NotReady, Refused, Unreachable, Unknown]);
    let decision = prop::sample::select(vec![None, Some(Decision::Drain), Some(Decision::Maintenance)]);
    let run = prop_oneof![
        6 => (0..N_BACKENDS, finding, 1_usize..5).prop_map(|(backend, finding, n)| vec![Input::Check(backend, finding); n]),
        1 => (0..N_BACKENDS).prop_map(|backend| vec![Input::Suspect(backend)]),
        2 => (0..N_BACKENDS, decision).prop_map(|(backend, decision)| vec![Input::Decide(backend, decision)]),
        3 => (0_u64..5000).prop_map(|ms| vec![Input::Pass(Duration::from_millis(ms))]),
    ];
    prop::collection::vec(run, 1..60).prop_map(|runs| runs.concat())
}

impl Scene {
    /// What the board says of it.
    fn take(&mut self, input: Input) -> Option<Transition> {
        match input {
            Input::Check(backend, finding) => self.check(backend, finding).transition,
            Input::Suspect(backend) => {
                self.board.suspect(backend);
                None
            }
            Input::Decide(backend, decision) => self.decide(backend, decision),
            Input::Pass(time) => {
                self.pass(time);
                None
            }
        }
    }

    fn states(&self) -> [State; N_BACKENDS] {
        std::array::from_fn(|backend| self.state(backend))
    }
}

/// What was found of a backend since its checks were counted anew.
#[derive(Clone, Debug, Default)]
struct History {
    findings: Vec<Finding>,
    /// Since the last check that said something.
    is_suspected: bool,
}

impl History {
    fn ends_with(&self, n: u32, holds: fn(Finding) -> bool) -> bool {
        let n = n as usize;
        self.findings.len() >= n && self.findings[self.findings.len() - n..].iter().all(|finding| holds(*finding))
    }
}

proptest! {
    /// A change for the worse has `fall` bad checks behind it or a second witness, one for the better `rise` good ones;
    /// what was found before a maintenance counts for nothing.
    #[test]
    fn never_faster_than_the_limits(settings in settings(), inputs in inputs()) {
        let mut scene = settings.scene();
        let mut histories: [History; N_BACKENDS] = Default::default();
        let Settings { rise, fall, .. } = settings;
        for input in inputs {
            let before = scene.states();
            scene.take(input);
            match input {
                Input::Pass(_) => prop_assert_eq!(scene.states(), before),
                Input::Suspect(backend) => {
                    histories[backend].is_suspected = true;
                    prop_assert_eq!(scene.states(), before);
                }
                Input::Decide(backend, decision) => {
                    if before[backend] == State::Maintenance && decision != Some(Decision::Maintenance) {
                        histories[backend] = History::default();
                    }
                }
                Input::Check(backend, finding) => {
                    let (from, to) = (before[backend], scene.state(backend));
                    let history = &mut histories[backend];
                    if finding == Unknown {
                        prop_assert_eq!(from, to);
                        continue;
                    }
                    history.findings.push(finding);
                    let was_suspected = std::mem::take(&mut history.is_suspected);
                    let is_allowed = from == to || match (from, to) {
                        (State::Checking, State::Active | State::Draining | State::Down) => history.findings.len() == 1,
                        (_, State::Active) => history.ends_with(rise, Finding::is_good),
                        (State::Down, State::Draining) => history.ends_with(rise, |finding| !finding.is_dead()),
                        (State::Active, State::Draining) => history.ends_with(fall, |finding| !finding.is_good()),
                        (_, State::Down) => {
                            history.ends_with(fall, Finding::is_dead) || was_suspected && finding == Refused
                        }
                        _ => false,
                    };
                    prop_assert!(is_allowed, "{from} to {to} after {history:?}");
                }
            }
        }
    }

    /// What has changed is told, and nothing else.
    #[test]
    fn a_transition_is_told_if_and_only_if_the_state_changed(settings in settings(), inputs in inputs()) {
        let mut scene = settings.scene();
        for input in inputs {
            let (before, since) = (scene.states(), scene.board.clone());
            let transition = scene.take(input);
            let changed: Vec<usize> =
                (0..N_BACKENDS).filter(|backend| before[*backend] != scene.state(*backend)).collect();
            let told: Vec<usize> = transition.iter().map(|transition| transition.backend).collect();
            prop_assert_eq!(&changed, &told);
            if let Some(Transition { backend, from, to, reason }) = transition {
                prop_assert_eq!((from, to), (before[backend], scene.state(backend)));
                let expected = match input {
                    Input::Check(_, finding) => outcome(finding).to_string(),
                    _ => "by hand".to_owned(),
                };
                prop_assert_eq!(reason, expected);
            }
            for backend in 0..N_BACKENDS {
                let expected =
                    if changed.contains(&backend) { scene.now } else { since.entries()[backend].since() };
                prop_assert_eq!(scene.board.entries()[backend].since(), expected);
            }
        }
    }

    /// The data path never gives flows to whom they are not meant for, and pace and waiting follow the states.
    #[test]
    fn conditions_and_paces_follow_the_states(settings in settings(), inputs in inputs()) {
        let mut scene = settings.scene();
        for input in inputs {
            scene.take(input);
            let conditions = scene.board.conditions(scene.now);
            for (backend, entry) in scene.board.entries().iter().enumerate() {
                let is_first = backend < 2;
                let Condition { share, state } = conditions.backends[backend];
                let is_over = |timeout: Duration| scene.now >= entry.since() + timeout;
                let expected = match entry.state() {
                    State::Checking | State::Active => BackendState::Serving,
                    State::Draining if is_first && settings.drain_timeout.is_some_and(is_over) => BackendState::Down,
                    State::Draining => BackendState::Serving,
                    State::Down if is_first && settings.on_down == OnDown::Keep => BackendState::Serving,
                    State::Down | State::Maintenance => BackendState::Down,
                };
                prop_assert_eq!(state, expected, "{}", entry.state());
                prop_assert!(share <= FULL_SHARE);
                prop_assert_eq!(share > 0, entry.state() == State::Active);
                let grows = is_first && settings.slow_start.is_some_and(|period| scene.now < entry.since() + period);
                prop_assert!(share == FULL_SHARE || entry.state() != State::Active || grows, "{share}");

                let siblings = &scene.board.entries()[scene.board.siblings(backend)];
                let pace = scene.board.pace(backend);
                prop_assert_eq!(pace.is_none(), entry.by_hand() == Some(Decision::Maintenance));
                prop_assert_eq!(pace.is_none(), entry.state() == State::Maintenance);
                if siblings.iter().all(|sibling| sibling.state() != State::Active) {
                    prop_assert_ne!(pace, Some(Pace::Calm));
                }
            }
            let states = scene.states();
            let is_early = scene.now < scene.start + TIMEOUT;
            for (waits, states) in conditions.when_empty.iter().zip([&states[..2], &states[2..]]) {
                let expected = is_early && states.contains(&State::Checking);
                prop_assert_eq!(*waits == WhenEmpty::Wait, expected);
            }
        }
    }

    /// Whoever looks again at the next change misses nothing, and never looks in vain.
    #[test]
    fn conditions_change_when_it_is_foretold(settings in settings(), inputs in inputs()) {
        let mut scene = settings.scene();
        for input in inputs {
            scene.take(input);
            let now = scene.board.conditions(scene.now);
            let Some(next) = scene.board.next_change(scene.now) else {
                prop_assert_eq!(&now, &scene.board.conditions(scene.now + FOR_EVER));
                continue;
            };
            prop_assert!(next > scene.now);
            for before in [scene.now + (next - scene.now) / 2, next - Duration::from_nanos(1)] {
                prop_assert_eq!(&now, &scene.board.conditions(before));
                prop_assert_eq!(scene.board.next_change(before), Some(next));
            }
            prop_assert_ne!(&now, &scene.board.conditions(next));
        }
        // Left alone, everything comes to rest.
        let n_changes = std::iter::successors(Some(scene.now), |now| scene.board.next_change(*now)).take(1000).count();
        prop_assert!(n_changes < 1000);
    }
}
