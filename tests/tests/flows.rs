//! `kplb flows`: what it lists is what clients and backends see, agent or not.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use kplb::dataplane::monotonic_now_ns;
use kplb_common::{
    abi::{LAYOUT_VERSION, map},
    flow::{Flow, FlowKey},
    flow_state::FlowState,
    net::{Be16, Ip4, TCP},
};
use kplb_tests::{
    agent,
    client::{Connection, UdpFlow},
    cluster::{self, Persistence},
    lab::{Host, Lab, LabOptions},
    poll,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

/// What an end-to-end test knows of a flow without asking kplb.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Known {
    service: String,
    client: SocketAddr,
    vip: SocketAddr,
    node: String,
    /// Whom the backend talks to: this node, or the client itself.
    peer: SocketAddr,
}

/// Runs `kplb flows` with these arguments and more for JSON; the flows of the one interface.
fn list(host: &Host, arguments: &str) -> Result<(Value, Vec<Value>)> {
    let line = format!("flows --json {arguments}");
    let json: Value = serde_json::from_str(&agent::run(host, line.split_whitespace())?)?;
    let report = json[0].clone();
    let flows = report["flows"].as_array().with_context(|| format!("no flows in {json}"))?.clone();
    Ok((report, flows))
}

/// The clients of what `kplb flows` lists.
fn clients(host: &Host, arguments: &str) -> Result<BTreeSet<String>> {
    let (_, flows) = list(host, arguments)?;
    Ok(flows.iter().filter_map(|flow| flow["client"].as_str().map(str::to_owned)).collect())
}

fn text(value: &impl ToString) -> Value {
    Value::String(value.to_string())
}

/// How `kplb flows` must list a flow.
fn check(flow: &Value, known: &Known) {
    assert_eq!(flow["client"], text(&known.client), "{flow}");
    assert_eq!(flow["vip"], text(&known.vip), "{flow}");
    let port = known.vip.port();
    assert!(flow["backend_address"].as_str().is_some_and(|address| address.ends_with(&format!(":{port}"))), "{flow}");
    // The balancer is node 1.
    if known.node == "node1" {
        assert_eq!((&flow["nat"], known.peer), (&Value::Null, known.client), "{flow}");
    } else {
        assert_eq!(flow["nat"], text(&known.peer), "{flow}");
    }
    let state = if known.service.starts_with("tcp") { "established" } else { "udp-assured" };
    assert_eq!(flow["state"], state, "{flow}");
    let seconds = |name: &str| flow[name].as_f64().unwrap_or(f64::NAN);
    let (idle, client, backend) =
        (seconds("idle_seconds"), seconds("client_idle_seconds"), seconds("backend_idle_seconds"));
    assert!((0.0..60.0).contains(&idle) && idle == client.min(backend), "{flow}");
}

/// A client's flows to every service: to the node itself, and to another.
struct Talk {
    _connections: Vec<Connection>,
    _datagrams: Vec<UdpFlow>,
    known: Vec<Known>,
}

/// Opens flows from each of these addresses to every service of their families, and lets both ends say something.
async fn talk(sources: &[IpAddr]) -> Result<Talk> {
    let mut talk = Talk { _connections: Vec::new(), _datagrams: Vec::new(), known: Vec::new() };
    for source in sources {
        let family = if source.is_ipv4() { "v4" } else { "v6" };
        let is_like = |vip: &SocketAddr| vip.is_ipv4() == source.is_ipv4();
        let https = cluster::https().into_iter().find(is_like).context("a VIP of each family")?;
        let mut connection = Connection::open_from(https, Some(*source)).await?;
        let answer = connection.get("/version").await?;
        talk.known.push(Known {
            service: format!("tcp-{family}"),
            client: connection.local_addr(),
            vip: https,
            node: answer.node,
            peer: answer.client,
        });
        talk._connections.push(connection);
        let udp = cluster::udp().into_iter().find(is_like).context("a VIP of each family")?;
        let datagrams = UdpFlow::open(udp, Some(*source)).await?;
        datagrams.exchange(b"once").await?;
        let answer = datagrams.exchange(b"and again: the client is there").await?;
        let client = datagrams.local_addr()?;
        talk.known.push(Known {
            service: format!("udp-{family}"),
            client,
            vip: udp,
            node: answer.node,
            peer: answer.client,
        });
        talk._datagrams.push(datagrams);
    }
    talk.known.sort();
    Ok(talk)
}

