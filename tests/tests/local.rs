//! Clients on the nodes themselves: their sockets are led to backends, wherever the VIPs are.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb_common::abi;
use kplb_tests::{
    agent::{self, Agent},
    apiserver::{Apiserver, HTTPS_PORT, UDP_PORT},
    cluster::{self, Persistence},
    lab::{Host, Lab, LabOptions, LinkState},
    poll,
    process::{Process, workspace_program},
};

const SOON: Duration = Duration::from_secs(10);
/// More than a refusal at the socket takes, less than anything that waits for a packet.
const AT_ONCE: u64 = 500;

/// Every node is an apiserver and a balancer; the first holds the VIPs.
struct Stage<'a> {
    agents: Vec<Agent<'a>>,
}

impl<'a> Stage<'a> {
    fn new(lab: &'a Lab, settings: &str) -> Result<Self> {
        let text = cluster::elected(lab.nodes(), "interval = \"100ms\"");
        let text = text.replace("persistence = ", &format!("{settings}\npersistence = "));
        let agents = (lab.nodes().iter())
            .map(|node| {
                let agent = cluster::start_agent(node, &text)?;
                all_are(&agent, "active")?;
                Ok(agent)
            })
            .collect::<Result<Vec<_>>>()?;
        poll::until("the first node to hold the VIPs", SOON, || {
            cluster::VIPS.iter().all(|vip| lab.node(1).has_address(*vip).unwrap_or(false))
        })?;
        Ok(Self { agents })
    }

    fn stop(self) -> Result<()> {
        self.agents.into_iter().try_for_each(Agent::stop)
    }
}

/// A client on a node.
fn client(node: &Host, kind: &str, addresses: &[SocketAddr]) -> Result<Process> {
    let mut command = Command::new(workspace_program("local-client")?);
    command.arg(kind).args(addresses.iter().map(ToString::to_string));
    Process::spawn(node.namespace(), "local-client", command)
}

/// The first line of a client; the client goes on for as long as it is kept.
fn says(client: &Process) -> Result<String> {
    client.wait_for_line(" ", SOON)
}

/// The milliseconds after which the client failed, and with what.
fn failure(line: &str) -> Result<(u64, &str)> {
    let rest = line.strip_prefix("failed after ").with_context(|| format!("it did not fail: {line}"))?;
    let (milliseconds, error) = rest.split_once(" ms: ").context("no time")?;
    Ok((milliseconds.parse()?, error))
}

/// The VIPs with this port, and the IPv4 one as an IPv6 socket names it.
fn endpoints(port: u16) -> Vec<SocketAddr> {
    let mut endpoints: Vec<SocketAddr> = cluster::VIPS.map(|vip| (vip, port).into()).into();
    for vip in cluster::VIPS {
        if let IpAddr::V4(v4) = vip {
            endpoints.push((v4.to_ipv6_mapped(), port).into());
        }
    }
    endpoints
}

/// On the VIPs' holder and elsewhere, in each family: this node's own backend serves, and the client sees the VIP.
#[test]
fn clients_on_every_node_reach_their_own_backend() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let stage = Stage::new(&lab, "")?;
    for node in lab.nodes() {
        for vip in endpoints(HTTPS_PORT) {
            let client = client(node, "tcp", &[vip])?;
            assert_eq!(says(&client)?, format!("connected to {vip} node {}", node.name()));
        }
        for vip in endpoints(UDP_PORT) {
            let connected = client(node, "connected", &[vip])?;
            assert_eq!(says(&connected)?, format!("connected to {vip} node {}", node.name()));
            connected.wait_for_line(&format!("answered by {vip} node {}", node.name()), SOON)?;
            let unconnected = client(node, "unconnected", &[vip])?;
            assert_eq!(says(&unconnected)?, format!("answered by {vip} node {}", node.name()));
        }
    }
    // Nobody is told of a VIP who has not named it.
    let direct = SocketAddr::from((lab.node(2).ipv4(), UDP_PORT));
    let both = client(lab.node(1), "unconnected", &[endpoints(UDP_PORT)[0], direct])?;
    both.wait_for_line(&format!("answered by {direct} node node2"), SOON)?;
    let direct = SocketAddr::from((lab.node(1).ipv4(), UDP_PORT));
    let same = client(lab.node(1), "unconnected", &[endpoints(UDP_PORT)[0], direct])?;
    same.wait_for_line(&format!("answered by {direct} node node1"), SOON)?;
    let direct = SocketAddr::from((lab.node(1).ipv4(), HTTPS_PORT));
    let plain = client(lab.node(1), "tcp", &[direct])?;
    assert_eq!(says(&plain)?, format!("connected to {direct} node node1"));
    stage.stop()
}

