//! The VIPs float: which node holds them, and when they move.

use std::{
    net::{IpAddr, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb::announce::Announcer;
use kplb_common::net::Mac;
use kplb_tests::{
    agent::{self, Agent},
    apiserver::Apiserver,
    client::{self, Connection},
    cluster,
    lab::{Host, Lab, LabOptions, LinkState},
    poll,
};
use nix::{errno::Errno, sys::signal::Signal};

const SOON: Duration = Duration::from_secs(10);

/// Three nodes that all run kplb with the same configuration.
struct Stage {
    lab: Lab,
}

impl Stage {
    fn new() -> Result<Self> {
        Ok(Self { lab: Lab::new(LabOptions { nodes: 3, clients: 1 })? })
    }

    fn configuration(&self, settings: &str) -> String {
        cluster::elected(self.lab.nodes(), settings)
    }

    fn attach(&self, node: usize, settings: &str) -> Result<Agent<'_>> {
        cluster::start_agent(self.lab.node(node), &self.configuration(settings))
    }

    fn attach_all(&self, settings: &str) -> Result<Vec<Agent<'_>>> {
        (1..=3).map(|node| self.attach(node, settings)).collect()
    }

    /// Waits until this node, counted from 1, has all VIPs and the others have none.
    fn holder_is(&self, node: usize) -> Result<()> {
        poll::until(&format!("node{node} to hold the VIPs alone"), SOON, || {
            (1..=3).all(|number| {
                vips_of(self.lab.node(number)).is_ok_and(|n| n == if number == node { cluster::VIPS.len() } else { 0 })
            })
        })
    }

    /// Waits until this node, counted from 1, has all VIPs, whoever else has them.
    fn is_held_by(&self, node: usize) -> Result<()> {
        poll::until(&format!("node{node} to hold the VIPs"), SOON, || {
            vips_of(self.lab.node(node)).is_ok_and(|n| n == cluster::VIPS.len())
        })
    }

    /// A client is served at each VIP.
    fn serves(&self) -> Result<()> {
        for vip in cluster::https() {
            self.lab.client(1).namespace().block_on(client::get(vip, "/version"))?;
        }
        Ok(())
    }
}

/// How many VIPs are on a node's interface.
fn vips_of(host: &Host) -> Result<usize> {
    let mut show = std::process::Command::new("ip");
    show.args(["address", "show", "dev", "eth0"]);
    let text = host.namespace().check_output(show)?;
    Ok(cluster::VIPS.iter().filter(|vip| text.contains(&format!(" {vip}/"))).count())
}

/// What a host knows of where an address is.
fn neighbour(host: &Host, address: IpAddr) -> Result<String> {
    let mut show = std::process::Command::new("ip");
    show.args(["neighbour", "show", &address.to_string(), "dev", "eth0"]);
    host.namespace().check_output(show)
}

/// What the agent says of its virtual routers, IPv4 and IPv6.
fn routers(agent: &Agent<'_>) -> Result<[serde_json::Value; 2]> {
    let status = agent.status()?;
    let routers = &status[0]["election"]["routers"];
    Ok([routers[0].clone(), routers[1].clone()])
}

#[test]
fn one_of_three_holds_the_vips_and_the_others_follow_it() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    stage.serves()?;
    for (number, agent) in (1..).zip(&agents) {
        for router in routers(agent)? {
            ensure!(router["state"] == if number == 1 { "master" } else { "backup" }, "{router}");
            ensure!(router["transitions"] == if number == 1 { 2 } else { 1 }, "{router}");
            ensure!(router["dropped"].as_object().is_some_and(serde_json::Map::is_empty), "{router}");
            ensure!(router["remarks"].as_object().is_some_and(serde_json::Map::is_empty), "{router}");
            ensure!(router["peers"].as_array().is_some_and(|peers| peers.len() == 2), "{router}");
        }
    }
    let [v4, v6] = routers(&agents[1])?;
    assert_eq!(v4["master"], "198.18.0.11");
    assert_eq!(v6["master"], "2001:2::11");
    let text = agent::run(stage.lab.node(1), ["status"])?;
    assert!(text.contains("this node"), "{text}");
    Ok(())
}