#[test]
fn lists_what_clients_and_backends_see() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, host) = (lab.node(1), lab.client(1));
    let mut agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Client))?;
    let added = host.add_addresses(12)?;
    let sources: Vec<IpAddr> = cluster::VIPS.into_iter().flat_map(|vip| added.like(vip)).collect();
    host.namespace().block_on(async {
        let talk = talk(&sources).await?;
        let known = &talk.known;
        for is_there in ["node1", "node2"] {
            for service in ["tcp-v4", "udp-v4", "tcp-v6", "udp-v6"] {
                let found = known.iter().any(|flow| flow.node == is_there && flow.service == service);
                ensure!(found, "of twelve clients of {service} none met {is_there}");
            }
        }

        // Checks are no flows, so there are no others than these.
        let (report, flows) = list(node, "")?;
        assert_eq!((&report["interface"], &report["has_agent"]), (&text(&"eth0"), &Value::Bool(true)));
        assert_eq!(report["total"], known.len());
        for flow in &flows {
            let client = flow["client"].as_str().unwrap_or_default();
            let is_it = |known: &&Known| known.client.to_string() == client && text(&known.service) == flow["service"];
            let known = known.iter().find(is_it).with_context(|| format!("nobody has opened {flow}"))?;
            assert_eq!(flow["backend"], text(&known.node), "{flow}");
            check(flow, known);
        }
        assert_eq!(flows.len(), known.len());
        filters(node, known)?;

        let table = agent::run(node, ["flows", "eth0", "--limit", "3"])?;
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 6, "{table}");
        assert_eq!(lines[0], format!("eth0  {} flows", known.len()));
        assert_eq!(lines[5], format!("  ! {} more are not listed, because of --limit 3", known.len() - 3));

        // Killed, the agent takes the names along, and nothing else.
        agent.process().kill()?;
        without_an_agent(node, known)?;
        // What clients still have goes on.
        drop(talk);
        anyhow::Ok(())
    })?;
    agent::run(node, ["detach", "eth0"])?;
    let gone = failure(node, ["flows", "eth0"])?;
    assert!(gone.contains("kplb is not attached to eth0"), "{gone}");
    Ok(())
}

fn filters(node: &Host, known: &[Known]) -> Result<()> {
    let expected = |is_it: &dyn Fn(&Known) -> bool| -> BTreeSet<String> {
        known.iter().filter(|flow| is_it(flow)).map(|flow| flow.client.to_string()).collect()
    };
    let one = &known[0];
    let address = one.client.ip();
    assert_eq!(clients(node, &format!("--client {address}"))?, expected(&|flow| flow.client.ip() == address));
    assert_eq!(clients(node, "eth0 --client 2001:2::/64")?, expected(&|flow| flow.client.is_ipv6()));
    assert_eq!(clients(node, "--client 203.0.113.0/24")?, BTreeSet::new());
    assert_eq!(clients(node, "--backend node2")?, expected(&|flow| flow.node == "node2"));
    assert_eq!(clients(node, "--service udp-v6")?, expected(&|flow| flow.service == "udp-v6"));
    assert_eq!(clients(node, &format!("--service {}", one.vip))?, expected(&|flow| flow.vip == one.vip));
    assert_eq!(clients(node, "--state established")?, expected(&|flow| flow.service.starts_with("tcp")));
    assert_eq!(clients(node, "--state half-open")?, BTreeSet::new());
    let both = expected(&|flow| flow.node == "node1" && flow.service == "tcp-v4");
    assert_eq!(clients(node, "--backend node1 --service tcp-v4")?, both);

    let counts: Value = serde_json::from_str(&agent::run(node, ["flows", "--count", "--json"])?)?;
    let backends = counts[0]["backends"].as_array().context("no counts")?;
    assert_eq!(backends.len(), 8, "{counts}");
    for count in backends {
        let of = |flow: &&Known| text(&flow.service) == count["service"] && text(&flow.node) == count["backend"];
        assert_eq!(count["established"], known.iter().filter(of).count(), "{count}");
    }
    let unknown = failure(node, ["flows", "--backend", "node7"])?;
    assert!(unknown.contains("there is no backend `node7`, but node1, node2"), "{unknown}");
    Ok(())
}

fn without_an_agent(node: &Host, known: &[Known]) -> Result<()> {
    let (report, flows) = list(node, "")?;
    assert_eq!((&report["has_agent"], &report["total"]), (&Value::Bool(false), &Value::from(known.len())));
    for flow in &flows {
        let is_it = |known: &&Known| text(&known.client) == flow["client"] && text(&known.vip) == flow["vip"];
        let known = known.iter().find(is_it).with_context(|| format!("nobody has opened {flow}"))?;
        check(flow, known);
        assert_eq!(flow["backend"], flow["backend_address"]);
        let protocol = &known.service[..3];
        assert_eq!(flow["service"], format!("{}/{protocol}", known.vip));
    }
    let mut command = agent::kplb()?;
    command.args(["flows", "--count"]);
    let output = node.namespace().output(command)?;
    ensure!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no agent is running; addresses stand for the names"), "{said}");
    let unknown = failure(node, ["flows", "--service", "tcp-v4"])?;
    assert!(unknown.contains("without an agent no names are known"), "{unknown}");
    Ok(())
}

