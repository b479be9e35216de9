//! `kplb status`: again and again, on a terminal and in a pipe, for people and for programs.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result};
use kplb_tests::{
    agent,
    client::Connection,
    cluster::{self, Persistence},
    lab::{Host, Lab, LabOptions},
    poll,
    process::Process,
    pty::{Size, Terminal},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const WINDOW: Size = Size { rows: 50, columns: 180 };

fn status(arguments: &[&str]) -> Result<Command> {
    let mut command = agent::kplb()?;
    command.arg("status").args(arguments);
    Ok(command)
}

fn configuration(lab: &Lab) -> String {
    cluster::configuration(lab.nodes(), Persistence::Client)
}

fn pipe(node: &Host, line: &str) -> Result<[String; 2]> {
    let mut command = Command::new("sh");
    command.args(["-c", line]).arg(agent::kplb()?.get_program());
    let output = node.namespace().output(command)?;
    Ok([output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Blocks of text with a blank line between, and lines of JSON; no escape sequences; it goes on without an agent.
#[test]
fn watched_in_a_pipe() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let mut words = Process::spawn(node.namespace(), "kplb status", status(&["--watch", "0.1"])?)?;
    let mut lines = Process::spawn(node.namespace(), "kplb status", status(&["--watch", "0.1", "--json"])?)?;
    words.wait_for_line("no kplb agent is running", SOON)?;
    lines.wait_for_line("[]", SOON)?;
    let agent = cluster::start_agent(node, &configuration(&lab))?;
    words.wait_for_line(&format!("eth0  {}", cluster::title()), SOON)?;
    poll::until("two blocks", SOON, || words.output().matches(&format!("eth0  {}", cluster::title())).count() >= 2)?;
    poll::until("two lines", SOON, || lines.output().lines().filter(|line| *line != "[]").count() >= 2)?;
    agent.stop()?;
    for process in [&mut words, &mut lines] {
        process.signal(Signal::SIGINT)?;
        assert!(process.wait(SOON)?.success());
    }
    let text = words.output();
    assert!(!text.contains('\x1b'), "{text:?}");
    assert!(text.contains(&format!("\n\neth0  {}", cluster::title())), "{text}");
    for line in lines.output().lines() {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        assert!(value.as_array().is_some_and(|all| all.iter().all(|one| one["interface"] == "eth0")), "{line}");
    }
    Ok(())
}

/// In place, with colour unless somebody does not want any; the terminal is as it was afterwards.
#[test]
fn watched_on_a_terminal() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let _apiservers = cluster::start_apiservers(&lab)?;
    let agent = cluster::start_agent(node, &configuration(&lab))?;
    let mut terminal = Terminal::spawn(node.namespace(), status(&["--watch", "0.1"])?, WINDOW)?;
    let is_drawn =
        |screen: &str| screen.starts_with(&format!("eth0  {}", cluster::title())) && screen.contains("VERDICT");
    terminal.wait_for("the status", SOON, is_drawn)?;
    let draws = |terminal: &Terminal| terminal.bytes().windows(3).filter(|bytes| bytes == b"\x1b[H").count();
    poll::until("it to be drawn again", SOON, || draws(&terminal) >= 3)?;
    let screen = terminal.screen();
    assert_eq!(screen.matches(&format!("eth0  {}", cluster::title())).count(), 1, "{screen}");
    let has_colour = |terminal: &Terminal| String::from_utf8_lossy(&terminal.bytes()).contains("\x1b[32mactive\x1b[0m");
    assert!(has_colour(&terminal));
    terminal.press("\x03")?;
    assert!(terminal.wait(SOON)?.success());
    terminal.wait_until_restored(SOON)?;

    let mut command = status(&[])?;
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::spawn(node.namespace(), command, WINDOW)?;
    assert!(terminal.wait(SOON)?.success());
    terminal.wait_for("the status", SOON, |screen| screen.contains("active"))?;
    assert!(!terminal.bytes().contains(&0x1b));
    agent.stop()
}

/// Who reads may have seen enough: that is no error.
#[test]
fn readers_that_go() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let agent = cluster::start_agent(node, &configuration(&lab))?;
    for arguments in ["", "--json", "--all", "--watch 0.1", "--watch 0.1 --json"] {
        let [out, error] = pipe(node, &format!("\"$0\" status {arguments} | head -c 1"))?;
        assert_eq!((out.len(), error.as_str()), (1, ""), "{arguments}");
        // One that never reads.
        let [_, error] = pipe(node, &format!("\"$0\" status {arguments} | true"))?;
        assert_eq!(error, "", "{arguments}");
    }
    agent.stop()
}

/// What the agent has said is in the status, whatever it is told to log.
#[test]
fn recent_events() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let apiservers = cluster::start_apiservers(&lab)?;
    let file = cluster::write(&configuration(&lab))?;
    let path = file.path().to_string_lossy().into_owned();
    let agent = agent::Agent::spawn(node, ["--config", &path, "--log-level", "error"])?;
    let events = || -> Option<Vec<(String, String)>> {
        let status = agent.status().ok()?;
        let events = status[0]["events"].as_array()?;
        let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        Some(events.iter().map(|event| (word(event, "level"), word(event, "text"))).collect())
    };
    let has = |level: &str, words: &str| {
        events().is_some_and(|events| events.iter().any(|(found, text)| found == level && text.contains(words)))
    };
    poll::until("it to be ready", Duration::from_secs(20), || has("info", "ready: "))?;
    drop(apiservers);
    poll::until("the backend's end", SOON, || has("warn", "backend node1 of service tcp-v4: active -> down"))?;
    assert_eq!(agent.output(), "");
    agent.stop()
}

