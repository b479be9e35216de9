//! The start: until something is known of each backend.

use super::*;

#[test]
fn new_flows_wait_until_every_backend_is_known() {
    let mut scene = Scene::new("", 3);
    for (backend, finding) in [(0, Refused), (1, NotReady), (2, Unreachable)] {
        assert_eq!(scene.when_empty(), [WhenEmpty::Wait]);
        assert!(scene.board.awaits_first_checks(scene.now));
        assert!(!scene.board.is_settled());
        scene.check(backend, finding);
    }
    assert_eq!(scene.when_empty(), [WhenEmpty::Refuse]);
    assert!(!scene.board.awaits_first_checks(scene.now));
    assert!(scene.board.is_settled());
    assert_eq!(scene.next_change(), None);
}

/// A check that could not be made is no answer.
#[test]
fn new_flows_wait_no_longer_than_a_first_check_may_take() {
    let mut scene = Scene::new("", 2);
    scene.check(0, Refused);
    scene.check(1, Unknown);
    assert_eq!(scene.next_change(), Some(TIMEOUT));
    scene.pass(TIMEOUT - Duration::from_nanos(1));
    assert_eq!(scene.when_empty(), [WhenEmpty::Wait]);
    assert!(scene.board.awaits_first_checks(scene.now));
    assert_eq!(scene.next_change(), Some(Duration::from_nanos(1)));
    for later in [Duration::from_nanos(1), Duration::from_secs(1)] {
        scene.pass(later);
        assert_eq!(scene.when_empty(), [WhenEmpty::Refuse]);
        assert!(!scene.board.awaits_first_checks(scene.now));
        assert_eq!(scene.next_change(), None);
        // It is not known, all the same.
        assert_eq!((scene.state(1), scene.board.is_settled()), (State::Checking, false));
    }
}

#[test]
fn the_most_patient_check_of_a_service_counts() {
    let text = "[[service]]\nvip = '198.18.0.100:1'\nbackend = [\
                { address = '198.18.0.1:1', check = { timeout = '1s' } },\
                { address = '198.18.0.2:1', check = { timeout = '5s' } },\
                { address = '198.18.0.3:1', check = { type = 'none' } }]\n\
                [[service]]\nvip = '198.18.0.100:2'\ncheck = { timeout = '2s' }\n\
                backend = [{ address = '198.18.0.1:1' }]";
    let start = Instant::now();
    let board = Board::new(&config::parse(text, "test").unwrap_or_else(|problems| panic!("{problems}")), start);
    let second = |n| start + Duration::from_secs(n);
    let (wait, refuse) = (WhenEmpty::Wait, WhenEmpty::Refuse);
    for (n, expected, next_change) in [
        (0, [wait, wait], Some(second(2))),
        (1, [wait, wait], Some(second(2))),
        (2, [wait, refuse], Some(second(5))),
        (4, [wait, refuse], Some(second(5))),
        (5, [refuse, refuse], None),
    ] {
        assert_eq!(board.conditions(second(n)).when_empty, expected, "after {n} s");
        assert_eq!(board.next_change(second(n)), next_change, "after {n} s");
    }
}

/// Whoever comes out of maintenance is checked as at the start; the start itself was long ago.
#[test]
fn new_flows_do_not_wait_for_the_end_of_a_maintenance() {
    let mut scene = Scene::new("", 1);
    scene.checks(0, READY);
    scene.pass(TIMEOUT);
    scene.decide(0, Some(Decision::Maintenance));
    scene.decide(0, None);
    assert_eq!((scene.state(0), scene.when_empty()), (State::Checking, vec![WhenEmpty::Refuse]));
    assert_eq!(scene.next_change(), None);
    assert!(!scene.board.awaits_first_checks(scene.now));
    assert!(!scene.board.is_settled());
}

/// An agent that starts anew is told at once what was decided by hand before.
#[test]
fn new_flows_do_not_wait_for_a_backend_in_maintenance() {
    let mut scene = Scene::new("", 2);
    scene.decide(0, Some(Decision::Maintenance));
    assert_eq!(scene.when_empty(), [WhenEmpty::Wait]);
    scene.check(1, Refused);
    assert_eq!((scene.when_empty(), scene.board.is_settled()), (vec![WhenEmpty::Refuse], true));
    // Within the time for first checks there is something to wait for again.
    scene.decide(0, None);
    assert_eq!((scene.when_empty(), scene.next_change()), (vec![WhenEmpty::Wait], Some(TIMEOUT)));
}

#[test]
fn what_is_not_checked_is_active_from_the_start() {
    let scene = Scene::new("check = { type = 'none' }\nslow_start = '1m'", 2);
    for backend in 0..2 {
        assert_eq!(scene.state(backend), State::Active);
        assert_eq!(scene.condition(backend), (FULL_SHARE, BackendState::Serving));
        assert_eq!(scene.board.entries()[backend].since(), scene.start);
    }
    assert_eq!((scene.when_empty(), scene.next_change()), (vec![WhenEmpty::Refuse], None));
    assert!(!scene.board.awaits_first_checks(scene.now));
    assert!(scene.board.is_settled());
}
