//! `kplb top` on a terminal.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use kplb_tests::{
    agent, client,
    cluster::{self, Persistence},
    lab::{Host, Lab, LabOptions},
    pty::{Size, Terminal},
};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(15);
const WINDOW: Size = Size { rows: 40, columns: 140 };

fn top(node: &Host, arguments: &[&str], size: Size) -> Result<Terminal> {
    let mut command = agent::kplb()?;
    command.arg("top").args(arguments);
    Terminal::spawn(node.namespace(), command, size)
}

/// A client that asks again and again until it is dropped.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    fn start(host: &Host, service: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = host.namespace().thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("an epoll instance and a pipe are all it takes");
            while !stopped.load(Ordering::Relaxed) {
                // There may be nobody to answer.
                let _ = runtime.block_on(client::get(service, "/version"));
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Packets a second of all backends, as the screen says.
fn packets_per_second(screen: &str) -> Option<&str> {
    screen.lines().nth(1)?.split(" pkt/s").next()
}

/// It waits for an agent, shows what goes on, is resized, stops and goes on, outlives the agent, and leaves no trace.
#[test]
fn from_the_first_look_to_the_last() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let configuration = cluster::elected(lab.nodes(), "");
    let mut terminal = top(node, &["--interval", "0.2"], WINDOW)?;
    terminal.wait_for("it to say that there is no agent", SOON, |screen| screen.contains("no agent for"))?;

    let agent = cluster::start_agent(node, &configuration)?;
    let traffic = Traffic::start(lab.client(1), cluster::https()[0])?;
    let has_line = |screen: &str, start: &str| screen.lines().any(|line| line.starts_with(start));
    let screen = terminal.wait_for("backends and rates", SOON, |screen| {
        screen.starts_with(&format!("kplb eth0  {}", cluster::title()))
            && has_line(screen, "IPv4 master")
            && has_line(screen, "tcp-v4  198.18.0.100:6443/tcp  2 of 2 active")
            && has_line(screen, "  node2  198.18.0.12:6443")
            && packets_per_second(screen).is_some_and(|rate| rate != "0")
            && screen.contains('█')
            && screen.contains(&format!("ready: {} on eth0", cluster::title()))
    })?;
    assert!(screen.trim_end().ends_with("q end  p pause  arrows select"), "{screen}");

    terminal.press("p")?;
    terminal.wait_for("it to be paused", SOON, |screen| screen.starts_with("kplb eth0  paused"))?;
    terminal.press("p")?;
    terminal.wait_for("it to go on", SOON, |screen| screen.starts_with(&format!("kplb eth0  {}", cluster::title())))?;
    // The second line of the list, a backend, is told of in full.
    terminal.press("\x1b[B")?;
    terminal
        .wait_for("more of a backend", SOON, |screen| has_line(screen, "node1 198.18.0.11:6443  on this node  L7OK"))?;
    terminal.resize(Size { rows: 12, columns: 40 })?;
    terminal.wait_for("a smaller picture", SOON, |screen| {
        !screen.contains("ADDRESS")
            && screen.contains("PKT/S")
            && screen.trim_end().ends_with("q end  p pause  arrows select")
    })?;
    terminal.resize(WINDOW)?;
    terminal.wait_for("the whole picture", SOON, |screen| screen.contains("ADDRESS"))?;

    agent.stop()?;
    terminal.wait_for("it to miss the agent", SOON, |screen| screen.starts_with("kplb eth0  no agent for"))?;
    let agent = cluster::start_agent(node, &configuration)?;
    let screen = terminal
        .wait_for("the other agent", SOON, |screen| screen.starts_with(&format!("kplb eth0  {}", cluster::title())))?;
    // A line is never as long as it would be with all that the first agent has counted.
    let rate = packets_per_second(&screen).context("there is a rate")?;
    assert!(!rate.contains(['M', 'G', 'T', 'P', '-']), "{screen}");
    drop(traffic);

    terminal.press("q")?;
    assert!(terminal.wait(SOON)?.success());
    terminal.wait_until_restored(SOON)?;
    agent.stop()
}

/// Whatever ends it, the terminal is as it was.
#[test]
fn all_its_ends() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let end = |how: &dyn Fn(&mut Terminal) -> Result<()>| -> Result<()> {
        let mut terminal = top(node, &["eth0"], Size { rows: 5, columns: 20 })?;
        terminal.wait_for("a picture", SOON, |screen| screen.starts_with("kplb eth0"))?;
        how(&mut terminal)?;
        assert!(terminal.wait(SOON)?.success());
        terminal.wait_until_restored(SOON)
    };
    end(&|terminal| terminal.press("\x1b"))?;
    end(&|terminal| terminal.press("\x03"))?;
    end(&|terminal| terminal.signal(Signal::SIGTERM))?;
    end(&|terminal| terminal.signal(Signal::SIGHUP))
}

#[test]
fn where_there_is_no_terminal() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let mut command = agent::kplb()?;
    command.arg("top");
    let output = lab.node(1).namespace().output(command)?;
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("`kplb status --watch`") && stderr.contains("--json"), "{stderr}");
    assert_eq!(output.stdout, b"");

    // Nor is one of several agents meant.
    let node = lab.node(1);
    node.namespace().ip("link add eth1 type veth peer name eth2\nlink set eth1 up\nlink set eth2 up")?;
    node.namespace().ip("address add 198.19.0.11/24 dev eth1")?;
    let file = cluster::write(&cluster::configuration([node], Persistence::Client))?;
    let path = file.path().to_string_lossy().into_owned();
    let one = agent::Agent::start(node, ["--config", &path])?;
    let flags = ["--vip", "198.19.0.100:6443", "--backend", "198.19.0.11:6443"];
    let other = agent::Agent::spawn_on(node, "eth1", flags)?;
    other.wait_until_ready()?;
    let mut terminal = top(node, &[], WINDOW)?;
    terminal.wait_for("a question", SOON, |screen| screen.contains("several agents run; say which: eth0, eth1"))?;
    assert_eq!(terminal.wait(SOON)?.code(), Some(1));
    other.stop()?;
    one.stop()
}
