//! The agent's coming and going: what it leaves, and what it refuses, with which words.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use kplb::dataplane::{self, Mode, Side};
use kplb_tests::{
    agent::{self, Agent},
    apiserver::Apiserver,
    client::{self, Connection},
    cluster::{self, Persistence},
    hooks,
    lab::{Host, Lab, LabOptions},
    poll,
    process::Process,
};
use nix::{
    mount::{MsFlags, mount, umount},
    sys::signal::Signal,
};

const SOON: Duration = Duration::from_secs(5);

/// What the agent added is gone after a stop and after a kill with `kplb detach`, and it starts again each time.
#[test]
fn comes_and_goes_without_a_trace() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, host) = (lab.node(1), lab.client(1));
    let configuration = cluster::configuration(lab.nodes(), Persistence::Client);
    let serves = || -> Result<()> {
        for vip in cluster::https() {
            host.namespace().block_on(client::get(vip, "/version"))?;
        }
        Ok(())
    };
    for _ in 0..2 {
        let agent = cluster::start_agent(node, &configuration)?;
        serves()?;
        agent.stop()?;
        assert_eq!(traces(node)?, Vec::<String>::new());
    }

    // Whose connections go through it is told that they are over.
    let mut agent = cluster::start_agent(node, &configuration)?;
    host.namespace().block_on(async {
        let mut connection = Connection::open(cluster::https()[0]).await?;
        let mut watch = connection.watch(Duration::from_secs(3600)).await?;
        watch.next().await?;
        agent.process().terminate(SOON)?;
        let ended = tokio::time::timeout(SOON, watch.ended()).await;
        ended.with_context(|| format!("the watch on {} goes on; the agent wrote:\n{}", watch.node(), agent.output()))
    })?;

    // Killed, it leaves its programs, which go on.
    let mut agent = cluster::start_agent(node, &configuration)?;
    agent.process().kill()?;
    drop(agent);
    serves()?;
    agent::run(node, ["detach", "eth0"])?;
    assert_eq!(traces(node)?, Vec::<String>::new());

    // Killed and started again, it clears up by itself.
    let mut agent = cluster::start_agent(node, &configuration)?;
    agent.process().kill()?;
    drop(agent);
    let agent = cluster::start_agent(node, &configuration)?;
    serves()?;
    // And a running one is stopped by `detach`.
    agent::run(node, ["detach", "eth0"])?;
    assert_eq!(traces(node)?, Vec::<String>::new());
    drop(agent);
    Ok(())
}

/// The VIP is announced: who has it in his neighbour table with another address learns the new one without asking. It
/// is the only address of its prefix, so nothing takes it as a source, and it is put back when something removes it.
#[test]
fn announces_and_keeps_the_vip() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 1 })?;
    let (node, host) = (lab.node(1), lab.client(1));
    for vip in cluster::VIPS {
        host.namespace().ip(&format!("neighbour replace {vip} dev eth0 lladdr 02:00:00:00:09:09 nud stale"))?;
    }
    let agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Client))?;
    let show = |host: &Host, what: &str| -> Result<String> {
        let mut ip = Command::new("ip");
        ip.args([what, "show", "dev", "eth0"]);
        host.namespace().check_output(ip)
    };
    poll::until("the client knows who has the VIPs", SOON, || {
        show(host, "neighbour").is_ok_and(|table| {
            cluster::VIPS.iter().all(|vip| table.contains(&format!("{vip} lladdr {}", node.mac_text())))
        })
    })?;
    let addresses = show(node, "address")?;
    assert!(addresses.contains("198.18.0.100/32"), "{addresses}");
    assert!(addresses.contains("2001:2::100/128"), "{addresses}");
    let v6 = addresses.lines().find(|line| line.contains("2001:2::100/128")).context("no IPv6 VIP")?;
    assert!(v6.contains("deprecated"), "{v6}");

    node.namespace().ip("address delete 198.18.0.100/32 dev eth0\naddress delete 2001:2::100/128 dev eth0")?;
    poll::until("the VIPs are back", SOON, || {
        show(node, "address").is_ok_and(|table| table.contains("198.18.0.100/32") && table.contains("2001:2::100/128"))
    })?;
    agent.stop()
}

