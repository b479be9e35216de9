//! Before the start: RFC 9568, section 6.4.1.

use super::*;

#[test]
fn at_startup_the_owner_becomes_master_at_once() {
    let mut run = Run::new(settings(PRIORITY_OWNER));
    assert_eq!(
        run.handle(Input::Start),
        [Action::Send { priority: 255 }, Action::Acquire, report(State::Initialize, State::Master, Reason::Started),]
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
fn who_has_not_ceased_to_be_master_goes_on_at_once() {
    let mut run = Run::new(settings(100));
    assert_eq!(
        run.handle(Input::Resume),
        [Action::Send { priority: 100 }, Action::Acquire, report(State::Initialize, State::Master, Reason::Resumed)]
    );
    assert_eq!(run.left(), INTERVAL);
    assert_eq!(run.handle(Input::Resume), []);
    assert_eq!(run.handle(Input::Start), []);
}

#[test]
fn who_must_not_be_master_does_not_go_on() {
    let mut run = Run::new(settings(100));
    run.handle(Input::FaultRaised(Fault::LinkDown));
    assert_eq!(run.handle(Input::Resume), []);
    run.handle(Input::FaultCleared(Fault::LinkDown));
    assert_eq!(run.router.state(), State::Backup, "by then another one may be");
}

#[test]
fn nothing_else_counts() {
    let mut run = Run::new(settings(100));
    for input in [Input::Stop, Input::Timer, Input::Advert(heard(1, 0)), Input::HeldUp(millis(60_000))] {
        assert_eq!(run.handle(input), []);
    }
    assert_eq!((run.router.state(), run.router.deadline()), (State::Initialize, None));
}
