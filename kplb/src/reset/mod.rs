//! Telling both ends of an orphan that it is over: the client, which would wait for a dead backend, and the backend,
//! which may be alive though it does not answer.
//!
//! Packets of such flows are answered by the data path. This is for those that are idle: no packet, no answer.

mod frame;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kplb_common::{
    backend::Location,
    net::{Address as _, Ip4, Mac},
    sweep::Orphan,
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket},
};
use tracing::debug;

use crate::packet_socket::PacketSocket;

/// How long all resets of one failure may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// For the interface to send what is queued: some tens of frames at 100 Mbit/s.
const BREATH: Duration = Duration::from_micros(200);

/// Sends resets.
pub struct Resetter {
    wire: PacketSocket,
    /// Packets to this node itself, as made here from the first byte on.
    local_v4: OwnedFd,
    /// `None` on a node that has no IPv6 at all, and so no such backend.
    local_v6: Option<OwnedFd>,
    /// Sent so far.
    total: Mutex<Sent>,
}

/// Where resets go.
#[derive(Clone, Debug)]
pub struct Route {
    /// MAC address of the interface.
    pub node: Mac,
    /// MAC addresses of the next hops of backends behind the wire, by id, where they are known.
    pub backends: BTreeMap<u16, Mac>,
}

/// Who is told first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum First {
    /// The clients: they wait for a backend that does not answer.
    Clients,
    /// The backends, which do answer: a client that has not acknowledged all that it got does not believe the reset, and
    /// asks back (RFC 5961, section 3.2); its question must not find the other end alive.
    Backends,
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
        let raw = |family| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        let local_v6 = match raw(AddressFamily::Inet6) {
            Err(Errno::EAFNOSUPPORT) => None,
            socket => Some(socket.context("open a raw socket")?),
        };
        Ok(Self {
            wire: PacketSocket::open(interface)?,
            local_v4: raw(AddressFamily::Inet).context("open a raw socket")?,
            local_v6,
            total: Mutex::default(),
        })
    }

    /// How many resets have left since it was opened.
    pub fn total(&self) -> Sent {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells both ends, and the clients once more: a frame may get lost, and its client would wait for ever. What cannot
    /// be sent is left out: whoever says something on such a flow is answered by the data path, or by the other end.
    ///
    /// Blocks while the interface has no room, for two seconds in all.
    pub fn send(&self, orphans: &[Orphan], route: &Route, first: First) -> Sent {
        let deadline = Instant::now() + PATIENCE;
        let to_client = |orphan: &&Orphan| {
            let frame = frame::to_client(orphan, route.node);
            is_sent(deadline, || self.wire.send(&frame))
        };
        let to_backend = |orphan: &&Orphan| self.is_sent_to_backend(orphan, route, deadline);
        let mut sent = Sent::default();
        if first == First::Backends {
            sent.to_backends = orphans.iter().filter(to_backend).count();
        }
        sent.to_clients = orphans.iter().filter(to_client).count();
        if first == First::Clients {
            sent.to_backends = orphans.iter().filter(to_backend).count();
        }
        orphans.iter().filter(to_client).for_each(drop);
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        total.to_clients += sent.to_clients;
        total.to_backends += sent.to_backends;
        sent
    }

    fn is_sent_to_backend(&self, orphan: &Orphan, route: &Route, deadline: Instant) -> bool {
        if orphan.location == Location::Local as u8 {
            return is_sent(deadline, || self.send_locally(orphan));
        }
        let Some(backend) = route.backends.get(&orphan.backend_id) else { return false };
        let frame = frame::to_backend(orphan, route.node, *backend);
        is_sent(deadline, || self.wire.send(&frame))
    }

    fn send_locally(&self, orphan: &Orphan) -> nix::Result<()> {
        let packet = frame::to_local_backend(orphan);
        let sent = if orphan.version == 4 {
            let address = Ipv4Addr::from(Ip4::from_wide(&orphan.backend));
            let address = SockaddrIn::from(SocketAddrV4::new(address, 0));
            sendto(self.local_v4.as_raw_fd(), &packet, &address, MsgFlags::empty())
        } else {
            let address = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::from(orphan.backend), 0, 0, 0));
            let socket = self.local_v6.as_ref().ok_or(Errno::EAFNOSUPPORT)?;
            sendto(socket.as_raw_fd(), &packet, &address, MsgFlags::empty())
        };
        sent.map(drop)
    }
}

/// Sends, and tries again while there is no room.
fn is_sent(deadline: Instant, send: impl Fn() -> nix::Result<()>) -> bool {
    loop {
        match send() {
            Ok(()) => return true,
            // A full queue, of the socket or of the interface (packet(7)), is soon empty again.
            Err(Errno::ENOBUFS | Errno::EAGAIN) if Instant::now() < deadline => thread::sleep(BREATH),
            Err(error) => {
                debug!("a reset could not be sent: {error}");
                return false;
            }
        }
    }
}