/// A first try: no file at all.
#[test]
fn the_same_command_on_every_node_is_enough() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut flags = vec!["--elect".to_owned()];
    for vip in cluster::https() {
        flags.extend(["--vip".to_owned(), vip.to_string()]);
        for host in stage.lab.nodes() {
            let backend = host.addresses().into_iter().find(|address| address.is_ipv4() == vip.is_ipv4());
            let backend = std::net::SocketAddr::from((backend.context("an address of each family")?, vip.port()));
            flags.extend(["--backend".to_owned(), backend.to_string()]);
        }
    }
    let agents = stage.lab.nodes().iter().map(|host| Agent::start(host, &flags)).collect::<Result<Vec<_>>>()?;
    stage.holder_is(1)?;
    stage.serves()?;
    let [v4, v6] = routers(&agents[2])?;
    assert_eq!((&v4["priority"], &v6["priority"]), (&100.into(), &100.into()));
    assert_eq!((&v4["router_id"], &v6["router_id"]), (&100.into(), &100.into()));
    Ok(())
}

/// The master says that it gives up, the next in the list takes over, and the first one stays a backup when it comes
/// back.
#[test]
fn a_planned_stop_hands_the_vips_over() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    agents.remove(0).stop()?;
    stage.holder_is(2)?;
    stage.serves()?;
    let reason = agents[0].process().wait_for_line("backup -> master: 198.18.0.11 gave up", SOON)?;
    assert!(reason.contains("VIP 198.18.0.100"), "{reason}");

    let first = stage.attach(1, "")?;
    poll::until("the first one to hear the master", SOON, || {
        routers(&first).is_ok_and(|[v4, v6]| v4["master"] == "198.18.0.12" && v6["master"] == "2001:2::12")
    })?;
    stage.holder_is(2)?;
    stage.serves()
}

/// Who only waits would wait for ever: no node knows such a connection any more.
#[test]
fn idle_connections_through_a_node_that_gives_up_are_reset() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    stage.lab.client(1).namespace().block_on(async {
        let mut watches = Vec::new();
        for vip in cluster::https() {
            let mut connection = Connection::open(vip).await?;
            let mut watch = connection.watch(Duration::from_secs(3600)).await?;
            watch.next().await?;
            watches.push((connection, watch));
        }
        agents.remove(0).stop()?;
        for (_, watch) in &mut watches {
            tokio::time::timeout(SOON, watch.ended()).await.context("a watch goes on")?;
        }
        anyhow::Ok(())
    })?;
    stage.holder_is(2)
}

/// With `preempt` it does come back.
#[test]
fn a_better_node_takes_over_if_it_is_told_to() -> Result<()> {
    let stage = Stage::new()?;
    let settings = "preempt = true\npreempt_delay = \"500ms\"";
    let mut agents = [stage.attach(2, settings)?, stage.attach(3, settings)?];
    stage.holder_is(2)?;
    let first = stage.attach(1, settings)?;
    stage.holder_is(1)?;
    agents[0].process().wait_for_line("master -> backup: 198.18.0.11 is master and has the higher priority", SOON)?;
    first.stop()
}

/// A killed agent leaves its addresses behind, and nobody is told so: the fence.
#[test]
fn a_killed_master_is_replaced_and_attracts_nobody() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    agents[0].process().kill()?;
    stage.is_held_by(2)?;
    assert_eq!(vips_of(stage.lab.node(1))?, 2, "the killed agent's VIPs");
    stage.serves()?;
    // Who asks anew is told of the one that works.
    let client = stage.lab.client(1);
    client.namespace().ip("neighbour flush dev eth0")?;
    stage.serves()?;
    for vip in cluster::VIPS {
        let entry = neighbour(client, vip)?;
        assert!(entry.contains(&stage.lab.node(2).mac_text()), "{entry}");
    }
    // The next agent clears up, and is a backup.
    let again = stage.attach(1, "")?;
    stage.holder_is(2)?;
    again.stop()
}

