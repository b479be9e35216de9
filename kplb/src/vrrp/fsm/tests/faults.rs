//! What keeps a node from being master.

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
