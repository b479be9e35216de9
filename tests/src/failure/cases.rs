//! The failures.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::{
    Figure,
    crowd::{MAX_PER_PROCESS, with_crowd},
    scene::{PATIENCE, Stage},
};
use crate::{
    agent,
    apiserver::{Apiserver, HTTPS_PORT, Readiness},
    client::{self, Connection},
    lab::LinkState,
    poll,
};

/// What the default configuration allows for a backend that does not answer: `fall` times `fast_interval` and one
/// `connect_timeout`, and the time until the first check after the failure.
const SILENCE: Duration = Duration::from_millis(3 * 200 + 500 + 550);

/// (a) The process of a backend is killed under load.
///
/// # Errors
/// If anything is not as it should be.
pub fn killed() -> Result<Vec<Figure>> {
    let stage = Stage::new()?;
    let mut scene = stage.begin("")?;
    let ((killed, down), clients) = scene.with_clients(|scene| {
        poll::pass(Duration::from_millis(500), || false);
        let killed = scene.kill(2)?;
        let down = scene.transition(2, "active -> down", killed)?;
        poll::pass(Duration::from_secs(1), || false);
        Ok((killed, down))
    })?;
    let refused: Vec<_> = clients.failed().collect();
    for attempt in &refused {
        ensure!(attempt.end > killed, "a connection failed before anything did: {:?}", attempt.result);
        ensure!(attempt.start <= down + Duration::from_millis(5), "refused after the backend was down: {attempt:?}");
    }
    ensure!(!clients.nodes_after(down + Duration::from_millis(5)).contains("node2"), "the dead backend has answered");
    ensure!(clients.watches_on("node1").chain(clients.watches_on("node3")).all(|w| w.ended.is_none()), "a bystander");
    let last_refused = refused.iter().map(|attempt| attempt.end).max();
    let first_refused = refused.iter().map(|attempt| attempt.end).min().unwrap_or(down);
    Ok(vec![
        Figure::time("from the kill to the ring without it", down - killed).within(Duration::from_millis(50)),
        Figure::time(
            "from the first refused SYN to the ring without it",
            down.saturating_duration_since(first_refused),
        )
        .within(Duration::from_millis(50)),
        Figure::count("connections that failed", refused.len()),
        Figure::time("clients' error window", last_refused.map_or(Duration::ZERO, |last| last - killed)),
        Figure::time("from the kill to the end of the last idle watch", clients.last_end_on("node2")? - killed)
            .within(Duration::from_millis(100)),
    ])
}

/// (b) and (c) A backend's node is cut off: nothing answers, nothing refuses.
///
/// # Errors
/// If anything is not as it should be.
pub fn cut_off() -> Result<Vec<Figure>> {
    let stage = Stage::new()?;
    let mut scene = stage.begin("")?;
    let ((cut, down), clients) = scene.with_clients(|scene| {
        poll::pass(Duration::from_millis(500), || false);
        let cut = Instant::now();
        scene.lab().set_cable(scene.lab().node(2), LinkState::Down)?;
        let down = scene.transition(2, "active -> down", cut)?;
        poll::pass(Duration::from_millis(3500), || false);
        Ok((cut, down))
    })?;
    ensure!(!clients.nodes_after(down + Duration::from_millis(5)).contains("node2"), "the dead backend has answered");
    ensure!(clients.watches_on("node1").chain(clients.watches_on("node3")).all(|w| w.ended.is_none()), "a bystander");
    Ok(vec![
        Figure::time("from the cut to the ring without it", down - cut).within(SILENCE),
        Figure::count("connections that failed", clients.failed().count()),
        Figure::time("longest that a connection took", clients.longest_after(cut)),
        Figure::time("from the cut to the reset of the last idle watch", clients.last_end_on("node2")? - cut),
        Figure::time(
            "from `down` to the reset of the last idle watch",
            clients.last_end_on("node2")?.saturating_duration_since(down),
        )
        .within(Duration::from_millis(100)),
    ])
}

/// (d) A backend says that it is not ready, as one that is told to stop does.
///
/// # Errors
/// If anything is not as it should be.
pub fn not_ready() -> Result<Vec<Figure>> {
    let stage = Stage::new()?;
    let mut scene = stage.begin("")?;
    let source = *scene.sources_of(2)?.first().context("no client is given to node2")?;
    let (vip, host) = (scene.vip(), scene.lab().client(1));
    let ((off, draining, active), clients) = scene.with_clients(|scene| {
        host.namespace().block_on(async {
            let mut kept = Connection::open_from(vip, Some(source)).await?;
            ensure!(kept.get("/version").await?.node == "node2");
            let off = Instant::now();
            scene.apiserver(2)?.set_readiness(Readiness::NotReady)?;
            let draining = scene.transition(2, "active -> draining", off)?;
            ensure!(scene.backend_status(2)?["check"]["words"].to_string().contains("[-]shutdown failed"));
            // What it has, it keeps; new ones go elsewhere.
            for _ in 0..20 {
                ensure!(kept.get("/version").await?.node == "node2");
                let mut other = Connection::open_from(vip, Some(source)).await?;
                ensure!(other.get("/version").await?.node != "node2");
            }
            let on = Instant::now();
            scene.apiserver(2)?.set_readiness(Readiness::Ready)?;
            let active = scene.transition(2, "draining -> active", on)?;
            poll::pass(Duration::from_millis(300), || false);
            ensure!(kept.get("/version").await?.node == "node2");
            Ok((off, draining, active - on))
        })
    })?;
    ensure!(clients.watches.iter().all(|watch| watch.ended.is_none()), "a watch was broken");
    Ok(vec![
        Figure::time("from `not ready` to the ring without it", draining - off),
        Figure::time("from `ready` to the ring with it", active),
        Figure::count("connections that failed", clients.failed().count()).at_most(0),
        Figure::count("connections that were broken", clients.watches.iter().filter(|w| w.ended.is_some()).count())
            .at_most(0),
    ])
}

