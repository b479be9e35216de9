//! Backup: RFC 9568, section 6.4.2; RFC 3768, section 6.4.2.

use super::*;

#[test]
fn at_shutdown_it_goes_without_a_word() {
    let mut run = Run::backup(settings(100));
    assert_eq!(run.handle(Input::Stop), [report(State::Backup, State::Initialize, Reason::Stopped)]);
    assert_eq!(run.router.deadline(), None);
}

#[test]
fn when_the_timer_fires_it_becomes_master() {
    let mut run = Run::backup(settings(100));
    assert_eq!(
        run.expire(),
        [Action::Send { priority: 100 }, Action::Acquire, report(State::Backup, State::Master, Reason::NobodyHeard),]
    );
    assert_eq!(run.left(), INTERVAL);
}

#[test]
fn before_the_timer_fires_it_does_nothing() {
    let mut run = Run::backup(settings(100));
    run.wait(down(100) - Duration::from_nanos(1));
    assert_eq!(run.handle(Input::Timer), []);
}

#[test]
fn when_the_master_gives_up_it_waits_for_its_skew_time() {
    let mut run = Run::backup(settings(100));
    run.hear(1, 200);
    assert_eq!(run.hear(1, 0), []);
    assert_eq!(run.left(), skew(100));
    let actions = run.expire();
    assert_eq!(actions.last(), Some(&report(State::Backup, State::Master, Reason::Released(heard(1, 0)))));
}

#[test]
fn the_skew_time_is_of_the_masters_interval() {
    let mut run = Run::backup(settings(100));
    run.handle(Input::Advert(Heard { interval: millis(1_000), ..heard(1, 200) }));
    run.hear(1, 0);
    assert_eq!(run.left(), timers::skew(Version::V3, 100, millis(1_000)));
}

#[test]
fn a_higher_or_equal_priority_puts_off_the_timer() {
    for settings in [settings(100), preempting(100, Duration::ZERO)] {
        for priority in [100, 101, 255] {
            let mut run = Run::backup(settings.clone());
            run.wait(millis(500));
            assert_eq!(run.hear(1, priority), []);
            assert_eq!(run.left(), down(100));
        }
    }
}

#[test]
fn it_goes_by_the_masters_interval() {
    let mut run = Run::backup(settings(100));
    run.handle(Input::Advert(Heard { interval: millis(1_000), ..heard(1, 200) }));
    // The skew as well: RFC 5798 had left that out.
    assert_eq!(run.left(), timers::master_down(Version::V3, 100, millis(1_000)));
    // As master, by its own.
    run.expire();
    assert_eq!(run.left(), INTERVAL);
}

#[test]
fn in_version_2_the_skew_is_of_a_second() {
    let settings = Settings { interval: millis(10_000), ..v2(100) };
    let mut run = Run::backup(settings);
    assert_eq!(run.left(), millis(30_000) + millis(1_000) * 156 / 256);
    run.hear(1, 0);
    assert_eq!(run.left(), millis(1_000) * 156 / 256);
}

#[test]
fn in_version_2_it_goes_by_the_configured_interval() {
    let mut run = Run::backup(v2(100));
    run.handle(Input::Advert(Heard { interval: millis(7_000), ..heard(1, 200) }));
    assert_eq!(run.left(), timers::master_down(Version::V2, 100, millis(1_000)));
}

#[test]
fn it_says_what_it_has_heard_of_a_master_that_died() {
    let mut run = Run::backup(settings(100));
    run.hear(1, 200);
    assert_eq!(run.router.heard(), Some(heard(1, 200)));
    let reason = Reason::MasterSilent(heard(1, 200));
    assert_eq!(run.expire().last(), Some(&report(State::Backup, State::Master, reason)));
    assert_eq!(reason.to_string(), "nothing more was heard of 192.0.2.1 (priority 200)");
}
