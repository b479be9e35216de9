//! Silence after the start.

use super::*;

fn delayed(priority: u8) -> Settings {
    Settings { startup_delay: millis(10_000), ..settings(priority) }
}

#[test]
fn silence_says_nothing_until_it_is_over() {
    let run = Run::backup(delayed(100));
    assert_eq!(run.left(), millis(10_000) + down(100));
}

#[test]
fn the_owner_waits_as_well() {
    let mut run = Run::backup(delayed(PRIORITY_OWNER));
    assert_eq!(run.left(), millis(10_000));
    run.expire();
    assert_eq!(run.router.state(), State::Master);
}

#[test]
fn what_is_heard_meanwhile_counts() {
    let mut run = Run::backup(delayed(100));
    run.wait(millis(4_000));
    run.hear(1, 200);
    assert_eq!(run.left(), millis(6_000) + down(100));
    run.hear(1, 0);
    assert_eq!(run.left(), millis(6_000) + skew(100));
    run.wait(millis(6_100));
    run.hear(1, 200);
    assert_eq!(run.left(), down(100));
}

#[test]
fn it_is_for_the_start_and_for_a_link_that_comes_back() {
    for fault in Fault::ALL {
        let mut run = Run::backup(delayed(100));
        run.wait(millis(10_500));
        run.handle(Input::FaultRaised(fault));
        run.handle(Input::FaultCleared(fault));
        let delay = if fault == Fault::LinkDown { delayed(100).startup_delay } else { Duration::ZERO };
        assert_eq!(run.left(), delay + down(100), "{fault}");
    }
}
