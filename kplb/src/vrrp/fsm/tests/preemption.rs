//! Who takes over from a living master.

use super::*;

/// What a backup of priority 100 makes of a master of another priority that goes on: after how long it takes over,
/// if ever.
fn takes_over(settings: Settings, priority: u8) -> Option<Duration> {
    let mut run = Run::backup(settings);
    let start = run.now;
    for _ in 0..200 {
        run.hear(1, priority);
        let next = run.now + INTERVAL;
        if run.timer() < next {
            run.expire();
            assert_eq!(run.router.state(), State::Master);
            return Some(run.now - start);
        }
        run.wait(INTERVAL);
    }
    None
}

#[test]
fn matrix() {
    let delayed = millis(5_000) + down(100);
    for (settings, lower, others) in [
        (settings(100), None, None),
        (preempting(100, Duration::ZERO), Some(down(100)), None),
        // The last advert that counts is the one before the delay is over.
        (preempting(100, millis(5_000)), Some(delayed - INTERVAL), None),
    ] {
        for (priority, expected) in [(1, lower), (99, lower), (100, others), (101, others), (255, others)] {
            let case = format!("{:?} {priority}", settings.preemption);
            assert_eq!(takes_over(settings.clone(), priority), expected, "{case}");
        }
    }
}

#[test]
fn the_owner_always_preempts() {
    for settings in [settings(PRIORITY_OWNER), preempting(PRIORITY_OWNER, millis(60_000))] {
        let mut run = Run::new(settings);
        run.handle(Input::Start);
        run.hear(1, 255);
        // From another owner.
        run.hear(11, 255);
        assert_eq!(run.router.state(), State::Backup);
        run.hear(1, 254);
        assert_eq!(run.left(), down(255));
        run.wait(millis(500));
        run.hear(1, 254);
        assert_eq!(run.left(), down(255) - millis(500));
    }
}

#[test]
fn a_higher_priority_in_between_starts_the_delay_anew() {
    let mut run = Run::backup(preempting(100, millis(600)));
    run.hear(1, 50);
    run.wait(millis(500));
    run.hear(2, 200);
    run.wait(millis(500));
    run.hear(1, 50);
    assert_eq!(run.left(), down(100));
    run.wait(millis(590));
    run.hear(1, 50);
    assert_eq!(run.left(), down(100));
    run.wait(millis(10));
    run.hear(1, 50);
    assert_eq!(run.left(), down(100) - millis(10));
}

#[test]
fn a_lower_master_that_dies_is_replaced_at_once_whatever_the_delay() {
    let mut run = Run::backup(preempting(100, millis(60_000)));
    run.hear(1, 50);
    let actions = run.expire();
    let reason = Reason::MasterSilent(heard(1, 50));
    assert_eq!(actions.last(), Some(&report(State::Backup, State::Master, reason)));
}

#[test]
fn it_says_that_it_preempts() {
    let mut run = Run::backup(preempting(100, Duration::ZERO));
    run.hear(1, 50);
    let actions = run.expire();
    assert_eq!(actions.last(), Some(&report(State::Backup, State::Master, Reason::Preempts(heard(1, 50)))));
}

#[test]
fn a_master_never_yields_to_a_lower_priority_whether_it_preempts_or_not() {
    for settings in [settings(100), preempting(100, Duration::ZERO)] {
        let mut run = Run::master(settings);
        run.hear(200, 99);
        assert_eq!(run.router.state(), State::Master);
    }
}
