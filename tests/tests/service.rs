//! The agent as a service: what it tells the manager that has started it, and the unit that starts it.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    agent::kplb,
    cluster::{self, Persistence},
    lab::{Lab, LabOptions},
    poll,
    process::{Process, workspace_program},
};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);
/// How long the manager waits for a sign of life.
const PATIENCE: Duration = Duration::from_secs(2);

/// A service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = UnixDatagram::bind(directory.path().join("notify"))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, directory })
    }

    /// Starts an agent; with a watchdog or without.
    fn start(&self, lab: &Lab, watchdog: Option<Duration>) -> Result<(Process, tempfile::NamedTempFile)> {
        let configuration = cluster::write(&cluster::configuration(lab.nodes(), Persistence::Client))?;
        let mut command = kplb()?;
        command.args(["attach", "eth0", "--config"]).arg(configuration.path());
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        if let Some(patience) = watchdog {
            command.env("WATCHDOG_USEC", patience.as_micros().to_string());
        }
        Ok((Process::spawn(lab.node(1).namespace(), "kplb attach", command)?, configuration))
    }

    /// The next message.
    fn next(&self, deadline: Duration) -> Result<String> {
        let mut buffer = [0; 4096];
        let n = poll::until_some("a message to the manager", deadline, || self.socket.recv(&mut buffer).ok())?;
        String::from_utf8(buffer[..n].to_vec()).context("understand a message")
    }
}

#[test]
fn it_says_when_it_serves_lives_and_ends() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let manager = Manager::new()?;
    let (mut agent, _file) = manager.start(&lab, Some(PATIENCE))?;
    let first = manager.next(SOON)?;
    assert!(first.starts_with("READY=1\nSTATUS="), "{first:?}");
    assert!(first.contains("198.18.0.100:6443/tcp"), "{first:?}");
    agent.wait_for_line("ready: ", SOON)?;

    let mut last = Instant::now();
    for _ in 0..3 {
        assert_eq!(manager.next(SOON)?, "WATCHDOG=1\n");
        assert!(last.elapsed() < PATIENCE, "silent for {:?}", last.elapsed());
        last = Instant::now();
    }

    agent.signal(Signal::SIGTERM)?;
    let end = poll::until_some("the end is told", SOON, || {
        manager.next(SOON).ok().filter(|message| message != "WATCHDOG=1\n")
    })?;
    assert!(end.starts_with("STOPPING=1\n"), "{end:?}");
    assert!(agent.wait(SOON)?.success());
    assert!(manager.next(Duration::from_millis(500)).is_err(), "nothing is said after the end");
    Ok(())
}

/// An agent that hangs says nothing any more, which is what the manager waits for.
#[test]
fn one_that_hangs_is_silent() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let manager = Manager::new()?;
    let (mut agent, _file) = manager.start(&lab, Some(PATIENCE))?;
    assert!(manager.next(SOON)?.starts_with("READY=1\n"));
    assert_eq!(manager.next(SOON)?, "WATCHDOG=1\n");
    agent.signal(Signal::SIGSTOP)?;
    poll::until("it has said all that it was about to say", SOON, || manager.next(PATIENCE * 2).is_err())?;
    agent.signal(Signal::SIGCONT)?;
    assert_eq!(manager.next(SOON)?, "WATCHDOG=1\n");
    assert!(agent.terminate(SOON)?.success());
    Ok(())
}

#[test]
fn without_a_watchdog_it_tells_only_the_start_and_the_end() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let manager = Manager::new()?;
    let (mut agent, _file) = manager.start(&lab, None)?;
    assert!(manager.next(SOON)?.starts_with("READY=1\n"));
    assert!(agent.terminate(SOON)?.success());
    assert!(manager.next(SOON)?.starts_with("STOPPING=1\n"));
    assert!(manager.next(Duration::from_millis(500)).is_err());
    Ok(())
}

/// Runs `systemd-analyze` on the unit, as it is for an interface; returns what it wrote.
fn analyze(arguments: &[&str]) -> Result<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd/kplb@.service");
    let text = fs::read_to_string(&unit).with_context(|| format!("read {}", unit.display()))?;
    // Neither the program nor its manual is installed here.
    let program = workspace_program("kplb")?;
    let text = text.replace("/usr/bin/kplb", &program.to_string_lossy());
    let text: String =
        text.lines().filter(|line| !line.starts_with("Documentation=")).map(|line| format!("{line}\n")).collect();
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("kplb@eth0.service");
    fs::write(&path, text)?;
    let output = Command::new("systemd-analyze").args(arguments).arg(&path).output().context("run systemd-analyze")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "systemd-analyze {arguments:?}: {}\n{said}", output.status);
    Ok(said)
}

#[test]
fn the_unit_is_understood() -> Result<()> {
    let said = analyze(&["verify", "--man=no"])?;
    assert_eq!(said, "");
    Ok(())
}

/// As little is allowed as will do: tenths of what systemd calls exposure, of 100.
#[test]
fn the_unit_allows_little() -> Result<()> {
    let said = analyze(&["security", "--offline=true", "--threshold=42"])?;
    println!("{}", said.lines().last().unwrap_or_default());
    assert!(said.contains("Overall exposure level"), "{said}");
    Ok(())
}
