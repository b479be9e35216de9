//! What is decided by hand, and what comes of it together with health.

use super::*;

const DRAIN: Option<Decision> = Some(Decision::Drain);
const MAINTENANCE: Option<Decision> = Some(Decision::Maintenance);

#[test]
fn a_decision_only_ever_takes_away() {
    let cases: [(&[Finding], Option<Decision>, State); 12] = [
        (&[], None, State::Checking),
        (&[], DRAIN, State::Checking),
        (&[], MAINTENANCE, State::Maintenance),
        (READY, None, State::Active),
        (READY, DRAIN, State::Draining),
        (READY, MAINTENANCE, State::Maintenance),
        (NOT_READY, None, State::Draining),
        (NOT_READY, DRAIN, State::Draining),
        (NOT_READY, MAINTENANCE, State::Maintenance),
        (DEAD, None, State::Down),
        (DEAD, DRAIN, State::Down),
        (DEAD, MAINTENANCE, State::Maintenance),
    ];
    for (findings, decision, to) in cases {
        let mut scene = Scene::new("", 1);
        scene.checks(0, findings);
        let from = scene.state(0);
        scene.pass(Duration::from_secs(1));
        let expected = (from != to).then(|| Transition { backend: 0, from, to, reason: "by hand".to_owned() });
        assert_eq!(scene.decide(0, decision), expected, "{findings:?}, {decision:?}");
        assert_eq!((scene.state(0), scene.board.entries()[0].by_hand()), (to, decision));
        let since = if from == to { scene.start } else { scene.now };
        assert_eq!(scene.board.entries()[0].since(), since, "{findings:?}, {decision:?}");
        // Decided once more, nothing changes.
        assert_eq!(scene.decide(0, decision), None);
    }
}

#[test]
fn health_goes_on_behind_a_drain_by_hand() {
    let mut scene = Scene::new("", 1);
    scene.decide(0, DRAIN);
    // The start is as without it: it may have flows of an earlier agent.
    let first = scene.check(0, Ready).transition.expect("a transition");
    assert_eq!((first.from, first.to), (State::Checking, State::Draining));
    // Not ready besides: no difference.
    scene.checks(0, &[NotReady, NotReady, NotReady]);
    assert_eq!(scene.state(0), State::Draining);
    // Dead it is of no use to the flows it has.
    scene.checks(0, &[Refused, Refused, Refused]);
    assert_eq!((scene.state(0), scene.condition(0)), (State::Down, (0, BackendState::Down)));
    // Good again, it is what the hand wants it to be, and left to itself it is active at once.
    scene.checks(0, &[Ready, Ready]);
    assert_eq!(scene.state(0), State::Draining);
    let last = scene.decide(0, None).expect("a transition");
    assert_eq!(
        (last.from, last.to, scene.condition(0)),
        (State::Draining, State::Active, (FULL_SHARE, BackendState::Serving))
    );
}

/// The hand lets go of one that is not ready: it drains on, with no news.
#[test]
fn a_drain_has_one_beginning_whoever_wants_it() {
    let mut scene = Scene::new("drain_timeout = '10s'", 1);
    scene.checks(0, READY);
    scene.decide(0, DRAIN);
    let since = scene.now;
    scene.checks(0, &[NotReady, NotReady, NotReady]);
    scene.pass(Duration::from_secs(9));
    assert_eq!(scene.decide(0, None), None);
    assert_eq!((scene.state(0), scene.board.entries()[0].since()), (State::Draining, since));
    assert_eq!(scene.next_change(), Some(Duration::from_secs(1)));
}

#[test]
fn maintenance_is_the_end_of_flows_and_checks() {
    // Even where the dead keep theirs.
    for settings in ["", "on_down = 'keep'", "drain_timeout = '1s'"] {
        let mut scene = Scene::new(settings, 2);
        scene.checks(0, READY);
        scene.decide(0, MAINTENANCE);
        assert_eq!((scene.board.pace(0), scene.condition(0)), (None, (0, BackendState::Down)), "{settings}");
        // Not for the others, and not for good.
        assert_eq!(scene.board.pace(1), Some(Pace::Fast));
        scene.decide(0, None);
        assert_eq!(scene.board.pace(0), Some(Pace::Fast));
    }
}

#[test]
fn whatever_is_heard_during_maintenance_changes_nothing() {
    let mut scene = Scene::new("", 1);
    scene.decide(0, MAINTENANCE);
    for finding in [Ready, Ready, Refused, Refused, Refused, NotReady, Unreachable] {
        assert_eq!(scene.check(0, finding).transition, None);
        assert_eq!(scene.state(0), State::Maintenance);
    }
}

#[test]
fn after_maintenance_the_first_check_decides_again() {
    // Whatever it was before, and whatever was counted.
    for before in [&[][..], READY, NOT_READY, DEAD, &[Ready, Refused, Refused], &[Refused, Ready]] {
        for (finding, to) in [(Ready, State::Active), (NotReady, State::Draining), (Unreachable, State::Down)] {
            let mut scene = Scene::new("", 1);
            scene.checks(0, before);
            scene.decide(0, MAINTENANCE);
            let leave = scene.decide(0, None).expect("a transition");
            assert_eq!((leave.from, leave.to), (State::Maintenance, State::Checking), "{before:?}");
            assert_eq!(scene.condition(0), (0, BackendState::Serving));
            scene.check(0, finding);
            assert_eq!(scene.state(0), to, "{before:?}, then {finding:?}");
        }
    }
}

#[test]
fn maintenance_ends_a_suspicion() {
    let mut scene = Scene::new("", 1);
    scene.checks(0, READY);
    scene.board.suspect(0);
    scene.decide(0, MAINTENANCE);
    scene.board.suspect(0);
    scene.decide(0, None);
    scene.checks(0, &[Ready, Refused]);
    assert_eq!(scene.state(0), State::Active);
}

#[test]
fn from_maintenance_to_a_drain_the_first_check_decides_as_well() {
    let mut scene = Scene::new("", 1);
    scene.checks(0, READY);
    scene.decide(0, MAINTENANCE);
    let transition = scene.decide(0, DRAIN).expect("a transition");
    assert_eq!((transition.from, transition.to), (State::Maintenance, State::Checking));
    scene.checks(0, READY);
    assert_eq!(scene.state(0), State::Draining);
    // From a drain to maintenance and back there is nothing else to it.
    scene.decide(0, MAINTENANCE);
    assert_eq!(scene.state(0), State::Maintenance);
}

#[test]
fn what_is_not_checked_is_left_to_the_hand() {
    let mut scene = Scene::new("check = { type = 'none' }", 2);
    for (decision, state) in [
        (DRAIN, State::Draining),
        (MAINTENANCE, State::Maintenance),
        (DRAIN, State::Draining),
        (None, State::Active),
        (MAINTENANCE, State::Maintenance),
        (None, State::Active),
    ] {
        let transition = scene.decide(0, decision).expect("a transition");
        assert_eq!((transition.to, scene.state(0)), (state, state), "{decision:?}");
    }
}
