//! `kplb doctor`: is this node fit for kplb?

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    bpffs,
    doctor::{self, Level, Options},
    run_dir::RunDir,
    terminal::{self, Colour},
};

const EXAMPLES: &str = "\
Examples:
  kplb doctor
  kplb doctor eth0 --config ./kplb.toml --listen 10
  kplb doctor --json | jq -r '.findings[] | select(.level != \"ok\") | .what'

Before the first start, after a change of the configuration, and when something is odd. Nothing is changed on the node: the
programs are loaded and let go, backends are checked once, and the segment is asked and listened to for some seconds.

The exit code is 0 if no finding is an error, and 1 otherwise. The JSON form is an object with `interface`, `configuration`,
`is_fit` and `findings`; each of those has `level` (ok, note, warning, error), `topic`, `what` and `advice`.";

/// Look for what is in kplb's way on this node and its segment, and say what to do.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The interface [default: that of the running agent, or the one in the VIPs' network].
    interface: Option<String>,
    /// Configuration file [default: /etc/kplb/kplb.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long to listen to adverts of others; 0: not at all [default: the time of three adverts, 2.5 at least].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    listen: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Longer is most likely a mistake.
const MAX_SECONDS: f64 = 3600.0;

/// Seconds, with or without a fraction.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds, as in 2 or 0.5".to_owned())?;
    match (0.0..=MAX_SECONDS).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!("give 0 to {MAX_SECONDS} seconds")),
    }
}

pub(super) fn run(arguments: Arguments) -> Result<()> {
    let Arguments { interface, config, listen, json } = arguments;
    let (run_dir, pin_root) = (RunDir::from_environment(), bpffs::pin_root());
    let facts = doctor::gather(&Options { interface, config, listen, run_dir, pin_root })?;
    let report = doctor::examine(&facts);
    let text = match json {
        true => format!("{}\n", serde_json::to_string_pretty(&report)?),
        false => doctor::text(&report, Colour::of_stdout()),
    };
    terminal::print(&text)?;
    match report.count(Level::Error) {
        0 => Ok(()),
        1 => bail!("1 thing is in kplb's way"),
        n => bail!("{n} things are in kplb's way"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_numbers() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for wrong in ["", "-1", "1s", "NaN", "inf", "1e9"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
