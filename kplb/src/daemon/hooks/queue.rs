//! Calls that have not begun: at most one for the same VIPs, the newest. A role that is over is no news.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;
use tracing::debug;

/// The last arguments of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Call {
    pub(super) state: &'static str,
    pub(super) vips: Vec<String>,
}

/// Calls in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Call>>,
    pushed: Notify,
}

impl Queue {
    /// Adds a call, in the place of one that has the same VIPs.
    pub(super) fn push(&self, call: Call) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|earlier| {
            let is_current = earlier.vips != call.vips;
            if !is_current {
                debug!("`notify`: {} is over before its command has begun", earlier.state);
            }
            is_current
        });
        waiting.push_back(call);
        drop(waiting);
        self.pushed.notify_one();
    }

    /// Waits for a call, and takes it out. For one taker. Safe to cancel.
    pub(super) async fn next(&self) -> Call {
        loop {
            let first = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match first {
                Some(call) => return call,
                None => self.pushed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_call_of_each_family_is_kept() {
        let call = |state, vip: &str| Call { state, vips: vec![vip.to_owned()] };
        let queue = Queue::default();
        queue.push(call("backup", "198.18.0.100"));
        queue.push(call("backup", "2001:2::100"));
        queue.push(call("master", "198.18.0.100"));
        queue.push(call("backup", "198.18.0.100"));
        assert_eq!(queue.next().await, call("backup", "2001:2::100"));
        assert_eq!(queue.next().await, call("backup", "198.18.0.100"));
        queue.push(call("master", "198.18.0.100"));
        assert_eq!(queue.next().await, call("master", "198.18.0.100"));
    }
}