/// (e) A backend hangs: its kernel accepts connections, it never answers. Both ends of its flows are told.
///
/// # Errors
/// If anything is not as it should be.
pub fn hung(node: usize) -> Result<Vec<Figure>> {
    let stage = Stage::new()?;
    let mut scene = stage.begin("")?;
    let name = format!("node{node}");
    let ((stopped, down), clients) = scene.with_clients(|scene| {
        poll::pass(Duration::from_millis(500), || false);
        let stopped = Instant::now();
        scene.apiserver(node)?.process().signal(Signal::SIGSTOP)?;
        let down = scene.transition(node, "active -> down", stopped)?;
        poll::pass(Duration::from_millis(500), || false);
        // The kernel of the hung process has given up what clients opened through the VIP.
        let vip_clients = stage.lab().client(1).ipv4().octets();
        let left = poll::until("resets at the backend", PATIENCE, || {
            established(stage.lab(), node).is_ok_and(|sockets| {
                sockets.iter().all(|(port, peer)| *port != HTTPS_PORT || !is_of_kplb(node, *peer, vip_clients))
            })
        });
        left.with_context(|| format!("still established on {name}: {:?}", established(stage.lab(), node)))?;
        scene.apiserver(node)?.process().signal(Signal::SIGCONT)?;
        scene.transition(node, "down -> active", down)?;
        Ok((stopped, down))
    })?;
    ensure!(
        clients.attempts.iter().any(|attempt| attempt.start > down && attempt.result.is_ok()),
        "nobody got through"
    );
    Ok(vec![
        Figure::time("from the stop to the ring without it", down - stopped),
        Figure::count("connections that failed", clients.failed().count()),
        Figure::time("from the stop to the reset of the last idle watch", clients.last_end_on(&name)? - stopped),
    ])
}

/// Whether an established socket's peer is a client that came through kplb: node1 with a NAT port, or, on node1
/// itself, one of the client's own addresses.
fn is_of_kplb(node: usize, peer: std::net::SocketAddrV4, client: [u8; 4]) -> bool {
    let octets = peer.ip().octets();
    if node == 1 {
        return octets[2] != 0 || octets == client;
    }
    octets == [198, 18, 0, 11] && (10_000..=32_767).contains(&peer.port())
}

/// Established IPv4 sockets of a node: local port and peer.
fn established(lab: &crate::lab::Lab, node: usize) -> Result<Vec<(u16, std::net::SocketAddrV4)>> {
    const ESTABLISHED: &str = "01";
    let mut sockets = Vec::new();
    // A dual-stack listener's sockets are listed as IPv6.
    for (file, width) in [("/proc/thread-self/net/tcp", 8), ("/proc/thread-self/net/tcp6", 32)] {
        let table = lab.node(node).namespace().run(|| std::fs::read_to_string(file))?;
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [local, remote, state] = [1, 2, 3].map(|i| fields.get(i).copied().unwrap_or_default());
            if state != ESTABLISHED {
                continue;
            }
            let port = |text: &str| u16::from_str_radix(text.rsplit(':').next().unwrap_or_default(), 16);
            let address = &remote[width - 8..width];
            let address = u32::from_str_radix(address, 16)?.to_ne_bytes();
            sockets.push((port(local)?, std::net::SocketAddrV4::new(address.into(), port(remote)?)));
        }
    }
    Ok(sockets)
}

/// (f) A backend that turns ready and not ready faster than `rise` and `fall` allow to follow.
///
/// # Errors
/// If anything is not as it should be.
pub fn flapping() -> Result<Vec<Figure>> {
    const PERIOD: Duration = Duration::from_secs(5);
    let stage = Stage::new()?;
    let mut scene = stage.begin("")?;
    let (n_transitions, clients) = scene.with_clients(|scene| {
        let start = Instant::now();
        let mut is_ready = true;
        while start.elapsed() < PERIOD {
            is_ready = !is_ready;
            let readiness = if is_ready { Readiness::Ready } else { Readiness::NotReady };
            scene.apiserver(2)?.set_readiness(readiness)?;
            // Less than it takes to see it three times.
            poll::pass(Duration::from_millis(250), || false);
        }
        Ok(scene.agent().process().count_lines_after(start, "backend node2 of service tcp-v4: "))
    })?;
    ensure!(clients.watches.iter().all(|watch| watch.ended.is_none()), "a watch was broken");
    Ok(vec![
        Figure::count("transitions while it turned 20 times", n_transitions).at_most(2),
        Figure::count("connections that failed", clients.failed().count()).at_most(0),
    ])
}

