//! `kplb doctor` on nodes with nothing wrong, and with one thing wrong each.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use kplb_tests::{
    agent,
    cluster::{self, VIPS},
    keepalived::{Keepalived, Options},
    lab::{Host, Lab, LabOptions},
    process::Process,
};
use nix::mount::{MsFlags, mount};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

/// What it said, and whether it was content.
struct Visit {
    is_fit: bool,
    report: Value,
}

impl Visit {
    fn to(node: &Host, configuration: &str, arguments: &[&str]) -> Result<Self> {
        let file = cluster::write(configuration)?;
        let mut command = agent::kplb()?;
        command.args(["doctor", "--json", "--config"]).arg(file.path()).args(arguments);
        let output = node.namespace().output(command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_str(&text).with_context(|| format!("it wrote:\n{text}\nand:\n{stderr}"))?;
        Ok(Self { is_fit: output.status.success(), report })
    }

    /// What was said at this level: topics and words.
    fn said(&self, level: &str) -> Vec<(&str, &str)> {
        let findings = self.report["findings"].as_array().into_iter().flatten();
        let of_level = findings.filter(|finding| finding["level"] == level);
        of_level.map(|finding| (text(&finding["topic"]), text(&finding["what"]))).collect()
    }

    /// Makes sure that there is just this error.
    fn has_only(&self, topic: &str, words: &str) {
        let errors = self.said("error");
        assert!(
            matches!(errors.as_slice(), [(found, what)] if *found == topic && what.contains(words)),
            "not only {topic} with {words:?}: {errors:#?}"
        );
        assert!(!self.is_fit);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Before the agent is started, while it runs, and after it was killed.
#[test]
fn a_node_with_nothing_wrong() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, configuration) = (lab.node(1), cluster::elected(lab.nodes(), ""));
    let visit = Visit::to(node, &configuration, &[])?;
    assert_eq!((visit.said("error"), visit.said("warning")), (vec![], vec![]));
    assert!(visit.is_fit);
    // It has found the interface by the VIPs' network.
    assert_eq!(visit.report["interface"], "eth0");
    let good = visit.said("ok");
    for (topic, words) in [
        ("programs", "the kernel takes them"),
        ("local-clients", "led to backends"),
        ("mode", "TC ingress, as a veth copies each packet"),
        ("nat-ports", "10000-32767"),
        ("router-id", "100 is used by no stranger"),
        ("vip-owners", "no other host"),
        ("peers", "198.18.0.12, 2001:2::12"),
        ("backends", "tcp-v4/node1 198.18.0.11:6443: L7OK"),
        ("backends", "tcp-v6/node2 [2001:2::12]:6443: L7OK"),
        ("failover", "replaced by this node (priority 130)"),
    ] {
        assert!(
            good.iter().any(|(found, what)| *found == topic && what.contains(words)),
            "{topic}: {words}: {good:#?}"
        );
    }

    let mut agent = cluster::start_agent(node, &configuration)?;
    let visit = Visit::to(node, &configuration, &["eth0"])?;
    assert_eq!((visit.said("error"), visit.said("warning")), (vec![], vec![]));
    assert!(visit.said("ok").iter().any(|(topic, what)| *topic == "programs" && what.contains(cluster::title())));
    // The other node hears this one's adverts, and understands them.
    let other = Visit::to(lab.node(2), &configuration, &[])?;
    assert_eq!((other.said("error"), other.said("warning")), (vec![], vec![]));
    let master = |topic: &&str, what: &&str| *topic == "election" && what.starts_with("198.18.0.11 is master");
    assert!(other.said("ok").iter().any(|(topic, what)| master(topic, what)), "{:#?}", other.said("ok"));

    agent.process().kill()?;
    let visit = Visit::to(node, &configuration, &["eth0", "--listen", "0"])?;
    assert_eq!(visit.said("error"), []);
    let warnings = visit.said("warning");
    assert!(warnings.iter().any(|(topic, what)| *topic == "programs" && what.contains("was killed")), "{warnings:#?}");
    assert!(warnings.iter().any(|(topic, what)| *topic == "vips" && what.contains("left by")), "{warnings:#?}");
    drop(agent);
    agent::run(node, ["detach", "eth0"])?;
    Ok(())
}

/// People see the same, aligned and without escape sequences where nobody looks.
#[test]
fn what_it_says_to_people() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let file = cluster::write(&cluster::configuration(lab.nodes(), cluster::Persistence::Client))?;
    let mut command = agent::kplb()?;
    command.args(["doctor", "eth0", "--config"]).arg(file.path());
    let output = lab.node(1).namespace().output(command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let line = "warning  backends         tcp-v4/node1 198.18.0.11:6443: L4CON (connection refused) in ";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("                          -> nothing to do before `kubeadm init`"), "{text}");
    assert!(text.ends_with("\neth0 is fit for kplb: 0 errors, 2 warnings, 2 notes\n"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");

    // Who reads may have seen enough.
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" doctor eth0 --config \"$1\" --listen 0 | head -1"]);
    command.arg(agent::kplb()?.get_program()).arg(file.path());
    let output = lab.node(1).namespace().output(command)?;
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    Ok(())
}

