//! Master: RFC 9568, section 6.4.3; RFC 3768, section 6.4.3.

use super::*;

const STOPPED: Action = report(State::Master, State::Initialize, Reason::Stopped);

#[test]
fn at_shutdown_it_gives_up_and_stays_until_another_is_heard() {
    let mut run = Run::master(settings(100));
    assert_eq!(run.handle(Input::Stop), [Action::Send { priority: 0 }]);
    assert_eq!(run.router.state(), State::Master);
    assert_eq!(run.handle(Input::Stop), []);
    run.wait(millis(100));
    // One that gives up as well is no successor, and it sends no advert, as a master would.
    assert_eq!(run.hear(1, 0), []);
    assert_eq!(run.hear(1, 50), [Action::Release, STOPPED]);
    assert_eq!(run.router.deadline(), None);
}

#[test]
fn at_shutdown_it_goes_without_a_successor_when_none_can_come_any_more() {
    for settings in [settings(100), v2(100)] {
        let succession = timers::succession(settings.version, settings.interval);
        let mut run = Run::master(settings);
        run.handle(Input::Stop);
        assert_eq!(run.left(), succession);
        assert_eq!(run.expire(), [Action::Release, STOPPED]);
    }
}

#[test]
fn a_fault_at_shutdown_leaves_no_time() {
    let mut run = Run::master(settings(100));
    run.handle(Input::Stop);
    let fault = Reason::Fault(Fault::LinkDown);
    assert_eq!(
        run.handle(Input::FaultRaised(Fault::LinkDown)),
        [Action::Release, report(State::Master, State::Initialize, fault)]
    );
}

#[test]
fn one_that_was_about_to_go_can_start_again() {
    let mut run = Run::master(settings(100));
    run.handle(Input::Stop);
    assert_eq!(
        run.handle(Input::Start),
        [Action::Release, STOPPED, report(State::Initialize, State::Backup, Reason::Started)]
    );
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
