//! `kplb backend`: decide by hand what a backend is used for.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    control::{Answer, BackendAction, BackendCommand, Request, client::Client},
    run_dir::RunDir,
};

const PATIENCE: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  kplb backend drain cp1          before work on a node: what it has, it keeps; nothing new goes there
  kplb backend maintenance cp1    during the work: nothing at all goes there, and it is not checked
  kplb backend resume cp1         after the work: its health decides again

It holds until it is ended, for the agents to come, too.";

/// Decide by hand what a backend is used for.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// What to do.
    #[arg(value_enum)]
    action: Action,
    /// Name of the backend, as `kplb status` shows it.
    backend: String,
    /// Only in this service; in every one that has a backend of this name, otherwise.
    #[arg(long)]
    service: Option<String>,
    /// The interface of the agent to ask; every one that has a backend of this name, otherwise.
    #[arg(long)]
    interface: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// No new flows; established ones are kept.
    Drain,
    /// As its health says.
    Resume,
    /// Nothing at all: established flows are reset, checks stop.
    Maintenance,
}

impl From<Action> for BackendAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Drain => Self::Drain,
            Action::Resume => Self::Resume,
            Action::Maintenance => Self::Maintenance,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { action, backend, service, interface } = arguments;
    let run_dir = RunDir::from_environment();
    let interfaces = match interface {
        Some(interface) => vec![interface.clone()],
        None => run_dir.interfaces()?,
    };
    let command = BackendCommand { action: (*action).into(), backend: backend.clone(), service: service.clone() };
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for interface in interfaces {
        let Some(mut client) = Client::connect(&run_dir.socket(&interface), PATIENCE)? else { continue };
        match client.ask(&Request::Backend(command.clone()))? {
            Answer::Backends(backends) => done.extend(backends.into_iter().map(|line| format!("{interface}: {line}"))),
            Answer::Error(error) => errors.push(format!("{interface}: {error}")),
            Answer::Status(_) | Answer::Reloaded(_) | Answer::Stopping { .. } => {
                bail!("the agent of {interface} gave the wrong answer")
            }
        }
    }
    done.iter().for_each(|line| println!("{line}"));
    if done.is_empty() {
        match (errors.is_empty(), interface) {
            (true, Some(interface)) => bail!("no kplb agent is attached to {interface}; see `kplb status`"),
            (true, None) => bail!("no kplb agent is running (no answer in {})", run_dir.path().display()),
            (false, _) => bail!("{}", errors.join("\n")),
        }
    }
    Ok(())
}
