//! Another configuration while the agent runs: it is followed as a whole or not at all, and who talks notices nothing.

use std::{
    fs,
    net::IpAddr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    agent::{self, Agent},
    client::{self, Connection},
    cluster::{self, Persistence},
    conversation::{Conversations, Manner},
    lab::{Host, Lab, LabOptions},
    poll,
    process::{Process, workspace_program},
};
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

const SOON: Duration = Duration::from_secs(10);

/// An agent, and the file that it reads.
struct Reader<'a> {
    agent: Agent<'a>,
    file: NamedTempFile,
}

impl<'a> Reader<'a> {
    fn start(host: &'a Host, configuration: &str) -> Result<Self> {
        let file = cluster::write(configuration)?;
        let path = file.path().to_str().context("a path in UTF-8")?;
        let agent = Agent::start(host, ["--config", path, "--mode", cluster::mode().name()])?;
        Ok(Self { agent, file })
    }

    /// Changes the file and has the agent follow it; what that says.
    fn follow(&self, configuration: &str) -> Result<String> {
        fs::write(self.file.path(), configuration)?;
        agent::run(self.agent.host(), ["reload"])
    }

    /// Changes the file and has the agent refuse it; what that says.
    fn refuse(&self, configuration: &str) -> Result<String> {
        fs::write(self.file.path(), configuration)?;
        let mut command = agent::kplb()?;
        command.args(["reload", "eth0"]);
        let output = self.agent.host().namespace().output(command)?;
        ensure!(output.status.code() == Some(1), "{}", output.status);
        Ok(String::from_utf8(output.stderr)?)
    }

    fn backends(&self, service: usize) -> Result<Vec<serde_json::Value>> {
        let status = self.agent.status()?;
        status[0]["services"][service]["backends"].as_array().cloned().context("a service has backends")
    }
}

/// Which node answers a new connection.
async fn served_by(vip: std::net::SocketAddr) -> Result<String> {
    Ok(Connection::open(vip).await?.get("/version").await?.node)
}

/// A backend is removed, and keeps the flow that it has until that ends; another one is added; a third is not touched.
#[test]
fn backends_come_and_go() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 3, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let configuration = |numbers: &[usize]| {
        cluster::configuration(numbers.iter().map(|number| lab.node(*number)), Persistence::Connection)
    };
    let reader = Reader::start(lab.node(1), &configuration(&[2]))?;
    let vip = cluster::https()[0];
    lab.client(1).namespace().block_on(async {
        let mut old = Connection::open(vip).await?;
        ensure!(old.get("/version").await?.node == "node2", "the only one");
        let said = reader.follow(&configuration(&[3]))?;
        ensure!(said.contains("eth0: backend node3 (198.18.0.13:6443) of service tcp-v4 is new"), "{said}");
        ensure!(
            said.contains("eth0: backend node2 (198.18.0.12:6443) of service tcp-v4 is removed, and drains"),
            "{said}"
        );
        poll::until("node3 to be active", SOON, || {
            reader.backends(0).is_ok_and(|backends| backends[0]["state"] == "active")
        })?;
        ensure!(old.get("/version").await?.node == "node2", "its flow goes on");
        for _ in 0..20 {
            ensure!(served_by(vip).await? == "node3", "new ones go to the new one");
        }
        let backends = reader.backends(0)?;
        ensure!(backends[1]["name"] == "node2" && backends[1]["by_hand"] == "removed", "{backends:?}");
        ensure!(backends[1]["state"] == "draining", "{backends:?}");
        let mut command = agent::kplb()?;
        command.args(["backend", "resume", "node2"]);
        let output = lab.node(1).namespace().output(command)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("no longer in the configuration"), "{said}");

        // It comes back, and goes again.
        reader.follow(&configuration(&[2, 3]))?;
        ensure!(reader.backends(0)?.iter().all(|backend| backend["by_hand"].is_null()), "{:?}", reader.backends(0)?);
        ensure!(old.get("/version").await?.node == "node2", "its flow goes on");
        reader.follow(&configuration(&[3]))?;
        old.close().await?;
        poll::until("node2 to be gone, when its closed flows are forgotten", 3 * SOON, || {
            reader.backends(0).is_ok_and(|backends| backends.len() == 1)
        })?;
        anyhow::Ok(())
    })?;
    ensure!(reader.agent.status()?[0]["generation"] == 4, "one start, and three configurations");
    reader.agent.stop()
}

/// A socket on the node that was led to a backend keeps it as well.
#[test]
fn a_client_on_the_node_keeps_its_backend() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let configuration = |number: usize| cluster::configuration([lab.node(number)], Persistence::Client);
    let reader = Reader::start(node, &configuration(2))?;
    let mut command = Command::new(workspace_program("local-client")?);
    command.args(["tcp", &cluster::https()[0].to_string()]);
    let client = Process::spawn(node.namespace(), "local-client", command)?;
    client.wait_for_line("node node2", SOON)?;
    reader.follow(&configuration(1))?;
    let leaver = || -> Result<serde_json::Value> { Ok(reader.backends(0)?.get(1).cloned().unwrap_or_default()) };
    // It was looked for three times by then.
    poll::until("it to drain for a while", SOON, || {
        leaver().is_ok_and(|leaver| leaver["state_seconds"].as_f64().is_some_and(|seconds| seconds > 3.5))
    })?;
    ensure!(leaver()?["by_hand"] == "removed", "{}", leaver()?);
    ensure!(client.output().lines().count() == 1, "{}", client.output());
    drop(client);
    poll::until("it to be gone", 3 * SOON, || leaver().is_ok_and(|leaver| leaver.is_null()))?;
    reader.agent.stop()
}

