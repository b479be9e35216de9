//! What health alone makes of a backend, and what its states mean.

use super::*;

/// The findings that bring a new backend to a state, with a rise and a fall of two.
const WAYS: [(State, &[Finding]); 4] =
    [(State::Checking, &[]), (State::Active, READY), (State::Draining, NOT_READY), (State::Down, DEAD)];

const TWICE: &str = "check = { rise = 2, fall = 2 }";

#[test]
fn a_state_says_what_a_backend_is_used_for() {
    let condition = |settings, findings: &[Finding]| {
        let mut scene = Scene::new(settings, 1);
        scene.checks(0, findings);
        scene.condition(0)
    };
    let meanings = [
        (0, BackendState::Serving),
        (FULL_SHARE, BackendState::Serving),
        (0, BackendState::Serving),
        (0, BackendState::Down),
    ];
    for ((state, findings), meaning) in WAYS.into_iter().zip(meanings) {
        assert_eq!(condition("", findings), meaning, "{state}");
    }
    // Whoever keeps the flows of the dead gives them no new ones all the same.
    for (state, findings) in WAYS {
        let share = if state == State::Active { FULL_SHARE } else { 0 };
        assert_eq!(condition("on_down = 'keep'", findings), (share, BackendState::Serving), "{state}, kept");
    }
}

#[test]
fn states_are_named() {
    let states = [State::Checking, State::Active, State::Draining, State::Down, State::Maintenance];
    assert_eq!(states.map(State::name), ["checking", "active", "draining", "down", "maintenance"]);
    assert_eq!(State::Draining.to_string(), "draining");
    assert_eq!([Decision::Drain, Decision::Maintenance].map(Decision::name), ["drain", "maintenance"]);
}

#[test]
fn the_first_check_that_says_something_decides() {
    for (finding, state) in [
        (Ready, State::Active),
        (Unjudged, State::Active),
        (NotReady, State::Draining),
        (Refused, State::Down),
        (Unreachable, State::Down),
    ] {
        let mut scene = Scene::new("", 1);
        assert_eq!(scene.state(0), State::Checking);
        assert_eq!(scene.check(0, Unknown).transition, None);
        assert_eq!(scene.state(0), State::Checking);
        let expected =
            Transition { backend: 0, from: State::Checking, to: state, reason: outcome(finding).to_string() };
        assert_eq!(scene.check(0, finding).transition, Some(expected), "{finding:?}");
        assert_eq!(scene.state(0), state);
    }
}

#[test]
fn states_change_with_the_last_check_of_a_row() {
    let cases: [(State, &[Finding], State); 10] = [
        (State::Active, &[NotReady, NotReady], State::Draining),
        (State::Active, &[NotReady, Refused], State::Draining),
        (State::Active, &[Refused, Refused], State::Down),
        (State::Active, &[Unreachable, Refused], State::Down),
        (State::Draining, &[Ready, Ready], State::Active),
        (State::Draining, &[Ready, Unjudged], State::Active),
        (State::Draining, &[Unreachable, Unreachable], State::Down),
        (State::Down, &[Ready, Ready], State::Active),
        (State::Down, &[NotReady, Ready], State::Draining),
        (State::Down, &[NotReady, NotReady], State::Draining),
    ];
    for (from, findings, to) in cases {
        let (_, way) = WAYS.into_iter().find(|(state, _)| *state == from).expect("a way to each state");
        let mut scene = Scene::new(TWICE, 1);
        scene.checks(0, way);
        let since = scene.now;
        assert_eq!(scene.board.entries()[0].since(), since);
        let (last, row) = findings.split_last().expect("findings");
        for finding in row {
            scene.pass(Duration::from_secs(1));
            assert_eq!(scene.check(0, *finding).transition, None, "{from}: {findings:?}");
            assert_eq!((scene.state(0), scene.board.entries()[0].since()), (from, since), "{findings:?}");
        }
        scene.pass(Duration::from_secs(1));
        let expected = Transition { backend: 0, from, to, reason: outcome(*last).to_string() };
        assert_eq!(scene.check(0, *last).transition, Some(expected), "{from}: {findings:?}");
        assert_eq!((scene.state(0), scene.board.entries()[0].since()), (to, scene.now), "{from}: {findings:?}");
    }
}

/// What does not change the state is remembered, too.
#[test]
fn the_last_check_is_remembered() {
    let mut scene = Scene::new("", 2);
    assert_eq!(scene.board.entries()[0].last(), None);
    for finding in [Ready, Refused, Unknown] {
        scene.pass(Duration::from_secs(1));
        scene.check(0, finding);
        assert_eq!(scene.board.entries()[0].last(), Some(&(scene.now, outcome(finding))));
    }
    assert_eq!(scene.board.entries()[1].last(), None);
}

