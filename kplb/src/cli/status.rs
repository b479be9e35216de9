//! `kplb status`: how are the agents of this node?

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    control::{Answer, Request, client::Client},
    run_dir::RunDir,
    status::{self, Status, VerdictFilter},
};

const PATIENCE: Duration = Duration::from_secs(10);

const EXAMPLE: &str = "\
Examples:
  kplb status
  kplb status eth0 --json | jq '.[0].services[].backends[] | {name, ring_share}'

The JSON form is an array with one object for each interface.";

/// Show services, backends, flows and what became of packets.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// The interface; every attached one unless given.
    interface: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show verdicts that no packet has had, too.
    #[arg(long, conflicts_with = "json")]
    all: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let run_dir = RunDir::from_environment();
    let statuses = match &arguments.interface {
        Some(interface) => match read(&run_dir, interface)? {
            Some(status) => vec![status],
            None => bail!(
                "no kplb agent is attached to {interface} (no answer at {}); start one with `kplb attach {interface}`",
                run_dir.socket(interface).display()
            ),
        },
        None => {
            let mut statuses = Vec::new();
            for interface in run_dir.interfaces()? {
                statuses.extend(read(&run_dir, &interface)?);
            }
            if statuses.is_empty() {
                bail!(
                    "no kplb agent is running (no answer in {}); start one with `kplb attach INTERFACE`",
                    run_dir.path().display()
                );
            }
            statuses
        }
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&statuses)?);
        return Ok(());
    }
    let verdicts = if arguments.all { VerdictFilter::All } else { VerdictFilter::Seen };
    let texts: Vec<String> = statuses.iter().map(|status| status::text(status, verdicts)).collect();
    print!("{}", texts.join("\n"));
    Ok(())
}

/// The status of the interface's agent; `None` when there is none.
pub(super) fn read(run_dir: &RunDir, interface: &str) -> Result<Option<Status>> {
    let Some(mut client) = Client::connect(&run_dir.socket(interface), PATIENCE)? else {
        return Ok(None);
    };
    match client.ask(&Request::Status)? {
        Answer::Status(status) => Ok(Some(*status)),
        Answer::Error(error) => bail!("the agent of {interface} says: {error}"),
        Answer::Backends(_) | Answer::Reloaded(_) | Answer::Stopping { .. } => {
            bail!("the agent of {interface} gave the wrong answer")
        }
    }
}
