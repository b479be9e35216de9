//! Three nodes, each a balancer and a backend, with an election; and how to tell that all is as it should be.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use super::{INTERVAL, LIFETIME, SHORT_LIFETIME, fault::N_NODES};
use crate::{
    agent::{self, Agent},
    apiserver::Apiserver,
    cluster,
    lab::{Addresses, Host, Lab},
    poll,
    process::Process,
};

/// How long a program may take to start, to end, or to do what it is told, and all of them to agree: on a machine that is
/// busy for a while, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process ids of the agents, by node, for who watches them.
pub type Pids = Arc<Mutex<[Option<u32>; N_NODES]>>;

/// Which programs an agent loads: those that log more are others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Build {
    /// Those that it has loaded before.
    Same,
    /// Others.
    Other,
}

/// Whether all is as it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// It is.
    Yes,
    /// Nobody has waited for it.
    Interrupted,
}

/// Everything that faults happen to.
#[derive(Debug)]
pub struct Stage<'l> {
    lab: &'l Lab,
    clients: &'l [Addresses],
    mode: String,
    configuration: String,
    nodes: Vec<Node<'l>>,
    pids: Pids,
}

/// A node's programs.
#[derive(Debug)]
struct Node<'l> {
    host: &'l Host,
    file: NamedTempFile,
    apiserver: Option<Apiserver<'l>>,
    agent: Option<Agent<'l>>,
    build: &'static str,
    // What agents wrote that have ended.
    said: String,
}

impl<'l> Stage<'l> {
    /// Starts everything, and waits until it works. Clients have these addresses besides their own.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(lab: &'l Lab, clients: &'l [Addresses], mode: &str) -> Result<Self> {
        let configuration = configuration(lab.nodes(), "");
        let nodes = lab.nodes().iter().map(|host| {
            let (file, apiserver) = (cluster::write(&configuration)?, Some(Apiserver::start(host)?));
            anyhow::Ok(Node { host, file, apiserver, agent: None, build: "info", said: String::new() })
        });
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let mut stage = Self { lab, clients, mode: mode.to_owned(), configuration, nodes, pids: Pids::default() };
        (1..=N_NODES).try_for_each(|node| stage.start_agent(node, Build::Same))?;
        stage.settle(|| false)?;
        Ok(stage)
    }

    /// The network.
    pub fn lab(&self) -> &'l Lab {
        self.lab
    }

    /// Every address of a client, counted from 1.
    pub fn client_addresses(&self, client: usize) -> Vec<IpAddr> {
        let own = self.lab.client(client).addresses();
        let others = own.iter().flat_map(|own| self.clients[client - 1].like(*own));
        own.into_iter().chain(others).collect()
    }

    /// Where to find the agents' processes.
    pub fn pids(&self) -> Pids {
        Arc::clone(&self.pids)
    }

    /// The agent on a node, counted from 1.
    ///
    /// # Errors
    /// If there is none.
    pub fn agent(&mut self, node: usize) -> Result<&mut Agent<'l>> {
        self.nodes[node - 1].agent.as_mut().with_context(|| format!("no agent runs on node{node}"))
    }

    /// The server on a node.
    ///
    /// # Errors
    /// If there is none.
    pub fn apiserver(&mut self, node: usize) -> Result<&mut Process> {
        let apiserver = self.nodes[node - 1].apiserver.as_mut();
        Ok(apiserver.with_context(|| format!("no server runs on node{node}"))?.process())
    }

    /// Kills the server on a node.
    ///
    /// # Errors
    /// If there was none.
    pub fn kill_apiserver(&mut self, node: usize) -> Result<()> {
        self.apiserver(node)?.kill()?;
        self.nodes[node - 1].apiserver = None;
        Ok(())
    }

    /// Starts one again.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_apiserver(&mut self, node: usize) -> Result<()> {
        self.nodes[node - 1].apiserver = Some(Apiserver::start(self.nodes[node - 1].host)?);
        Ok(())
    }

    /// Starts an agent, which takes over from what another has left, and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub fn start_agent(&mut self, node: usize, build: Build) -> Result<()> {
        let Node { host, file, build: level, .. } = &mut self.nodes[node - 1];
        if build == Build::Other {
            *level = if *level == "info" { "debug" } else { "info" };
        }
        let path = file.path().to_str().context("a path in UTF-8")?;
        let arguments = ["--config", path, "--mode", &self.mode, "--log-level", level];
        let mut agent = Agent::spawn(host, arguments)?;
        let is_ready = agent.process().wait_for_line("ready", PATIENCE).map(drop);
        self.note(node, Some(agent.process().pid()));
        // Kept in any case, for what it has said.
        self.nodes[node - 1].agent = Some(agent);
        is_ready
    }

    /// Kills an agent.
    ///
    /// # Errors
    /// If there was none.
    pub fn kill_agent(&mut self, node: usize) -> Result<()> {
        self.note(node, None);
        self.agent(node)?.process().kill()?;
        self.retire(node);
        Ok(())
    }

    /// Has an agent end by a signal, in good order.
    ///
    /// # Errors
    /// If it does not.
    pub fn end_agent(&mut self, node: usize, signal: Signal) -> Result<()> {
        self.note(node, None);
        let process = self.agent(node)?.process();
        process.signal(signal)?;
        let status = process.wait(PATIENCE)?;
        ensure!(status.success(), "the agent of node{node} ends after {signal} with {status}");
        self.retire(node);
        Ok(())
    }

    /// Has the agent of a node follow a configuration of these further settings of the election, changed by `change`.
    ///
    /// # Errors
    /// If it is refused.
    pub fn reload(&self, node: usize, election: &str, change: impl FnOnce(String) -> String) -> Result<()> {
        let Node { host, file, .. } = &self.nodes[node - 1];
        fs::write(file.path(), change(configuration(self.lab.nodes(), election)))?;
        agent::run(host, ["reload"]).map(drop)
    }

    /// Has it follow the first configuration again.
    ///
    /// # Errors
    /// If it is refused.
    pub fn reload_first(&self, node: usize) -> Result<()> {
        let Node { host, file, .. } = &self.nodes[node - 1];
        fs::write(file.path(), &self.configuration)?;
        agent::run(host, ["reload"]).map(drop)
    }

    /// Waits until a node has all VIPs.
    ///
    /// # Errors
    /// If it has not in time.
    pub fn wait_until_held_by(&self, node: usize) -> Result<()> {
        poll::until(&format!("node{node} to hold the VIPs"), PATIENCE, || {
            cluster::VIPS.iter().all(|vip| self.lab.node(node).has_address(*vip).unwrap_or_default())
        })
    }

    /// Waits until every agent says that all backends are active, and that the same one is master, or until nobody waits
    /// any more.
    ///
    /// # Errors
    /// With what is amiss, if it does not come to that.
    pub fn settle(&self, is_interrupted: impl Fn() -> bool) -> Result<Settled> {
        poll::until_ok("everything to be as it should be", PATIENCE, || {
            if is_interrupted() {
                return Ok(Settled::Interrupted);
            }
            let statuses = self.statuses()?;
            let roles = statuses.iter().map(check).collect::<Result<Vec<_>>>()?;
            for family in 0..cluster::VIPS.len() {
                let masters: Vec<_> = (1..).zip(&roles).filter(|(_, role)| role[family].0 == "master").collect();
                ensure!(masters.len() == 1, "family {family}: {roles:?}");
                let address = self.lab.node(masters[0].0).addresses()[family].to_string();
                let are_backups = roles.iter().filter(|role| role[family] == ("backup".to_owned(), address.clone()));
                ensure!(are_backups.count() == N_NODES - 1, "family {family}: {roles:?}");
            }
            Ok(Settled::Yes)
        })
    }

    /// What `kplb status --json` says on each node.
    ///
    /// # Errors
    /// If it says nothing.
    pub fn statuses(&self) -> Result<Vec<serde_json::Value>> {
        self.lab.nodes().iter().map(|node| Ok(agent::status(node)?[0].clone())).collect()
    }

    /// What is pinned on each node.
    pub fn pins(&self) -> Vec<usize> {
        let count = |node: &Host| node.namespace().run(|| entries(Path::new("/sys/fs/bpf/kplb")));
        self.lab.nodes().iter().map(count).collect()
    }

    /// Ends the agents in good order.
    ///
    /// # Errors
    /// If one does not.
    pub fn stop(&mut self) -> Result<()> {
        (1..=N_NODES).try_for_each(|node| self.end_agent(node, Signal::SIGTERM))
    }

    /// Writes what agents and servers have said to a directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_logs(&mut self, directory: &Path) -> Result<()> {
        for node in &mut self.nodes {
            let agent = node.agent.as_ref().map(Agent::output).unwrap_or_default();
            let name = node.host.name();
            fs::write(directory.join(format!("{name}-agent.log")), format!("{}{agent}\n", node.said))?;
            let server = node.apiserver.as_mut().map(|server| server.process().output()).unwrap_or_default();
            fs::write(directory.join(format!("{name}-server.log")), server)?;
        }
        Ok(())
    }

    fn note(&self, node: usize, pid: Option<u32>) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)[node - 1] = pid;
    }

    fn retire(&mut self, node: usize) {
        let node = &mut self.nodes[node - 1];
        if let Some(agent) = node.agent.take() {
            node.said += &format!("{}\n--- it ended ---\n", agent.output());
        }
    }
}

