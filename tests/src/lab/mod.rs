//! A small network for tests: nodes and clients around a switch, one flat dual-stack Ethernet segment.
//!
//! ```text
//!   node1  node2  node3   client1  client2       each a namespace with one interface, eth0
//!     |      |      |        |        |
//!   +-+------+------+--------+--------+-+
//!   |  node1  node2 …  client1 …   br0  |        the switch: a namespace with a bridge, a port per host
//!   +-----------------------------------+
//! ```
//!
//! Invariant: unless its cables are to be [`Wire::Offloading`], what a host receives looks as it would on a wire: frames of at
//! most the MTU, with complete checksums, and with their VLAN tags.

mod host;
mod port;

mod cable;

use std::{
    fmt::{self, Write as _},
    fs,
    os::fd::OwnedFd,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

pub use self::{
    host::{Addresses, Host, LinkState, Role},
    port::attach_xdp,
};
use crate::netns::Namespace;

/// How many hosts a lab has.
#[derive(Clone, Copy, Debug)]
pub struct LabOptions {
    /// The load balancer nodes, which are backends as well.
    pub nodes: usize,
    /// The clients.
    pub clients: usize,
}

/// A switch has no firewall, and no time for one.
fn leave_frames_alone() -> Result<()> {
    for family in ["arptables", "iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        // It is there only with the module `br_netfilter`.
        if Path::new(&path).exists() {
            fs::write(&path, "0").context(path)?;
        }
    }
    Ok(())
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { nodes: 3, clients: 2 }
    }
}

/// What the cables are like.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum Wire {
    /// Each frame as it would be on a wire: of at most the MTU, with complete checksums, and with its VLAN tags.
    Real,
    /// As pairs of virtual interfaces are, and interfaces with receive offloads: packets of many segments stay together, their
    /// checksums are still to be finished, and nothing polls for what XDP sends ([`Lab::poll_for_xdp`]).
    Offloading,
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "real",
            Self::Offloading => "offloading",
        })
    }
}

/// The network. Dropping it takes down everything in it.
#[derive(Debug)]
pub struct Lab {
    nodes: Vec<Host>,
    clients: Vec<Host>,
    switch: Namespace,
    // What XDP transmits on a node is delivered while these are open.
    ports: Vec<OwnedFd>,
}

impl Lab {
    /// Builds a lab. Everything in it answers at once: there is no spanning tree and no duplicate address detection to
    /// wait for.
    pub fn new(options: LabOptions) -> Result<Self> {
        let mut lab = Self::with_wire(options, Wire::Real)?;
        lab.poll_for_xdp()?;
        Ok(lab)
    }

    /// As [`Self::new`], with cables of this kind.
    pub fn with_wire(options: LabOptions, wire: Wire) -> Result<Self> {
        let LabOptions { nodes, clients } = options;
        ensure!(nodes <= host::MAX_HOSTS && clients <= host::MAX_HOSTS, "a lab is too small for {options:?}");
        let switch = Namespace::new("switch")?;
        let create = |role, n| (1..=n).map(|number| Host::new(role, number)).collect::<Result<Vec<_>>>();
        let (nodes, clients) = (create(Role::Node, nodes)?, create(Role::Client, clients)?);
        let mut lab = Self { nodes, clients, switch, ports: Vec::new() };
        lab.connect(wire)?;
        Ok(lab)
    }

    /// The node with this number, counted from 1. Panics if there is none.
    pub fn node(&self, number: usize) -> &Host {
        &self.nodes[number - 1]
    }

    /// The client with this number, counted from 1. Panics if there is none.
    pub fn client(&self, number: usize) -> &Host {
        &self.clients[number - 1]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Host] {
        &self.nodes
    }

    /// All clients.
    pub fn clients(&self) -> &[Host] {
        &self.clients
    }

    /// The namespace of the switch: the bridge is `br0`, and each port has the name of its host.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// Every namespace of the lab.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.hosts().map(Host::namespace).chain([&self.switch])
    }

    /// Pulls or plugs a host's cable: its `eth0` loses or finds the carrier, and its configuration stays.
    pub fn set_cable(&self, host: &Host, state: LinkState) -> Result<()> {
        self.switch.ip(&format!("link set {} {}", host.name(), state.as_str()))
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.nodes.iter().chain(&self.clients)
    }

    /// Lets what XDP transmits on a node be delivered.
    pub fn poll_for_xdp(&mut self) -> Result<()> {
        let nodes = &self.nodes;
        self.ports =
            self.switch.run(|| nodes.iter().map(|node| port::poll_for_xdp(node.name())).collect::<Result<_>>())?;
        Ok(())
    }

    /// Puts a cable between each host and the switch.
    fn connect(&mut self, wire: Wire) -> Result<()> {
        let mut batch = String::from("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n");
        for host in self.hosts() {
            let (name, path) = (host.name(), host.namespace().network_path());
            let mac = host.mac_text();
            writeln!(batch, "link add {name} type veth peer name eth0 address {mac} netns {}", path.display())?;
            writeln!(batch, "link set {name} master br0 addrgenmode none up")?;
        }
        batch.push_str("link set br0 addrgenmode none up\n");
        self.switch.ip(&batch)?;
        self.switch.run(leave_frames_alone)?;
        for host in self.hosts() {
            if wire == Wire::Real {
                self.make_like_a_wire(host)?;
            }
            cable::worsen(&self.switch, host.name())?;
            host.bring_up()?;
        }
        Ok(())
    }

    /// Takes back what a pair of virtual interfaces leaves out because it never has to leave the machine.
    ///
    /// Checksums are left to hardware that is not there: who rewrites a packet on the way sees a partial one. With
    /// checksum offload, segmentation offload goes too, so that no frame exceeds the MTU. VLAN tags are left to it as
    /// well, and XDP would not see them.
    fn make_like_a_wire(&self, host: &Host) -> Result<()> {
        let ethtool = |namespace: &Namespace, interface: &str| {
            let mut command = Command::new("ethtool");
            command.args(["-K", interface, "tx", "off", "txvlan", "off", "tx-vlan-stag-hw-insert", "off"]);
            namespace.check_output(command).map(drop)
        };
        ethtool(&self.switch, host.name())?;
        ethtool(host.namespace(), "eth0")
    }
}