/// A data path that forwards on without an agent is shown as its maps have it, and it is said that nobody minds it.
#[test]
fn without_an_agent_the_maps_tell() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let mut agent = cluster::start_agent(node, &configuration(&lab))?;
    lab.client(1).namespace().block_on(async {
        let mut connections = Vec::new();
        for vip in cluster::https() {
            let mut connection = Connection::open(vip).await?;
            connection.get("/version").await?;
            connections.push(connection);
        }
        let with = agent.status()?[0].clone();
        agent.process().kill()?;
        let without = agent::status(node)?[0].clone();
        assert!(with["pid"].is_u64() && without["pid"].is_null(), "{without:#}");
        for field in ["interface", "mode", "node", "flow_limits"] {
            assert_eq!(with[field], without[field], "{field}");
        }
        assert!(without["verdicts"]["to-backend"].as_u64() >= with["verdicts"]["to-backend"].as_u64(), "{without:#}");
        let services = |status: &Value| {
            let mut services = status["services"].as_array().cloned().unwrap_or_default();
            services.sort_by_key(|service| (service["vip"].to_string(), service["protocol"].to_string()));
            services
        };
        for (with, without) in services(&with).iter().zip(&services(&without)) {
            for field in ["vip", "protocol", "persistence", "local_clients", "flows"] {
                assert_eq!(with[field], without[field], "{field}");
            }
            // The client may have acknowledged something meanwhile.
            for field in ["flows_opened", "packets_to_backend", "packets_to_client"] {
                let count = |status: &Value| status["traffic"][field].as_u64().unwrap_or_default();
                assert!(count(without) >= count(with), "{field}");
            }
            let name = format!(
                "{}/{}",
                with["vip"].as_str().unwrap_or_default(),
                with["protocol"].as_str().unwrap_or_default()
            );
            assert_eq!(without["name"], name);
            let backends = |service: &Value| service["backends"].as_array().cloned().unwrap_or_default();
            assert_eq!(backends(without).len(), 2);
            for (with, without) in backends(with).iter().zip(&backends(without)) {
                for field in ["address", "state", "location", "next_hop", "ring_share", "flows"] {
                    assert_eq!(with[field], without[field], "{field}");
                }
                assert_eq!(without["name"], without["address"]);
            }
        }
        let text = agent::run(node, ["status"])?;
        assert!(
            text.starts_with(&format!(
                "eth0  {}, no agent: nobody checks backends or holds the VIPs",
                cluster::title()
            )),
            "{text}"
        );
        anyhow::Ok(())
    })?;
    agent::run(node, ["detach", "eth0"])?;
    let [_, said] = pipe(node, "$0 status")?;
    assert!(said.contains("no kplb agent is running"), "{said}");
    Ok(())
}
