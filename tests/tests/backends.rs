//! What users decide about backends, by hand and in the configuration, end to end.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    agent::{self, Agent},
    apiserver::{Apiserver, Readiness},
    client::{Connection, Watch},
    cluster::{self, Persistence},
    lab::{Addresses, Host, Lab, LabOptions, LinkState},
    poll,
};

const SOON: Duration = Duration::from_secs(10);
/// Client addresses of each family: enough that each backend is given some.
const N_SOURCES: usize = 24;

/// Two nodes, of which the first balances, and a client with many addresses.
struct Stage {
    lab: Lab,
    sources: Addresses,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
        let sources = lab.client(1).add_addresses(N_SOURCES)?;
        Ok(Self { lab, sources })
    }

    /// Starts kplb with more lines for each service.
    fn attach(&self, settings: &str) -> Result<Agent<'_>> {
        let text = cluster::configuration(self.lab.nodes(), Persistence::Client);
        let text = text.replace("persistence = ", &format!("{settings}\npersistence = "));
        cluster::start_agent(self.lab.node(1), &text)
    }

    fn client(&self) -> &Host {
        self.lab.client(1)
    }

    /// `kplb` on the balancer.
    fn kplb(&self, arguments: &[&str]) -> Result<String> {
        agent::run(self.lab.node(1), arguments)
    }

    /// `kplb` on the balancer, which fails: what it says.
    fn kplb_refuses(&self, arguments: &[&str]) -> Result<String> {
        let mut command = agent::kplb()?;
        command.args(arguments);
        let output = self.lab.node(1).namespace().output(command)?;
        ensure!(!output.status.success(), "{arguments:?} succeeded");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A client's connection that was given to this node.
    async fn connection_to(&self, vip: SocketAddr, node: &str) -> Result<(IpAddr, Connection)> {
        for source in self.sources.like(vip.ip()) {
            let mut connection = Connection::open_from(vip, Some(source)).await?;
            if connection.get("/version").await?.node == node {
                return Ok((source, connection));
            }
        }
        anyhow::bail!("no client is given to {node}")
    }

    /// A client's watch on this node, that brings nothing.
    async fn watch_on(&self, vip: SocketAddr, node: &str) -> Result<(Connection, Watch)> {
        let (_, mut connection) = self.connection_to(vip, node).await?;
        let mut watch = connection.watch(Duration::from_secs(3600)).await?;
        watch.next().await?;
        Ok((connection, watch))
    }
}

/// The node that a new connection of this client address is given to.
async fn node_of(vip: SocketAddr, source: IpAddr) -> Result<String> {
    Ok(Connection::open_from(vip, Some(source)).await?.get("/version").await?.node)
}

/// What the agent says of node2 in the first service.
fn node2(agent: &Agent<'_>) -> Result<serde_json::Value> {
    Ok(agent.status()?[0]["services"][0]["backends"][1].clone())
}

/// Waits until `watch` has ended.
async fn ends(watch: &mut Watch) -> Result<Instant> {
    tokio::time::timeout(SOON, watch.ended()).await.context("the watch goes on")?;
    Ok(Instant::now())
}

/// Drained by hand, a backend keeps its flows and gets no new ones; in maintenance it has none and is not checked;
/// resumed, its health decides. All of it holds for the next agent, too.
#[test]
fn a_backend_is_drained_maintained_and_resumed_by_hand() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let agent = stage.attach("")?;
    let vip = cluster::https()[0];
    stage.client().namespace().block_on(async {
        let (source, mut kept) = stage.connection_to(vip, "node2").await?;
        let said = stage.kplb(&["backend", "drain", "node2"])?;
        ensure!(said.contains("eth0: backend node2 of service tcp-v4: draining"), "{said}");
        ensure!(said.contains("eth0: backend node2 of service tcp-v6: draining"), "{said}");
        ensure!(node_of(vip, source).await? == "node1", "a new connection to a drained backend");
        ensure!(kept.get("/version").await?.node == "node2");
        let status = node2(&agent)?;
        ensure!(status["state"] == "draining" && status["by_hand"] == "drain", "{status}");
        let text = stage.kplb(&["status"])?;
        ensure!(text.contains("node2: drain, decided by hand"), "{text}");

        let mut watch = kept.watch(Duration::from_secs(3600)).await?;
        watch.next().await?;
        stage.kplb(&["backend", "maintenance", "node2", "--service", "tcp-v4"])?;
        ends(&mut watch).await?;
        Ok(())
    })?;
    let status = node2(&agent)?;
    assert!(status["state"] == "maintenance" && status["by_hand"] == "maintenance", "{status}");
    // Not checked: the last check gets old.
    poll::until("checks to stop", SOON, || {
        node2(&agent).is_ok_and(|status| status["check"]["age_seconds"].as_f64().is_some_and(|age| age > 1.5))
    })?;

    agent.stop()?;
    let agent = stage.attach("")?;
    let status = agent.status()?;
    assert_eq!(status[0]["services"][0]["backends"][1]["state"], "maintenance", "{status}");
    assert_eq!(status[0]["services"][2]["backends"][1]["state"], "draining", "{status}");
    stage.client().namespace().block_on(async {
        for source in stage.sources.like(vip.ip()) {
            ensure!(node_of(vip, source).await? == "node1", "a new connection to a backend in maintenance");
        }
        Ok(())
    })?;

    let said = stage.kplb(&["backend", "resume", "node2"])?;
    assert!(said.contains("eth0: backend node2 of service tcp-v6: active"), "{said}");
    poll::until("node2 is used again", SOON, || node2(&agent).is_ok_and(|status| status["state"] == "active"))?;
    stage.client().namespace().block_on(stage.connection_to(vip, "node2"))?;
    agent.stop()?;
    let agent = stage.attach("")?;
    assert_eq!(node2(&agent)?["by_hand"], serde_json::Value::Null);
    agent.stop()
}

