//! Signals that end the agent: the first asks, the second insists.

use std::{process, thread};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::warn;

/// Exit code of an agent that was ended before it had taken everything away.
const FORCED: i32 = 130;

/// The first signal, when it comes.
pub(super) struct Signals {
    receiver: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    /// Takes SIGTERM and SIGINT from now on. Must be called before any other thread is started, since those inherit
    /// which signals are blocked: no other thread is interrupted.
    ///
    /// They are taken by a thread and a runtime of their own, so that the second signal ends even an agent that is
    /// stuck. And they are handled, not only waited for: a thread that lets them through for the sake of a command that
    /// it starts ([`thread_without_mask`]) must not take the default action, which is the end of the process.
    pub(super) fn take() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build().context("start a runtime")?;
        let (mut terminate, mut interrupt) = {
            let _context = runtime.enter();
            let handle = |kind| signal(kind).context("handle signals");
            (handle(SignalKind::terminate())?, handle(SignalKind::interrupt())?)
        };
        SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]).thread_block().context("block signals")?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let follow = async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => Signal::SIGTERM,
                    _ = interrupt.recv() => Signal::SIGINT,
                }
            };
            if sender.send(next().await).is_err() {
                return;
            }
            let second = next().await;
            warn!("{second} while ending: not everything was removed; `kplb detach` does");
            process::exit(FORCED);
        };
        thread_without_mask("signals", move || runtime.block_on(follow)).context("start the signal thread")?;
        Ok(Self { receiver })
    }

    /// Waits for the first signal. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Signal> {
        self.receiver.recv().await
    }
}

/// Starts a thread that blocks no signals, nor do the processes that it starts: they inherit what it blocks.
pub(super) fn thread_without_mask(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let run = move || {
        // Fails for a set that is no set only.
        let _ = SigSet::empty().thread_set_mask();
        run();
    };
    thread::Builder::new().name(name.into()).spawn(run).map(drop)
}
