//! Signals to the agent. Of those that end it the first asks, the second insists.

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

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    /// Read the configuration again: SIGHUP.
    Reload,
    /// Take everything away and end: SIGTERM, SIGINT.
    End(Signal),
    /// Leave everything as it is for another agent, and end: SIGUSR2.
    Leave,
}

/// The signals, as they come.
pub(super) struct Signals {
    receiver: mpsc::UnboundedReceiver<Wish>,
}

impl Signals {
    /// Takes them from now on. Must be called before any other thread is started, since those inherit
    /// which signals are blocked: no other thread is interrupted.
    ///
    /// They are taken by a thread and a runtime of their own, so that the second signal ends even an agent that is
    /// stuck. And they are handled, not only waited for: a thread that lets them through for the sake of a command that
    /// it starts ([`thread_without_mask`]) must not take the default action, which is the end of the process.
    pub(super) fn take() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build().context("start a runtime")?;
        let (mut terminate, mut interrupt, mut hang_up, mut user) = {
            let _context = runtime.enter();
            let handle = |kind| signal(kind).context("handle signals");
            (
                handle(SignalKind::terminate())?,
                handle(SignalKind::interrupt())?,
                handle(SignalKind::hangup())?,
                handle(SignalKind::user_defined2())?,
            )
        };
        let taken = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2];
        SigSet::from_iter(taken).thread_block().context("block signals")?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let follow = async move {
            let mut is_ending = false;
            loop {
                let wish = tokio::select! {
                    _ = terminate.recv() => Wish::End(Signal::SIGTERM),
                    _ = interrupt.recv() => Wish::End(Signal::SIGINT),
                    _ = hang_up.recv() => Wish::Reload,
                    _ = user.recv() => Wish::Leave,
                };
                if let (Wish::End(signal), true) = (wish, is_ending) {
                    warn!("{signal} while ending: not everything was removed; `kplb detach` does");
                    process::exit(FORCED);
                }
                is_ending |= matches!(wish, Wish::End(_));
                if sender.send(wish).is_err() {
                    return;
                }
            }
        };
        thread_without_mask("signals", move || runtime.block_on(follow)).context("start the signal thread")?;
        Ok(Self { receiver })
    }

    /// Waits for the next signal. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Wish> {
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