#[test]
fn what_is_not_there_is_not_drained_and_the_names_are_told() -> Result<()> {
    let stage = Stage::new()?;
    let none = stage.kplb_refuses(&["backend", "drain", "node2"])?;
    assert!(none.contains("no kplb agent is running"), "{none}");
    let agent = stage.attach("")?;
    let backend = stage.kplb_refuses(&["backend", "drain", "node7"])?;
    assert!(backend.contains("there is no backend node7; there are: node1, node2"), "{backend}");
    let service = stage.kplb_refuses(&["backend", "drain", "node2", "--service", "tcp-v5"])?;
    assert!(service.contains("there is no service tcp-v5; there are: tcp-v4, udp-v4, tcp-v6, udp-v6"), "{service}");
    let interface = stage.kplb_refuses(&["backend", "drain", "node2", "--interface", "eth7"])?;
    assert!(interface.contains("eth7"), "{interface}");
    let action = stage.kplb_refuses(&["backend", "fly", "node2"])?;
    assert!(action.contains("drain") && action.contains("resume") && action.contains("maintenance"), "{action}");
    agent.stop()
}

/// What is left on a draining backend after `drain_timeout` is reset, and not before.
#[test]
fn a_drain_ends_when_it_has_taken_long_enough() -> Result<()> {
    const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
    let stage = Stage::new()?;
    let apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agent = stage.attach("drain_timeout = \"1s\"")?;
    stage.client().namespace().block_on(async {
        let (_connection, mut watch) = stage.watch_on(cluster::https()[0], "node2").await?;
        let off = Instant::now();
        apiservers[1].set_readiness(Readiness::NotReady)?;
        let draining = agent.process().wait_for_line_after(off, "node2 of service tcp-v4: active -> draining", SOON)?;
        let ended = ends(&mut watch).await?;
        // The line is written after what it tells of; nothing else bounds the time from above but patience.
        let lasted = ended - draining;
        ensure!(lasted > DRAIN_TIMEOUT - Duration::from_millis(100), "it lasted only {lasted:?}");
        Ok(())
    })?;
    agent.stop()
}

/// With `on_down = "keep"`, flows outlive their backend's absence.
#[test]
fn flows_can_outlive_the_absence_of_their_backend() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agent = stage.attach("on_down = \"keep\"")?;
    let vip = cluster::https()[0];
    stage.client().namespace().block_on(async {
        let (source, mut kept) = stage.connection_to(vip, "node2").await?;
        let cut = Instant::now();
        stage.lab.set_cable(stage.lab.node(2), LinkState::Down)?;
        let down = agent.process().wait_for_line_after(cut, "node2 of service tcp-v4: active -> down", SOON)?;
        ensure!(node_of(vip, source).await? == "node1", "a new connection to a backend that is down");
        stage.lab.set_cable(stage.lab.node(2), LinkState::Up)?;
        agent.process().wait_for_line_after(down, "node2 of service tcp-v4: down -> active", SOON)?;
        ensure!(kept.get("/version").await?.node == "node2", "the connection was given to another");
        Ok(())
    })?;
    agent.stop()
}

/// With `slow_start`, a backend that comes back gets its share little by little.
#[test]
fn a_share_grows_slowly() -> Result<()> {
    let stage = Stage::new()?;
    let mut apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agent = stage.attach("slow_start = \"3s\"")?;
    let share = |agent: &Agent<'_>| node2(agent).ok().and_then(|status| status["ring_share"].as_f64());
    // There is no one else to take the load when all start.
    let first = share(&agent).context("no share")?;
    assert!((0.45..0.55).contains(&first), "{first}");
    let killed = Instant::now();
    apiservers.truncate(1);
    agent.process().wait_for_line_after(killed, "node2 of service tcp-v4: active -> down", SOON)?;
    assert_eq!(share(&agent), Some(0.0));
    apiservers.push(Apiserver::start(stage.lab.node(2))?);
    let mut shares = Vec::new();
    poll::until("all of its share", SOON, || {
        shares.extend(share(&agent));
        shares.last().is_some_and(|share| *share > 0.45)
    })?;
    assert!(shares.is_sorted(), "{shares:?}");
    shares.dedup();
    assert!(shares.len() > 5, "{shares:?}");
    agent.stop()
}

/// Idle IPv6 flows are reset, too.
#[test]
fn an_idle_ipv6_watch_on_a_dead_backend_is_reset() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agent = stage.attach("")?;
    stage.client().namespace().block_on(async {
        let (_connection, mut watch) = stage.watch_on(cluster::https()[1], "node2").await?;
        let (_other, mut other) = stage.watch_on(cluster::https()[1], "node1").await?;
        let cut = Instant::now();
        stage.lab.set_cable(stage.lab.node(2), LinkState::Down)?;
        agent.process().wait_for_line_after(cut, "node2 of service tcp-v6: active -> down", SOON)?;
        ends(&mut watch).await?;
        let bystander = tokio::time::timeout(Duration::from_millis(300), other.ended()).await;
        ensure!(bystander.is_err(), "a watch on another backend was ended");
        Ok(())
    })?;
    agent.stop()
}
