//! One agent takes the place of another, of the same or another version: nobody who talks through them notices.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use kplb::dataplane::Side;
use kplb_common::abi::LAYOUT_VERSION;
use kplb_tests::{
    agent::{self, Agent},
    client::{Connection, Load, UdpFlow},
    cluster::{self, Persistence},
    conversation::{Account, Conversations, Manner, Topic},
    hooks::{self, Filter, Layer},
    lab::{Host, Lab, LabOptions},
    machine::Machine,
    poll,
};

const SOON: Duration = Duration::from_secs(10);

/// Three backends' worth of conversations: every manner, both families.
fn topics() -> Vec<Topic> {
    let watches = cluster::https().map(|vip| (Manner::Watch, vip));
    let requests = cluster::https().map(|vip| (Manner::Requests, vip));
    let datagrams = cluster::udp().map(|vip| (Manner::Datagrams, vip));
    watches.into_iter().chain(requests).chain(datagrams).collect()
}

/// What is pinned for the node's interface.
fn pins(layout: u32) -> PathBuf {
    Path::new("/sys/fs/bpf/kplb").join(format!("v{layout}")).join("eth0")
}

/// What holds the program at ingress, and how often the interface has lost or found its carrier: another holder, or one time
/// more, is an interface that was without a program or flapped.
///
/// A link has a number that no other has. Where the kernel has a filter instead, that one's place is all that tells it from
/// others: a filter that was gone for a moment is known by the traffic alone.
fn continuity(node: &Host) -> Result<(String, String)> {
    let pin = pins(LAYOUT_VERSION).join(cluster::ingress_pin());
    let (link, carrier_changes) = node.namespace().run(|| {
        let link = pin.exists().then(|| FdLink::from(PinnedLink::from_pin(&pin)?).info()).transpose()?;
        anyhow::Ok((link, fs::read_to_string("/sys/class/net/eth0/carrier_changes")?))
    })?;
    let holder = match link {
        Some(link) => format!("link {}", link.id()),
        None => {
            let filters = hooks::filters(node, Side::Ingress)?;
            let [Filter { preference, handle, .. }] = filters.as_slice() else { bail!("not one filter: {filters:?}") };
            format!("filter {preference}, {handle}")
        }
    };
    Ok((holder, carrier_changes))
}

/// The kernel's number of the program at ingress.
fn program(node: &Host) -> Result<u32> {
    let programs = hooks::at_ingress(node)?;
    let [(_, program)] = programs.as_slice() else { bail!("not one program: {programs:?}") };
    Ok(*program)
}

/// Packets that were dropped or answered with a reset, by verdict.
fn refused(agent: &Agent<'_>) -> Result<Vec<String>> {
    let status = agent.status()?;
    let verdicts = status[0]["verdicts"].as_object().context("there are verdicts")?;
    Ok(verdicts
        .iter()
        .filter(|(name, n)| (name.starts_with("drop") || name.starts_with("reset")) && n.as_u64() != Some(0))
        .map(|(name, n)| format!("{name}: {n}"))
        .collect())
}

fn flows_opened(agent: &Agent<'_>) -> Result<u64> {
    agent.status()?[0]["services"][0]["traffic"]["flows_opened"].as_u64().context("flows were opened")
}

/// Connections that are opened one after the other until it is said to stop; how many, and that none failed.
fn knock(client: &Host, is_over: &AtomicBool) -> Result<usize> {
    let mut n = 0;
    while !is_over.load(Ordering::Relaxed) {
        for vip in cluster::https() {
            let load = Load { concurrency: 4, ..Load::new(vip, 20) };
            let report = client.namespace().block_on(async { anyhow::Ok(load.run().await) })?;
            ensure!(report.n_failed() == 0, "{vip}, after {n} connections: {report}");
            n += report.n_ok;
        }
    }
    Ok(n)
}

fn check(accounts: &[Account]) -> Result<()> {
    for account in accounts {
        println!("{account}");
        ensure!(account.lost.is_none(), "{account}");
    }
    Ok(())
}