/// The first signal asks; who sends another does not want to wait for the rest.
#[test]
fn a_second_signal_ends_an_agent_at_once() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let node = lab.node(1);
    let mut agent = cluster::start_agent(node, &cluster::elected(lab.nodes(), ""))?;
    holds_the_vips(node)?;
    // A master waits for another to take over, and there is none.
    agent.process().signal(Signal::SIGTERM)?;
    agent.process().wait_for_line("SIGTERM: ending", SOON)?;
    agent.process().signal(Signal::SIGINT)?;
    let status = agent.process().wait(SOON)?;
    assert_eq!(status.code(), Some(130), "{status}; it wrote:\n{}", agent.output());
    agent.process().wait_for_line("SIGINT while ending", SOON)?;
    Ok(())
}

/// A program on a file system that hangs: the kernel is not done with starting it. Neither the agent nor its end waits.
#[test]
fn a_hook_that_cannot_be_read_holds_nothing_up() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let hook = "/run/hook";
    node.namespace().run(|| {
        fs::write(hook, "#!/bin/sh\n")?;
        fs::set_permissions(hook, PermissionsExt::from_mode(0o755))
    })?;
    // Who has a lease on a file (F_SETLEASE, F_WRLCK; fcntl(2)) is asked before it is opened, and does not answer here.
    let lease = "$SIG{IO} = 'IGNORE'; open(F, '<', $ARGV[0]) && fcntl(F, 1024, 1) or die $!; $| = 1; print qq(held\\n)";
    let mut hold = Command::new("perl");
    hold.args(["-we", &format!("{lease}; sleep"), hook]);
    let holder = Process::spawn(node.namespace(), "perl", hold)?;
    holder.wait_for_line("held", SOON)?;
    let settings = format!("notify = ['{hook}']\nnotify_timeout = '200ms'");
    let mut agent = cluster::start_agent(node, &cluster::elected(lab.nodes(), &settings))?;
    agent.process().wait_for_line("/run/hook backup did not start within 200ms", SOON)?;
    holds_the_vips(node)?;
    agent.stop()
}

/// Where the kernel would remove the node's own address as well, the VIP stays, and the agent says what to do.
#[test]
fn the_nodes_own_address_is_not_removed_with_a_vip() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let configuration = cluster::elected(lab.nodes(), "");
    let promote = |scope: &str, value: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{scope}/promote_secondaries");
        node.namespace().run(|| fs::write(&path, value)).context(path)
    };
    promote("all", "0")?;
    promote("eth0", "0")?;
    node.namespace().ip("address delete 198.18.0.11/16 dev eth0\n\
         address add 198.18.0.100/16 dev eth0\n\
         address add 198.18.0.11/16 dev eth0")?;
    let file = cluster::write(&configuration)?;
    refuses(node, &["attach", "eth0", "--config", &file.path().to_string_lossy()], "would take 198.18.0.11 away")?;
    assert!(node.has_address(node.ipv4().into())?, "the node's own address is gone");
    promote("eth0", "1")?;
    let agent = cluster::start_agent(node, &configuration)?;
    holds_the_vips(node)?;
    assert!(node.has_address(node.ipv4().into())?, "the node's own address is gone");
    agent.stop()
}

/// Waits until an agent that is elected is master.
fn holds_the_vips(node: &Host) -> Result<()> {
    poll::until("the agent to hold the VIPs", SOON, || {
        cluster::VIPS.iter().all(|vip| node.has_address(*vip).is_ok_and(|has| has))
    })
}

/// Starts an agent that is elected, and kills it once it is master.
fn kill_a_master(node: &Host, configuration: &str) -> Result<()> {
    let mut agent = cluster::start_agent(node, configuration)?;
    holds_the_vips(node)?;
    agent.process().kill()
}

