//! The real keepalived on a node of the lab: the router that everybody has, to compare and to interoperate with.
//!
//! ```text
//!   unshare ---- keepalived (parent) ---- keepalived (VRRP)
//!              |  process 1 of a process namespace of its own
//! ```
//!
//! Invariant: none of its processes is left behind. The kernel kills the lab's direct child with the lab, `unshare` has
//! it kill the parent with itself, and the end of a namespace's first process ends all others in it.

mod options;

use std::{fs, net::IpAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

pub use self::options::{Options, Preemption, Transport, Version};
use crate::{
    lab::Host,
    poll,
    process::{self, Process},
};

/// How long it may take to run, or to end: it gives itself a second to say goodbye.
const SOON: Duration = Duration::from_secs(10);

/// Its processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The one that was started, and starts the other again when that ends. Killed here, it takes the other with it,
    /// as the whole service is killed; alone, as outside of a process namespace, it would have it leave in good order
    /// (`PR_SET_PDEATHSIG`).
    Parent,
    /// The one that speaks VRRP. One that is started after it takes the VIPs away first.
    Vrrp,
}

/// A running keepalived.
#[derive(Debug)]
pub struct Keepalived<'a> {
    host: &'a Host,
    // `unshare`, which lives as long as the parent.
    process: Process,
    // Configuration and files with process ids.
    _directory: tempfile::TempDir,
}

impl<'a> Keepalived<'a> {
    /// Starts it on a host, and waits until each virtual router says in which state it is.
    pub fn start(host: &'a Host, options: &Options) -> Result<Self> {
        Self::start_with(host, &options.configuration(host), &options.instances(), &[])
    }

    /// The same with the text of a `keepalived.conf` that has these virtual routers, and with more arguments.
    pub fn start_with(host: &'a Host, configuration: &str, instances: &[&str], arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("kplb-keepalived").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("keepalived.conf"), configuration).context("write keepalived.conf")?;
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child=KILL", "--"]);
        command.args(["keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        command.arg("--use-file").arg(path("keepalived.conf"));
        command.arg("--pid").arg(path("parent.pid")).arg("--vrrp_pid").arg(path("vrrp.pid")).args(arguments);
        let process = Process::spawn(host.namespace(), "keepalived", command)?;
        for instance in instances {
            process
                .wait_for_line(&format!("({instance}) Entering "), SOON)
                .context("start keepalived (`cargo xtask setup` installs it)")?;
        }
        // It says so, and goes on without.
        ensure!(!process.output().contains("Unknown keyword"), "this keepalived is too old:\n{}", process.output());
        Ok(Self { host, process, _directory: directory })
    }

    /// Where it runs.
    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// Whether this host has the VIP.
    pub fn holds(&self, vip: IpAddr) -> Result<bool> {
        self.host.has_address(vip)
    }

    /// Waits until this host has the VIP.
    pub fn wait_until_holds(&self, vip: IpAddr, deadline: Duration) -> Result<()> {
        self.wait(&format!("{vip} on {}", self.host.name()), deadline, || self.holds(vip))
    }

    /// Waits until this host has the VIP no more.
    pub fn wait_until_released(&self, vip: IpAddr, deadline: Duration) -> Result<()> {
        self.wait(&format!("no {vip} on {}", self.host.name()), deadline, || Ok(!self.holds(vip)?))
    }

    fn wait(&self, what: &str, deadline: Duration, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let so = poll::until_some(what, deadline, || is_so().map(|is_so| is_so.then_some(())).transpose());
        so.with_context(|| format!("keepalived wrote:\n{}", self.process.output()))?
    }

    /// What it writes, with what it says of others' adverts. Signals are sent by [`Self::signal`] only.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The id of one of its processes.
    pub fn pid(&self, part: Part) -> Result<u32> {
        let parent = only_child(self.process.pid()).context("find keepalived")?;
        match part {
            Part::Parent => Ok(parent),
            Part::Vrrp => only_child(parent).context("find keepalived's VRRP process"),
        }
    }

    /// Sends a signal to one of its processes.
    pub fn signal(&self, part: Part, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid(part)?)?);
        signal::kill(pid, signal).with_context(|| format!("{}: send {signal}", self.host.name()))
    }

    /// Asks it to stop (`SIGTERM`), and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Part::Parent, Signal::SIGTERM)?;
        let status = self.process.wait(SOON)?;
        ensure!(status.success(), "keepalived: {status}; it wrote:\n{}", self.process.output());
        Ok(())
    }

    /// Ends all of it at once (`SIGKILL`), so that nobody gives up anything: what it has set stays.
    pub fn kill(mut self) -> Result<()> {
        self.kill_all()
    }

    fn kill_all(&mut self) -> Result<()> {
        // The first process of the namespace: the kernel ends the others before anybody can wait for it.
        self.signal(Part::Parent, Signal::SIGKILL)?;
        self.process.wait(SOON)?;
        Ok(())
    }
}

impl Drop for Keepalived<'_> {
    fn drop(&mut self) {
        // Without this it would end as well, but perhaps only after the next test has looked for it.
        if self.process.is_running() {
            let _ = self.kill_all();
        }
    }
}

fn only_child(pid: u32) -> Result<u32> {
    let children = process::children(pid)?;
    ensure!(children.len() == 1, "process {pid} has the children {children:?}, and not one");
    Ok(children[0])
}
