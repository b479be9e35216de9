//! A node that did not run for a while.

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
    assert_eq!(run.handle(Input::HeldUp(millis(700))), [Action::Release, report(State::Master, State::Backup, reason)]);

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
