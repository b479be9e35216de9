//! Signals that end the agent: the first asks, the second insists.

use std::{process, thread};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use tokio::sync::mpsc;
use tracing::warn;

/// Exit code of an agent that was ended before it had taken everything away.
const FORCED: i32 = 130;

/// The first signal, when it comes.
pub(super) struct Signals {
    receiver: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    /// Takes SIGTERM and SIGINT from now on. Must be called before any other thread is started, since those inherit
    /// which signals are blocked.
    ///
    /// They are waited for by a thread of their own, so that the second signal ends even an agent that is stuck.
    pub(super) fn take() -> Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        signals.thread_block().context("block signals")?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let wait = move || {
            while let Ok(signal) = signals.wait() {
                if sender.send(signal).is_err() {
                    return;
                }
                if let Ok(second) = signals.wait() {
                    warn!("{second} while ending: not everything was removed; `kplb detach` does");
                    process::exit(FORCED);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).context("start the signal thread")?;
        Ok(Self { receiver })
    }

    /// Waits for the first signal. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Signal> {
        self.receiver.recv().await
    }
}
