//! `kplb reload`: follow a configuration that was changed.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    control::{Answer, Request, client::Client},
    run_dir::RunDir,
};

/// The agent resolves next hops and reads what its checks need.
const PATIENCE: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  kplb check /etc/kplb/kplb.toml && kplb reload
  kplb reload eth0

The agent reads the file again that it was started with, follows it as a whole, and says what has changed; if anything in
it is wrong, it says what, and nothing changes. Flows go on. A backend that is no longer there gets no new flows, and is
dropped when its flows have ended. SIGHUP does the same.";

/// Have the agent read its configuration again.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The interface of the agent; every agent of this node, otherwise.
    interface: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let run_dir = RunDir::from_environment();
    let interfaces = match &arguments.interface {
        Some(interface) => vec![interface.clone()],
        None => run_dir.interfaces()?,
    };
    let (mut n_agents, mut errors) = (0, Vec::new());
    for interface in interfaces {
        let Some(mut client) = Client::connect(&run_dir.socket(&interface), PATIENCE)? else { continue };
        n_agents += 1;
        match client.ask(&Request::Reload)? {
            Answer::Reloaded(lines) => lines.iter().for_each(|line| println!("{interface}: {line}")),
            Answer::Error(error) => errors.push(format!("{interface}: {error}")),
            Answer::Status(_) | Answer::Backends(_) | Answer::Stopping { .. } => {
                bail!("the agent of {interface} gave the wrong answer")
            }
        }
    }
    match &arguments.interface {
        Some(interface) if n_agents == 0 => bail!("no kplb agent is attached to {interface}; see `kplb status`"),
        None if n_agents == 0 => bail!("no kplb agent is running (no answer in {})", run_dir.path().display()),
        _ if !errors.is_empty() => bail!("{}", errors.join("\n")),
        _ => Ok(()),
    }
}
