//! What happens by itself: the end of a drain, and the growth of a share.

use super::*;

const NANOSECOND: Duration = Duration::from_nanos(1);

#[test]
fn a_drain_ends_after_its_timeout() {
    const PERIOD: Duration = Duration::from_secs(10);
    for name in ["health", "hand"] {
        let mut scene = Scene::new("drain_timeout = '10s'", 1);
        scene.checks(0, READY);
        scene.pass(Duration::from_secs(1));
        match name {
            "health" => scene.checks(0, &[NotReady, NotReady, NotReady]),
            _ => drop(scene.decide(0, Some(Decision::Drain))),
        }
        let start = scene.now;
        for (after, state, next_change) in [
            (Duration::ZERO, BackendState::Serving, Some(PERIOD)),
            (PERIOD - NANOSECOND, BackendState::Serving, Some(NANOSECOND)),
            (PERIOD, BackendState::Down, None),
            (PERIOD + NANOSECOND, BackendState::Down, None),
            (PERIOD * 1000, BackendState::Down, None),
        ] {
            scene.now = start + after;
            assert_eq!(scene.condition(0), (0, state), "by {name}, after {after:?}");
            assert_eq!(scene.next_change(), next_change, "by {name}, after {after:?}");
            // For users it is the same state, and no news.
            assert_eq!(scene.state(0), State::Draining);
        }
    }
}

#[test]
fn a_drain_without_a_timeout_has_no_end() {
    let mut scene = Scene::new("", 1);
    scene.checks(0, NOT_READY);
    scene.pass(TIMEOUT);
    assert_eq!(scene.next_change(), None);
    assert_eq!(scene.condition_at(0, scene.now + Duration::from_secs(1_000_000)), (0, BackendState::Serving));
}

/// After its end a drain is none any more, however it was.
#[test]
fn a_drain_that_ended_begins_anew() {
    let mut scene = Scene::new("drain_timeout = '10s'", 1);
    scene.checks(0, NOT_READY);
    scene.pass(Duration::from_secs(10));
    assert_eq!(scene.condition(0), (0, BackendState::Down));
    scene.checks(0, &[Ready, Ready]);
    assert_eq!(scene.condition(0), (FULL_SHARE, BackendState::Serving));
    scene.checks(0, &[NotReady, NotReady, NotReady]);
    assert_eq!((scene.condition(0), scene.next_change()), ((0, BackendState::Serving), Some(Duration::from_secs(10))));
}

/// A backend that has just come back.
fn returned(settings: &str) -> Scene {
    let mut scene = Scene::new(settings, 1);
    scene.checks(0, DEAD);
    scene.pass(Duration::from_secs(60));
    scene.checks(0, &[Ready, Ready]);
    assert_eq!(scene.state(0), State::Active);
    scene
}

#[test]
fn a_share_grows_step_by_step() {
    // The second one is not a whole number of nanoseconds for each step.
    for (settings, period) in [
        ("slow_start = '32s'", Duration::from_secs(32)),
        ("slow_start = '1s 1ms 1us'", Duration::from_nanos(1_001_001_000)),
        ("slow_start = '7days'", Duration::from_secs(7 * 24 * 60 * 60)),
    ] {
        let mut scene = returned(settings);
        let start = scene.now;
        let mut shares = vec![scene.condition(0).0];
        while let Some(next) = scene.next_change() {
            assert!(next > Duration::ZERO);
            let share = scene.condition(0);
            assert_eq!(scene.condition_at(0, scene.now + next - NANOSECOND), share, "{settings}: not before");
            scene.pass(next);
            shares.push(scene.condition(0).0);
            assert!(shares.len() <= 1 + FULL_SHARE as usize, "{settings}: without end");
        }
        assert!(shares.is_sorted_by(|before, after| before < after), "{settings}: {shares:?}");
        assert!(shares[0] > 0, "{settings}: {shares:?}");
        assert_eq!(shares.last(), Some(&FULL_SHARE), "{settings}");
        assert!(shares.len() > 2, "{settings}: {shares:?}");
        assert!(scene.now <= start + period, "{settings}: not later");
        assert_eq!(
            scene.condition_at(0, scene.now + Duration::from_secs(1_000_000)),
            (FULL_SHARE, BackendState::Serving)
        );
    }
}

