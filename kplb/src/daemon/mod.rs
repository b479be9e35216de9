//! The agent of one interface: from the first check to the last removal.
//!
//! Invariant: what the agent adds to the node is in `Added` before the next step is taken, and everything in it is
//! taken away at the end, in the opposite order, however the end came about.

mod backends;
mod bpf_log;
pub(crate) mod campaign;
mod cast;
mod claim;
mod herald;
mod hooks;
pub(crate) mod ipvs;
pub mod leftovers;
mod local;
pub(crate) mod manager;
pub(crate) mod obstacle;
pub(crate) mod preflight;
pub(crate) mod present;
mod probe;
mod reload;
mod report;
mod search;
mod serve;
mod signals;
mod start;
mod surroundings;
mod vips;
mod watches;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use tokio::runtime;
use tracing::{error, info};

use self::{
    claim::Duty,
    search::Found,
    signals::{Signals, Wish},
    surroundings::Surroundings,
    vips::Vips,
};
use crate::{
    config::Config,
    control::server::Call,
    dataplane::{Dataplane, ModeChoice, Sighting},
    health::watch::News,
    netlink::{client::Netlink, watch::Changes},
    privileges,
    recent::Recent,
    run_dir::{Lock, LockOutcome, RunDir},
};

/// How to run an agent.
#[derive(Debug)]
pub struct Options {
    /// Name of the interface.
    pub interface: String,
    /// What to serve.
    pub config: Config,
    /// Where that was read from, and is read again when it is to be; nothing, if flags said it.
    pub config_file: Option<PathBuf>,
    /// Where in the receive path to attach.
    pub mode: ModeChoice,
    /// Most talkative level that is logged.
    pub log_level: tracing::Level,
    /// The run directory.
    pub run_dir: RunDir,
    /// The directory below which to pin.
    pub pin_root: PathBuf,
    /// What the agent says, as it is kept by whoever has started the log.
    pub recent: Recent,
}

/// What can happen to a serving agent.
enum Event {
    /// The kernel's view of the node changed.
    Changed(Changes),
    /// Checks of backends have ended, or connections to them.
    News(Vec<(usize, News)>),
    /// The data path has seen something.
    Sightings(Vec<Sighting>),
    /// Clients that said nothing any more are found.
    Found(Found),
    /// What a backend is used for changes with time.
    Due,
    /// Backends that have left the configuration may be finished.
    Look,
    /// A client of the control socket wants something.
    Call(Call),
    /// Something is to be done about holding the VIPs.
    Duty(Duty),
    /// The loop shows that it turns.
    Beat,
    /// The service manager is to be told that the loop turns.
    WatchdogDue,
    /// A signal has come.
    Signal(Wish),
}

/// What becomes of all that the agent has added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    /// It is taken away.
    Remove,
    /// It stays as it is, for another agent to go on with.
    Leave,
}

/// What the agent has added to the node so far, in this order.
#[derive(Default)]
struct Added {
    /// Whether an earlier agent had added it.
    is_taken_over: bool,
    surroundings: Option<Surroundings>,
    dataplane: Option<Dataplane>,
    vips: Option<Vips>,
}

/// Runs the agent until it is told to end.
pub fn run(options: Options) -> Result<()> {
    privileges::check()?;
    let signals = Signals::take()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(agent(options, signals))
}

async fn agent(options: Options, mut signals: Signals) -> Result<()> {
    let lock = match options.run_dir.lock(&options.interface)? {
        LockOutcome::Locked(lock) => lock,
        LockOutcome::HeldBy(pid) => bail!(
            "a kplb agent{} is already attached to {1}; see it with `kplb status {1}`, end it with `kplb detach {1}`",
            pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
            options.interface
        ),
    };
    let netlink = Netlink::connect()?;
    let mut added = Added::default();
    let (served, has_started) = match start::start(&options, &lock, netlink.clone(), &mut added).await {
        Ok(agent) => (serve::serve(agent, &mut signals).await, true),
        Err(error) => (Err(error), false),
    };
    if !has_started && added.is_taken_over {
        let hint =
            format!("what an earlier agent has left forwards on; `kplb detach {}` removes it", options.interface);
        return served.map(drop).context(hint);
    }
    if matches!(served, Ok(Ending::Leave)) {
        info!("ended: all that is attached stays, and forwards on");
        return Ok(());
    }
    let removed = added.remove(&lock).await;
    served.map(drop).and(removed)
}

impl Added {
    /// Takes away everything: the VIPs, and once they are gone the rest, as far as it goes; the first error is returned, the
    /// others are logged.
    async fn remove(self, lock: &Lock) -> Result<()> {
        let had_dataplane = self.dataplane.is_some();
        if let Some(mut vips) = self.vips {
            let removed = vips.remove_all(lock).await;
            removed.context("its programs stay until its VIPs are gone: `kplb detach` tries again")?;
        }
        let mut results = Vec::new();
        let program = self.dataplane.as_ref().and_then(Dataplane::program);
        if let Some(dataplane) = self.dataplane {
            results.push(dataplane.detach());
        }
        if let Some(mut surroundings) = self.surroundings {
            surroundings.release_next_hops().await;
            if let Some(program) = program {
                results.push(surroundings.wait_for_detach(program).await);
            }
        }
        first_error(results).context("could not remove everything")?;
        // Without a data path, it may be of an agent whose VIPs are still there.
        if had_dataplane {
            // Last: until here, what is left is found by it.
            lock.remove_record()?;
            info!("ended: everything is removed");
        }
        Ok(())
    }
}

/// The first error of steps that were all taken; the others are logged.
fn first_error(results: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let first = errors.next();
    errors.for_each(|error| error!("{error:#}"));
    first.map_or(Ok(()), Err)
}
