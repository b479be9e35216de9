//! `kplb trace`: packets on their way, as no capture of the node has them.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use kplb_common::{
    abi::{LAYOUT_VERSION, map},
    trace::{TraceCounts, TraceRequest},
};
use kplb_tests::{
    agent,
    client::{Connection, UdpFlow, udp_exchange},
    cluster::{self, Persistence},
    lab::{Host, Lab, LabOptions},
    poll,
    process::Process,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

/// Starts `kplb trace` with these arguments, and waits until it is told of packets.
fn trace(host: &Host, arguments: &str) -> Result<Process> {
    let mut command = agent::kplb()?;
    command.arg("trace").args(arguments.split_whitespace());
    let process = Process::spawn(host.namespace(), "kplb trace", command)?;
    process.wait_for_line("tracing; Ctrl-C ends it", SOON)?;
    Ok(process)
}

/// The packets of a `kplb trace --json`.
fn packets(process: &Process) -> Result<Vec<Value>> {
    let output = process.output();
    let lines = output.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Waits until a packet was shown that is so.
fn wait_for(process: &Process, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    poll::until_some(what, SOON, || packets(process).ok()?.into_iter().find(|packet| is_it(packet)))
        .with_context(|| format!("it wrote:\n{}", process.output()))
}

fn text(value: &impl ToString) -> Value {
    Value::String(value.to_string())
}

/// A client that `kplb` gives to this node, with an open connection.
async fn client_of(sources: &[IpAddr], vip: SocketAddr, node: &str) -> Result<(Connection, SocketAddr)> {
    for source in sources {
        let mut connection = Connection::open_from(vip, Some(*source)).await?;
        let answer = connection.get("/version").await?;
        if answer.node == node {
            return Ok((connection, answer.client));
        }
    }
    anyhow::bail!("none of {} clients met {node}", sources.len())
}

/// A SYN and its answer, both as they came and as they went, to backends of both places and families: what a backend
/// sees as its client is what the trace says it was sent.
#[test]
fn shows_both_sides_of_a_rewrite() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, host) = (lab.node(1), lab.client(1));
    let agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Client))?;
    let added = host.add_addresses(12)?;
    let mut everything = trace(node, "eth0 --json --rate 100000")?;
    for vip in cluster::https() {
        for place in ["node1", "node2"] {
            let sources = added.like(vip.ip());
            let (connection, peer) = host.namespace().block_on(client_of(&sources, vip, place))?;
            let client = connection.local_addr();
            let is_of = |packet: &Value, side: &str, source: &SocketAddr, flags: &str| {
                packet[side]["source"] == text(source) && packet[side]["flags"] == flags
            };
            let syn = wait_for(&everything, "the SYN", |packet| is_of(packet, "before", &client, "SYN"))?;
            let is_local = place == "node1";
            assert_eq!(syn["verdict"], if is_local { "to-local-backend" } else { "to-backend" }, "{syn}");
            assert_eq!((&syn["hook"], &syn["direction"]), (&text(&"in"), &text(&"to-backend")), "{syn}");
            assert_eq!(syn["before"]["destination"], text(&vip), "{syn}");
            assert_eq!(syn["after"]["source"], text(&peer), "{syn}");
            let backend = lab.nodes().iter().find(|node| node.name() == place).context("a node")?;
            let own =
                backend.addresses().into_iter().find(|own| own.is_ipv4() == vip.is_ipv4()).context("an address")?;
            assert_eq!(syn["after"]["destination"], text(&SocketAddr::from((own, vip.port()))), "{syn}");
            assert_eq!(syn["backend"], place, "{syn}");
            assert_eq!(syn["service"], if vip.is_ipv4() { "tcp-v4" } else { "tcp-v6" }, "{syn}");
            assert_eq!(syn["before"]["source_mac"], text(&host.mac_text()), "{syn}");

            let to_client = |packet: &&Value| packet["after"]["destination"] == text(&client);
            let answer = wait_for(&everything, "the SYN-ACK", |packet| {
                to_client(&packet) && packet["before"]["flags"] == "SYN ACK"
            })?;
            assert_eq!(answer["verdict"], if is_local { "to-client-local" } else { "to-client" }, "{answer}");
            assert_eq!(answer["hook"], if is_local { "out" } else { "in" }, "{answer}");
            assert_eq!(answer["before"]["source"], syn["after"]["destination"], "{answer}");
            assert_eq!(answer["before"]["destination"], syn["after"]["source"], "{answer}");
            assert_eq!(answer["after"]["source"], text(&vip), "{answer}");
            assert_eq!(answer["direction"], "to-client", "{answer}");
            let next = syn["before"]["sequence"].as_u64().map(|sequence| (sequence + 1) % (1 << 32));
            assert_eq!(answer["before"]["acknowledgement"].as_u64(), next, "{answer}");
        }
    }
    // Checks are the node's own packets: not changed, and not shown.
    let shown = packets(&everything)?;
    let odd = shown.iter().find(|packet| packet["service"].is_null() || packet["after"].is_null());
    assert_eq!(odd, None);

    everything.signal(Signal::SIGINT)?;
    let status = everything.wait(SOON)?;
    assert!(status.success(), "{status}: {}", everything.output());
    assert_eq!(until_ns(node)?, 0, "it asks for packets still");
    agent.stop()
}