/// Without a backend of its own, or told to, a node's clients go where the ring says: each socket for itself, or all of
/// them together.
#[test]
fn the_ring_decides_where_nothing_is_preferred() -> Result<()> {
    const CLIENTS: usize = 16;
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let vip = cluster::https()[0];
    for (persistence, spreads) in [(Persistence::Client, false), (Persistence::Connection, true)] {
        let text = cluster::configuration(lab.nodes(), persistence);
        let text = text.replace("persistence = ", "local_clients = \"hash\"\npersistence = ");
        let agent = cluster::start_agent(node, &text)?;
        all_are(&agent, "active")?;
        let clients = (0..CLIENTS).map(|_| client(node, "tcp", &[vip])).collect::<Result<Vec<_>>>()?;
        let lines = clients.iter().map(says).collect::<Result<Vec<_>>>()?;
        let n_first = lines.iter().filter(|line| line.ends_with("node node1")).count();
        assert!(lines.iter().all(|line| line.starts_with(&format!("connected to {vip} "))), "{lines:?}");
        assert_eq!((1..CLIENTS).contains(&n_first), spreads, "{lines:?}");
        let status = agent.status()?;
        assert_eq!(status[0]["services"][0]["local_clients"], "hash", "{status}");
        agent.stop()?;
    }
    Ok(())
}

/// A backend that is drained keeps who was led to it, and nobody else is: neither its own node's clients.
#[test]
fn a_drained_backend_is_not_preferred() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Client))?;
    all_are(&agent, "active")?;
    let vip = cluster::https()[1];
    let kept = client(node, "tcp", &[vip])?;
    assert_eq!(says(&kept)?, format!("connected to {vip} node node1"));
    let drained = Instant::now();
    agent::run(node, ["backend", "drain", "node1"])?;
    let moved = client(node, "tcp", &[vip])?;
    assert_eq!(says(&moved)?, format!("connected to {vip} node node2"));
    assert_eq!(kept.count_lines_after(drained, "ended"), 0, "{}", kept.output());
    agent::run(node, ["backend", "maintenance", "node1"])?;
    kept.wait_for_line_after(drained, &format!("connected to {vip} node node2"), SOON)?;
    agent::run(node, ["backend", "resume", "node1"])?;
    all_are(&agent, "active")?;
    let back = client(node, "tcp", &[vip])?;
    assert_eq!(says(&back)?, format!("connected to {vip} node node1"));
    agent.stop()
}

/// With `off`, nothing is attached, and a client on another node than the holder sends to the VIP like anybody.
#[test]
fn clients_can_be_left_alone() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let stage = Stage::new(&lab, "local_clients = \"off\"")?;
    let vip = cluster::https()[0];
    let through_the_holder = client(lab.node(2), "tcp", &[vip])?;
    let line = says(&through_the_holder)?;
    assert!(line.starts_with(&format!("connected to {vip} ")), "{line}");
    let status = stage.agents[0].status()?;
    let traffic = &status[0]["services"][0]["traffic"];
    assert_ne!(traffic["flows_opened"], 0, "{status}");
    assert_eq!(status[0]["services"][0]["local_clients"], "off", "{status}");
    for node in lab.nodes() {
        assert_eq!(socket_pins(node)?, Vec::<String>::new());
    }
    stage.stop()
}

/// Without any backend a client is refused at once; with one again, it is served.
#[test]
fn without_a_backend_clients_are_refused_at_once() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let mut apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    // The datagrams' backend is checked by the other service's port.
    let text = cluster::configuration(lab.nodes(), Persistence::Client)
        .replace("protocol = \"udp\"", "protocol = \"udp\"\ncheck = { type = \"tcp\", port = 6443 }");
    let agent = cluster::start_agent(node, &text)?;
    all_are(&agent, "active")?;
    apiservers.clear();
    all_are(&agent, "down")?;
    let mut wishes: Vec<(&str, SocketAddr)> = endpoints(HTTPS_PORT).into_iter().map(|vip| ("tcp", vip)).collect();
    for vip in endpoints(UDP_PORT) {
        wishes.extend([("connected", vip), ("unconnected", vip)]);
    }
    for (kind, vip) in wishes {
        let client = client(node, kind, &[vip])?;
        let line = says(&client)?;
        let (milliseconds, error) = failure(&line)?;
        assert!(error.contains("ConnectionRefused"), "{kind} {vip}: {error}");
        assert!(milliseconds < AT_ONCE, "{kind} {vip}: {line}");
    }
    apiservers.push(Apiserver::start(node)?);
    all_are(&agent, "active")?;
    let served = client(node, "tcp", &[cluster::https()[0]])?;
    assert_eq!(says(&served)?, format!("connected to {} node node1", cluster::https()[0]));
    agent.stop()
}

