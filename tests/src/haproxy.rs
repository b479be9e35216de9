//! The real haproxy on a node of the lab: what kplb takes the place of.

use std::{fs, io::Write as _, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use crate::{lab::Host, poll, process::Process};

/// How long it may take to listen.
const SOON: Duration = Duration::from_secs(10);

/// A running haproxy: one process, in the foreground. Killed on drop.
#[derive(Debug)]
pub struct Haproxy {
    process: Process,
    // The configuration.
    _file: tempfile::NamedTempFile,
}

impl Haproxy {
    /// Starts it on a host with the text of a `haproxy.cfg`, and waits until it listens at a port of IPv4.
    pub fn start(host: &Host, configuration: &str, port: u16) -> Result<Self> {
        let mut file = tempfile::Builder::new().prefix("kplb-haproxy").suffix(".cfg").tempfile()?;
        file.write_all(configuration.as_bytes())?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file.path());
        let process = Process::spawn(host.namespace(), "haproxy", command)
            .context("start haproxy (`cargo xtask setup` installs it)")?;
        let what = format!("haproxy on {} to listen", host.name());
        poll::until(&what, SOON, || listens(process.pid(), port))
            .with_context(|| format!("it wrote:\n{}", process.output()))?;
        Ok(Self { process, _file: file })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks it to stop (`SIGTERM`), and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate(SOON).map(drop)
    }
}

/// Whether something listens at a port of IPv4 in the network of a process.
pub(crate) fn listens(pid: u32, port: u16) -> bool {
    // The fields are `local_address`, as hexadecimal digits, and `st`, where 0A is TCP_LISTEN (proc_pid_net(5)).
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    sockets.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        matches!(fields[..], [_, local, _, "0A", ..] if local.ends_with(&format!(":{port:04X}")))
    })
}
