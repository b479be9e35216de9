//! Telling the service manager how the agent is (sd_notify(3)), where one has started it.
//!
//! Invariant: it is told that the agent lives by the agent's loop alone, so one that hangs is started anew.

use std::future;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

/// The manager's wish to hear that the loop turns.
pub(super) struct Watchdog {
    /// None if it does not wish to.
    interval: Option<Interval>,
}

impl Watchdog {
    /// As the environment says; to be told twice as often as it waits (sd_watchdog_enabled(3)). Must be called on a tokio
    /// runtime.
    pub(super) fn from_environment() -> Self {
        let interval = sd_notify::watchdog_enabled().map(|patience| {
            let mut interval = interval(patience / 2);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self { interval }
    }

    /// Waits until it is to be told. Safe to cancel.
    pub(super) async fn due(&mut self) {
        match &mut self.interval {
            Some(interval) => drop(interval.tick().await),
            None => future::pending().await,
        }
    }
}

/// The agent serves; `words` are for people.
pub(super) fn ready(words: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(words)]);
}

/// The loop turns.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The agent ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("Ending")]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a manager this does nothing; what one does not hear it finds out by itself.
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot tell the service manager: {error}");
    }
}