/// Clients on the node are led again after they were not, also by programs that an earlier agent had attached.
#[test]
fn clients_on_the_node_are_led_again() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let on = cluster::configuration([lab.node(2)], Persistence::Client);
    let off = on.replace("persistence = ", "local_clients = \"off\"\npersistence = ");
    Reader::start(node, &on)?.agent.leave()?;
    let reader = Reader::start(node, &off)?;
    ensure!(reader.agent.status()?[0]["services"][0]["local_clients"] == "off", "they are led");
    reader.follow(&on)?;
    ensure!(reader.agent.status()?[0]["services"][0]["local_clients"] == "prefer-local", "they are not led");
    let mut command = Command::new(workspace_program("local-client")?);
    command.args(["tcp", &cluster::https()[0].to_string()]);
    let client = Process::spawn(node.namespace(), "local-client", command)?;
    client.wait_for_line("node node2", SOON)?;
    reader.agent.stop()
}

/// Weights, persistence and the order of services change; flows and counters stay where they are.
#[test]
fn what_goes_on_is_not_touched() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let before = cluster::configuration(lab.nodes(), Persistence::Client);
    let mut reader = Reader::start(lab.node(1), &before)?;
    let topics = [
        (Manner::Watch, cluster::https()[0]),
        (Manner::Requests, cluster::https()[1]),
        (Manner::Datagrams, cluster::udp()[0]),
    ];
    let talks = Conversations::start(lab.client(1).namespace(), &topics)?;
    let opened = |reader: &Reader<'_>, name: &str| -> Result<u64> {
        let status = reader.agent.status()?;
        let services = status[0]["services"].as_array().context("there are services")?;
        let service = services.iter().find(|service| service["name"] == name).context("there is this service")?;
        service["traffic"]["flows_opened"].as_u64().context("flows were opened")
    };
    let counted = opened(&reader, "tcp-v4")?;
    // The last service first: places change, and numbers in the maps do not.
    let mut services: Vec<&str> = before.split_inclusive("[[service]]\n").collect();
    let last = services.pop().context("there are services")?;
    let head = services.remove(0);
    let mut after = format!("{head}{last}\n[[service]]\n{}", services.concat());
    after.truncate(after.rfind("[[service]]").context("there are services")?);
    let after = after.replace("\"client\"", "\"connection\"");
    let said = reader.follow(&after)?;
    ensure!(said.contains("service tcp-v4 has other settings"), "{said}");
    ensure!(reader.agent.status()?[0]["services"][0]["name"] == "udp-v6", "{said}");
    ensure!(opened(&reader, "tcp-v4")? == counted, "a counter has moved");
    // By signal, and nothing differs.
    let asked = Instant::now();
    reader.agent.process().signal(Signal::SIGHUP)?;
    reader.agent.process().wait_for_line_after(asked, "reloaded: nothing has changed", SOON)?;
    let accounts = talks.stop_after(Instant::now(), Duration::from_millis(500))?;
    for account in &accounts {
        let silence = account.longest_silence_after(asked);
        ensure!(silence < Duration::from_millis(500), "{account}: {silence:.1?} without a word");
    }
    reader.agent.stop()
}

/// Whatever is wrong is said, and nothing changes.
#[test]
fn what_is_wrong_changes_nothing() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let good = cluster::configuration(lab.nodes(), Persistence::Client);
    let reader = Reader::start(lab.node(1), &good)?;
    let shape = |status: serde_json::Value| {
        (status[0]["generation"].clone(), status[0]["services"].as_array().map(Vec::len), status[0]["node"].clone())
    };
    let before = shape(reader.agent.status()?);
    let with = |table: &str| format!("{table}\n{good}");
    for (configuration, reason) in [
        ("[[service]]\nbogus = 1".to_owned(), "bogus"),
        (String::new(), "service"),
        (with("[node]\nnat_ports = '30000-40000'"), "net.ipv4.ip_local_port_range"),
        (with("[node]\nnat_ports = '20000-20999'"), "`nat_ports` in table [node]"),
        (with("[node]\nvlan = 42"), "`vlan` in table [node] cannot change while the agent runs"),
        (with("[flows]\nmax = 1024"), "the size of the flow tables"),
        (cluster::elected(lab.nodes(), ""), "whether there is a table [vrrp]"),
        (with("[metrics]"), "table [metrics] cannot change"),
        (
            cluster::configuration([lab.node(2)], Persistence::Client).replace("198.18.0.100", "198.18.0.11"),
            "VIP 198.18.0.11 is the interface's own address",
        ),
        (
            good.replace(
                "protocol = \"tcp\"",
                "protocol = \"tcp\"\ncheck = { type = \"https\", ca_file = \"/nonexistent\" }",
            ),
            "/nonexistent",
        ),
    ] {
        let said = reader.refuse(&configuration).with_context(|| format!("instead of {reason:?}"))?;
        ensure!(said.contains(reason), "said:\n{said}\nbut not {reason:?}");
        assert_eq!(shape(reader.agent.status()?), before, "after {reason:?}");
    }
    fs::remove_file(reader.file.path())?;
    let mut command = agent::kplb()?;
    command.args(["reload"]);
    let output = lab.node(1).namespace().output(command)?;
    ensure!(!output.status.success(), "there is no file");
    for vip in cluster::https() {
        lab.client(1).namespace().block_on(client::get(vip, "/version"))?;
    }
    reader.agent.stop()
}

