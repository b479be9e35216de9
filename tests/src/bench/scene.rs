//! kplb's program with a service, backends and flows.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Result, ensure};
use aya::programs::SchedClassifier;
use kplb::{dataplane::FlowTableSizes, model::NodeFacts};
use kplb_common::{net::Mac, verdict::Verdict};

use super::{
    floor::Measured,
    packets::{self, Flags, SEQUENCE},
};
use crate::{
    frames::icmp::IcmpError,
    testbed::{Hook, Ingress, Testbed},
};

pub(super) const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub(super) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
pub(super) const PORT: u16 = 6443;
/// The first of the ports that a frame's varied bytes count through.
pub(super) const FIRST_PORT: u16 = 0;

/// Which packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Traffic {
    /// To the node itself.
    NotOurs,
    /// From the client, of an established flow.
    ToBackend,
    /// From the backend, of an established flow.
    ToClient,
    /// A client's first.
    Opening,
    /// Of no flow.
    Unknown,
    /// An ICMP error about a packet of no flow.
    Error,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    /// Services, each at a port of its own; packets are to the last one.
    pub n_services: u16,
    /// Backends of each.
    pub n_backends: u16,
    /// Flows that there is room for.
    pub max_flows: u32,
}

impl Shape {
    /// A usual cluster, with room for so many flows.
    pub const fn usual(max_flows: u32) -> Self {
        Self { n_services: 1, n_backends: 8, max_flows }
    }
}

/// The loaded program. Dropped, it leaves nothing.
pub struct Scene {
    testbed: Testbed,
    family: Family,
    client: IpAddr,
    node: IpAddr,
    vip: IpAddr,
}

/// Which address family a scene is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(super) fn address(self, last: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 18, 0, last).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, last.into()).into(),
        }
    }

    /// Of a backend, or of one of more clients than the first.
    pub(super) fn nth(self, group: u8, number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        match self {
            Self::V4 => Ipv4Addr::new(198, 18 + group % 2, 64 + high, low).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, u16::from(group) + 1, number).into(),
        }
    }
}