/// Only what is asked for; and a drop or a reset with its reason.
#[test]
fn shows_what_is_asked_for() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 2 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, one, other) = (lab.node(1), lab.client(1), lab.client(2));
    let agent = cluster::start_agent_in(node, &cluster::configuration(lab.nodes(), Persistence::Client), "generic")?;
    let vip = cluster::https()[0];
    let talk = || -> Result<()> {
        for host in [one, other] {
            host.namespace().block_on(async {
                Connection::open(vip).await?.get("/version").await?;
                udp_exchange(cluster::udp()[0], b"hello").await
            })?;
        }
        Ok(())
    };

    let by_client = trace(node, &format!("--json --count 4 --client {}", one.ipv4()))?;
    // Another trace is refused, and told of the first.
    let refused = failure(node, &["trace", "eth0"])?;
    let expected = format!("another `kplb trace` of eth0 is running (pid {})", by_client.pid());
    assert!(refused.contains(&expected), "{refused}");
    talk()?;
    ends(by_client, |packet| {
        let ends = [&packet["before"]["source"], &packet["after"]["destination"]];
        assert!(ends.iter().any(|end| end.as_str().is_some_and(|end| end.starts_with(&one.ipv4().to_string()))));
    })?;

    let by_service = trace(node, "--json --count 2 --service udp-v4")?;
    talk()?;
    ends(by_service, |packet| {
        assert_eq!((&packet["service"], &packet["protocol"]), (&text(&"udp-v4"), &text(&"udp")))
    })?;

    drops_and_resets(&lab)?;
    agent.stop()
}

/// A client's packet has no hop left on its way to another node, and then there is no backend at all.
fn drops_and_resets(lab: &Lab) -> Result<()> {
    let (node, host) = (lab.node(1), lab.client(1));
    let (https, udp) = (cluster::https()[0], cluster::udp()[0]);
    let sources = host.add_addresses(12)?.like(udp.ip());
    let source = host.namespace().block_on(async {
        for source in sources {
            if UdpFlow::open(udp, Some(source)).await?.exchange(b"hello").await?.node == "node2" {
                return Ok(source);
            }
        }
        anyhow::bail!("none of twelve clients met node2")
    })?;
    let dropped = trace(node, "--json --count 1 --verdict drop")?;
    let sender = host.namespace().run(|| -> Result<SocketAddr> {
        let socket = UdpSocket::bind((source, 0))?;
        socket.set_ttl(1)?;
        socket.send_to(b"hello", udp)?;
        Ok(socket.local_addr()?)
    })?;
    ends(dropped, |packet| {
        assert_eq!((&packet["verdict"], &packet["after"]), (&text(&"drop-ttl-expired"), &Value::Null), "{packet}");
        assert_eq!(packet["before"]["source"], text(&sender), "{packet}");
        assert_eq!(packet["before"]["ttl"], 1, "{packet}");
    })?;

    for backend in ["node1", "node2"] {
        agent::run(node, ["backend", "drain", backend])?;
    }
    let refused = trace(node, "--json --count 1 --verdict reset")?;
    let connected = host.namespace().block_on(Connection::open(https));
    ensure!(connected.is_err(), "somebody has accepted");
    ends(refused, |packet| {
        assert_eq!(packet["verdict"], "reset-no-backend", "{packet}");
        assert_eq!(
            (&packet["before"]["flags"], &packet["after"]["flags"]),
            (&text(&"SYN"), &text(&"RST ACK")),
            "{packet}"
        );
        assert_eq!(packet["after"]["destination"], packet["before"]["source"], "{packet}");
    })
}

