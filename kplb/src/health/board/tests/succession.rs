//! What an earlier agent knew, and what holds under another configuration.

use super::*;

#[test]
fn what_an_earlier_agent_knew_holds_until_checks_say_otherwise() {
    let mut scene = Scene::new("check = { fall = 3 }", 3);
    for (backend, health, state) in
        [(0, Health::Active, State::Active), (1, Health::Draining, State::Draining), (2, Health::Down, State::Down)]
    {
        scene.board.assume(backend, health);
        assert_eq!(scene.state(backend), state);
    }
    assert!(scene.board.is_settled(), "nobody is waited for");
    assert_eq!(scene.condition(0), (FULL_SHARE, BackendState::Serving));
    assert_eq!(scene.condition(1), (0, BackendState::Serving));
    assert_eq!(scene.condition(2), (0, BackendState::Down));
    // It is in doubt: the first check that is refused is enough.
    scene.checks(0, DEAD);
    assert_eq!(scene.state(0), State::Down);
}

#[test]
fn one_that_is_not_checked_stays_active() {
    let mut scene = Scene::new("check = { type = 'none' }", 1);
    scene.board.assume(0, Health::Down);
    assert_eq!(scene.state(0), State::Active);
}

#[test]
fn what_was_known_holds_under_another_configuration() {
    let mut before = Scene::new("check = { fall = 3 }", 2);
    before.checks(0, READY);
    before.checks(1, DEAD);
    before.decide(0, Some(Decision::Drain));
    before.checks(0, NOT_READY);
    before.pass(Duration::from_secs(5));

    let mut after = Scene::new("check = { fall = 2 }", 2);
    after.now = before.now;
    for backend in [0, 1] {
        let earlier = &before.board.entries()[backend];
        after.board.inherit(backend, earlier, earlier.by_hand(), after.now);
        assert_eq!(after.state(backend), before.state(backend));
        assert_eq!(after.board.entries()[backend].since(), before.board.entries()[backend].since());
    }
    assert_eq!(after.board.entries()[0].by_hand(), Some(Decision::Drain));
    // It failed once before, and the limit is two now.
    after.decide(0, None);
    assert_eq!(after.state(0), State::Active);
    after.checks(0, NOT_READY);
    assert_eq!(after.state(0), State::Draining);
}

#[test]
fn who_is_removed_drains_and_who_comes_back_serves() {
    let mut scene = Scene::new("check = { fall = 3 }", 1);
    scene.checks(0, READY);
    let transition = scene.decide(0, Some(Decision::Removed)).expect("a change");
    assert_eq!((transition.to, transition.reason.as_str()), (State::Draining, "the configuration has it no more"));
    assert_eq!(scene.condition(0), (0, BackendState::Serving));

    // Others come and go meanwhile: it drains since it was removed.
    let mut again = Scene::new("check = { fall = 3 }", 1);
    again.now += Duration::from_secs(1);
    again.board.inherit(0, &scene.board.entries()[0], Some(Decision::Removed), again.now);
    assert_eq!((again.state(0), again.board.entries()[0].since()), (State::Draining, scene.now));
    again.board.inherit(0, &scene.board.entries()[0], None, again.now);
    assert_eq!((again.state(0), again.board.entries()[0].by_hand()), (State::Active, None));
    assert_eq!(again.board.entries()[0].since(), again.now);
}