/// Nor does its kernel tell anyone that the VIPs are there, when something sends from them: the fence, at egress.
#[test]
fn nothing_is_said_in_the_name_of_a_killed_masters_vips() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    agents[0].process().kill()?;
    stage.is_held_by(2)?;
    stage.serves()?;
    let (node, client) = (stage.lab.node(1), stage.lab.client(1));
    node.namespace().ip("neighbour flush dev eth0")?;
    let pairs = || cluster::VIPS.into_iter().zip(client.addresses());
    for (vip, address) in pairs() {
        node.namespace().run(|| UdpSocket::bind((vip, 0))?.send_to(b"hello", (address, 9)))?;
    }
    for (vip, address) in pairs() {
        // The kernel asks for the client in the name of the VIP, and would be answered, and believed.
        poll::until(&format!("node1 to have asked for {address} in vain"), SOON, || {
            neighbour(node, address).is_ok_and(|entry| entry.contains("FAILED"))
        })?;
        let entry = neighbour(client, vip)?;
        ensure!(entry.contains(&stage.lab.node(2).mac_text()), "{entry}");
    }
    stage.serves()
}

/// A stopped process does not know that it was away: it steps back without a second interruption.
#[test]
fn a_master_that_was_held_up_steps_back() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    agents[0].process().signal(Signal::SIGSTOP)?;
    stage.is_held_by(2)?;
    stage.serves()?;
    let moment = Instant::now();
    agents[0].process().signal(Signal::SIGCONT)?;
    stage.holder_is(2)?;
    agents[0].process().wait_for_line_after(moment, "master -> backup: this node was held up", SOON)?;
    ensure!(agents[1].process().count_lines_after(moment, "VIP ") == 0, "node2 has noticed:\n{}", agents[1].output());
    stage.serves()
}

#[test]
fn a_master_that_is_cut_off_is_replaced_and_does_not_come_back_as_one() -> Result<()> {
    let stage = Stage::new()?;
    let _apiservers = cluster::start_apiservers(&stage.lab)?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    stage.lab.set_cable(stage.lab.node(1), LinkState::Down)?;
    stage.holder_is(2)?;
    agents[0].process().wait_for_line("master -> initialize: the link is down", SOON)?;
    stage.serves()?;
    let moment = Instant::now();
    stage.lab.set_cable(stage.lab.node(1), LinkState::Up)?;
    agents[0].process().wait_for_line_after(moment, "initialize -> backup: no longer: the link is down", SOON)?;
    poll::until("node1 to hear the master", SOON, || {
        routers(&agents[0]).is_ok_and(|[v4, v6]| v4["master"] == "198.18.0.12" && v6["master"] == "2001:2::12")
    })?;
    stage.holder_is(2)?;
    stage.serves()
}

/// The VIPs depend on this node's data path, and never on backends.
#[test]
fn a_master_without_a_data_path_gives_up_and_one_without_backends_does_not() -> Result<()> {
    let stage = Stage::new()?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    let [v4, _] = routers(&agents[0])?;
    assert_eq!(v4["state"], "master", "no backend is up");
    // The program goes with its link.
    let pins = format!("/sys/fs/bpf/kplb/v{}/eth0", kplb_common::abi::LAYOUT_VERSION);
    stage.lab.node(1).namespace().run(|| detach(&pins))?;
    agents[0].process().wait_for_line("master -> initialize: the data path does not run", SOON)?;
    stage.holder_is(2)
}

/// Takes the program at ingress off as `bpftool link detach` would.
fn detach(pins: &str) -> Result<()> {
    let link = aya::programs::links::PinnedLink::from_pin(format!("{pins}/{}", cluster::ingress_pin()))?;
    drop(link.unpin()?);
    Ok(())
}

/// Something else puts a VIP on a backup, or takes one from the master.
#[test]
fn vips_that_others_move_are_put_right() -> Result<()> {
    let stage = Stage::new()?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    stage.lab.node(2).namespace().ip("address add 198.18.0.100/32 dev eth0")?;
    agents[1].process().wait_for_line("the VIP 198.18.0.100 was on the interface", SOON)?;
    stage.holder_is(1)?;
    stage.lab.node(1).namespace().ip("address delete 198.18.0.100/32 dev eth0")?;
    agents[0].process().wait_for_line("something removed the VIP 198.18.0.100", SOON)?;
    stage.holder_is(1)
}

