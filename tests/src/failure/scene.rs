//! Three nodes, kplb on the first, and a backend that fails.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    background::{Clients, with_clients},
    crowd::raise_descriptor_limit,
};
use crate::{
    agent::Agent,
    apiserver::Apiserver,
    client::Connection,
    cluster::{self, Persistence},
    lab::{Addresses, Host, Lab, LabOptions},
};

/// Client addresses of each family.
const N_SOURCES: usize = 24;
/// How long any change may take before it counts as not happening.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// The stage.
pub(super) struct Stage {
    lab: Lab,
    sources: Addresses,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        raise_descriptor_limit()?;
        let lab = Lab::new(LabOptions { nodes: 3, clients: 1 })?;
        let sources = lab.client(1).add_addresses(N_SOURCES)?;
        Ok(Self { lab, sources })
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Starts everything, with more lines for each service of the configuration.
    pub(super) fn begin(&self, settings: &str) -> Result<Scene<'_>> {
        let apiservers =
            self.lab.nodes().iter().map(|node| Ok(Some(Apiserver::start(node)?))).collect::<Result<_>>()?;
        let text = cluster::configuration(self.lab.nodes(), Persistence::Client);
        let text = text.replace("persistence = ", &format!("{settings}\npersistence = "));
        let agent = cluster::start_agent(self.lab.node(1), &text)?;
        Ok(Scene { stage: self, apiservers, agent })
    }
}

/// Everything runs.
pub(super) struct Scene<'s> {
    stage: &'s Stage,
    apiservers: Vec<Option<Apiserver<'s>>>,
    agent: Agent<'s>,
}

impl<'s> Scene<'s> {
    pub(super) fn lab(&self) -> &'s Lab {
        &self.stage.lab
    }

    pub(super) fn agent(&mut self) -> &mut Agent<'s> {
        &mut self.agent
    }

    /// The stand-in on a node, counted from 1.
    pub(super) fn apiserver(&mut self, node: usize) -> Result<&mut Apiserver<'s>> {
        self.apiservers[node - 1].as_mut().with_context(|| format!("no stand-in runs on node{node}"))
    }

    /// Kills it.
    pub(super) fn kill(&mut self, node: usize) -> Result<Instant> {
        let mut apiserver = self.apiservers[node - 1].take().context("it was killed already")?;
        let killed = Instant::now();
        apiserver.process().kill()?;
        Ok(killed)
    }

    /// Starts it again.
    pub(super) fn revive(&mut self, node: usize) -> Result<Instant> {
        let host: &'s Host = self.lab().node(node);
        self.apiservers[node - 1] = Some(Apiserver::start(host)?);
        Ok(Instant::now())
    }

    /// Waits until the agent says that a backend has gone from one state to another, after `moment`.
    pub(super) fn transition(&mut self, node: usize, change: &str, moment: Instant) -> Result<Instant> {
        let line = format!("backend node{node} of service tcp-v4: {change}");
        self.agent.process().wait_for_line_after(moment, &line, PATIENCE)
    }

    /// Runs `scene` while clients are there, over IPv4.
    pub(super) fn with_clients<T>(&mut self, scene: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, Clients)> {
        let sources: Vec<IpAddr> = self.stage.sources.ipv4.iter().copied().map(Into::into).collect();
        let host = self.lab().client(1);
        with_clients(host, self.vip(), &sources, || scene(self))
    }

    /// The VIP that clients in the background use.
    pub(super) fn vip(&self) -> SocketAddr {
        cluster::https()[0]
    }

    /// The client addresses that are given to this node now.
    pub(super) fn sources_of(&self, node: usize) -> Result<Vec<IpAddr>> {
        let (vip, name) = (self.vip(), format!("node{node}"));
        let sources = self.stage.sources.ipv4.clone();
        self.lab().client(1).namespace().block_on(async move {
            let mut of_node = Vec::new();
            for source in sources.into_iter().map(IpAddr::from) {
                let mut connection = Connection::open_from(vip, Some(source)).await?;
                if connection.get("/version").await?.node == name {
                    of_node.push(source);
                }
            }
            Ok(of_node)
        })
    }

    /// What the agent says of a backend of the first service.
    pub(super) fn backend_status(&self, node: usize) -> Result<serde_json::Value> {
        let status = self.agent.status()?;
        let backend = status[0]["services"][0]["backends"][node - 1].clone();
        ensure!(backend["name"] == format!("node{node}"), "another backend: {backend}");
        Ok(backend)
    }
}
