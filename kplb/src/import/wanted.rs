//! What the old balancers do, in one form for both: who listens where, and what is behind it.

use std::{net::IpAddr, time::Duration};

use kplb_common::service::Persistence;

use super::finding::Written;
use crate::config::{CheckConfig, OnDown, Protocol};

/// Listeners with the same servers behind them.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: Option<String>,
    /// The directive that all of it is about.
    pub(super) written: Written,
    pub(super) listeners: Vec<Listener>,
    pub(super) protocol: Protocol,
    pub(super) persistence: Persistence,
    /// The directive that says so, if one does.
    pub(super) persistence_by: Option<Written>,
    pub(super) on_down: OnDown,
    pub(super) slow_start: Option<Duration>,
    pub(super) servers: Vec<Server>,
}

/// Where clients connect to.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) address: Address,
    pub(super) port: u16,
    pub(super) written: Written,
}

/// At which addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Address {
    /// This one.
    One(IpAddr),
    /// All that the node has, of some family.
    All(Families),
}

/// Address families.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Families {
    V4,
    V6,
    Both,
}

impl Families {
    pub(super) fn contain(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::Both => true,
        }
    }
}

/// A server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) name: Option<String>,
    pub(super) written: Written,
    pub(super) address: IpAddr,
    pub(super) port: Port,
    /// Relative to the others of its kind, in any measure.
    pub(super) weight: u32,
    pub(super) check: Option<CheckConfig>,
    /// What is to be said about it where it is written down.
    pub(super) note: Option<String>,
}

/// A server's port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Port {
    Fixed(u16),
    /// The listener's, and so much more.
    Offset(i32),
}

impl Port {
    /// The port for clients of a listener; none if there is no such port.
    pub(super) fn of(self, listener: u16) -> Option<u16> {
        let port = match self {
            Self::Fixed(port) => port,
            Self::Offset(offset) => u16::try_from(i32::from(listener).checked_add(offset)?).ok()?,
        };
        (port != 0).then_some(port)
    }
}
