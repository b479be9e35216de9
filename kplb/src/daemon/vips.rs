//! The VIPs that this node holds: on the interface, announced, put back when something takes them away.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result};
use kplb_common::net::Mac;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::{
    announce::{Announcer, BURST_GAP, BURST_LENGTH},
    netlink::{
        client::{Change, Netlink},
        message::InterfaceAddress,
    },
    run_dir::{Lock, Record},
};

/// The VIPs on the interface.
pub(super) struct Vips {
    netlink: Netlink,
    announcer: Announcer,
    interface: u32,
    vips: BTreeSet<IpAddr>,
    /// Those that the agent has added, and so removes.
    added: BTreeSet<IpAddr>,
    burst: Option<Burst>,
}

/// Announcements still to be made.
struct Burst {
    remaining: u32,
    next: Instant,
}

impl Vips {
    pub(super) const fn new(netlink: Netlink, announcer: Announcer, interface: u32, vips: BTreeSet<IpAddr>) -> Self {
        Self { netlink, announcer, interface, vips, added: BTreeSet::new(), burst: None }
    }

    /// Adds the VIPs, recording them first. After an error [`Self::remove`] takes away what was added.
    pub(super) async fn add(&mut self, lock: &Lock) -> Result<()> {
        lock.write_record(&Record { vips: self.vips.iter().copied().collect() })?;
        for vip in &self.vips {
            match self.netlink.add_vip(self.interface, *vip).await? {
                Change::Done => {
                    self.added.insert(*vip);
                }
                Change::Unneeded => warn!("the VIP {vip} is on the interface already: it stays there when kplb ends"),
            }
        }
        lock.write_record(&Record { vips: self.added.iter().copied().collect() })
    }

    /// Puts back what is missing from the interface.
    pub(super) async fn restore(&mut self, addresses: &[InterfaceAddress]) -> Result<Change> {
        let present: BTreeSet<IpAddr> =
            addresses.iter().filter(|entry| entry.interface == self.interface).map(|entry| entry.address).collect();
        let mut change = Change::Unneeded;
        for vip in self.vips.difference(&present) {
            if self.netlink.add_vip(self.interface, *vip).await? == Change::Done {
                warn!("something removed the VIP {vip} from the interface: added it again");
                change = Change::Done;
            }
        }
        Ok(change)
    }

    /// Removes what was added, as far as it goes.
    pub(super) async fn remove(&mut self, lock: &Lock) -> Result<()> {
        for vip in self.added.clone() {
            self.netlink.remove_vip(self.interface, vip).await?;
            self.added.remove(&vip);
            info!("removed the VIP {vip}");
        }
        lock.remove_record()
    }

    /// Announces the VIPs now, and a few times more at the moments of [`Self::next_announcement`].
    pub(super) fn start_burst(&mut self, mac: Mac) -> Result<()> {
        self.burst = Some(Burst { remaining: BURST_LENGTH, next: Instant::now() });
        self.announce(mac)
    }

    /// Announces the VIPs once.
    pub(super) fn announce(&mut self, mac: Mac) -> Result<()> {
        let vips: Vec<IpAddr> = self.vips.iter().copied().collect();
        if let Some(burst) = &mut self.burst {
            burst.remaining = burst.remaining.saturating_sub(1);
            burst.next = Instant::now() + BURST_GAP;
        }
        self.burst.take_if(|burst| burst.remaining == 0);
        self.announcer.announce(mac, &vips).context("announce the VIPs")
    }

    /// Waits until the next announcement is due; for ever when none is. Safe to cancel.
    pub(super) async fn next_announcement(&self) {
        match &self.burst {
            Some(burst) => sleep_until(burst.next).await,
            None => std::future::pending().await,
        }
    }
}