/// Twenty times, now killed, now asked to leave; now with the same programs, now with others, as after an upgrade. In an
/// emulated machine each way once.
#[test]
fn agents_follow_each_other_under_load() -> Result<()> {
    const WAYS: usize = 4;
    let n_rounds = if Machine::this() == Machine::Emulated { WAYS } else { 20 };
    let lab = Lab::new(LabOptions { nodes: 3, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, client) = (lab.node(1), lab.client(1));
    let file = cluster::write(&cluster::configuration(lab.nodes(), Persistence::Connection))?;
    let arguments = ["--config", file.path().to_str().context("a path in UTF-8")?, "--mode", cluster::mode().name()];
    let mut agent = Agent::start(node, arguments)?;
    let before = continuity(node)?;
    let mut earlier = program(node)?;
    let talks = Conversations::start(client.namespace(), &topics())?;
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    let (n_connections, accounts) = thread::scope(|scope| {
        let knocking = scope.spawn(|| knock(client, &is_over));
        let followed = (0..n_rounds).try_for_each(|round| {
            let opened = flows_opened(&agent)?;
            if round % 2 == 0 {
                agent.process().kill()?;
            } else {
                agent.process().signal(nix::sys::signal::Signal::SIGUSR2)?;
                ensure!(agent.process().wait(SOON)?.success(), "{}", agent.output());
            }
            // Without an agent everything goes on.
            talks.wait_for_all_after(Instant::now(), SOON)?;
            // Programs that log more are others.
            let level = ["info", "debug", "debug", "info"][round % WAYS];
            agent = Agent::start(node, arguments.into_iter().chain(["--log-level", level]))?;
            agent.process().wait_for_line("taking over", SOON)?;
            let program = program(node)?;
            ensure!((program == earlier) == (round % 2 == 0), "program {earlier}, then {program}");
            earlier = program;
            talks.wait_for_all_after(Instant::now(), SOON)?;
            ensure!(flows_opened(&agent)? >= opened, "counters go down");
            let status = agent.status()?;
            ensure!(status[0]["generation"] == round + 2, "{}", status[0]["generation"]);
            anyhow::Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let n = knocking.join().expect("it does not panic")?;
        followed?;
        anyhow::Ok((n, talks.stop_after(Instant::now(), Duration::ZERO)?))
    })?;
    println!("{n_rounds} agents in {:.1?}, {n_connections} connections", start.elapsed());
    check(&accounts)?;
    assert_eq!(continuity(node)?, before, "the interface was without a program, or its carrier");
    assert_eq!(refused(&agent)?, Vec::<String>::new());
    agent.stop()
}

/// A thousand datagrams while the programs are exchanged: every one is answered.
#[test]
fn no_packet_is_lost_when_programs_are_exchanged() -> Result<()> {
    const N: usize = 5;
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let file = cluster::write(&cluster::configuration(lab.nodes(), Persistence::Connection))?;
    let arguments = ["--config", file.path().to_str().context("a path in UTF-8")?, "--mode", cluster::mode().name()];
    let mut agent = Agent::start(node, arguments)?;
    let is_over = AtomicBool::new(false);
    let counts = thread::scope(|scope| {
        let count = |vip| {
            let is_over = &is_over;
            let client = lab.client(1);
            scope.spawn(move || {
                client.namespace().block_on(async {
                    let flow = UdpFlow::open(vip, None).await?;
                    let mut n = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        flow.exchange(b"still there?").await.with_context(|| format!("{vip}, after {n} answers"))?;
                        n += 1;
                    }
                    anyhow::Ok(n)
                })
            })
        };
        let counts = cluster::udp().map(count);
        let followed = (0..N).try_for_each(|round| {
            agent.process().kill()?;
            let level = ["info", "debug"][round % 2];
            agent = Agent::start(node, arguments.into_iter().chain(["--log-level", level]))?;
            anyhow::Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let counts = counts.map(|count| count.join().expect("it does not panic"));
        followed?;
        counts.into_iter().collect::<Result<Vec<usize>>>()
    })?;
    println!("datagrams that were answered: {counts:?}");
    ensure!(counts.iter().all(|count| *count > 1000), "{counts:?}");
    agent.stop()
}

/// The maps of another version are not read: its flows are over, and new ones work. The programs are exchanged all the same,
/// and nothing of the other version stays.
#[test]
fn another_layout_is_replaced() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, client) = (lab.node(1), lab.client(1).namespace());
    let configuration = cluster::configuration(lab.nodes(), Persistence::Client);
    let mut agent = cluster::start_agent(node, &configuration)?;
    let before = continuity(node)?;
    client.block_on(async {
        let mut connection = Connection::open(cluster::https()[0]).await?;
        connection.get("/version").await?;
        agent.process().kill()?;
        node.namespace().run(|| {
            let (own, other) = (pins(LAYOUT_VERSION), pins(LAYOUT_VERSION + 1));
            fs::create_dir(other.parent().context("it is below another")?)?;
            fs::rename(own, other).context("rename the pins")
        })?;
        agent = cluster::start_agent(node, &configuration)?;
        agent.process().wait_for_line("its maps are of another version", SOON)?;
        ensure!(connection.get("/version").await.is_err(), "a flow of the other version is known");
        Connection::open(cluster::https()[0]).await?.get("/version").await.map(drop)
    })?;
    assert_eq!(continuity(node)?, before, "the interface was without a program, or its carrier");
    let layouts = node.namespace().run(|| fs::read_dir("/sys/fs/bpf/kplb").map(Iterator::count))?;
    assert_eq!(layouts, 1, "pins of the other version are left");
    agent.stop()
}

/// Pins of any version are removed by `kplb detach`.
#[test]
fn another_layout_is_detached() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let configuration = cluster::configuration(lab.nodes(), Persistence::Client);
    cluster::start_agent(node, &configuration)?.leave()?;
    node.namespace().run(|| {
        let (own, other) = (pins(LAYOUT_VERSION), pins(LAYOUT_VERSION + 1));
        fs::create_dir(other.parent().context("it is below another")?)?;
        fs::rename(&own, other)?;
        fs::remove_dir(own.parent().context("it is below another")?).context("move the pins")
    })?;
    agent::run(node, ["detach", "eth0"])?;
    node.namespace().run(|| {
        assert_eq!(fs::read_dir("/sys/fs/bpf/kplb").map(Iterator::count).unwrap_or_default(), 0);
    });
    Ok(())
}

/// From each mode to each other, under load: nothing is lost, and nothing is left of the mode before.
#[test]
fn the_mode_can_change() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let configuration = cluster::configuration(lab.nodes(), Persistence::Client);
    let mut agent = cluster::start_agent_in(node, &configuration, "generic")?;
    let talks = Conversations::start(lab.client(1).namespace(), &topics())?;
    talks.wait_for_all_after(Instant::now(), SOON)?;
    for mode in ["native", "tc", "generic", "tc", "native", "generic"] {
        agent.leave()?;
        agent = cluster::start_agent_in(node, &configuration, mode)?;
        assert_eq!(agent.status()?[0]["mode"], mode);
        talks.wait_for_all_after(Instant::now(), SOON)?;
        let layers: Vec<Layer> = hooks::at_ingress(node)?.into_iter().map(|(layer, _)| layer).collect();
        assert_eq!(layers, [if mode == "tc" { Layer::Tc } else { Layer::Xdp }]);
    }
    check(&talks.stop_after(Instant::now(), Duration::ZERO)?)?;
    agent.stop()
}

