//! Telling both ends of an orphan that it is over: the client, which would wait for a dead backend, and the backend,
//! which may be alive though it does not answer.
//!
//! Packets of such flows are answered by the data path. This is for those that are idle: no packet, no answer.

mod frame;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use kplb_common::{
    backend::Location,
    net::{Address as _, Ip4, Mac},
    sweep::Orphan,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
};
use tracing::debug;

use crate::packet_socket::PacketSocket;

/// Sends resets.
pub struct Resetter {
    wire: PacketSocket,
    /// Packets to this node itself, as made here from the first byte on.
    local_v4: OwnedFd,
    local_v6: OwnedFd,
}

/// Where resets go.
#[derive(Clone, Debug)]
pub struct Route {
    /// MAC address of the interface.
    pub node: Mac,
    /// MAC addresses of the next hops of backends behind the wire, by id, where they are known.
    pub backends: BTreeMap<u16, Mac>,
}

/// How many resets have left.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sent {
    /// To clients.
    pub to_clients: usize,
    /// To backends.
    pub to_backends: usize,
}

impl Resetter {
    /// Opens what it takes for the interface.
    pub fn open(interface: &str) -> Result<Self> {
        let raw = |family| {
            socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).context("open a raw socket")
        };
        Ok(Self {
            wire: PacketSocket::open(interface)?,
            local_v4: raw(AddressFamily::Inet)?,
            local_v6: raw(AddressFamily::Inet6)?,
        })
    }

    /// Tells the clients, then the backends. What cannot be sent is left out: whoever says something on such a flow is
    /// answered by the data path.
    pub fn send(&self, orphans: &[Orphan], route: &Route) -> Sent {
        let to_client = |orphan: &&Orphan| is_sent(self.wire.send(&frame::to_client(orphan, route.node)));
        let to_backend = |orphan: &&Orphan| self.send_to_backend(orphan, route).is_some_and(is_sent);
        Sent {
            to_clients: orphans.iter().filter(to_client).count(),
            to_backends: orphans.iter().filter(to_backend).count(),
        }
    }

    fn send_to_backend(&self, orphan: &Orphan, route: &Route) -> Option<nix::Result<()>> {
        if orphan.location == Location::Local as u8 {
            return Some(self.send_locally(orphan));
        }
        let backend = route.backends.get(&orphan.backend_id)?;
        Some(self.wire.send(&frame::to_backend(orphan, route.node, *backend)))
    }

    fn send_locally(&self, orphan: &Orphan) -> nix::Result<()> {
        let packet = frame::to_local_backend(orphan);
        let sent = if orphan.version == 4 {
            let address = Ipv4Addr::from(Ip4::from_wide(&orphan.backend));
            let address = SockaddrIn::from(SocketAddrV4::new(address, 0));
            sendto(self.local_v4.as_raw_fd(), &packet, &address, MsgFlags::empty())
        } else {
            let address = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::from(orphan.backend), 0, 0, 0));
            sendto(self.local_v6.as_raw_fd(), &packet, &address, MsgFlags::empty())
        };
        sent.map(drop)
    }
}

fn is_sent(result: nix::Result<()>) -> bool {
    result.inspect_err(|error| debug!("a reset could not be sent: {error}")).is_ok()
}