/// Flags are no file.
#[test]
fn flags_cannot_be_read_again() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let agent = Agent::start(node, ["--vip", "198.18.0.100:6443", "--backend", "198.18.0.11:6443"])?;
    let mut command = agent::kplb()?;
    command.args(["reload"]);
    let output = node.namespace().output(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("flags were given"), "{said}");
    agent.stop()
}

/// A service comes with a VIP of its own, and goes with it: alone, and as an elected master, which stays master.
fn vips_come_and_go(configuration: impl Fn(&str) -> String) -> Result<()> {
    const OTHER: [u8; 4] = [198, 18, 0, 150];
    let lab = Lab::new(LabOptions { nodes: 1, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, client) = (lab.node(1), lab.client(1).namespace());
    let services = cluster::configuration(lab.nodes(), Persistence::Client);
    let (one, two) = (configuration(&services), {
        let more = "[[service]]\nname = \"other\"\nvip = \"198.18.0.150:6443\"\n\
                    backend = [{ address = \"198.18.0.11:6443\" }]\n";
        configuration(&format!("{services}{more}"))
    });
    let reader = Reader::start(node, &one)?;
    let has = |address: IpAddr| node.has_address(address).unwrap_or_default();
    poll::until("the VIPs", SOON, || cluster::VIPS.iter().all(|vip| has(*vip)))?;
    let talks = Conversations::start(client, &[(Manner::Watch, cluster::https()[0])])?;
    let said = reader.follow(&two)?;
    ensure!(said.contains("service other (198.18.0.150:6443/tcp) is new"), "{said}");
    poll::until("the new VIP", SOON, || has(OTHER.into()))?;
    poll::until_ok("the new service", SOON, || {
        client.block_on(async { served_by((OTHER, 6443).into()).await.map(drop) })
    })
    .with_context(|| format!("{:#}\n{}", reader.agent.status().unwrap_or_default()[0], reader.agent.output()))?;
    ensure!(cluster::VIPS.iter().all(|vip| has(*vip)), "the others are gone");
    let said = reader.follow(&one)?;
    ensure!(said.contains("service other (198.18.0.150:6443/tcp) is removed"), "{said}");
    poll::until("the VIP to be gone", SOON, || !has(OTHER.into()))?;
    ensure!(cluster::VIPS.iter().all(|vip| has(*vip)), "the others are gone, too");
    talks.stop_after(Instant::now(), Duration::from_millis(200))?;
    reader.agent.stop()
}

#[test]
fn vips_of_a_node_alone_come_and_go() -> Result<()> {
    vips_come_and_go(str::to_owned)
}

#[test]
fn vips_of_a_master_come_and_go() -> Result<()> {
    vips_come_and_go(|services| format!("[vrrp]\n{services}"))
}

/// The election goes by other settings, and nobody is master but who was.
#[test]
fn an_election_has_other_settings() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let readers = [1, 2]
        .into_iter()
        .map(|number| Reader::start(lab.node(number), &cluster::elected(lab.nodes(), "")))
        .collect::<Result<Vec<_>>>()?;
    let role = |number: usize| -> Result<serde_json::Value> {
        Ok(readers[number].agent.status()?[0]["election"]["routers"][0].clone())
    };
    let is_settled = || role(0).is_ok_and(|router| router["state"] == "master");
    poll::until("node1 to be master", SOON, is_settled)?;
    poll::until("node2 to hear it", SOON, || role(1).is_ok_and(|router| router["master"] == "198.18.0.11"))?;
    let talks = Conversations::start(lab.client(1).namespace(), &[(Manner::Watch, cluster::https()[0])])?;
    let other = cluster::elected(lab.nodes(), "interval = '400ms'\npriority = 77");
    let said = readers[0].follow(&other)?;
    ensure!(said.contains("table [vrrp] has other settings"), "{said}");
    poll::until("node1 to be master with another priority", SOON, || {
        role(0).is_ok_and(|router| router["state"] == "master" && router["priority"] == 77)
    })?;
    ensure!(role(1)?["state"] == "backup" && role(1)?["transitions"] == 1, "{}", role(1)?);
    talks.stop_after(Instant::now(), Duration::from_millis(200))?;
    readers.into_iter().try_for_each(|reader| reader.agent.stop())
}
