//! `kplb check`: is this configuration right?

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{config, health::probe};

const EXAMPLE: &str = "\
Example:
  kplb check /etc/kplb/kplb.toml";

/// Check a configuration file, without touching the node.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// The file.
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { file } = arguments;
    let config = config::load(file)?;
    // What the health checks log in with is as much part of it as the file itself.
    probe::probes(&config).with_context(|| format!("{}", file.display()))?;
    let n_backends: usize = config.services.iter().map(|service| service.backends.len()).sum();
    println!("{}: ok: {}, {}", file.display(), count(config.services.len(), "service"), count(n_backends, "backend"));
    Ok(())
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
