//! `kplb attach`: run the agent of an interface.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use super::logging::{self, LogLevel};
use crate::{
    bpffs,
    config::{self, Balancers, Config},
    daemon,
    dataplane::ModeChoice,
    run_dir::RunDir,
};

const EXAMPLES: &str = "\
Examples:
  kplb attach eth0
  kplb attach eth0 --config ./kplb.toml --mode native
  kplb attach eth0 --vip 198.18.0.100:6443 --backend 198.18.0.11:6443 --backend 198.18.0.12:6443
  kplb attach eth0 --elect --vip 198.18.0.100:6443 --backend 198.18.0.11:6443 --backend 198.18.0.12:6443
  kplb attach eth0 --vip '[2001:2::100]:6443' --backend '[2001:2::11]:6443'

It runs in the foreground, says `ready` once it forwards, and takes everything away again when it gets SIGTERM or
SIGINT, or `kplb detach eth0`. SIGHUP has it read the configuration again, like `kplb reload`. SIGUSR2 ends it and leaves
everything in place: the next `kplb attach eth0`, of the same or another version, goes on with all flows.";

/// Attach to an interface and balance what comes in there, in the foreground.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The interface that has clients, backends and VIPs behind it.
    interface: String,
    /// Configuration file [default: /etc/kplb/kplb.toml].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vip", "backend", "elect"])]
    config: Option<PathBuf>,
    /// Instead of a file: a TCP service at this VIP and port; an IPv6 VIP in brackets.
    #[arg(long, value_name = "VIP:PORT", requires = "backend")]
    vip: Vec<String>,
    /// Instead of a file: a backend of every VIP of its family.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "vip")]
    backend: Vec<String>,
    /// Instead of a file: every backend's node runs this same command, and they elect the one that holds the VIPs.
    #[arg(long, requires = "vip")]
    elect: bool,
    /// Where in the receive path to attach.
    #[arg(long, value_enum, default_value = "auto")]
    mode: Mode,
    /// How much to log.
    #[arg(long, value_enum, default_value = "info")]
    log_level: LogLevel,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Native where the driver has it, else tc.
    Auto,
    /// As XDP in the driver, or not at all.
    Native,
    /// At TC ingress in the network stack: works with every driver.
    Tc,
    /// As XDP in the network stack: works with every driver, and is slower than tc.
    Generic,
}

impl From<Mode> for ModeChoice {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Native => Self::Native,
            Mode::Tc => Self::Tc,
            Mode::Generic => Self::Generic,
        }
    }
}

pub(super) fn run(arguments: Arguments) -> Result<()> {
    let recent = logging::start(arguments.log_level);
    let (config, config_file) = load(&arguments)?;
    daemon::run(daemon::Options {
        interface: arguments.interface,
        config,
        config_file,
        mode: arguments.mode.into(),
        log_level: arguments.log_level.into(),
        run_dir: RunDir::from_environment(),
        pin_root: bpffs::pin_root(),
        recent,
    })
}

/// The configuration, and the file that it is from, if it is from one.
fn load(arguments: &Arguments) -> Result<(Config, Option<PathBuf>)> {
    if !arguments.vip.is_empty() {
        let balancers = if arguments.elect { Balancers::Backends } else { Balancers::One };
        return Ok((Config::from_flags(&arguments.vip, &arguments.backend, balancers)?, None));
    }
    let (path, config) = match &arguments.config {
        Some(path) => (path.clone(), config::load(path)?),
        None => {
            let path = PathBuf::from(config::DEFAULT_PATH);
            let config = config::load(&path).with_context(|| {
                if path.exists() {
                    "in the default configuration".to_owned()
                } else {
                    "neither --config nor --vip was given".to_owned()
                }
            })?;
            (path, config)
        }
    };
    // It is read again later, from wherever the agent is then.
    Ok((config, Some(std::path::absolute(path)?)))
}
