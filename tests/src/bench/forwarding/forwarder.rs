//! What forwards on the node.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use clap::ValueEnum;
use kplb_common::net::Mac;
use serde::Serialize;

use super::{
    super::{
        floor::Measured,
        packets::{self, Flags, SEQUENCE},
        scene::{CLIENT_MAC, FIRST_PORT, Family, NODE_MAC, PORT, Scene, Shape, Traffic},
    },
    wire::{Fed, Stream, Wire},
};
use crate::{lab, load::masquerade, testbed::Ingress};

/// Flows that are established before anything is measured, of the lower half of a client's ports. Those of the upper half are
/// new, and each can keep its port behind the masquerade of nftables, too.
pub const ESTABLISHED: u32 = 1 << 15;
const FIRST_NEW_PORT: u16 = 1 << 15;

/// The last numbers of addresses, as [`Scene`] has them.
const NODE: u8 = 1;
const VIP: u8 = 100;
const CLIENT: u8 = 200;

const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 3, 0];

/// Where the ports of an IPv4 frame are.
const SOURCE_PORT: u32 = 34;
const DESTINATION_PORT: u32 = 36;

/// Something that forwards, or does not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarder {
    /// Counted where the others forward: what feeding costs.
    Nothing,
    /// A program that parses Ethernet, IPv4 and TCP, swaps the MAC addresses and sends the frame back, at XDP.
    Swap,
    /// kplb's program at XDP.
    Xdp,
    /// kplb's programs at TC.
    Tc,
    /// nftables: DNAT to one backend, and masquerade.
    Nft,
}

impl fmt::Display for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nothing => "fed, not forwarded",
            Self::Swap => "MAC swap, XDP",
            Self::Xdp => "kplb, native XDP",
            Self::Tc => "kplb, TC",
            Self::Nft => "nftables",
        })
    }
}

impl Forwarder {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::Swap, Self::Xdp, Self::Tc, Self::Nft];

    fn is_balancer(self) -> bool {
        matches!(self, Self::Xdp | Self::Tc | Self::Nft)
    }
}

/// A node with a forwarder and its flows. It is gone when this is dropped.
pub struct Stage {
    forwarder: Forwarder,
    what: What,
    wire: Wire,
}

/// What is kept for the forwarder to run.
enum What {
    Kernel,
    Xdp { scene: Box<Scene>, _attached: OwnedFd },
    Tc { scene: Box<Scene>, _attached: Box<[SchedClassifier; 2]> },
}

impl Stage {
    /// Makes a node, starts the forwarder there, and establishes [`ESTABLISHED`] flows.
    ///
    /// # Errors
    /// If it does not start, or does not forward.
    pub fn new(forwarder: Forwarder, processor: usize) -> Result<Self> {
        let mut wire = Wire::new(NODE_MAC, processor)?;
        let load = |ingress| -> Result<Box<Scene>> {
            let scene = Scene::load(ingress, Family::V4, Shape::usual(1 << 19))?;
            scene.establish(ESTABLISHED)?;
            Ok(Box::new(scene))
        };
        let what = match forwarder {
            Forwarder::Nothing => {
                wire.attach_floor("floor_count")?;
                What::Kernel
            }
            Forwarder::Swap => {
                wire.attach_floor("floor_swap")?;
                What::Kernel
            }
            Forwarder::Xdp => {
                let scene = load(Ingress::Xdp)?;
                let attached = attach_xdp(&wire, &scene)?;
                What::Xdp { scene, _attached: attached }
            }
            Forwarder::Tc => {
                wire.attach_floor("floor_pass")?;
                let scene = load(Ingress::Tc)?;
                let attached = attach_tc(&wire, &scene)?;
                What::Tc { scene, _attached: Box::new(attached) }
            }
            Forwarder::Nft => {
                // Or its interface would not poll. Receive offload (GRO) makes it do so as well, and costs more here, where there
                // is nothing to put together.
                wire.attach_floor("floor_pass")?;
                translate(&wire)?;
                What::Kernel
            }
        };
        let mut stage = Self { forwarder, what, wire };
        if forwarder == Forwarder::Nft {
            stage.shake_hands().context("establish flows")?;
        }
        Ok(stage)
    }

    /// Feeds packets of so many flows; a power of two, at most [`ESTABLISHED`].
    ///
    /// # Errors
    /// If the kernel refuses, or they are not forwarded.
    pub fn feed(&mut self, traffic: Traffic, n_flows: u32, n_packets: u32) -> Result<Fed> {
        let stream = self.stream(traffic, n_flows)?;
        self.wire.feed(&stream, n_packets)
    }