/// With the prefix of a subnet, as an operator or another program of this kind puts it there: before the agent starts,
/// and while it runs. Nothing takes it for the node's own address meanwhile.
#[test]
fn a_vip_with_a_subnet_does_not_stay_on_a_backup() -> Result<()> {
    let stage = Stage::new()?;
    let _master = stage.attach(1, "")?;
    let node = stage.lab.node(2);
    let with_subnets = "address add 198.18.0.100/24 dev eth0\naddress add 2001:2::100/64 dev eth0 nodad";
    node.namespace().ip(with_subnets)?;
    let mut backup = stage.attach(2, "")?;
    stage.holder_is(1)?;
    let moment = Instant::now();
    node.namespace().ip(with_subnets)?;
    for vip in cluster::VIPS {
        backup.process().wait_for_line_after(moment, &format!("the VIP {vip} was on the interface"), SOON)?;
    }
    stage.holder_is(1)?;
    ensure!(!backup.output().contains("ERROR"), "{}", backup.output());
    backup.stop()
}

/// Another cluster on the segment with the same router id is reported, and not fought.
#[test]
fn a_strangers_adverts_do_not_count() -> Result<()> {
    let stage = Stage::new()?;
    let text = cluster::elected(&stage.lab.nodes()[..2], "");
    let mut master = cluster::start_agent(stage.lab.node(1), &text)?;
    stage.is_held_by(1)?;
    let third = stage.attach(3, "priority = 200")?;
    let node3 = stage.lab.node(3);
    let foreign =
        format!("an advert of {} does not count, nor will those to come: it comes from a stranger", node3.ipv4());
    master.process().wait_for_line(&foreign, SOON)?;
    let [v4, _] = routers(&master)?;
    assert_eq!(v4["state"], "master");
    assert!(v4["dropped"]["not-a-peer"].as_u64().is_some_and(|n| n > 0), "{v4}");
    third.stop()
}

/// Hooks get the interface, the state and the VIPs, are not root, and hold nothing up.
#[test]
fn hooks_are_told_of_each_role() -> Result<()> {
    let stage = Stage::new()?;
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("log");
    std::fs::write(&log, "")?;
    std::os::unix::fs::chown(&log, Some(65534), Some(65534))?;
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let script = format!("echo $(id -u) \"$@\" >> {}; exec sleep 60", log.display());
    let settings = format!("notify = ['/bin/sh', '-c', '{script}', 'hook']\nnotify_timeout = '200ms'");
    let mut agent = stage.attach(1, &settings)?;
    stage.is_held_by(1)?;
    let expected =
        ["65534 eth0 backup 198.18.0.100", "65534 eth0 master 198.18.0.100", "65534 eth0 master 2001:2::100"];
    poll::until("the hooks", SOON, || {
        std::fs::read_to_string(&log).is_ok_and(|text| expected.iter().all(|line| text.lines().any(|l| l == *line)))
    })?;
    agent.process().wait_for_line("/bin/sh master took longer than 200ms, and was killed", SOON)?;
    agent.stop()
}

/// The thread of the election announces, and has adverts and leases to send in time.
#[test]
fn an_announcement_does_not_wait_for_room() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    // It keeps nearly all that is sent, and would keep more than a socket may send.
    let mut hold_back = std::process::Command::new("tc");
    hold_back.args("qdisc add dev eth0 root tbf rate 8bit burst 2000 limit 100000000".split_whitespace());
    node.namespace().check_output(hold_back)?;
    let announcer = node.namespace().run(|| Announcer::open("eth0"))?;
    let mac = Mac::new(node.mac());
    let (sender, refused) = mpsc::channel();
    thread::spawn(move || {
        let refused = (0..100_000).find_map(|_| announcer.announce(mac, &cluster::VIPS).err());
        // A test that has waited for too long has gone.
        let _ = sender.send(refused);
    });
    let error = refused.recv_timeout(SOON).context("it waits")?.context("there is room for everything")?;
    let errno = error.downcast_ref::<Errno>();
    ensure!(matches!(errno, Some(Errno::EAGAIN | Errno::ENOBUFS)), "{error:#}");
    Ok(())
}