/// An interface that cannot run in the mode that is asked for goes on in the one that it has.
#[test]
fn a_mode_that_the_driver_lacks_costs_nothing() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    // A bridge has no native XDP.
    node.namespace().ip(&format!(
        "link add br1 type bridge forward_delay 0\nlink set eth0 master br1\nlink set br1 up\n\
         address flush dev eth0 scope global\naddress add {}/16 dev br1\n",
        node.ipv4()
    ))?;
    let vip = cluster::https()[0];
    let backend = format!("{}:{}", lab.node(2).ipv4(), vip.port());
    let arguments = |mode| {
        ["--mode".to_owned(), mode, "--vip".to_owned(), vip.to_string(), "--backend".to_owned(), backend.clone()]
    };
    let agent = Agent::spawn_on(node, "br1", arguments("generic".to_owned()))?;
    agent.wait_until_ready()?;
    lab.client(1).namespace().block_on(async {
        let mut connection = Connection::open(vip).await?;
        connection.get("/version").await?;
        agent.leave()?;
        let mut failing = Agent::spawn_on(node, "br1", arguments("native".to_owned()))?;
        ensure!(!failing.process().wait(SOON)?.success(), "native XDP on a bridge: {}", failing.output());
        ensure!(failing.output().contains("forwards on"), "{}", failing.output());
        connection.get("/version").await?;
        let agent = Agent::spawn_on(node, "br1", arguments("auto".to_owned()))?;
        agent.wait_until_ready()?;
        connection.get("/version").await?;
        agent.stop()
    })
}

/// An agent that cannot start leaves what it found: a mistake in an upgrade costs nothing.
#[test]
fn an_agent_that_fails_to_start_takes_nothing_away() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, client) = (lab.node(1), lab.client(1).namespace());
    let configuration = cluster::configuration([lab.node(2)], Persistence::Client);
    let agent = cluster::start_agent(node, &configuration)?;
    let talks = Conversations::start(client, &topics())?;
    agent.leave()?;
    let wrong = configuration.replace("198.18.0.100", "198.18.0.11");
    let file = cluster::write(&wrong)?;
    let mut failing = Agent::spawn(node, ["--config", file.path().to_str().context("a path in UTF-8")?])?;
    ensure!(!failing.process().wait(SOON)?.success(), "it serves a VIP that is its own address");
    ensure!(failing.output().contains("forwards on"), "{}", failing.output());
    talks.wait_for_all_after(Instant::now(), SOON)?;
    let agent = cluster::start_agent(node, &configuration)?;
    check(&talks.stop_after(Instant::now(), Duration::ZERO)?)?;
    agent.stop()
}