/// A backend that is cut off: who was led there is told at once and led elsewhere; others, and who went there without
/// the VIP, are left alone.
#[test]
fn sockets_of_a_dead_backend_are_ended() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let text = cluster::configuration(lab.nodes(), Persistence::Connection)
        .replace("persistence = ", "local_clients = \"hash\"\npersistence = ");
    let mut agent = cluster::start_agent(node, &text)?;
    all_are(&agent, "active")?;
    let direct = client(node, "tcp", &[SocketAddr::from((lab.node(2).ipv4(), HTTPS_PORT))])?;
    says(&direct)?;
    for vip in endpoints(HTTPS_PORT) {
        let (mut led, mut others) = (Vec::new(), Vec::new());
        poll::until("a client of each backend", SOON, || {
            let Ok(client) = client(node, "tcp", &[vip]) else { return false };
            match says(&client) {
                Ok(line) if line.ends_with("node node2") => led.push(client),
                _ => others.push(client),
            }
            !led.is_empty() && !others.is_empty()
        })?;
        let cut = Instant::now();
        lab.set_cable(lab.node(2), LinkState::Down)?;
        let service = if vip.is_ipv4() || vip.ip().to_canonical().is_ipv4() { "tcp-v4" } else { "tcp-v6" };
        agent.process().wait_for_line_after(cut, &format!("node2 of service {service}: "), SOON)?;
        for client in &led {
            client.wait_for_line_after(cut, "ended", SOON)?;
            client.wait_for_line_after(cut, &format!("connected to {vip} node node1"), SOON)?;
        }
        for client in others.iter().chain([&direct]) {
            ensure!(client.count_lines_after(cut, "ended") == 0, "a bystander was ended:\n{}", client.output());
        }
        // Each is checked for itself: one that is still active would turn to something else later.
        for service in ["tcp-v4", "tcp-v6"] {
            agent.process().wait_for_line_after(cut, &format!("node2 of service {service}: "), SOON)?;
        }
        lab.set_cable(lab.node(2), LinkState::Up)?;
        all_are(&agent, "active")?;
    }
    drop(apiservers);
    agent.stop()
}

/// A pod, with a network namespace of its own behind the node: its sockets are led and ended as well.
#[test]
fn pods_are_clients_too() -> Result<()> {
    // Program, VIP, the node's namespace.
    const POD: &str = "set -e
        ip link add eth0 type veth peer name pod0 netns $2
        ip address add 192.0.2.2/24 dev eth0
        ip link set eth0 up
        nsenter --net=$2 ip address add 192.0.2.1/24 dev pod0
        nsenter --net=$2 ip link set pod0 up
        ip route add default via 192.0.2.1
        exec $0 tcp $1";
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    node.namespace().run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    lab.node(2).namespace().ip("route add 192.0.2.0/24 via 198.18.0.11")?;
    let mut agent = cluster::start_agent(node, &cluster::configuration(&lab.nodes()[1..], Persistence::Client))?;
    all_are(&agent, "active")?;
    let vip = cluster::https()[0];
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", POD]).arg(workspace_program("local-client")?).arg(vip.to_string());
    command.arg(node.namespace().network_path());
    let pod = Process::spawn(node.namespace(), "pod", command)?;
    assert_eq!(says(&pod)?, format!("connected to {vip} node node2"));
    let cut = Instant::now();
    lab.set_cable(lab.node(2), LinkState::Down)?;
    agent.process().wait_for_line_after(cut, "node2 of service tcp-v4: active -> ", SOON)?;
    pod.wait_for_line_after(cut, "ended", SOON)?;
    pod.wait_for_line_after(cut, "ConnectionRefused", SOON)?;
    agent.stop()
}

