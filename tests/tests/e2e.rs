//! The main job, end to end: clients on a segment reach the apiservers through the VIP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use kplb_tests::{
    apiserver::{Apiserver, HTTPS_PORT},
    client::{self, Connection, Load, UdpFlow},
    cluster::{self, Persistence},
    lab::{Addresses, Host, Lab, LabOptions},
    pattern::pattern_sha256,
    poll,
};

const SOON: Duration = Duration::from_secs(5);

const MIB: u64 = 1 << 20;

/// One of the ports that NATed flows have by default.
const NAT_PORT: u16 = 20_000;

/// Every client is served, over every address family and protocol, and stays with its backend.
#[test]
fn serves_all() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 3, clients: 2 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let agent = cluster::start_agent(lab.node(1), &cluster::configuration(lab.nodes(), Persistence::Client))?;
    assert_eq!(agent.status()?[0]["mode"], cluster::mode().name());

    for host in lab.clients() {
        for (vip, udp) in cluster::https().into_iter().zip(cluster::udp()) {
            let nodes: BTreeSet<String> = host.namespace().block_on(async {
                let mut nodes = BTreeSet::new();
                for _ in 0..8 {
                    nodes.insert(client::get(vip, "/version").await?.node);
                }
                anyhow::Ok(nodes)
            })?;
            assert_eq!(nodes.len(), 1, "{} reached {nodes:?} at {vip}", host.name());
            let echo = host.namespace().block_on(async {
                let flow = UdpFlow::open(udp, None).await?;
                let first = flow.exchange(b"one").await?;
                for _ in 0..4 {
                    assert_eq!(flow.exchange(b"more").await?.node, first.node);
                }
                anyhow::Ok(first)
            })?;
            assert_eq!(echo.payload, b"one");
        }
    }
    agent.stop()
}

/// Clients by the node that serves them, so that tests can choose one whose backend is near or far.
fn clients_by_node(host: &Host, sources: &Addresses, vip: SocketAddr) -> Result<BTreeMap<String, IpAddr>> {
    let sources = sources.like(vip.ip());
    host.namespace().block_on(async {
        let mut by_node = BTreeMap::new();
        for source in sources {
            let mut connection = Connection::open_from(vip, Some(source)).await?;
            by_node.insert(connection.get("/version").await?.node, source);
        }
        Ok(by_node)
    })
}

/// 100 MiB each way, to a backend on the balancer's own node and to one behind the wire.
#[test]
fn large_transfers() -> Result<()> {
    const SIZE: u64 = 100 * MIB;
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let agent = cluster::start_agent(lab.node(1), &cluster::configuration(lab.nodes(), Persistence::Client))?;
    let host = lab.client(1);
    let sources = host.add_addresses(24)?;
    let expected = pattern_sha256(SIZE);
    for vip in cluster::https() {
        let by_node = clients_by_node(host, &sources, vip)?;
        assert_eq!(by_node.keys().collect::<Vec<_>>(), ["node1", "node2"]);
        for source in by_node.values() {
            host.namespace().block_on(async {
                let mut connection = Connection::open_from(vip, Some(*source)).await?;
                assert_eq!(connection.download(SIZE).await?.sha256, expected);
                assert_eq!(connection.upload(SIZE).await?.sha256, expected);
                anyhow::Ok(())
            })?;
        }
    }
    agent.stop()
}