#[test]
fn a_refusal_of_a_suspect_is_believed_at_once() {
    for way in [READY, NOT_READY] {
        let mut scene = Scene::new("", 1);
        scene.checks(0, way);
        scene.board.suspect(0);
        // Suspicion alone is no witness.
        assert_ne!(scene.state(0), State::Down);
        let transition = scene.check(0, Refused).transition.expect("a transition");
        assert_eq!((transition.to, scene.state(0)), (State::Down, State::Down), "after {way:?}");
    }
    // What does not answer may be slow, and a good check refutes it.
    for findings in [&[Unreachable][..], &[Ready, Refused], &[NotReady, Refused]] {
        let mut scene = Scene::new("", 1);
        scene.checks(0, READY);
        scene.board.suspect(0);
        scene.checks(0, findings);
        assert_eq!(scene.state(0), State::Active, "{findings:?}");
    }
}

#[test]
fn a_suspicion_is_about_one_backend() {
    let mut scene = Scene::new("", 2);
    scene.checks(0, READY);
    scene.checks(1, READY);
    scene.board.suspect(0);
    assert_eq!(scene.check(1, Refused).transition, None);
    assert_eq!(scene.board.pace(0), Some(Pace::Fast));
}

#[test]
fn a_backend_that_must_not_tell_is_told_of_once_in_a_row() {
    let mut scene = Scene::new("", 2);
    let mut is_new = |backend, finding| scene.check(backend, finding).is_newly_unjudged;
    assert!(is_new(0, Unjudged));
    assert!(!is_new(0, Unjudged));
    assert!(!is_new(0, Unjudged));
    // Each backend for itself.
    assert!(is_new(1, Unjudged));
    for other in [Ready, NotReady, Refused, Unreachable] {
        assert!(!is_new(0, other), "{other:?}");
        assert!(is_new(0, Unjudged), "after {other:?}");
        assert!(!is_new(0, Unjudged), "after {other:?}");
    }
}

#[test]
fn checks_are_fast_while_nobody_is_active() {
    let mut scene = Scene::new(TWICE, 3);
    let paces = |scene: &Scene| [0, 1, 2].map(|backend| scene.board.pace(backend));
    let (calm, fast) = (Some(Pace::Calm), Some(Pace::Fast));
    assert_eq!(paces(&scene), [fast; 3]);
    // All is known, and all are down.
    (0..3).for_each(|backend| scene.checks(backend, DEAD));
    assert_eq!(paces(&scene), [fast; 3]);
    // One answers, and is not ready: still nobody.
    scene.checks(0, &[NotReady, NotReady]);
    assert_eq!((scene.state(0), paces(&scene)), (State::Draining, [fast; 3]));
    // One comes back, and the others are waited for no longer.
    scene.checks(0, &[Ready, Ready]);
    assert_eq!((scene.state(0), paces(&scene)), (State::Active, [calm; 3]));
    // One in doubt is nobody else's matter.
    scene.check(0, Refused);
    assert_eq!(paces(&scene), [fast, calm, calm]);
    scene.check(1, Ready);
    assert_eq!(paces(&scene), [fast, fast, calm]);
    // The last one goes, whatever takes it away.
    scene.check(0, Ready);
    scene.decide(0, Some(Decision::Drain));
    assert_eq!(paces(&scene), [fast; 3]);
    scene.decide(0, Some(Decision::Maintenance));
    assert_eq!(paces(&scene), [None, fast, fast]);
}

#[test]
fn services_do_not_influence_each_other() {
    let mut scene =
        Scene::with_services(&[("on_down = 'keep'\ndrain_timeout = '1s'", 2), ("check = { rise = 1, fall = 1 }", 1)]);
    let boards = |scene: &Scene| [0, 1, 2].map(|backend| (scene.state(backend), scene.board.pace(backend)));
    assert_eq!([0, 1, 2].map(|backend| scene.board.siblings(backend)), [0..2, 0..2, 2..3]);
    scene.checks(2, READY);
    let other = (State::Active, Some(Pace::Calm));
    assert_eq!(boards(&scene), [(State::Checking, Some(Pace::Fast)), (State::Checking, Some(Pace::Fast)), other]);
    assert_eq!(scene.when_empty(), [WhenEmpty::Wait, WhenEmpty::Refuse]);
    // The first one goes through everything while the second one stays.
    scene.checks(0, DEAD);
    scene.checks(1, NOT_READY);
    assert_eq!(boards(&scene), [(State::Down, Some(Pace::Fast)), (State::Draining, Some(Pace::Fast)), other]);
    assert_eq!(scene.condition(0), (0, BackendState::Serving));
    scene.decide(0, Some(Decision::Maintenance));
    scene.board.suspect(1);
    assert_eq!(boards(&scene), [(State::Maintenance, None), (State::Draining, Some(Pace::Fast)), other]);
    scene.checks(1, &[Ready, Ready]);
    // And the other way round; its limits and what it makes of the dead are its own.
    scene.checks(2, DEAD);
    assert_eq!(
        boards(&scene),
        [(State::Maintenance, None), (State::Active, Some(Pace::Calm)), (State::Down, Some(Pace::Fast))]
    );
    assert_eq!(scene.condition(2), (0, BackendState::Down));
    scene.checks(2, NOT_READY);
    assert_eq!(scene.state(2), State::Draining);
    scene.pass(Duration::from_secs(3600));
    assert_eq!(scene.condition(2), (0, BackendState::Serving), "only the first one has a drain timeout");
}