    fn stream(&self, traffic: Traffic, n_flows: u32) -> Result<Stream> {
        let ack = Flags::Ack { acknowledges: SEQUENCE + 1 };
        let vip = SocketAddr::from((Family::V4.address(VIP), PORT));
        let node = Family::V4.address(NODE);
        let client = Family::V4.address(CLIENT);
        let from_client = |port, flags| packets::tcp([CLIENT_MAC, NODE_MAC], (client, port).into(), vip, flags);
        let from_backend = |flags| packets::tcp([BACKEND_MAC, NODE_MAC], backend(), (node, FIRST_PORT).into(), flags);
        let (frame, vary_at, rewritten) = match (traffic, &self.what) {
            (Traffic::ToBackend, _) => (from_client(FIRST_PORT, ack)?, SOURCE_PORT, node),
            (Traffic::Opening, _) => (from_client(FIRST_NEW_PORT, Flags::Syn)?, SOURCE_PORT, node),
            (Traffic::ToClient, What::Xdp { scene, .. } | What::Tc { scene, .. }) => {
                ensure!(n_flows == 1, "the NAT ports of flows are not one after the other");
                (scene.frame(traffic)?.0, DESTINATION_PORT, vip.ip())
            }
            (Traffic::ToClient, What::Kernel) => (from_backend(ack)?, DESTINATION_PORT, vip.ip()),
            (Traffic::NotOurs, _) => {
                let own = (node, 22).into();
                let frame = packets::tcp([CLIENT_MAC, NODE_MAC], (client, FIRST_PORT).into(), own, ack)?;
                (frame, SOURCE_PORT, node)
            }
            (Traffic::Unknown | Traffic::Error, _) => bail!("{traffic:?} is nothing to forward"),
        };
        let source = if self.forwarder.is_balancer() { rewritten } else { packets::source(&frame)?.ip() };
        let IpAddr::V4(source) = source else { bail!("{source} is not of IPv4") };
        Ok(Stream { frame, vary_at, n_flows, source })
    }

    /// Establishes the flows by what their ends would say.
    fn shake_hands(&mut self) -> Result<()> {
        let to_backend = self.stream(Traffic::ToBackend, ESTABLISHED)?;
        let to_client = self.stream(Traffic::ToClient, ESTABLISHED)?;
        let [client, node] = [CLIENT, NODE].map(|last| SocketAddr::from((Family::V4.address(last), FIRST_PORT)));
        let vip = (Family::V4.address(VIP), PORT).into();
        let syn = packets::tcp([CLIENT_MAC, NODE_MAC], client, vip, Flags::Syn)?;
        let acknowledges = SEQUENCE;
        let syn_ack = packets::tcp([BACKEND_MAC, NODE_MAC], backend(), node, Flags::SynAck { acknowledges })?;
        self.wire.feed(&Stream { frame: syn, ..to_backend.clone() }, ESTABLISHED).context("SYN")?;
        self.wire.feed(&Stream { frame: syn_ack, ..to_client }, ESTABLISHED).context("SYN-ACK")?;
        self.wire.feed(&to_backend, ESTABLISHED).context("ACK")?;
        Ok(())
    }
}

fn backend() -> SocketAddr {
    (Family::V4.nth(0, 0), PORT).into()
}

/// For as long as what it returns is open.
fn attach_xdp(wire: &Wire, scene: &Scene) -> Result<OwnedFd> {
    let Measured::Xdp(program) = scene.program()? else { bail!("the scene is not of XDP") };
    wire.node().run(|| lab::attach_xdp(program.fd()?.as_fd(), "eth0"))
}

/// At ingress and, as ever, at egress.
///
/// # Minimum kernel version
/// 6.6, for TCX.
fn attach_tc(wire: &Wire, scene: &Scene) -> Result<[SchedClassifier; 2]> {
    let attach = |program: &SchedClassifier, side| -> Result<SchedClassifier> {
        let mut program = SchedClassifier::from_program_info(program.info()?, "kplb_tc".into())?;
        wire.node().run(|| program.attach("eth0", side)).context("attach to eth0")?;
        Ok(program)
    };
    let Measured::Tc(ingress) = scene.program()? else { bail!("the scene is not of TC") };
    Ok([attach(ingress, TcAttachType::Ingress)?, attach(scene.egress()?, TcAttachType::Egress)?])
}

/// Lets the node's network stack translate addresses, as `cargo xtask bench peers` has it.
fn translate(wire: &Wire) -> Result<()> {
    let [vip, node, client] = [VIP, NODE, CLIENT].map(|last| Family::V4.address(last));
    let (client_mac, backend_mac) = (Mac::new(CLIENT_MAC), Mac::new(BACKEND_MAC));
    wire.node().ip(&format!(
        "address add {node}/15 dev eth0
         address add {vip}/32 dev eth0
         neighbour add {client} lladdr {client_mac} nud permanent dev eth0
         neighbour add {} lladdr {backend_mac} nud permanent dev eth0",
        backend().ip()
    ))?;
    masquerade(wire.node(), (vip, PORT).into(), backend())
}
