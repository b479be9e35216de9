//! Sending whole Ethernet frames by one interface.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};

/// A packet socket that only sends.
pub struct PacketSocket {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl PacketSocket {
    /// Opens one for the interface.
    pub fn open(interface: &str) -> Result<Self> {
        let address = getifaddrs()
            .context("list interface addresses")?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied()))
            .with_context(|| format!("find the link address of {interface}"))?;
        // No protocol: nothing is received.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .context("open a packet socket")?;
        Ok(Self { socket, interface: address })
    }

    /// Sends a frame as it is. Never waits: who announces a VIP has more to do in time than that.
    ///
    /// # Errors
    /// `EAGAIN` and `ENOBUFS` while there is no room, in the socket or in the interface's queue (packet(7)).
    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.interface, MsgFlags::MSG_DONTWAIT).map(drop)
    }
}
