//! Datagrams and segments that are longer than a frame, in fragments through the VIP.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    agent::Agent,
    client::{Connection, UdpFlow},
    cluster::{self, Persistence},
    lab::{Lab, LabOptions},
    netns::Namespace,
    pattern::{Pattern, pattern_sha256},
};

const MIB: u64 = 1 << 20;

/// Payloads of datagrams: in one frame, a byte too long for it, and up to as long as they can be with what the echo adds.
const LENGTHS: [usize; 5] = [1, 1_473, 4_000, 20_000, 65_400];

/// Connections, of which half go to either node: that all go to one is as good as impossible.
const CONNECTIONS: usize = 64;

/// What became of all packets so far.
fn verdicts(agent: &Agent<'_>) -> String {
    match agent.status() {
        Ok(status) => format!("verdicts: {}", status[0]["verdicts"]),
        Err(error) => format!("no status: {error:#}"),
    }
}

/// Long datagrams there and back, from a backend on the node and from one behind the wire.
#[test]
fn long_datagrams_arrive() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 2 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let configuration = cluster::configuration(lab.nodes(), Persistence::Connection);
    let agent = cluster::start_agent(lab.node(1), &configuration)?;
    for vip in cluster::udp() {
        let [to_local, to_remote] = ["to-local-backend", "to-backend"].map(|verdict| agent.count(verdict));
        let (to_local, to_remote) = (to_local?, to_remote?);
        for client in lab.clients() {
            client
                .namespace()
                .block_on(async {
                    let mut nodes = BTreeSet::new();
                    for _ in 0..CONNECTIONS {
                        let flow = UdpFlow::open(vip, None).await?;
                        for length in LENGTHS {
                            let payload = Pattern::new(length as u64).flatten().collect::<Vec<u8>>();
                            let answer =
                                flow.exchange(&payload).await.with_context(|| format!("{length} bytes to {vip}"))?;
                            ensure!(answer.payload == payload, "{length} bytes to {vip}: damaged");
                            nodes.insert(answer.node);
                        }
                    }
                    ensure!(nodes.len() == 2, "{vip}: only {nodes:?} answered");
                    Ok(())
                })
                .with_context(|| verdicts(&agent))?;
        }
        // The longest are 45 fragments.
        let n_at_least = (CONNECTIONS * 45 / 2) as u64;
        ensure!(agent.count("to-local-backend")? - to_local > n_at_least, "no fragments went to the backend here");
        ensure!(agent.count("to-backend")? - to_remote > n_at_least, "no fragments went to the other backend");
    }
    for verdict in ["drop-fragment-unknown", "drop-fragment-overlap", "drop-fragment-tiny", "drop-malformed"] {
        ensure!(agent.count(verdict)? == 0, "{verdict}: {}", agent.count(verdict)?);
    }
    agent.stop()
}

/// A client that lets its segments be cut up, behind a router that does so. Only IPv4 has such.
///
/// ```text
/// segment --1280-- near (the lab's first client) --1500-- client
/// ```
fn distant_client(lab: &Lab) -> Result<Namespace> {
    let near = lab.client(1);
    let client = Namespace::new("distant")?;
    client.ip(&format!(
        "link add eth0 type veth peer name behind netns {}\n\
         link set eth0 up\naddress add 198.19.1.2/24 dev eth0\nroute add default via 198.19.1.1\n",
        near.namespace().network_path().display()
    ))?;
    near.namespace().ip(
        "link set behind up\naddress add 198.19.1.1/24 dev behind\nroute add 198.18.0.100/32 dev eth0 mtu lock 1280\n",
    )?;
    let [near_address, _] = near.addresses();
    for node in lab.nodes() {
        node.namespace().ip(&format!("route add 198.19.1.0/24 via {near_address}\n"))?;
    }
    near.namespace().run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    // Segments without "don't fragment".
    client.run(|| fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1"))?;
    for (namespace, interface) in [(near.namespace(), "behind"), (&client, "eth0")] {
        let mut command = Command::new("ethtool");
        command.args(["-K", interface, "tx", "off"]);
        namespace.check_output(command)?;
    }
    Ok(client)
}

/// Fragments that a host has made.
fn fragments_made(namespace: &Namespace) -> Result<u64> {
    let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:")).map(str::split_whitespace);
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let (_, value) = names.zip(values).find(|(name, _)| *name == "FragCreates").context("no such counter")?;
    Ok(value.parse()?)
}

/// Every long segment of the client comes in two fragments.
#[test]
fn segments_that_a_router_has_cut_up_arrive() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let client = distant_client(&lab)?;
    let configuration = cluster::configuration(lab.nodes(), Persistence::Connection);
    let agent = cluster::start_agent(lab.node(1), &configuration)?;
    let [vip, _] = cluster::https();
    let nodes: BTreeSet<String> = client
        .block_on(async {
            let mut nodes = BTreeSet::new();
            for _ in 0..CONNECTIONS {
                let mut connection = Connection::open(vip).await?;
                let node = connection.get("/version").await?.node;
                if nodes.insert(node.clone()) {
                    let sent = connection.upload(MIB).await.with_context(|| format!("send to {node}"))?;
                    ensure!(sent.sha256 == pattern_sha256(MIB), "{node}: damaged");
                }
            }
            anyhow::Ok(nodes)
        })
        .with_context(|| verdicts(&agent))?;
    ensure!(nodes.len() == 2, "only {nodes:?} answered");
    let n_fragments = fragments_made(lab.client(1).namespace())?;
    ensure!(n_fragments > 2 * MIB / 1_500, "the router made {n_fragments} fragments");
    ensure!(agent.count("drop-fragment-unknown")? == 0, "fragments were lost");
    agent.stop()
}
