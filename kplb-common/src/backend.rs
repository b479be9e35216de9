//! One server of a service, as the data path sees it.

use crate::net::{Be16, Ip6, Mac};

/// What becomes of a backend's flows. New ones go to whomever the ring names: that is not asked here.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackendState {
    /// There is no such backend: its flows are reset.
    Absent = 0,
    /// Their packets are sent on.
    Serving = 1,
    /// It cannot be reached: they are reset.
    Down = 2,
}

impl BackendState {
    /// The state with this number; the numbers of no state, which nobody writes, read as absent.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Serving,
            2 => Self::Down,
            _ => Self::Absent,
        }
    }
}

/// Where a backend is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Location {
    /// Behind the wire: its flows are NATed to this node's address.
    Remote = 0,
    /// On this node: its packets are passed up with the client's address kept.
    Local = 1,
}

/// A backend; value of `BACKENDS`, indexed by backend id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backend {
    /// MAC address of the next hop, [`Mac::UNRESOLVED`] while it is not known. In one aligned word with the port, so
    /// that the agent's update of it is seen whole.
    pub mac: Mac,
    /// Port.
    pub port: Be16,
    /// IP address; an IPv4 address fills the first four bytes, the rest is zero.
    pub address: Ip6,
    /// Id of the one service it belongs to.
    pub service: u16,
    /// A [`BackendState`].
    pub state: u8,
    /// A [`Location`].
    pub location: u8,
    /// Always zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Backend>() == 32);

impl Backend {
    /// Whether packets are sent to and taken from the backend.
    #[inline(always)]
    pub fn is_serving(&self) -> bool {
        self.state == BackendState::Serving as u8
    }

    /// Whether the backend is on this node.
    #[inline(always)]
    pub fn is_local(&self) -> bool {
        self.location == Location::Local as u8
    }
}
