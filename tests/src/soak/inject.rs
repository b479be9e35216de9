//! Doing faults, and undoing them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use kplb::announce::Announcer;
use kplb_common::net::Mac;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use super::{
    excuse::Role,
    fault::{Fault, Kind, N_NODES, Victim},
    stage::{Build, Stage},
};
use crate::{
    cluster,
    lab::{Host, LinkState},
    poll,
};

/// How long a slow server is stopped, and for how long it then runs.
const STOPPED: Duration = Duration::from_millis(100);
const RUNS: Duration = Duration::from_millis(60);

/// What makes a node the master that is to be.
const PREFERRED: &str = "priority = 250\npreempt = true";

/// A fault, and what it is aimed at.
#[derive(Debug)]
pub struct Injection {
    /// The fault.
    pub fault: Fault,
    /// The node that it happens to.
    pub node: usize,
    /// What that is before.
    pub role: Role,
    slowness: Option<Slowness>,
}

/// The MAC address of a host while it has another than its own.
pub fn other_mac(host: &Host) -> [u8; 6] {
    let [_, _, _, _, role, number] = host.mac();
    [2, 0, 0, 9, role, number]
}

impl Injection {
    /// Finds out which node a fault will happen to, and what that is now.
    ///
    /// # Errors
    /// If it cannot be told who is master.
    pub fn aim(stage: &Stage<'_>, fault: Fault) -> Result<Self> {
        let mut masters = Vec::new();
        for node in 1..=N_NODES {
            let host = stage.lab().node(node);
            if cluster::VIPS.iter().map(|vip| host.has_address(*vip)).collect::<Result<Vec<_>>>()?.contains(&true) {
                masters.push(node);
            }
        }
        let node = match (fault.victim(), masters.first()) {
            // It is the master that freezes; but another one is to be preferred.
            (Victim::Master, Some(master)) if is_freeze(&fault) => *master,
            (Victim::Master, Some(master)) if *master == fault.node => fault.node % N_NODES + 1,
            _ => fault.node,
        };
        let role = if masters.contains(&node) { Role::Master } else { Role::Backup };
        Ok(Self { fault, node, role, slowness: None })
    }

    /// Does it.
    ///
    /// # Errors
    /// If it does not come about.
    pub fn inject(&mut self, stage: &mut Stage<'_>) -> Result<()> {
        let Self { fault, node, .. } = *self;
        match fault.kind {
            Kind::BackendKill => stage.kill_apiserver(node),
            Kind::BackendPause => stage.apiserver(node)?.signal(Signal::SIGSTOP),
            Kind::BackendSlow => {
                self.slowness = Some(Slowness::start(stage.apiserver(node)?.pid())?);
                Ok(())
            }
            Kind::AgentKill => stage.kill_agent(node),
            Kind::AgentStop => stage.end_agent(node, Signal::SIGTERM),
            Kind::AgentUpgrade if fault.variant.is_multiple_of(2) => stage.end_agent(node, Signal::SIGUSR2),
            Kind::AgentUpgrade => stage.kill_agent(node),
            Kind::AgentReload => reload(stage, node, fault.variant),
            Kind::LinkFlap => stage.lab().set_cable(stage.lab().node(node), LinkState::Down),
            Kind::NeighbourChange => move_to(stage, &fault, other_mac),
            Kind::MasterMove if is_freeze(&fault) => stage.agent(node)?.process().signal(Signal::SIGSTOP),
            Kind::MasterMove => {
                stage.reload(node, PREFERRED, |text| text)?;
                stage.wait_until_held_by(node)
            }
        }
    }

    /// Undoes it.
    ///
    /// # Errors
    /// If it cannot be undone.
    pub fn undo(&mut self, stage: &mut Stage<'_>) -> Result<()> {
        let Self { fault, node, .. } = *self;
        match fault.kind {
            Kind::BackendKill => stage.start_apiserver(node),
            Kind::BackendPause => stage.apiserver(node)?.signal(Signal::SIGCONT),
            Kind::BackendSlow => self.slowness.take().map_or(Ok(()), Slowness::stop),
            Kind::AgentKill | Kind::AgentStop => stage.start_agent(node, Build::Same),
            Kind::AgentUpgrade => stage.start_agent(node, Build::Other),
            Kind::AgentReload => stage.reload_first(node),
            Kind::LinkFlap => stage.lab().set_cable(stage.lab().node(node), LinkState::Up),
            Kind::NeighbourChange => move_to(stage, &fault, Host::mac),
            Kind::MasterMove if is_freeze(&fault) => stage.agent(node)?.process().signal(Signal::SIGCONT),
            Kind::MasterMove => stage.reload_first(node),
        }
    }
}

