//! A program that takes part in the election of a VIP's holder: keepalived, and what is measured next to it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    agent::Agent,
    cluster,
    keepalived::{Keepalived, Options, Transport},
    lab::{Host, Lab},
};

/// The programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Program {
    /// kplb, balancing.
    Kplb,
    /// keepalived, as it is packaged.
    Keepalived,
}

/// What a router is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The VIP.
    pub vip: IpAddr,
    /// A server that a balancer is to give connections to, at this port of the VIP as well.
    pub backend: SocketAddr,
    /// The higher one gets the VIP.
    pub priority: u8,
    /// Time between adverts.
    pub interval: Duration,
    /// The other routers, if adverts are to be sent to each of them, and not to the group.
    pub peers: Vec<IpAddr>,
}

/// A router that runs on one node. Dropped, it ends in whatever way.
pub trait Router: Send {
    /// Where it runs.
    fn host(&self) -> &Host;

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// If it does not stop in good order.
    fn stop(self: Box<Self>) -> Result<()>;

    /// Kills all of it at once. What it has set on its node stays.
    ///
    /// # Errors
    /// If it was not there to be killed.
    fn kill(self: Box<Self>) -> Result<()>;

    /// Whether its node has the VIP.
    ///
    /// # Errors
    /// If the node's addresses cannot be listed.
    fn holds(&self, vip: IpAddr) -> Result<bool> {
        self.host().has_address(vip)
    }
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Kplb, Self::Keepalived];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kplb => "kplb",
            Self::Keepalived => "keepalived",
        }
    }

    /// Starts it on a node, counted from 1, and waits until it takes part.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start<'l>(self, lab: &'l Lab, node: usize, settings: &Settings) -> Result<Box<dyn Router + 'l>> {
        let Settings { vip, backend, priority, interval, peers } = settings.clone();
        match self {
            Self::Kplb => {
                let peers: Vec<String> = peers.iter().map(|peer| format!("\"{peer}\"")).collect();
                let vip = SocketAddr::from((vip, backend.port()));
                let text = format!(
                    "[vrrp]\npriority = {priority}\ninterval = \"{}ms\"\npeers = [{}]\npreempt = true\n\
                     [[service]]\nvip = \"{vip}\"\ncheck.type = \"tcp\"\n[[service.backend]]\naddress = \"{backend}\"\n",
                    interval.as_millis(),
                    peers.join(", ")
                );
                Ok(Box::new(cluster::start_agent(lab.node(node), &text)?))
            }
            Self::Keepalived => {
                let transport = if peers.is_empty() { Transport::Multicast } else { Transport::Unicast(peers) };
                let options = Options { interval, transport, ..Options::new(priority, [vip]) };
                Ok(Box::new(Keepalived::start(lab.node(node), &options)?))
            }
        }
    }
}

impl Router for Agent<'_> {
    fn host(&self) -> &Host {
        Agent::host(self)
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Agent::stop(*self)
    }

    fn kill(mut self: Box<Self>) -> Result<()> {
        self.process().kill()
    }
}

impl Router for Keepalived<'_> {
    fn host(&self) -> &Host {
        Keepalived::host(self)
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Keepalived::stop(*self)
    }

    fn kill(self: Box<Self>) -> Result<()> {
        Keepalived::kill(*self)
    }
}
