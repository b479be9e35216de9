//! `kplb detach`: take kplb off an interface.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::logging;
use crate::{
    bpffs,
    control::{Answer, Request, client::Client},
    daemon::leftovers::{self, Unreadable},
    privileges,
    run_dir::{LockOutcome, RunDir},
};

const PATIENCE: Duration = Duration::from_secs(10);

const EXAMPLE: &str = "\
Example:
  kplb detach eth0";

/// Detach from an interface: end its agent, or remove what a killed one left.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// The interface.
    interface: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { interface } = arguments;
    let run_dir = RunDir::from_environment();
    if let Some(client) = Client::connect(&run_dir.socket(interface), PATIENCE)? {
        let pid = stop(client, interface)?;
        println!("{interface}: detached (agent with pid {pid} ended)");
        return Ok(());
    }
    privileges::check()?;
    logging::start(logging::LogLevel::Warn);
    let lock = match run_dir.lock(interface)? {
        LockOutcome::Locked(lock) => lock,
        LockOutcome::HeldBy(pid) => bail!(
            "an agent{} is just starting or ending on {interface}; try again",
            pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
        ),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let record = leftovers::record(&lock, Unreadable::Refuse)?;
    let removed = runtime.block_on(leftovers::remove(&lock, interface, &bpffs::pin_root(), &record))?;
    if removed.is_empty() {
        bail!("nothing of kplb is attached to {interface}");
    }
    println!("{interface}: no agent is running; removed {}", removed.join(", "));
    Ok(())
}

fn stop(mut client: Client, interface: &str) -> Result<u32> {
    let pid = match client.ask(&Request::Stop)? {
        Answer::Stopping { pid } => pid,
        Answer::Error(error) => bail!("the agent of {interface} says: {error}"),
        Answer::Status(_) | Answer::Backends(_) | Answer::Reloaded(_) => {
            bail!("the agent of {interface} gave the wrong answer")
        }
    };
    client.wait_for_end().with_context(|| format!("the agent of {interface} (pid {pid}) does not end"))?;
    Ok(pid)
}