fn is_freeze(fault: &Fault) -> bool {
    fault.variant.is_multiple_of(2)
}

/// Another configuration, of the kind that a variant says. None of them costs anybody anything.
fn reload(stage: &Stage<'_>, node: usize, variant: usize) -> Result<()> {
    let name = format!("name = \"node{}\"\n", node % N_NODES + 1);
    match variant {
        0 => stage.reload(node, "", |text| text),
        1 => stage.reload(node, "", |text| text.replace(&name, &format!("{name}weight = 3\n"))),
        2 => stage.reload(node, "", |text| without(&text, &name)),
        3 => stage.reload(node, "", |text| text.replace("\"client\"", "\"connection\"")),
        4 => stage.reload(node, "", |text| text.replace("timeout = \"1s\"", "timeout = \"2s\", interval = \"300ms\"")),
        _ => stage.reload(node, "priority = 77\ngarp_master_refresh_repeat = 2", |text| text),
    }
}

/// A configuration without a backend.
fn without(text: &str, name: &str) -> String {
    const BACKEND: &str = "[[service.backend]]\n";
    // The last one of a service has the next service behind it.
    let part = |part: &str| match part.strip_prefix(name) {
        Some(rest) => rest.find("[[service]]").map(|next| rest[next..].to_owned()),
        None => Some(format!("{BACKEND}{part}")),
    };
    let mut parts = text.split(BACKEND);
    let first = parts.next().unwrap_or_default();
    format!("{first}{}", parts.filter_map(part).collect::<String>())
}

/// Gives a node or a client another MAC address.
///
/// A node says nothing of it. A client does, as who takes over an address does: what the server on the master's node
/// sends to it goes where that kernel believes it to be, and kernels take half a minute to doubt.
fn move_to(stage: &Stage<'_>, fault: &Fault, mac: fn(&Host) -> [u8; 6]) -> Result<()> {
    let host = match fault.victim() {
        Victim::Client => stage.lab().client(fault.client()),
        _ => stage.lab().node(fault.node),
    };
    let mac = mac(host);
    host.namespace().ip(&format!("link set eth0 address {}", Mac::new(mac)))?;
    if fault.victim() != Victim::Client {
        return Ok(());
    }
    let addresses = stage.client_addresses(fault.client());
    host.namespace().run(|| Announcer::open("eth0")?.announce(Mac::new(mac), &addresses))
}

/// A process that is stopped again and again.
#[derive(Debug)]
struct Slowness {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Slowness {
    fn start(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).context("a process id is positive")?);
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("slowness".to_owned()).spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    signal::kill(pid, Signal::SIGSTOP)?;
                    poll::pass(STOPPED, || false);
                    signal::kill(pid, Signal::SIGCONT)?;
                    poll::pass(RUNS, || false);
                }
                Ok(())
            }
        });
        Ok(Self { is_over, thread: Some(thread.context("start a thread")?) })
    }

    fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), |thread| thread.join().expect("it does not panic"))
    }
}

impl Drop for Slowness {
    fn drop(&mut self) {
        // Whoever drops it has an error of his own to tell.
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_taken_out_of_each_service() {
        let backend = |name: &str| format!("[[service.backend]]\nname = \"{name}\"\naddress = \"a\"\n");
        let text = |names: &[&str]| {
            let backends: String = names.iter().map(|name| backend(name)).collect();
            format!("[vrrp]\n[[service]]\nvip = 1\n{backends}[[service]]\nvip = 2\n{backends}")
        };
        let all = ["node1", "node2", "node3"];
        assert_eq!(without(&text(&all), "name = \"node2\"\n"), text(&["node1", "node3"]));
        assert_eq!(without(&text(&all), "name = \"node3\"\n"), text(&["node1", "node2"]));
    }
}