/// At each time the share is that part of the whole that has passed of the period, and one step more.
#[test]
fn a_share_grows_evenly() {
    let scene = returned("slow_start = '32s'");
    for n in 0..RAMP_STEPS {
        let (share, _) = scene.condition_at(0, scene.now + Duration::from_secs(u64::from(n)));
        assert_eq!(share, FULL_SHARE * (n + 1) / RAMP_STEPS, "after {n} s of 32");
    }
}

#[test]
fn nobody_starts_slowly_at_the_very_first_start() {
    let mut scene = Scene::new("slow_start = '32s'", 2);
    for backend in 0..2 {
        scene.checks(backend, &[Unknown, Ready]);
        assert_eq!(scene.condition(backend), (FULL_SHARE, BackendState::Serving));
    }
    assert_eq!(scene.next_change(), None);
}

#[test]
fn whoever_comes_back_starts_slowly() {
    let slow = FULL_SHARE / RAMP_STEPS;
    let mut scene = Scene::new("slow_start = '32s'", 1);
    scene.checks(0, READY);
    let mut comes_back = |name: &str, leave: &dyn Fn(&mut Scene), back: &dyn Fn(&mut Scene)| {
        leave(&mut scene);
        assert_ne!(scene.state(0), State::Active, "{name}");
        back(&mut scene);
        assert_eq!((scene.state(0), scene.condition(0).0), (State::Active, slow), "{name}");
        // In the middle of it, so that the next one starts from anew.
        scene.pass(Duration::from_secs(16));
        assert!(scene.condition(0).0 > FULL_SHARE / 2, "{name}");
    };
    let good = |scene: &mut Scene| scene.checks(0, &[Ready, Ready]);
    comes_back("was down", &|scene| scene.checks(0, &[Refused; 3]), &good);
    comes_back("was not ready", &|scene| scene.checks(0, &[NotReady; 3]), &good);
    let decide = |decision| {
        move |scene: &mut Scene| {
            scene.decide(0, decision);
        }
    };
    comes_back("was drained by hand", &decide(Some(Decision::Drain)), &decide(None));
    comes_back("was in maintenance", &decide(Some(Decision::Maintenance)), &|scene| {
        scene.decide(0, None);
        scene.checks(0, READY);
    });
}

/// One that never was active is waited for by nobody but those who are.
#[test]
fn whoever_was_not_ready_at_the_start_starts_slowly_later() {
    let mut scene = Scene::new("slow_start = '32s'", 1);
    scene.checks(0, &[NotReady, Ready, Ready]);
    assert_eq!(scene.condition(0), (FULL_SHARE / RAMP_STEPS, BackendState::Serving));
}

#[test]
fn without_a_slow_start_the_share_is_whole_at_once() {
    let scene = returned("");
    assert_eq!((scene.condition(0), scene.next_change()), ((FULL_SHARE, BackendState::Serving), None));
}

/// Of several changes the next one is told.
#[test]
fn the_next_change_is_the_first_of_all() {
    let mut scene = Scene::with_services(&[("drain_timeout = '10s'", 2), ("slow_start = '320s'", 1), ("", 1)]);
    scene.checks(0, NOT_READY);
    scene.pass(Duration::from_secs(1));
    scene.checks(1, NOT_READY);
    scene.checks(2, &[Refused, Ready, Ready]);
    let mut changes = Vec::new();
    while let Some(change) = scene.next_change().filter(|_| changes.len() < 100) {
        scene.pass(change);
        changes.push((scene.now - scene.start).as_secs());
    }
    // The end of the last one's first check, of the first one's drain, of the second one's; the third one's steps.
    let expected: Vec<u64> = [3, 10].into_iter().chain((11..320).step_by(10)).collect();
    assert_eq!(changes, expected);
}
