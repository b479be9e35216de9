//! Announcements of a node that holds the VIPs without an election.

use std::{net::IpAddr, time::Instant};

use anyhow::{Context as _, Result};
use kplb_common::net::Mac;
use tokio::time::sleep_until;

use crate::{
    announce::Announcer,
    vrrp::announcements::{Announcements, Schedule},
};

/// Tells the segment where the VIPs are.
pub(super) struct Herald {
    announcer: Announcer,
    announcements: Announcements,
}

impl Herald {
    pub(super) fn new(announcer: Announcer) -> Self {
        Self { announcer, announcements: Announcements::new(Schedule::default()) }
    }

    /// Begins anew: the VIPs are here since now.
    pub(super) fn start(&mut self) {
        self.announcements.start(Instant::now());
    }

    /// Announces what is due.
    pub(super) fn announce<'v>(&mut self, mac: Mac, vips: impl IntoIterator<Item = &'v IpAddr>) -> Result<()> {
        let vips: Vec<IpAddr> = vips.into_iter().copied().collect();
        for _ in 0..self.announcements.due(Instant::now()) {
            self.announcer.announce(mac, &vips).context("announce the VIPs")?;
        }
        Ok(())
    }

    /// Waits until something is due; for ever if nothing will be. Safe to cancel.
    pub(super) async fn due(&self) {
        match self.announcements.next() {
            Some(next) => sleep_until(next.into()).await,
            None => std::future::pending().await,
        }
    }
}