/// The fence is the last to go: without it the node would answer for VIPs that another one has by now.
#[test]
fn the_vips_of_a_killed_agent_go_before_its_programs() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let configuration = cluster::elected(lab.nodes(), "");
    kill_a_master(node, &configuration)?;
    // Where something is mounted, no pin can be removed.
    let obstacle = format!("/sys/fs/bpf/kplb/v{}/eth0/maps/obstacle", kplb_common::abi::LAYOUT_VERSION);
    node.namespace().run(|| {
        fs::create_dir(&obstacle)?;
        mount(Some("none"), obstacle.as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .map_err(anyhow::Error::from)
    })?;
    refuses(node, &["detach", "eth0"], "obstacle")?;
    for vip in cluster::VIPS {
        assert!(!node.has_address(vip)?, "{vip} is still there");
    }
    node.namespace().run(|| umount(obstacle.as_str()))?;
    // Whoever has added one meanwhile is not kplb.
    node.namespace().ip("address add 198.18.0.100/32 dev eth0")?;
    agent::run(node, ["detach", "eth0"])?;
    assert_eq!(traces(node)?, ["198.18.0.100"]);
    Ok(())
}

/// A filter is pinned nowhere. An agent knows those of its kind, whatever else is lost.
#[test]
fn what_is_neither_pinned_nor_recorded_is_found() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let configuration = cluster::configuration(lab.nodes(), Persistence::Client);
    cluster::start_agent(node, &configuration)?.leave()?;
    node.namespace().run(|| ["/run/kplb", "/sys/fs/bpf/kplb"].iter().try_for_each(fs::remove_dir_all))?;
    // Of whom VIPs are, nothing else tells.
    node.namespace().ip("address delete 198.18.0.100/32 dev eth0\naddress delete 2001:2::100/128 dev eth0")?;
    let agent = cluster::start_agent(node, &configuration)?;
    for side in [Side::Ingress, Side::Egress] {
        poll::until("one program on each side", SOON, || programs(node, side).is_ok_and(|programs| programs == 1))?;
    }
    agent.stop()?;
    assert_eq!(traces(node)?, Vec::<String>::new());
    Ok(())
}

fn programs(node: &Host, side: Side) -> Result<usize> {
    Ok(match side {
        Side::Ingress => hooks::at_ingress(node)?.len(),
        Side::Egress => hooks::tc_programs(node, side)?.len(),
    })
}

/// Whoever polices what comes in has it. Filters at its egress would see what comes in.
#[test]
fn next_to_the_queueing_discipline_ingress_there_are_no_filters() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let discipline = |arguments: &str| {
        let mut tc = Command::new("tc");
        tc.args(["qdisc"]).args(arguments.split_whitespace());
        node.namespace().check_output(tc)
    };
    discipline("add dev eth0 ingress")?;
    let configuration = cluster::configuration(lab.nodes(), Persistence::Client);
    if !dataplane::has_tc_links() {
        let file = cluster::write(&configuration)?;
        refuses(
            node,
            &["attach", "eth0", "--config", &file.path().to_string_lossy()],
            "tc qdisc del dev eth0 ingress",
        )?;
        discipline("del dev eth0 ingress")?;
        discipline("add dev eth0 clsact")?;
    }
    cluster::start_agent(node, &configuration)?.stop()?;
    assert_eq!(traces(node)?, Vec::<String>::new());
    Ok(())
}

/// `kplb detach` leaves all as it is, the fence above all, and says what to do; an agent that starts clears up what it
/// knows, and works.
#[test]
fn a_record_that_cannot_be_read() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let node = lab.node(1);
    let configuration = cluster::elected(lab.nodes(), "");
    kill_a_master(node, &configuration)?;
    let other = cluster::start_agent(lab.node(2), &configuration)?;
    node.namespace().run(|| fs::write("/run/kplb/eth0.json", "{"))?;
    refuses(node, &["detach", "eth0"], "/run/kplb/eth0.json, in which an earlier agent recorded its VIPs")?;
    let left = traces(node)?;
    assert_eq!(left[..3], ["a program", "198.18.0.100", "2001:2::100"], "{left:?}");
    assert!(left[3].starts_with("/sys/fs/bpf/kplb/"), "{left:?}");

    let mut agent = cluster::start_agent(node, &configuration)?;
    agent.process().wait_for_line("read /run/kplb/eth0.json", SOON)?;
    poll::until("the VIPs to be gone, which another node has", SOON, || {
        cluster::VIPS.iter().all(|vip| node.has_address(*vip).is_ok_and(|has| !has))
    })?;
    other.stop()?;
    agent.stop()?;
    assert_eq!(traces(node)?, Vec::<String>::new());
    Ok(())
}

