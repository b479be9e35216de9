//! Telling the segment that a VIP is here now, so that nobody goes on sending to where it was.

mod frame;
pub mod probe;

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use kplb_common::net::Mac;

use crate::packet_socket::PacketSocket;

/// Announces VIPs on one interface.
pub struct Announcer(PacketSocket);

impl Announcer {
    /// Opens a packet socket for the interface.
    pub fn open(interface: &str) -> Result<Self> {
        PacketSocket::open(interface).map(Self)
    }

    /// Says once that the VIPs are at `mac`.
    pub fn announce(&self, mac: Mac, vips: &[IpAddr]) -> Result<()> {
        for vip in vips {
            for frame in frame::announcements(mac, *vip) {
                self.0.send(&frame).with_context(|| format!("announce {vip}"))?;
            }
        }
        Ok(())
    }
}