/// What `kplb` says when it fails.
fn failure<const N: usize>(host: &Host, arguments: [&str; N]) -> Result<String> {
    let mut command: Command = agent::kplb()?;
    command.args(arguments);
    let output = host.namespace().output(command)?;
    ensure!(output.status.code() == Some(1), "it has not failed: {output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What is over is not shown, though its entry is still there: nobody has come by to remove it.
#[test]
fn what_has_expired_is_not_listed() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, host) = (lab.node(1), lab.client(1));
    let configuration = cluster::configuration(lab.nodes(), Persistence::Client);
    let configuration = format!("[flows]\nudp_lifetime = \"2s\"\n{configuration}");
    let agent = cluster::start_agent(node, &configuration)?;
    host.namespace().block_on(async {
        let talk = talk(&host.addresses()).await?;
        assert_eq!(clients(node, "--state udp-assured")?.len(), 2);
        poll::until("the datagrams' flows are over", SOON, || {
            clients(node, "--state udp-assured").is_ok_and(|clients| clients.is_empty())
        })?;
        assert_eq!(clients(node, "--state established")?.len(), 2);
        let n_entries = node.namespace().run(|| anyhow::Ok(open_flows()?.keys().count()))?;
        assert_eq!(n_entries, 4, "the entries of one flow of each protocol");
        drop(talk);
        anyhow::Ok(())
    })?;
    agent.stop()
}

/// A table of IPv4 flows.
type Flows = HashMap<MapData, FlowKey<Ip4>, Flow<Ip4>>;

fn put(flows: &mut Flows, key: &FlowKey<Ip4>, flow: &Flow<Ip4>) -> Result<()> {
    Ok(flows.insert(key, flow, 0)?)
}

/// The IPv4 flows of the interface, in the namespace that this is called in.
fn open_flows() -> Result<Flows> {
    let path = PathBuf::from(format!("/sys/fs/bpf/kplb/v{LAYOUT_VERSION}/eth0/maps")).join(map::FLOWS4);
    let map = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    Ok(Map::LruHashMap(map).try_into()?)
}

/// As many flows as a table is made for by default are read, and none is missed or seen twice, while others come and go.
#[test]
fn a_large_table_is_read_while_it_changes() -> Result<()> {
    const N: u32 = 1 << 16;
    /// Far more than it takes, even without optimization on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Client))?;
    let key = |n: u32, port: u16| FlowKey {
        source: Ip4::from(Ipv4Addr::from(0xc612_8000 + (n >> 8))),
        destination: Ip4::from(Ipv4Addr::new(198, 18, 0, 100)),
        source_port: Be16::from_host(port + (n & 0xff) as u16),
        destination_port: Be16::from_host(6443),
        protocol: TCP.into(),
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        node.namespace().run(|| -> Result<()> {
            let mut flows = open_flows()?;
            let flow =
                Flow { last_seen_ns: monotonic_now_ns(), state: FlowState::Established as u8, ..Flow::default() };
            (0..N).try_for_each(|n| put(&mut flows, &key(n, 1000), &flow)).context("fill the table")
        })?;
        let changer = scope.spawn(|| -> Result<u64> {
            let mut flows = node.namespace().run(open_flows)?;
            let flow = Flow { last_seen_ns: monotonic_now_ns(), state: FlowState::Closing as u8, ..Flow::default() };
            let mut n_changes = 0;
            while !is_over.load(Ordering::Relaxed) {
                for n in 0..1000 {
                    let key = key(n, 9000);
                    put(&mut flows, &key, &flow)?;
                    flows.remove(&key)?;
                    n_changes += 1;
                }
            }
            Ok(n_changes)
        });
        let start = Instant::now();
        let counted = agent::run(node, ["flows", "--state", "established", "--count", "--json"]);
        let took = start.elapsed();
        let cut =
            list(node, "--state established --limit 10").map(|(report, flows)| (report["total"].clone(), flows.len()));
        is_over.store(true, Ordering::Relaxed);
        let n_changes = changer.join().expect("no panic")?;
        let counted: Value = serde_json::from_str(&counted?)?;
        assert_eq!(counted[0]["total"], N);
        assert_eq!(cut?, (Value::from(N), 10));
        ensure!(n_changes > 1000, "only {n_changes} changes");
        println!("{N} flows counted in {took:?}; {n_changes} changes");
        ensure!(took < PATIENCE, "it took {took:?}");
        anyhow::Ok(())
    })?;
    agent.stop()
}