/// What an agent has assumed of such a record it does not forget when it fails.
#[test]
fn a_record_that_cannot_be_read_by_an_agent_that_fails() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let configuration = cluster::elected(lab.nodes(), "");
    kill_a_master(node, &configuration)?;
    node.namespace().run(|| fs::write("/run/kplb/eth0.json", "{"))?;
    // Where the link of another mode is to be pinned, there is something.
    let (mode, pin) = if cluster::mode().is_xdp() { (Mode::Tc, "tc-ingress") } else { (Mode::Generic, "xdp") };
    let obstacle = format!("/sys/fs/bpf/kplb/v{}/eth0/{pin}", kplb_common::abi::LAYOUT_VERSION);
    node.namespace().run(|| fs::create_dir(&obstacle))?;
    let file = cluster::write(&configuration)?;
    let path = file.path().to_string_lossy();
    refuses(node, &["attach", "eth0", "--config", &path, "--mode", mode.name()], "forwards on")?;
    node.namespace().run(|| fs::remove_dir(&obstacle))?;
    for vip in cluster::VIPS {
        assert!(node.has_address(vip)?, "{vip} is gone before the programs");
    }
    agent::run(node, ["detach", "eth0"])?;
    assert_eq!(traces(node)?, Vec::<String>::new());
    Ok(())
}

/// Whatever kplb may have left on a node.
fn traces(node: &Host) -> Result<Vec<String>> {
    let mut show = Command::new("ip");
    show.args(["-details", "address", "show", "dev", "eth0"]);
    let interface = node.namespace().check_output(show)?;
    let mut traces = Vec::new();
    if !hooks::at_ingress(node)?.is_empty() || !hooks::tc_programs(node, Side::Egress)?.is_empty() {
        traces.push("a program".to_owned());
    }
    traces.extend(cluster::VIPS.iter().filter(|vip| interface.contains(&format!(" {vip}/"))).map(ToString::to_string));
    node.namespace().run(|| {
        for directory in ["/sys/fs/bpf/kplb", "/run/kplb"] {
            if let Ok(entries) = fs::read_dir(directory) {
                traces.extend(entries.filter_map(Result::ok).map(|entry| entry.path().display().to_string()));
            }
        }
    });
    Ok(traces)
}

/// Starts an agent that cannot serve: it says why, fails, and leaves nothing behind.
fn refuses(node: &Host, arguments: &[&str], reason: &str) -> Result<()> {
    let mut command = agent::kplb()?;
    command.args(arguments);
    let output = node.namespace().output(command)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(stderr.contains(reason), "{arguments:?} said:\n{stderr}\nbut not {reason:?}");
    Ok(())
}

#[test]
fn what_cannot_be_served_is_refused_with_a_reason() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let vip = ["--vip", "198.18.0.100:6443", "--backend", "198.18.0.11:6443"];
    let attach = |interface| [["attach", interface].as_slice(), &vip].concat();

    refuses(node, &attach("eth9"), "eth9")?;
    refuses(node, &["attach", "eth0", "--vip", "198.18.0.100", "--backend", "198.18.0.11:6443"], "198.18.0.100")?;
    refuses(node, &["attach", "eth0", "--config", "/nonexistent.toml"], "/nonexistent.toml")?;
    refuses(node, &["attach", "eth0"], "/etc/kplb/kplb.toml")?;
    refuses(node, &["status"], "kplb attach")?;
    refuses(node, &["detach", "eth0"], "eth0")?;
    let wrong = cluster::write("[[service]]\nvip = \"198.18.0.100:6443\"\nbogus = 1\n")?;
    let wrong = wrong.path().to_string_lossy();
    refuses(node, &["check", &wrong], ":3:")?;
    refuses(node, &["attach", "eth0", "--config", &wrong], "bogus")?;
    assert_eq!(traces(node)?, Vec::<String>::new());

    // A second one on the same interface.
    let agent = Agent::start(node, vip)?;
    refuses(node, &attach("eth0"), "already")?;
    agent.stop()?;
    assert_eq!(traces(node)?, Vec::<String>::new());
    Ok(())
}