/// Thousands of connections, of which none may fail, from many client addresses, each of which keeps its backend.
fn thousands_of_connections(persistence: Persistence) -> Result<()> {
    const N: usize = 2000;
    let lab = Lab::new(LabOptions { nodes: 3, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let agent = cluster::start_agent(lab.node(1), &cluster::configuration(lab.nodes(), persistence))?;
    let host = lab.client(1);
    let addresses = host.add_addresses(50)?;
    for vip in cluster::https() {
        let load = Load { sources: addresses.like(vip.ip()), ..Load::new(vip, N) };
        let report = host.namespace().block_on(async { anyhow::Ok(load.run().await) })?;
        assert_eq!((report.n_ok, report.n_failed()), (N, 0), "{report} {:?}", report.failures);
        assert_eq!(report.by_node.len(), 3, "{report}");
        let most = report.nodes_by_source.values().map(BTreeSet::len).max();
        match persistence {
            Persistence::Client => assert_eq!(most, Some(1), "{:?}", report.nodes_by_source),
            // 40 connections from each address: that all of them meet one node is as good as impossible.
            Persistence::Connection => assert_eq!(most, Some(3), "{:?}", report.nodes_by_source),
        }
    }
    let status = agent.status()?;
    let verdicts = status[0]["verdicts"].as_object().cloned().unwrap_or_default();
    let refused: Vec<_> = verdicts
        .iter()
        .filter(|(name, n)| (name.starts_with("drop-") || name.as_str() == "reset-no-backend") && n.as_u64() != Some(0))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    agent.stop()
}

#[test]
fn thousands_of_connections_client_persistence() -> Result<()> {
    thousands_of_connections(Persistence::Client)
}

#[test]
fn thousands_of_connections_connection_persistence() -> Result<()> {
    thousands_of_connections(Persistence::Connection)
}

/// Long-lived traffic to the node itself, on the ports of SSH and of the service, goes on untouched: before, while and
/// after kplb is there, and the VIP's other ports are the node's own as well.
#[test]
fn traffic_to_the_node_is_untouched() -> Result<()> {
    const SSH: u16 = 22;
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let node = lab.node(1);
    let _ssh = Apiserver::start_on(node, &[SSH, HTTPS_PORT], &[])?;
    let _other = Apiserver::start(lab.node(2))?;
    let remote_only = cluster::configuration([lab.node(2)], Persistence::Client);
    let host = lab.client(1);
    host.namespace().block_on(async {
        let mut connections = Vec::new();
        for address in node.addresses() {
            for port in [SSH, HTTPS_PORT] {
                connections.push(Connection::open((address, port).into()).await?);
            }
        }
        for connection in &mut connections {
            assert_eq!(connection.get("/version").await?.node, "node1");
        }
        let agent = cluster::start_agent(node, &remote_only)?;
        for connection in &mut connections {
            assert_eq!(connection.get("/version").await?.node, "node1");
            assert_eq!(connection.download(MIB).await?.sha256, pattern_sha256(MIB));
        }
        for vip in cluster::VIPS {
            assert_eq!(client::get((vip, SSH).into(), "/version").await?.node, "node1");
            assert_eq!(client::get((vip, HTTPS_PORT).into(), "/version").await?.node, "node2");
        }
        agent.stop()?;
        for connection in &mut connections {
            assert_eq!(connection.get("/version").await?.node, "node1");
        }
        Ok(())
    })
}

/// Connections of the node itself to a backend are its own, even from ports that NATed flows may have: pods that are
/// masqueraded have any port.
#[test]
fn connections_of_the_node_to_a_backend_are_its_own() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, backend) = (lab.node(1), lab.node(2));
    let agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Client))?;
    for (own, other) in node.addresses().into_iter().zip(backend.addresses()) {
        let answer = node.namespace().block_on(async {
            let mut connection = Connection::open_bound((other, HTTPS_PORT).into(), (own, NAT_PORT).into()).await?;
            connection.get("/version").await
        })?;
        assert_eq!((answer.node.as_str(), answer.client), ("node2", (own, NAT_PORT).into()));
    }
    agent.stop()
}

/// With no backend in the ring a client is refused at once, instead of waiting for nothing.
#[test]
fn without_a_backend_clients_are_refused_at_once() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 1 })?;
    let configuration =
        cluster::configuration(lab.nodes(), Persistence::Client).replace("address = \"", "weight = 0\naddress = \"");
    let agent = cluster::start_agent(lab.node(1), &configuration)?;
    for vip in cluster::https() {
        let answer = lab.client(1).namespace().block_on(async {
            Ok::<_, anyhow::Error>(tokio::time::timeout(SOON, tokio::net::TcpStream::connect(vip)).await)
        })?;
        let error = answer.context("no answer at all")?.expect_err("nobody can have accepted");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    }
    agent.stop()
}

/// A backend's node gets another MAC address: traffic follows, and established connections live on.
#[test]
fn follows_a_backend_to_another_mac_address() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiserver = Apiserver::start(lab.node(2))?;
    let configuration = cluster::configuration([lab.node(2)], Persistence::Client);
    let agent = cluster::start_agent(lab.node(1), &configuration)?;
    let vip = cluster::https()[0];
    lab.client(1).namespace().block_on(async {
        let mut connection = Connection::open(vip).await?;
        assert_eq!(connection.get("/version").await?.node, "node2");
        lab.node(2).namespace().ip("link set eth0 address 02:00:00:00:09:02")?;
        // The kernel announces nothing here; asking for node1's address tells node1 the new one. Not at once: an entry
        // that has just changed is not changed again (`locktime`).
        let node1 = SocketAddr::from((lab.node(1).ipv4(), HTTPS_PORT));
        poll::until("the agent knows the new address", SOON, || {
            let asked = lab.node(2).namespace().ip("neighbour flush dev eth0");
            lab.node(2).namespace().run(|| drop(TcpStream::connect_timeout(&node1, Duration::from_millis(200))));
            asked.is_ok() && agent.status().is_ok_and(|status| status.to_string().contains("02:00:00:00:09:02"))
        })?;
        assert_eq!(connection.get("/version").await?.node, "node2");
        anyhow::Ok(())
    })?;
    agent.stop()
}