/// Whoever has left the configuration meanwhile keeps the flows that it has, gets no others, and is gone after that.
#[test]
fn a_backend_that_was_removed_meanwhile_drains() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, client) = (lab.node(1), lab.client(1).namespace());
    let vip = cluster::https()[0];
    let agent = cluster::start_agent(node, &cluster::configuration([lab.node(2)], Persistence::Client))?;
    client.block_on(async {
        let mut connection = Connection::open(vip).await?;
        ensure!(connection.get("/version").await?.node == "node2", "the only one");
        agent.leave()?;
        let agent = cluster::start_agent(node, &cluster::configuration([node], Persistence::Client))?;
        ensure!(connection.get("/version").await?.node == "node2", "its flow goes on");
        ensure!(Connection::open(vip).await?.get("/version").await?.node == "node1", "new ones go elsewhere");
        let backends = agent.status()?[0]["services"][0]["backends"].clone();
        ensure!(backends[1]["name"] == "198.18.0.12:6443" && backends[1]["by_hand"] == "removed", "{backends}");
        connection.close().await?;
        poll::until("it to be gone, when its closed flow is forgotten", 3 * SOON, || {
            agent
                .status()
                .is_ok_and(|status| status[0]["services"][0]["backends"].as_array().is_some_and(|all| all.len() == 1))
        })?;
        agent.stop()
    })
}

/// How often each virtual router of a node has changed its state, IPv4 first.
fn transitions(agent: &Agent<'_>) -> Result<[u64; 2]> {
    let status = agent.status()?;
    let routers = &status[0]["election"]["routers"];
    let n = |family: usize| routers[family]["transitions"].as_u64().context("there are two");
    Ok([n(0)?, n(1)?])
}

fn is_master(agent: &Agent<'_>) -> bool {
    let status = agent.status().unwrap_or_default();
    let routers = &status[0]["election"]["routers"];
    (0..2).all(|family| routers[family]["state"] == "master")
}

/// A master whose agent is exchanged stays master: killed, if the next one is there in time; and asked to leave, with some
/// time to spare.
#[test]
fn a_master_stays_master() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    // What the processor takes to verify the programs is less than what the other node waits for adverts.
    let interval = if Machine::this() == Machine::Emulated { "interval = '2s'" } else { "interval = '1s'" };
    let configuration = cluster::elected(lab.nodes(), interval);
    let mut agent = cluster::start_agent(lab.node(1), &configuration)?;
    poll::until("node1 to be master", SOON, || is_master(&agent))?;
    let other = cluster::start_agent(lab.node(2), &configuration)?;
    let before = transitions(&other)?;
    let talks = Conversations::start(lab.client(1).namespace(), &topics())?;
    for round in 0..4 {
        if round % 2 == 0 {
            agent.process().kill()?;
        } else {
            agent.leave()?;
        }
        agent = cluster::start_agent(lab.node(1), &configuration)?;
        agent.process().wait_for_line("initialize -> master: goes on where an earlier agent left", SOON)?;
        ensure!(cluster::VIPS.iter().all(|vip| lab.node(1).has_address(*vip).is_ok_and(|has| has)), "no VIP");
        talks.wait_for_all_after(Instant::now(), SOON)?;
    }
    check(&talks.stop_after(Instant::now(), Duration::ZERO)?)?;
    assert_eq!(transitions(&other)?, before, "the other one was master, too");
    agent.stop()?;
    other.stop()
}

/// A master that leaves asks the others for patience, three seconds long; if no agent comes, they take over.
#[test]
fn a_master_that_leaves_is_waited_for_but_not_for_ever() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let configuration = cluster::elected(lab.nodes(), "");
    let agent = cluster::start_agent(lab.node(1), &configuration)?;
    poll::until("node1 to be master", SOON, || is_master(&agent))?;
    let mut other = cluster::start_agent(lab.node(2), &configuration)?;
    agent.leave()?;
    let left = Instant::now();
    let taken = other.process().wait_for_line_after(left, "VIP 198.18.0.100: backup -> master", SOON)?;
    println!("taken over {:.1?} after the agent had left", taken - left);
    // Three adverts' time of a second each, and up to one for the skew.
    ensure!((Duration::from_secs(3)..Duration::from_secs(5)).contains(&(taken - left)), "after {:.1?}", taken - left);
    other.stop()?;
    agent::run(lab.node(1), ["detach", "eth0"]).map(drop)
}