/// Also without the one alone that is needed first when an agent follows another.
#[test]
fn without_privileges_it_says_which_it_needs() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    for (missing, named) in [("-all", "CAP_NET_ADMIN"), ("-sys_admin", "CAP_SYS_ADMIN")] {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", missing, "--inh-caps", missing]).arg(agent::kplb()?.get_program()).args([
            "attach",
            "eth0",
            "--vip",
            "198.18.0.100:6443",
            "--backend",
            "198.18.0.11:6443",
        ]);
        let output = lab.node(1).namespace().output(command)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(stderr.contains(named), "{stderr}");
        assert_eq!(traces(lab.node(1))?, Vec::<String>::new());
    }
    Ok(())
}

/// As interfaces of VLANs have: a BPF file system does not take such names.
#[test]
fn an_interface_can_have_a_point_in_its_name() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let address = node.ipv4();
    node.namespace().ip(&format!(
        "link set eth0 down\nlink set eth0 name eth0.42\nlink set eth0.42 up\naddress replace {address}/16 dev eth0.42\n"
    ))?;
    let file = cluster::write(&cluster::configuration([node], Persistence::Client))?;
    let path = file.path().to_str().context("a path in UTF-8")?;
    let agent = Agent::spawn_on(node, "eth0.42", ["--config", path])?;
    agent.wait_until_ready()?;
    assert_eq!(agent.status()?[0]["interface"], "eth0.42");
    agent.stop()
}

/// Another's XDP program is not replaced; without XDP, kplb serves beside it.
#[test]
fn the_xdp_program_of_another_is_left_alone() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let index = node.namespace().run(|| nix::net::if_::if_nametoindex("eth0"))?;
    let mut other = aya::Ebpf::load(dataplane::FLOOR_OBJECT)?;
    let program: &mut aya::programs::Xdp = other.program_mut("floor_pass").context("no floor_pass")?.try_into()?;
    program.load()?;
    node.namespace().run(|| program.attach_to_if_index(index, aya::programs::xdp::XdpMode::Driver))?;
    let flags = ["--vip", "198.18.0.100:6443", "--backend", "198.18.0.11:6443"];
    for mode in ["native", "generic"] {
        refuses(node, &[&["attach", "eth0", "--mode", mode], &flags[..]].concat(), "XDP")?;
        // The only trace is the other's program.
        assert_eq!(traces(node)?, ["a program"]);
    }
    let agent = Agent::start(node, flags)?;
    let status = &agent.status()?[0];
    assert_eq!(status["mode"], "tc");
    assert!(status["mode_reason"].as_str().is_some_and(|reason| reason.contains("an XDP program")), "{status}");
    agent.stop()
}

/// Several nodes can live on one machine: the run directory and the pin root can be set, and bpffs is mounted.
#[test]
fn run_directory_and_pin_root_can_be_set() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 1 })?;
    let node = lab.node(1);
    let _apiserver = Apiserver::start(node)?;
    // A temporary file system in the node's own mounts, so that nothing is left of what is mounted in it.
    let base = "/run/elsewhere";
    let (run, pins) = (format!("{base}/run"), format!("{base}/bpf"));
    node.namespace().run(|| fs::create_dir_all(base))?;
    let kplb = |arguments: &[&str]| -> Result<Command> {
        let mut command = agent::kplb()?;
        command.env("KPLB_RUN_DIR", &run).env("KPLB_PIN_ROOT", &pins).args(arguments);
        Ok(command)
    };
    let attach = kplb(&["attach", "eth0", "--vip", "198.18.0.100:6443", "--backend", "198.18.0.11:6443"])?;
    let mut process = Process::spawn(node.namespace(), "kplb attach", attach)?;
    process.wait_for_line("ready", Duration::from_secs(20))?;
    let answer = lab.client(1).namespace().block_on(client::get(cluster::https()[0], "/version"))?;
    assert_eq!(answer.node, "node1");
    let status: serde_json::Value =
        serde_json::from_str(&node.namespace().check_output(kplb(&["status", "--json"])?)?)?;
    assert_eq!(status[0]["services"][0]["vip"], "198.18.0.100:6443");
    let n_links = node.namespace().run(|| -> Result<usize> {
        let layout = format!("{pins}/v{}/eth0", kplb_common::abi::LAYOUT_VERSION);
        Ok(fs::read_dir(&layout).with_context(|| layout)?.count())
    })?;
    assert!(n_links >= 2, "{n_links} entries in the pin directory");
    assert!(process.terminate(Duration::from_secs(10))?.success());
    Ok(())
}
