//! The node in a VLAN of a trunk: tagged frames on real interfaces, and what the agent says where it cannot serve one.
//!
//! The kernel may have no VLAN interfaces, so both ends are packet sockets, and what decides are the programs alone.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType},
};
use kplb::{
    bpffs, config,
    dataplane::{Dataplane, FLOOR_OBJECT, FlowTableSizes, LoadOptions, ModeChoice, NativeXdp},
    ids::Ids,
    maglev::Rings,
    model::{self, Conditions, NodeFacts},
    netlink::features,
    plan,
};
use kplb_common::net::Mac;
use kplb_tests::{
    agent, cluster,
    frames::{ACK, Frame, SYN, tagged},
    hooks,
    lab::{Host, Lab, LabOptions},
    packet_socket::{Direction, PacketSocket},
};

const SOON: Duration = Duration::from_secs(5);

/// Where the programs are pinned, in the node's own mount namespace.
const PINS: &str = "/sys/fs/bpf/kplb";

/// The tag of VLAN 42, with a priority.
const TAG: [(u16, u16); 1] = [(0x8100, 0x6000 | 42)];
/// The one that the kernel gives it.
const PLAIN_TAG: [(u16, u16); 1] = [(0x8100, 42)];
const OTHER_TAG: [(u16, u16); 1] = [(0x8100, 43)];

const CLIENT_PORT: u16 = 40_000;

/// kplb's programs on a node's interface, as an agent would attach them.
struct Balancer<'a> {
    node: &'a Host,
    dataplane: Option<Dataplane>,
}

impl<'a> Balancer<'a> {
    /// Serves a VIP of each family with one backend, in VLAN 42.
    fn attach(node: &'a Host, backend: &Host, mode: ModeChoice) -> Result<Self> {
        let [(vip4, backend4), (vip6, backend6)] = [0, 1].map(|family| (vip(family), backend.addresses()[family]));
        let text = format!(
            "[node]\nvlan = 42\nnat_ports = \"20000-20000\"\n\
             [[service]]\nvip = \"{vip4}\"\nbackend = [{{ address = \"{backend4}:6443\" }}]\n\
             [[service]]\nvip = \"{vip6}\"\nbackend = [{{ address = \"[{backend6}]:6443\" }}]\n"
        );
        let config = config::parse(&text, "trunk").map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let is_remote = backend.name() != node.name();
        let facts = NodeFacts {
            mac: Mac::new(node.mac()),
            ipv4: Some(node.ipv4()),
            ipv6: Some(node.ipv6()),
            local: node.addresses().into(),
            macs: backend
                .addresses()
                .into_iter()
                .filter(|_| is_remote)
                .map(|ip| (ip, Mac::new(backend.mac())))
                .collect(),
        };
        let desired = model::desired(
            &config,
            &Ids::in_order(&config),
            &facts,
            &Conditions::all_active(&config),
            &mut Rings::default(),
        )?;
        let dataplane = node.namespace().run(|| {
            bpffs::ensure(Path::new(PINS))?;
            let index = fs::read_to_string("/sys/class/net/eth0/ifindex")?;
            let mut dataplane = Dataplane::load(LoadOptions {
                interface: "eth0",
                interface_index: index.trim().parse()?,
                mode,
                pin_directory: &Path::new(PINS).join("eth0"),
                native: NativeXdp::Unknown,
                predecessor: None,
                flows: FlowTableSizes { max_flows: 1024, max_half_open: 1024 },
                log_level: tracing::Level::INFO,
            })?;
            dataplane.apply(&plan::plan(&desired, None))?;
            dataplane.attach()?;
            anyhow::Ok(dataplane)
        })?;
        Ok(Self { node, dataplane: Some(dataplane) })
    }

    fn detach(mut self) -> Result<()> {
        let dataplane = self.dataplane.take();
        // Before 6.6 a filter is found by its interface, which is the node's.
        self.node.namespace().run(|| dataplane.map_or(Ok(()), Dataplane::detach))
    }
}

fn vip(family: usize) -> &'static str {
    ["198.18.0.100:6443", "[2001:2::100]:6443"][family]
}

/// Waits for a frame.
fn receives(socket: &PacketSocket, expected: &[u8]) -> Result<()> {
    let mut seen = Vec::new();
    while let Some(frame) = socket.receive(SOON)? {
        if frame.direction == Direction::Received && frame.bytes == expected {
            return Ok(());
        }
        seen.push(frame);
    }
    bail!("no such frame: {expected:x?}; instead {seen:x?}");
}