/// While the first checks of a service run this node knows nothing, and the VIP's holder may: clients go there. Once a
/// backend has answered, they are led.
#[test]
fn nothing_is_led_while_first_checks_run() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let (node, backend, holder) = (lab.node(1), lab.node(2), lab.client(1));
    let [ipv4, ipv6] = cluster::VIPS;
    holder.namespace().ip(&format!("address add {ipv4}/32 dev eth0\naddress add {ipv6}/128 dev eth0 nodad\n"))?;
    let at_vips = Apiserver::start_at(holder, &[HTTPS_PORT], &cluster::udp())?;
    // A backend that accepts connections and says nothing, so that its first check takes its time.
    let silent = backend.namespace().run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, HTTPS_PORT)))?;
    let text = cluster::configuration([backend], Persistence::Client).replace(
        "persistence = ",
        &format!("check = {{ type = \"https\", port = {HTTPS_PORT}, timeout = \"60s\" }}\npersistence = "),
    );
    let file = cluster::write(&text)?;
    let agent = Agent::spawn(node, ["--config", &file.path().to_string_lossy(), "--mode", cluster::mode().name()])?;
    poll::until("programs at sockets", SOON, || {
        socket_pins(node).is_ok_and(|pins| pins.len() == abi::SOCKET_PROGRAMS.len() + 1)
    })?;
    let clients = || -> Result<Vec<String>> {
        let tcp = endpoints(HTTPS_PORT).into_iter().map(|vip| ("tcp", vip));
        let udp = endpoints(UDP_PORT).into_iter().flat_map(|vip| [("connected", vip), ("unconnected", vip)]);
        tcp.chain(udp).map(|(kind, vip)| says(&client(node, kind, &[vip])?)).collect()
    };
    for line in clients()? {
        ensure!(line.ends_with("node client1"), "{line}; the agent wrote:\n{}", agent.output());
    }
    ensure!(!agent.output().contains("ready"), "the first checks are over:\n{}", agent.output());

    // It hands the VIPs over, and the backend begins to talk.
    drop(at_vips);
    holder.namespace().ip(&format!("address delete {ipv4}/32 dev eth0\naddress delete {ipv6}/128 dev eth0\n"))?;
    drop(silent);
    let _apiserver = Apiserver::start(backend)?;
    all_are(&agent, "active")?;
    for line in clients()? {
        ensure!(line.ends_with("node node2"), "{line}; the agent wrote:\n{}", agent.output());
    }
    agent.stop()
}

/// Hooks come with the agent and go with it; connections that were led stay.
#[test]
fn nothing_is_led_when_the_agent_is_gone() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(2);
    let text = cluster::configuration(&lab.nodes()[..1], Persistence::Client);
    let vip = cluster::https()[0];
    let agent = cluster::start_agent(node, &text)?;
    all_are(&agent, "active")?;
    assert_eq!(socket_pins(node)?.len(), abi::SOCKET_PROGRAMS.len() + 1);
    let kept = client(node, "tcp", &[vip])?;
    assert_eq!(says(&kept)?, format!("connected to {vip} node node1"));
    let stopped = Instant::now();
    agent.stop()?;
    assert_eq!(socket_pins(node)?, Vec::<String>::new());
    // Nobody has the VIP any more.
    node.namespace().ip(&format!("route add unreachable {}", vip.ip()))?;
    let lost = client(node, "tcp", &[vip])?;
    let line = says(&lost)?;
    assert!(failure(&line)?.1.contains("Unreachable"), "{line}");
    assert_eq!(kept.count_lines_after(stopped, "ended"), 0, "{}", kept.output());

    // A killed one leaves them, and they go on; the next one clears up.
    node.namespace().ip(&format!("route delete unreachable {}", vip.ip()))?;
    let mut agent = cluster::start_agent(node, &text)?;
    all_are(&agent, "active")?;
    agent.process().kill()?;
    drop(agent);
    let served = client(node, "tcp", &[vip])?;
    assert_eq!(says(&served)?, format!("connected to {vip} node node1"));
    agent::run(node, ["detach", "eth0"])?;
    assert_eq!(socket_pins(node)?, Vec::<String>::new());
    Ok(())
}

/// An agent that may not, or cannot, attach to sockets says so, and balances all the same.
#[test]
fn an_agent_without_control_groups_goes_on() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let file = cluster::write(&cluster::configuration(lab.nodes(), Persistence::Client))?;
    let mut command = Command::new("env");
    // Set after the lab has set its own: there is no such directory.
    command.arg("KPLB_CGROUP=/nonexistent/group").arg(workspace_program("kplb")?).args(["attach", "eth0", "--config"]);
    command.arg(file.path());
    let mut agent = Process::spawn(node.namespace(), "kplb attach", command)?;
    agent.wait_for_line("clients on this node are not led to backends", SOON)?;
    agent.wait_for_line("ready", SOON)?;
    lab.client(1).namespace().block_on(kplb_tests::client::get(cluster::https()[0], "/version"))?;
    let status = agent::status(node)?;
    assert_eq!(status[0]["services"][0]["local_clients"], "off", "{status}");
    agent.terminate(SOON)?;
    Ok(())
}

/// Waits until every backend is in this state.
fn all_are(agent: &Agent<'_>, state: &str) -> Result<()> {
    poll::until(&format!("every backend to be {state}"), SOON, || {
        let is_so = |backend: &serde_json::Value| backend["state"] == state;
        agent.status().is_ok_and(|status| {
            let services = status[0]["services"].as_array();
            services.is_some_and(|services| {
                services.iter().all(|service| service["backends"].as_array().is_some_and(|all| all.iter().all(is_so)))
            })
        })
    })
}

/// The programs at sockets that are pinned on a node.
fn socket_pins(node: &Host) -> Result<Vec<String>> {
    let mut find = Command::new("find");
    find.args(["/sys/fs/bpf", "-path", "*/sockets/*"]);
    Ok(node.namespace().check_output(find)?.lines().map(str::to_owned).collect())
}