/// A trace that is killed is told of no more by itself; the next one needs no agent, and ends with the data path.
#[test]
fn ends_by_itself() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, host) = (lab.node(1), lab.client(1));
    let mut agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Client))?;
    let talk = || host.namespace().block_on(udp_exchange(cluster::udp()[0], b"hello")).map(drop);

    let mut killed = trace(node, "--json")?;
    talk()?;
    wait_for(&killed, "a datagram", |packet| packet["protocol"] == "udp")?;
    killed.kill()?;
    ensure!(until_ns(node)? > 0, "a killed trace has cleared up");
    poll::until("the data path has forgotten the trace", SOON, || {
        talk().is_ok() && until_ns(node).is_ok_and(|until| until == 0)
    })?;
    let told = told(node)?;
    ensure!(told > 0, "nothing was told at all");
    talk()?;
    assert_eq!(self::told(node)?, told, "it goes on telling");

    agent.process().kill()?;
    let mut lines = trace(node, "-v")?;
    lines.wait_for_line("no agent is running; addresses stand for the names", SOON)?;
    talk()?;
    let line = lines.wait_for_line("to-local-backend udp", SOON)?;
    let (client, vip) = (host.ipv4(), cluster::udp()[0]);
    let backend = SocketAddr::from((node.ipv4(), vip.port()));
    ensure!(line.contains(&format!("  {client}:")) && line.contains(&format!(" > {vip}  =>  ")), "{line}");
    ensure!(line.ends_with(&format!(" > {backend}  ({backend})")), "{line}");
    lines.wait_for_line(&format!("  came  {} > {}", host.mac_text(), node.mac_text()), SOON)?;
    agent::run(node, ["detach", "eth0"])?;
    let status = lines.wait(SOON)?;
    ensure!(status.code() == Some(1), "{status}: {}", lines.output());
    lines.wait_for_line("the data path is gone", SOON)?;
    Ok(())
}

/// Waits for the end of a trace with `--count`, and looks at each of its packets.
fn ends(mut process: Process, check: impl Fn(&Value)) -> Result<()> {
    let status = process.wait(SOON)?;
    ensure!(status.success(), "{status}: {}", process.output());
    let packets = packets(&process)?;
    ensure!(!packets.is_empty(), "it has shown nothing");
    packets.iter().for_each(check);
    Ok(())
}

/// What `kplb` says when it fails.
fn failure(host: &Host, arguments: &[&str]) -> Result<String> {
    let mut command: Command = agent::kplb()?;
    command.args(arguments);
    let output = host.namespace().output(command)?;
    ensure!(output.status.code() == Some(1), "it has not failed: {output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A pinned map of the node.
fn open(name: &str) -> Result<MapData> {
    let path = PathBuf::from(format!("/sys/fs/bpf/kplb/v{LAYOUT_VERSION}/eth0/maps")).join(name);
    MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))
}

/// Until when the data path of the node is asked to tell of packets.
fn until_ns(host: &Host) -> Result<u64> {
    host.namespace().run(|| {
        let request: Array<_, TraceRequest> = Map::Array(open(map::TRACE)?).try_into()?;
        Ok(request.get(&0, 0)?.until_ns)
    })
}

/// Of how many packets the data path of the node has told.
fn told(host: &Host) -> Result<u64> {
    host.namespace().run(|| {
        let counts: PerCpuArray<_, TraceCounts> = Map::PerCpuArray(open(map::TRACE_COUNTS)?).try_into()?;
        Ok(counts.get(&0, 0)?.iter().map(|counts| counts.told).sum())
    })
}