impl Scene {
    /// Loads the program, with so much of everything.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn load(ingress: Ingress, family: Family, shape: Shape) -> Result<Self> {
        let (client, node, vip) = (family.address(200), family.address(1), family.address(100));
        let mut text = String::new();
        let mut facts = NodeFacts { mac: Mac::new(NODE_MAC), local: BTreeSet::from([node]), ..NodeFacts::default() };
        match node {
            IpAddr::V4(node) => facts.ipv4 = Some(node),
            IpAddr::V6(node) => facts.ipv6 = Some(node),
        }
        for service in (0..shape.n_services).rev() {
            let vip = SocketAddr::from((vip, PORT + service));
            text += &format!("[[service]]\nvip = \"{vip}\"\npersistence = \"connection\"\n");
            for number in 0..shape.n_backends {
                let backend = family.nth(0, number);
                text +=
                    &format!("[[service.backend]]\naddress = \"{}\"\n", SocketAddr::from((backend, PORT + service)));
                let [high, low] = number.to_be_bytes();
                facts.macs.insert(backend, Mac::new([2, 0, 0, 0, 3 + high, low]));
            }
        }
        let sizes = FlowTableSizes { max_flows: shape.max_flows, max_half_open: 8192 };
        let testbed = Testbed::new(ingress, &text, &facts, sizes)?;
        Ok(Self { testbed, family, client, node, vip })
    }

    /// The program at ingress.
    ///
    /// # Errors
    /// None that a loaded program could have.
    pub fn program(&self) -> Result<Measured<'_>> {
        let dataplane = self.testbed.dataplane();
        Ok(match self.testbed.ingress() {
            Ingress::Xdp => Measured::Xdp(dataplane.xdp()?),
            Ingress::Tc => Measured::Tc(dataplane.tc_ingress()?),
        })
    }

    /// The program at egress.
    ///
    /// # Errors
    /// None that a loaded program could have.
    pub(super) fn egress(&self) -> Result<&SchedClassifier> {
        self.testbed.dataplane().tc()
    }

    /// The programs and maps.
    pub fn into_testbed(self) -> Testbed {
        self.testbed
    }

    /// Establishes flows of the client's ports from the first on, this many; where it has no more ports, of other clients'.
    ///
    /// # Errors
    /// If one is not established.
    pub fn establish(&self, n_flows: u32) -> Result<()> {
        (0..n_flows).try_for_each(|n| {
            let client = match (n >> 16) as u16 {
                0 => self.client,
                other => self.family.nth(1, other),
            };
            self.establish_one(SocketAddr::from((client, FIRST_PORT.wrapping_add(n as u16))))
        })
    }

    fn establish_one(&self, client: SocketAddr) -> Result<()> {
        let (port, vip) = (client.port(), SocketAddr::from((self.vip, PORT)));
        let from_client = [CLIENT_MAC, NODE_MAC];
        let (verdict, output) =
            self.testbed.judge(Hook::Ingress, &packets::tcp(from_client, client, vip, Flags::Syn)?)?;
        let (nat, backend) = packets::endpoints(&output.frame)?;
        ensure!(nat.ip() == self.node, "the SYN of port {port} was not rewritten: {}", verdict.name());
        let syn_ack =
            packets::tcp([[2, 0, 0, 0, 3, 0], NODE_MAC], backend, nat, Flags::SynAck { acknowledges: SEQUENCE })?;
        let answer = self.run(&syn_ack)?;
        ensure!(packets::source(&answer)? == vip, "the SYN-ACK to port {port} was not rewritten");
        self.run(&packets::tcp(from_client, client, vip, Flags::Ack { acknowledges: SEQUENCE + 1 })?)?;
        Ok(())
    }

    /// Does something in which all packets are sent on.
    ///
    /// # Errors
    /// If it fails, or a packet is not sent on.
    pub fn forwarding<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.testbed.verdicts()?;
        let result = run()?;
        let counted = self.testbed.verdicts_since(&before)?;
        let is_forward = |(verdict, _): &(Verdict, u64)| matches!(verdict, Verdict::Forward(_));
        ensure!(!counted.is_empty() && counted.iter().all(is_forward), "not all are sent on: {counted:?}");
        Ok(result)
    }

    /// How many flows have been opened.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn n_opened(&self) -> Result<u64> {
        self.testbed.desired().backends.keys().map(|id| Ok(self.testbed.backend_stats(*id)?.flows)).sum()
    }

    fn run(&self, frame: &[u8]) -> Result<Vec<u8>> {
        Ok(self.testbed.run(Hook::Ingress, frame)?.frame)
    }

    /// A frame of this traffic, of the client's first port, and where the bytes are that tell flows apart.
    ///
    /// # Errors
    /// If it cannot be built.
    pub fn frame(&self, traffic: Traffic) -> Result<(Vec<u8>, u32)> {
        let client = SocketAddr::from((self.client, FIRST_PORT));
        let vip = SocketAddr::from((self.vip, PORT));
        let from_client = [CLIENT_MAC, NODE_MAC];
        let ack = Flags::Ack { acknowledges: SEQUENCE + 1 };
        let source_port = if self.vip.is_ipv4() { 34 } else { 54 };
        let frame = match traffic {
            Traffic::NotOurs => packets::tcp(from_client, client, (self.node, 22).into(), ack)?,
            Traffic::ToBackend | Traffic::Unknown => packets::tcp(from_client, client, vip, ack)?,
            Traffic::Opening => packets::tcp(from_client, client, vip, Flags::Syn)?,
            Traffic::ToClient => {
                let (nat, backend) = packets::endpoints(&self.run(&packets::tcp(from_client, client, vip, ack)?)?)?;
                packets::tcp([[2, 0, 0, 0, 3, 0], NODE_MAC], backend, nat, ack)?
            }
            Traffic::Error => {
                let sent = packets::tcp([NODE_MAC, CLIENT_MAC], vip, client, ack)?;
                IcmpError::too_big(from_client, self.client, self.vip, sent[ETHERNET..].to_vec()).build()
            }
        };
        Ok((frame, source_port))
    }
}