/// One apiserver of a single node, so that a stand-in is used where none else is.
#[test]
fn the_agent_of_a_node_alone_becomes_master() -> Result<()> {
    let stage = Stage::new()?;
    let _apiserver = Apiserver::start(stage.lab.node(1))?;
    let start = Instant::now();
    let mut agent = stage.attach(1, "")?;
    let master = agent.process().wait_for_line_after(start, "backup -> master: no master was heard", SOON)?;
    ensure!(master > start);
    stage.serves()?;
    agent.stop().context("stop")
}

fn nft(host: &Host, command: &str) -> Result<()> {
    let mut nft = std::process::Command::new("nft");
    nft.arg(command);
    host.namespace().check_output(nft).map(drop)
}

/// A master that nobody can hear would be one beside another, and it would not know.
#[test]
fn a_master_that_cannot_speak_gives_up() -> Result<()> {
    let stage = Stage::new()?;
    let mut agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    // The kernel says so: a packet that is dropped on its way out is an error to who sends it.
    nft(stage.lab.node(1), "add table inet mute")?;
    nft(stage.lab.node(1), "add chain inet mute out { type filter hook output priority 0; }")?;
    nft(stage.lab.node(1), "add rule inet mute out meta l4proto 112 drop")?;
    agents[0].process().wait_for_line("master -> initialize: adverts cannot be sent or received", SOON)?;
    stage.holder_is(2)?;
    nft(stage.lab.node(1), "delete table inet mute")?;
    agents[0].process().wait_for_line("initialize -> backup: no longer: adverts cannot be sent", SOON)?;
    poll::until("node1 to hear the master", SOON, || {
        routers(&agents[0]).is_ok_and(|[v4, v6]| v4["master"] == "198.18.0.12" && v6["master"] == "2001:2::12")
    })?;
    stage.holder_is(2)
}

/// One family's address is lost: the other family's VIPs stay.
#[test]
fn a_lost_address_moves_the_vips_of_its_family_alone() -> Result<()> {
    let stage = Stage::new()?;
    let agents = stage.attach_all("")?;
    stage.holder_is(1)?;
    let node = stage.lab.node(1);
    let has = |number: usize, vip: usize| stage.lab.node(number).has_address(cluster::VIPS[vip]);
    node.namespace().ip(&format!("address delete {}/64 dev eth0", node.ipv6()))?;
    poll::until("the IPv6 VIP to move", SOON, || has(2, 1).unwrap_or(false) && !has(1, 1).unwrap_or(true))?;
    ensure!(has(1, 0)?, "the IPv4 VIP has moved as well");
    let [v4, v6] = routers(&agents[0])?;
    ensure!(v4["state"] == "master" && v4["transitions"] == 2, "{v4}");
    ensure!(v6["faults"][0] == "address-lost", "{v6}");
    node.namespace().ip(&format!("address add {}/64 dev eth0 nodad", node.ipv6()))?;
    poll::until("the IPv6 router to be a backup", SOON, || {
        routers(&agents[0]).is_ok_and(|[_, v6]| v6["state"] == "backup")
    })
}

/// Without a list of peers, any address will do.
#[test]
fn adverts_follow_the_nodes_address() -> Result<()> {
    let stage = Stage::new()?;
    let text = cluster::configuration(stage.lab.nodes(), cluster::Persistence::Client);
    let mut agent = cluster::start_agent(stage.lab.node(1), &format!("[vrrp]\n{text}"))?;
    stage.is_held_by(1)?;
    stage.lab.node(1).namespace().ip("address delete 198.18.0.11/16 dev eth0\naddress add 198.18.0.21/16 dev eth0")?;
    agent.process().wait_for_line("adverts come from 198.18.0.21 now: 198.18.0.11 is no longer", SOON)?;
    poll::until("node1 to hold the VIPs again", SOON, || {
        routers(&agent).is_ok_and(|[v4, _]| v4["state"] == "master" && v4["address"] == "198.18.0.21")
    })?;
    agent.stop()
}