/// Another cluster's keepalived with the same router id, by multicast.
#[test]
fn a_stranger_with_the_same_router_id() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 3, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let configuration = cluster::elected(&lab.nodes()[..2], "");
    let other: std::net::IpAddr = "198.18.0.200".parse()?;
    let options = Options { router_id: 100, ..Options::new(150, [other]) };
    let keepalived = Keepalived::start(lab.node(3), &options)?;
    keepalived.wait_until_holds(other, Duration::from_secs(15))?;
    let visit = Visit::to(lab.node(1), &configuration, &["eth0"])?;
    visit.has_only("router-id", "198.18.0.13 sends adverts with router id 100 for 198.18.0.200 (priority 150)");
    let advice =
        visit.report["findings"].as_array().into_iter().flatten().find_map(|finding| finding["advice"].as_str());
    assert!(advice.is_some_and(|advice| advice.contains("virtual_router_id")), "{advice:?}");
    // On its own node it is seen as a process, too.
    let visit = Visit::to(lab.node(3), &configuration, &["eth0", "--listen", "0"])?;
    let errors = visit.said("error");
    assert!(
        errors.iter().any(|(topic, what)| *topic == "keepalived" && what.contains("virtual_router_id 100")),
        "{errors:#?}"
    );
    keepalived.stop()?;
    Ok(())
}

/// A kubelet that has the VIP for its node's address: on its command line, and in the files that it will be started with.
#[test]
fn a_vip_that_a_kubelet_takes_for_its_own() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, configuration) = (lab.node(1), cluster::elected(lab.nodes(), ""));
    // The kernel names a process of a script by the script.
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("kubelet");
    fs::write(&program, "#!/usr/bin/perl\n$| = 1; print \"runs\\n\"; sleep;\n")?;
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut kubelet = Command::new(&program);
    kubelet.arg(format!("--node-ip={}", VIPS[0]));
    let mut kubelet = Process::spawn(node.namespace(), "kubelet", kubelet)?;
    kubelet.wait_for_line("runs", SOON)?;
    let visit = Visit::to(node, &configuration, &["eth0", "--listen", "0"])?;
    visit.has_only("kubelet", &format!("kubelet (pid {}): `--node-ip` is the VIP 198.18.0.100", kubelet.pid()));
    kubelet.kill()?;

    node.namespace().run(|| -> Result<()> {
        const NOTHING: Option<&str> = None;
        mount(Some("tmpfs"), "/etc/default", Some("tmpfs"), MsFlags::empty(), NOTHING)?;
        fs::write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\"--v=2 --node-ip=2001:2::100\"\n")?;
        Ok(())
    })?;
    let visit = Visit::to(node, &configuration, &["eth0", "--listen", "0"])?;
    visit.has_only("kubelet", "/etc/default/kubelet: `--node-ip` is the VIP 2001:2::100");
    Ok(())
}

/// What the agent would refuse at its start, and what it would not notice.
#[test]
fn what_is_wrong_with_a_node() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, configuration) = (lab.node(1), cluster::elected(lab.nodes(), ""));
    let visit = || Visit::to(node, &configuration, &["eth0", "--listen", "0"]);
    let set = |name: &str, value: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        node.namespace().run(|| fs::write(&path, value)).context(path)
    };

    set("ip_local_port_range", "20000 60999")?;
    visit()?.has_only("nat-ports", "10000-32767 overlap");
    // The kernel gives no connection a port that is reserved.
    set("ip_local_reserved_ports", "20000-32767")?;
    assert_eq!(visit()?.said("error"), []);
    cluster::start_agent(node, &configuration)?.stop()?;
    set("ip_local_port_range", "32768 60999")?;

    node.namespace().ip("address add 198.18.0.100/16 dev eth0")?;
    visit()?.has_only("vips", "198.18.0.100 is on eth0 as an address of its network (/16)");
    node.namespace().ip("address delete 198.18.0.100/16 dev eth0\naddress add 198.18.0.100/32 dev eth0")?;
    visit()?.has_only("vips", "198.18.0.100 is on eth0, and no kplb runs");
    node.namespace().ip("address delete 198.18.0.100/32 dev eth0")?;

    let mut other = aya::Ebpf::load(kplb::dataplane::FLOOR_OBJECT)?;
    let program: &mut aya::programs::Xdp = other.program_mut("floor_pass").context("no floor_pass")?.try_into()?;
    program.load()?;
    let index = node.namespace().run(|| nix::net::if_::if_nametoindex("eth0"))?;
    let attach = || program.attach_to_if_index(index, aya::programs::xdp::XdpMode::Driver);
    let attached = node.namespace().run(attach)?;
    let beside = visit()?;
    assert_eq!(beside.said("error"), []);
    let notes = beside.said("note");
    assert!(notes.iter().any(|(topic, what)| *topic == "programs" && what.contains("an XDP program")), "{notes:?}");
    program.detach(attached)?;

    let trunk = format!("[node]\nvlan = 42\n{configuration}");
    Visit::to(node, &trunk, &["eth0", "--listen", "0"])?.has_only("vlan", "no interface for VLAN 42");
    Visit::to(node, "[[service]]\nbogus = 1\n", &["eth0"])?.has_only("configuration", "bogus");
    Visit::to(node, &configuration, &["eth9"])?.has_only("interface", "no interface eth9");
    Ok(())
}
