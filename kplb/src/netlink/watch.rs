//! Following the kernel's changes, as hints what to read again.
//!
//! A notification is never applied: it only says which part is worth reading anew. A lost one ([`Changes::everything`]
//! after an overrun) so costs a read, and nothing that depends on the order of events can go wrong.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::AsyncSocket as _,
};
use tokio::sync::mpsc;

use super::message::Neighbour;

/// Receive buffer: room for the notifications of a burst while the agent is busy.
const RECEIVE_BUFFER_BYTES: i32 = 1 << 20;

/// What may have changed since the last read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Links, addresses or routes.
    pub topology: bool,
    /// Neighbours of the interface.
    pub neighbours: bool,
}

impl Changes {
    /// All there is: after a start, or when notifications were lost.
    pub const fn everything() -> Self {
        Self { topology: true, neighbours: true }
    }

    /// Whether anything is worth reading again.
    pub const fn is_any(self) -> bool {
        self.topology || self.neighbours
    }

    const fn and(self, other: Self) -> Self {
        Self { topology: self.topology || other.topology, neighbours: self.neighbours || other.neighbours }
    }

    /// What a notification is about, as far as it concerns these interfaces.
    fn of(message: &NetlinkMessage<RouteNetlinkMessage>, interfaces: [u32; 2]) -> Self {
        let neighbours = |address: Option<IpAddr>, index: u32| Self {
            topology: false,
            neighbours: address.is_some() && interfaces.contains(&index),
        };
        match &message.payload {
            NetlinkPayload::InnerMessage(inner) => match inner {
                RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message) => {
                    neighbours(Neighbour::decode(message).map(|n| n.address), message.header.ifindex)
                }
                // Other interfaces' links matter to no one here; their addresses and routes may.
                RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
                    Self { topology: interfaces.contains(&message.header.index), neighbours: false }
                }
                _ => Self { topology: true, neighbours: false },
            },
            NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => Self::everything(),
            _ => Self::default(),
        }
    }
}

/// A subscription to changes.
pub struct Watch {
    changes: mpsc::UnboundedReceiver<Changes>,
}

impl Watch {
    /// Subscribes. Must be called on a tokio runtime. Subscribe before the first read, so that no change is missed.
    pub fn subscribe(interfaces: [u32; 2]) -> Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (mut connection, handle, mut messages) =
            rtnetlink::new_multicast_connection(&groups).context("subscribe to netlink notifications")?;
        connection
            .socket_mut()
            .socket_mut()
            .set_rx_buf_sz(RECEIVE_BUFFER_BYTES)
            .context("size the netlink receive buffer")?;
        tokio::spawn(connection);
        let (sender, changes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // The connection ends when its last handle is gone.
            let _handle = handle;
            while let Some((message, _)) = messages.next().await {
                let change = Changes::of(&message, interfaces);
                if change.is_any() && sender.send(change).is_err() {
                    break;
                }
            }
        });
        Ok(Self { changes })
    }

    /// Waits for a change, and returns it together with all others that are already known. Safe to cancel.
    pub async fn changed(&mut self) -> Result<Changes> {
        let Some(mut changes) = self.changes.recv().await else {
            bail!("the netlink socket for notifications was closed");
        };
        while let Ok(more) = self.changes.try_recv() {
            changes = changes.and(more);
        }
        Ok(changes)
    }
}
