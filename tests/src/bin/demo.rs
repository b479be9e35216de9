//! `cargo xtask demo`: the main job, shown on a terminal and checked as it is shown.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb::dataplane::Side;
use kplb_tests::{
    agent,
    apiserver::HTTPS_PORT,
    client::{self, Load, UdpFlow},
    cluster::{self, Persistence},
    failure::{background::with_clients, cases},
    figure::Figure,
    hooks,
    lab::{Addresses, Host, Lab, LabOptions},
    poll,
};

/// Client addresses of each family that show the spread.
const N_CLIENTS: usize = 60;
/// Requests of each of them.
const N_REQUESTS: usize = 3;
/// Connections of the load.
const N_CONNECTIONS: usize = 2000;

fn main() -> ExitCode {
    let start = Instant::now();
    match demo() {
        Ok(()) => {
            println!("\nAll of it true, in {:.1} s. Nothing is left behind.", start.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nNot true: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn demo() -> Result<()> {
    title("Three nodes, each load balancer and apiserver at once, and two clients, on one segment");
    let lab = Lab::new(LabOptions { nodes: 3, clients: 2 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    for host in lab.nodes().iter().chain(lab.clients()) {
        println!("   {:<8} {:<14} {:<12} {}", host.name(), host.ipv4(), host.ipv6(), host.mac_text());
    }

    title("kplb attach eth0, on node1");
    let agent =
        cluster::start_agent_in(lab.node(1), &cluster::configuration(lab.nodes(), Persistence::Client), "auto")?;
    indent(&agent.output());

    title("A client asks for https://VIP:6443/version");
    for vip in cluster::https() {
        curl(lab.client(1), vip)?;
    }

    title("Clients spread over the backends, and each stays with its own");
    let addresses = lab.clients().iter().map(|host| host.add_addresses(N_CLIENTS)).collect::<Result<Vec<_>>>()?;
    for (family, vip) in ["IPv4", "IPv6"].into_iter().zip(cluster::https()) {
        spread(family, lab.client(1), &addresses[0], vip)?;
    }

    title("UDP, too");
    for vip in cluster::udp() {
        let host = lab.client(2);
        let answer = host.namespace().block_on(async {
            let flow = UdpFlow::open(vip, None).await?;
            let first = flow.exchange(b"hello").await?;
            ensure!(flow.exchange(b"again").await?.node == first.node, "one flow was answered by two nodes");
            Ok(first)
        })?;
        ensure!(answer.payload == b"hello", "the echo is not what was sent");
        println!("   {vip} -> {}: {:?}", answer.node, String::from_utf8_lossy(&answer.payload));
    }

    title(&format!("{N_CONNECTIONS} connections with TLS, of both clients at once"));
    load(&lab, &addresses)?;

    title("kplb backend drain node2: before work on that node");
    indent(&agent::run(lab.node(1), ["backend", "drain", "node2"])?);

    title("kplb status, on node1");
    indent(&agent::run(lab.node(1), ["status"])?);

    title("The agent stops and takes away what it added");
    agent.stop()?;
    nothing_left(lab.node(1))?;

    election()?;
    failure("The process of node2's apiserver is killed", cases::killed)?;
    failure("The cable of node2 is pulled: nothing answers, nothing refuses", cases::cut_off)?;
    failure("node2's /readyz says no, as it does before a planned stop, and later yes again", cases::not_ready)
}

/// The VIPs float.
fn election() -> Result<()> {
    title("kplb attach eth0, on all three nodes: they elect the one that holds the VIPs");
    let lab = Lab::new(LabOptions { nodes: 3, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let sources = lab.client(1).add_addresses(N_CLIENTS)?;
    let configuration = cluster::elected(lab.nodes(), "");
    let mut agents = lab
        .nodes()
        .iter()
        .map(|node| cluster::start_agent_in(node, &configuration, "auto"))
        .collect::<Result<Vec<_>>>()?;
    wait_for_holder(lab.node(1))?;
    let status = agent::run(lab.node(1), ["status"])?;
    let table = status.lines().skip_while(|line| !line.contains("ROLE")).take_while(|line| !line.is_empty());
    table.for_each(|line| println!("   {}", line.trim_start()));

    title("The master is stopped, while clients connect all the time, and others wait on idle watches");
    moves(&lab, &sources, 2, || agents.remove(0).stop())?;
    title("The next one is killed with SIGKILL");
    moves(&lab, &sources, 3, || agents.remove(0).process().kill())?;
    ensure!(lab.node(2).has_address(cluster::VIPS[0])?, "who took the VIP from the dead node?");
    println!("   node2 has the VIPs on its interface still, and answers for them no more: its lease is over");
    agents.remove(0).stop()
}

/// Waits until a node has the VIPs.
fn wait_for_holder(node: &Host) -> Result<()> {
    poll::until(&format!("{} to hold the VIPs", node.name()), Duration::from_secs(10), || {
        cluster::VIPS.iter().all(|vip| node.has_address(*vip).unwrap_or(false))
    })
}

/// Lets something happen to the master, and says what clients noticed until and after the VIPs had moved.
fn moves(lab: &Lab, sources: &Addresses, to: usize, happen: impl FnOnce() -> Result<()>) -> Result<()> {
    const AFTERWARDS: Duration = Duration::from_secs(1);
    let (vip, sources) = (cluster::https()[0], sources.like(cluster::VIPS[0]));
    let ((start, moved), clients) = with_clients(lab.client(1), vip, &sources, || {
        let start = Instant::now();
        happen()?;
        wait_for_holder(lab.node(to))?;
        let moved = Instant::now();
        poll::until("time to pass", 2 * AFTERWARDS, || moved.elapsed() > AFTERWARDS)?;
        Ok((start, moved))
    })?;
    ensure!(
        clients.attempts.iter().any(|attempt| attempt.start > moved && attempt.result.is_ok()),
        "nobody got through"
    );
    let ended = clients.watches.iter().filter_map(|watch| watch.ended);
    println!("   node{to} holds the VIPs after {:.0} ms", (moved - start).as_secs_f64() * 1000.0);
    println!(
        "   {} connections, of which {} were cut short by the move; the longest took {:.0} ms",
        clients.attempts.len(),
        clients.failed().count(),
        clients.longest_after(start).as_secs_f64() * 1000.0
    );
    println!("   {} of {} idle watches were told that they are over", ended.count(), clients.watches.len());
    Ok(())
}

/// Plays a failure on a lab of its own, and says what clients noticed.
fn failure(text: &str, case: fn() -> Result<Vec<Figure>>) -> Result<()> {
    title(&format!("{text}, while clients connect all the time, and others wait on idle watches"));
    for figure in case()? {
        println!("   {:<56} {:>9}", figure.name, figure.value.to_string());
        figure.check()?;
    }
    Ok(())
}

fn indent(text: &str) {
    text.lines().for_each(|line| println!("   {line}"));
}

/// Runs the real `curl`, as a user would.
fn curl(host: &Host, vip: SocketAddr) -> Result<()> {
    let url = format!("https://{vip}/version");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--insecure", "--max-time", "5", &url]);
    println!("   {}$ curl -k {url}", host.name());
    let answer = host.namespace().check_output(command)?;
    indent(answer.trim());
    let answer: serde_json::Value = serde_json::from_str(&answer).context("the answer is not JSON")?;
    ensure!(answer["node"].is_string(), "the answer names no node");
    Ok(())
}

/// Asks from many client addresses, several times from each.
fn spread(family: &str, host: &Host, addresses: &Addresses, vip: SocketAddr) -> Result<()> {
    let load = Load { sources: addresses.like(vip.ip()), ..Load::new(vip, N_CLIENTS * N_REQUESTS) };
    let report = host.namespace().block_on(async { Ok::<_, anyhow::Error>(load.run().await) })?;
    ensure!(report.n_failed() == 0, "{report}");
    ensure!(report.nodes_by_source.len() == N_CLIENTS, "{report}");
    let mut clients: BTreeMap<&str, usize> = BTreeMap::new();
    for (source, nodes) in &report.nodes_by_source {
        ensure!(nodes.len() == 1, "{source} was served by {nodes:?}");
        *clients.entry(nodes.first().context("a client without a node")?).or_default() += 1;
    }
    ensure!(clients.len() == 3, "only {clients:?} were used");
    println!("   {family}: {N_CLIENTS} client addresses, {N_REQUESTS} connections each");
    for (node, n) in clients {
        println!("     {node}  {:<40} {n}", "#".repeat(n));
    }
    Ok(())
}

fn load(lab: &Lab, addresses: &[Addresses]) -> Result<()> {
    let start = Instant::now();
    let reports = std::thread::scope(|scope| {
        let threads: Vec<_> = (lab.clients().iter())
            .zip(addresses)
            .zip(cluster::https())
            .map(|((host, addresses), vip)| {
                scope.spawn(move || {
                    let load = Load { sources: addresses.like(vip.ip()), ..Load::new(vip, N_CONNECTIONS / 2) };
                    host.namespace().block_on(async { Ok::<_, anyhow::Error>(load.run().await) })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a load does not panic")).collect::<Result<Vec<_>>>()
    })?;
    for (host, report) in lab.clients().iter().zip(&reports) {
        println!("   {}: {report}", host.name());
        ensure!(report.n_failed() == 0, "connections failed: {:?}", report.failures);
    }
    println!("   {:.0} connections a second", N_CONNECTIONS as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

/// After the agent has stopped: no program, no VIP, no pin, and nobody answers for the VIP.
fn nothing_left(node: &Host) -> Result<()> {
    let mut show = Command::new("ip");
    show.args(["-details", "address", "show", "dev", "eth0"]);
    let interface = node.namespace().check_output(show)?;
    let (ingress, egress) = (hooks::at_ingress(node)?, hooks::tc_programs(node, Side::Egress)?);
    ensure!(ingress.is_empty() && egress.is_empty(), "still attached: at ingress {ingress:?}, at egress {egress:?}");
    for vip in cluster::VIPS {
        ensure!(!interface.contains(&format!(" {vip}/")), "{vip} is still there:\n{interface}");
    }
    let pins = node.namespace().run(|| std::fs::read_dir("/sys/fs/bpf/kplb").map(Iterator::count).unwrap_or(0));
    ensure!(pins == 0, "{pins} pins are still there");
    let vip = SocketAddr::from((cluster::VIPS[0], HTTPS_PORT));
    let answer = node.namespace().block_on(async {
        Ok::<_, anyhow::Error>(
            tokio::time::timeout(Duration::from_secs(1), client::get(vip, "/version"))
                .await
                .is_ok_and(|answer| answer.is_ok()),
        )
    })?;
    ensure!(!answer, "{vip} still answers");
    println!("   no program on eth0, no VIP, no pins");
    Ok(())
}