/// A connection's first packet and its answer, in the node's VLAN; and the same in another, with which nothing is done.
fn exchange(lab: &Lab, mode: ModeChoice) -> Result<()> {
    let (node, backend, client) = (lab.node(1), lab.node(2), lab.client(1));
    let balancer = Balancer::attach(node, backend, mode)?;
    let at = |host: &Host| PacketSocket::open(host.namespace(), "eth0");
    let (at_client, at_backend) = (at(client)?, at(backend)?);
    for family in [0, 1] {
        let vip = vip(family).parse()?;
        let from = (client.addresses()[family], CLIENT_PORT).into();
        let (nat, to) = ((node.addresses()[family], 20_000).into(), (backend.addresses()[family], 6443).into());
        let syn = Frame::tcp([client.mac(), node.mac()], from, vip, SYN);
        // Other VLANs are none of its business: what is sent there first does not arrive, or it would be seen first.
        at_client.send(&tagged(&syn.build(), &OTHER_TAG))?;
        at_client.send(&syn.build())?;
        at_client.send(&tagged(&syn.build(), &TAG))?;
        let at_the_backend = Frame::tcp([node.mac(), backend.mac()], nat, to, SYN).with_ip(|ip| ip.hops -= 1);
        receives(&at_backend, &tagged(&at_the_backend.build(), &TAG))?;

        let answer = Frame::tcp([backend.mac(), node.mac()], to, nat, SYN | ACK);
        at_backend.send(&tagged(&answer.build(), &TAG))?;
        let at_the_client = Frame::tcp([node.mac(), client.mac()], vip, from, SYN | ACK).with_ip(|ip| ip.hops -= 1);
        receives(&at_client, &tagged(&at_the_client.build(), &TAG))?;
    }
    balancer.detach()
}

#[test]
fn tagged_frames_are_forwarded_natively() -> Result<()> {
    exchange(&Lab::new(LabOptions { nodes: 2, clients: 1 })?, ModeChoice::Native)
}

/// The kernel keeps the outermost tag apart from the frame's bytes before TC sees it.
#[test]
fn tagged_frames_are_forwarded_at_tc() -> Result<()> {
    exchange(&Lab::new(LabOptions { nodes: 2, clients: 1 })?, ModeChoice::Tc)
}

#[test]
fn tagged_frames_are_forwarded_generically() -> Result<()> {
    exchange(&Lab::new(LabOptions { nodes: 2, clients: 1 })?, ModeChoice::Generic)
}

/// What the node's own VLAN interface sends has its tag apart from the frame's bytes.
#[test]
fn replies_of_a_local_backend_are_known_by_a_tag_that_is_still_to_be_written() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 1 })?;
    let (node, client) = (lab.node(1), lab.client(1));
    let mut tagging = Ebpf::load(FLOOR_OBJECT)?;
    let program: &mut SchedClassifier = tagging.program_mut("floor_tag").context("no such program")?.try_into()?;
    program.load()?;
    // The kernel would give the filter that comes after this one a place before it, if it had a choice.
    hooks::attach_other(node, program, TcAttachType::Egress, 1)?;
    let balancer = Balancer::attach(node, node, ModeChoice::Native)?;
    let (at_client, at_node) =
        (PacketSocket::open(client.namespace(), "eth0")?, PacketSocket::open(node.namespace(), "eth0")?);
    for family in [0, 1] {
        let vip = vip(family).parse()?;
        let from = (client.addresses()[family], CLIENT_PORT).into();
        let backend = (node.addresses()[family], 6443).into();
        let syn = Frame::tcp([client.mac(), node.mac()], from, vip, SYN);
        at_client.send(&tagged(&syn.build(), &TAG))?;
        let at_the_backend = Frame::tcp([client.mac(), node.mac()], from, backend, SYN);
        receives(&at_node, &tagged(&at_the_backend.build(), &TAG))?;

        let answer = Frame::tcp([node.mac(), client.mac()], backend, from, SYN | ACK);
        at_node.send(&answer.build())?;
        let at_the_client = Frame::tcp([node.mac(), client.mac()], vip, from, SYN | ACK);
        receives(&at_client, &tagged(&at_the_client.build(), &PLAIN_TAG))?;
    }
    balancer.detach()?;
    // Its link ends with it.
    drop(tagging);
    Ok(())
}

/// The agent serves a VLAN by the kernel's interface for it, and says how to make one.
#[test]
fn a_vlan_without_an_interface_is_refused() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let text = "[node]\nvlan = 42\n[[service]]\nvip = \"198.18.0.100:6443\"\n\
                backend = [{ address = \"198.18.0.11:6443\" }]\n";
    let file = cluster::write(text)?;
    let mut command = agent::kplb()?;
    command.args(["attach", "eth0", "--config"]).arg(file.path());
    let output = node.namespace().output(command)?;
    ensure!(!output.status.success(), "it was taken");
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(error.contains("eth0 has no interface for VLAN 42"), "{error}");
    ensure!(error.contains("ip link add link eth0 name eth0.42 type vlan id 42"), "{error}");
    Ok(())
}

/// What tells the agent that an interface takes tags off before XDP sees them.
#[test]
fn features_of_an_interface_are_read() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let strips = || {
        node.namespace().block_on(async { features::active("eth0").await }).map(|on| on.contains("rx-vlan-hw-parse"))
    };
    for (setting, expected) in [("on", true), ("off", false), ("on", true)] {
        let mut command = std::process::Command::new("ethtool");
        command.args(["-K", "eth0", "rxvlan", setting]);
        node.namespace().check_output(command)?;
        ensure!(strips()? == expected, "rxvlan is {setting}");
    }
    ensure!(node.namespace().block_on(async { features::active("eth7").await }).is_err(), "there is no eth7");
    Ok(())
}
