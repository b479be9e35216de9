//! kplb itself on a node of the lab.

use std::{ffi::OsStr, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::{
    lab::Host,
    process::{Process, workspace_program},
};

/// How long an agent may take to load, attach and say so.
const READY: Duration = Duration::from_secs(20);

/// A running `kplb attach eth0`.
#[derive(Debug)]
pub struct Agent<'a> {
    host: &'a Host,
    process: Process,
}

impl<'a> Agent<'a> {
    /// Starts `kplb attach eth0` with these further arguments, and waits until it serves.
    pub fn start<S: AsRef<OsStr>>(host: &'a Host, arguments: impl IntoIterator<Item = S>) -> Result<Self> {
        let agent = Self::spawn(host, arguments)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// Waits until it serves.
    pub fn wait_until_ready(&self) -> Result<()> {
        self.process.wait_for_line("ready", READY).map(drop)
    }

    /// The same without waiting: for an agent that is expected to fail.
    pub fn spawn<S: AsRef<OsStr>>(host: &'a Host, arguments: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::spawn_on(host, "eth0", arguments)
    }

    /// The same on another interface.
    pub fn spawn_on<S: AsRef<OsStr>>(
        host: &'a Host,
        interface: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let mut command = kplb()?;
        command.args(["attach", interface]).args(arguments);
        Ok(Self { host, process: Process::spawn(host.namespace(), "kplb attach", command)? })
    }

    /// Has it end and leave everything in place for another.
    pub fn leave(mut self) -> Result<()> {
        self.process.signal(Signal::SIGUSR2)?;
        let status = self.process.wait(READY)?;
        anyhow::ensure!(status.success(), "kplb attach: {status}; it wrote:\n{}", self.process.output());
        Ok(())
    }

    /// Where it runs.
    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// The process: signals, its end, what it wrote.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What the agent has written so far.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// What `kplb status --json` says on this node.
    pub fn status(&self) -> Result<serde_json::Value> {
        status(self.host)
    }

    /// How many packets have had this verdict.
    pub fn count(&self, verdict: &str) -> Result<u64> {
        self.status()?[0]["verdicts"][verdict].as_u64().with_context(|| format!("there is no verdict {verdict}"))
    }

    /// Asks the agent to stop, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(READY)?;
        anyhow::ensure!(status.success(), "kplb attach: {status}; it wrote:\n{}", self.process.output());
        Ok(())
    }
}

/// What `kplb status --json` says on a node, agent or not.
pub fn status(host: &Host) -> Result<serde_json::Value> {
    let text = run(host, ["status", "--json"])?;
    serde_json::from_str(&text).with_context(|| format!("kplb status --json wrote:\n{text}"))
}

/// Runs `kplb` with these arguments to its end; it must succeed. Returns its standard output.
pub fn run<S: AsRef<OsStr>>(host: &Host, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = kplb()?;
    command.args(arguments);
    host.namespace().check_output(command)
}

/// The `kplb` to be tested, with no arguments yet.
pub fn kplb() -> Result<Command> {
    Ok(Command::new(workspace_program("kplb")?))
}
