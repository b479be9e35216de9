//! kplb's program with a service, backends and flows.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Result, ensure};
use aya::programs::Xdp;
use kplb::{dataplane::FlowTableSizes, model::NodeFacts};
use kplb_common::net::Mac;

use super::packets::{self, Flags, SEQUENCE};
use crate::{
    frames::icmp::IcmpError,
    testbed::{Hook, Ingress, Testbed},
};

const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const PORT: u16 = 6443;
const N_BACKENDS: u8 = 8;
/// The first of the ports that a frame's varied bytes count through.
const FIRST_PORT: u16 = 0;

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

/// The loaded program. Dropped, it leaves nothing.
pub struct Scene {
    testbed: Testbed,
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
    fn address(self, last: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 18, 0, last).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, last.into()).into(),
        }
    }
}

impl Scene {
    /// Loads the program with tables for `max_flows` flows.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn load(ingress: Ingress, family: Family, max_flows: u32) -> Result<Self> {
        let (client, node, vip) = (family.address(200), family.address(1), family.address(100));
        let mut text =
            format!("[[service]]\nvip = \"{}\"\npersistence = \"connection\"\n", SocketAddr::from((vip, PORT)));
        let mut facts = NodeFacts { mac: Mac::new(NODE_MAC), local: BTreeSet::from([node]), ..NodeFacts::default() };
        match node {
            IpAddr::V4(node) => facts.ipv4 = Some(node),
            IpAddr::V6(node) => facts.ipv6 = Some(node),
        }
        for number in 0..N_BACKENDS {
            let backend = family.address(11 + number);
            text += &format!("[[service.backend]]\naddress = \"{}\"\n", SocketAddr::from((backend, PORT)));
            facts.macs.insert(backend, Mac::new([2, 0, 0, 0, 3, number]));
        }
        let testbed = Testbed::new(ingress, &text, &facts, FlowTableSizes { max_flows, max_half_open: 8192 })?;
        Ok(Self { testbed, client, node, vip })
    }

    /// The program.
    ///
    /// # Errors
    /// None that a loaded program could have.
    pub fn program(&self) -> Result<&Xdp> {
        self.testbed.dataplane().xdp()
    }

    /// Establishes flows of the client's ports from the first on, this many.
    ///
    /// # Errors
    /// If one is not established.
    pub fn establish(&self, n_flows: u32) -> Result<()> {
        (0..n_flows).try_for_each(|n| self.establish_one(FIRST_PORT.wrapping_add(n as u16)))
    }

    fn establish_one(&self, port: u16) -> Result<()> {
        let (client, vip) = (SocketAddr::from((self.client, port)), SocketAddr::from((self.vip, PORT)));
        let from_client = [CLIENT_MAC, NODE_MAC];
        let syn = self.run(&packets::tcp(from_client, client, vip, Flags::Syn)?)?;
        let (nat, backend) = packets::endpoints(&syn)?;
        ensure!(nat.ip() == self.node, "the SYN of port {port} was not rewritten");
        let syn_ack =
            packets::tcp([[2, 0, 0, 0, 3, 0], NODE_MAC], backend, nat, Flags::SynAck { acknowledges: SEQUENCE })?;
        let answer = self.run(&syn_ack)?;
        ensure!(packets::source(&answer)? == vip, "the SYN-ACK to port {port} was not rewritten");
        self.run(&packets::tcp(from_client, client, vip, Flags::Ack { acknowledges: SEQUENCE + 1 })?)?;
        Ok(())
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