/// The configuration of every node: lifetimes after which a leak of flows would show, and checks of all backends.
fn configuration(nodes: &[Host], election: &str) -> String {
    let settings = format!("interval = \"{}ms\"\n{election}", INTERVAL.as_millis());
    let [long, short] = [LIFETIME, SHORT_LIFETIME].map(|lifetime| lifetime.as_secs());
    let flows = format!(
        "[flows]\nestablished_lifetime = \"{long}s\"\nudp_lifetime = \"{long}s\"\nhalf_open_lifetime = \"{short}s\"\n\
         closing_lifetime = \"{short}s\"\n"
    );
    let check = "check = { type = \"https\", port = 6443, timeout = \"1s\" }";
    let services = cluster::elected(nodes, &settings).replace("persistence = ", &format!("{check}\npersistence = "));
    format!("{flows}{services}")
}

/// The state and the master of each virtual router, IPv4 first.
fn check(status: &serde_json::Value) -> Result<[(String, String); 2]> {
    ensure!(status["pid"].is_u64(), "there is no agent");
    for service in status["services"].as_array().context("there are no services")? {
        let backends = service["backends"].as_array().context("there are no backends")?;
        let are_active = backends.iter().all(|backend| backend["state"] == "active" && backend["by_hand"].is_null());
        ensure!(are_active && backends.len() == N_NODES, "{}: {backends:?}", service["name"]);
    }
    let routers = &status["election"]["routers"];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok([0, 1].map(|family| (text(&routers[family]["state"]), text(&routers[family]["master"]))))
}

/// How many files are in a directory and those below it.
fn entries(directory: &Path) -> usize {
    let Ok(listed) = fs::read_dir(directory) else { return 0 };
    let count = |entry: fs::DirEntry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory { entries(&entry.path()) } else { 1 }
    };
    listed.filter_map(Result::ok).map(count).sum()
}