/// (g) Every backend is killed, and comes back.
///
/// # Errors
/// If anything is not as it should be.
pub fn all_gone() -> Result<Vec<Figure>> {
    let stage = Stage::new()?;
    let mut scene = stage.begin("")?;
    let (vip, host) = (scene.vip(), scene.lab().client(1));
    let connect = || {
        host.namespace().block_on(async {
            Ok::<_, anyhow::Error>(tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(vip)).await?)
        })
    };
    let killed = (1..=3).map(|node| scene.kill(node)).collect::<Result<Vec<_>>>()?[2];
    for node in 1..=3 {
        scene.transition(node, "active -> down", killed - PATIENCE)?;
    }
    let down = Instant::now();
    let start = Instant::now();
    let refused = connect()?.expect_err("nobody can have accepted");
    let refused_within = start.elapsed();
    ensure!(refused.kind() == std::io::ErrorKind::ConnectionRefused, "{refused}");
    let revived = scene.revive(3)?;
    let answer = poll::until_ok("an answer", PATIENCE, || host.namespace().block_on(client::get(vip, "/version")))?;
    let back = Instant::now();
    ensure!(answer.node == "node3", "{answer:?}");
    scene.revive(1)?;
    scene.revive(2)?;
    for node in 1..=3 {
        scene.transition(node, "down -> active", down)?;
    }
    Ok(vec![
        Figure::time("from the last kill to none on the ring", down - killed),
        Figure::time("a client is refused within", refused_within),
        Figure::time("from the first one's return to an answer", back - revived),
    ])
}

/// (h) A backend must not tell whether it is ready.
///
/// # Errors
/// If anything is not as it should be.
pub fn unauthorized() -> Result<Vec<Figure>> {
    let stage = Stage::new()?;
    let mut scene = stage.begin("")?;
    let start = Instant::now();
    let (n_warnings, clients) = scene.with_clients(|scene| {
        for node in 1..=3 {
            scene.apiserver(node)?.set_readiness(Readiness::Unauthorized)?;
        }
        for node in 1..=3 {
            poll::until("401 in the status", PATIENCE, || {
                scene
                    .backend_status(node)
                    .is_ok_and(|backend| backend["check"]["code"] == "L7STS" && backend["check"]["is_good"] == true)
            })?;
        }
        poll::pass(Duration::from_secs(2), || false);
        let warning = "backend node2 of service tcp-v4 must not tell whether it is ready";
        let n_warnings = scene.agent().process().count_lines_after(start, warning);
        ensure!(scene.agent().process().count_lines_after(start, " -> ") == 0, "a state has changed");
        Ok(n_warnings)
    })?;
    ensure!(n_warnings == 1, "{n_warnings} warnings");
    Ok(vec![Figure::count("connections that failed", clients.failed().count()).at_most(0)])
}

/// (i) A backend with many established flows is cut off.
///
/// # Errors
/// If anything is not as it should be.
pub fn crowded(n_flows: usize) -> Result<Vec<Figure>> {
    let stage = Stage::new()?;
    let mut scene = stage.begin("")?;
    // Each accepts some of the connections.
    let _helpers = (1..n_flows.div_ceil(MAX_PER_PROCESS))
        .map(|_| Apiserver::start_on(stage.lab().node(2), &[HTTPS_PORT], &[]))
        .collect::<Result<Vec<_>>>()?;
    let sources = scene.sources_of(2)?;
    let (vip, host) = (scene.vip(), scene.lab().client(1));
    let ((cut, down, before), ends) = with_crowd(host, vip, &sources, n_flows, PATIENCE, || {
        let before = cpu_time(scene.agent().process().pid())?;
        let cut = Instant::now();
        scene.lab().set_cable(scene.lab().node(2), LinkState::Down)?;
        let down = scene.transition(2, "active -> down", cut)?;
        Ok((cut, down, before))
    })?;
    let last = ends.into_iter().max().context("there was nobody")?;
    let after = cpu_time(scene.agent().process().pid())?;
    let status = agent::run(scene.lab().node(1), ["status"])?;
    ensure!(status.contains("down"), "{status}");
    Ok(vec![
        Figure::count("established flows", n_flows),
        Figure::time("from the cut to `down`", down - cut),
        Figure::time("from `down` to the last reset", last.saturating_duration_since(down))
            .within(Duration::from_secs(1)),
        Figure::time("CPU time of the agent, checks included", after - before),
    ])
}

/// User and system time of a process.
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks =
        |i: usize| -> Result<u64> { Ok(fields.split_whitespace().nth(i).context("a short /proc/PID/stat")?.parse()?) };
    // Fields 14 and 15 of proc(5); the first after the name is the third. A tick is a hundredth of a second.
    Ok(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}
