//! The VIPs that this node holds: on the interface, and put back when something takes them away.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use tracing::{info, warn};

use crate::{
    netlink::{
        client::{Change, Netlink},
        message::InterfaceAddress,
    },
    run_dir::{Lock, Record},
};

/// The VIPs on the interface.
pub(super) struct Vips {
    netlink: Netlink,
    interface: u32,
    /// Those that this node is to have.
    held: BTreeSet<IpAddr>,
    /// Those that the agent has added, and so removes.
    added: BTreeSet<IpAddr>,
    /// Those that could not be added.
    missing: BTreeSet<IpAddr>,
}

impl Vips {
    pub(super) const fn new(netlink: Netlink, interface: u32) -> Self {
        Self { netlink, interface, held: BTreeSet::new(), added: BTreeSet::new(), missing: BTreeSet::new() }
    }

    /// Those that this node is to have.
    pub(super) const fn held(&self) -> &BTreeSet<IpAddr> {
        &self.held
    }

    /// Adds these, recording them first, as far as it goes: returns the first error, after which [`Self::retry`] may help,
    /// and [`Self::remove_all`] takes away what was added.
    pub(super) async fn hold(&mut self, vips: impl IntoIterator<Item = IpAddr>, lock: &Lock) -> Result<()> {
        let vips: Vec<IpAddr> = vips.into_iter().collect();
        self.held.extend(&vips);
        // Without a record they would be left behind by a killed agent, and without VIPs nobody is served.
        let mut result = lock.write_record(&Record { vips: self.added.iter().chain(&vips).copied().collect() });
        for vip in vips {
            match self.netlink.add_vip(self.interface, vip).await {
                Ok(Change::Done) => {
                    self.added.insert(vip);
                }
                Ok(Change::Unneeded) => {
                    warn!("the VIP {vip} is on the interface already: it stays there when kplb ends");
                }
                Err(error) => {
                    self.missing.insert(vip);
                    result = result.and(Err(error));
                }
            }
        }
        result.and(lock.write_record(&Record { vips: self.added.iter().chain(&self.missing).copied().collect() }))
    }

    /// Tries again what [`Self::hold`] could not do.
    pub(super) async fn retry(&mut self) -> Result<()> {
        for vip in self.missing.clone() {
            if !self.held.contains(&vip) {
                self.missing.remove(&vip);
                continue;
            }
            if self.netlink.add_vip(self.interface, vip).await? == Change::Done {
                self.added.insert(vip);
            }
            self.missing.remove(&vip);
            info!("the VIP {vip} is on the interface at last");
        }
        Ok(())
    }

    /// Removes these, whoever added them: another node has them now. Reads back that they are gone.
    pub(super) async fn release(&mut self, vips: &[IpAddr], lock: &Lock) -> Result<()> {
        for vip in vips {
            self.held.remove(vip);
            let change = self.netlink.remove_vip(self.interface, *vip).await?;
            if self.added.remove(vip) {
                info!("removed the VIP {vip}");
            } else if change == Change::Done {
                warn!("the VIP {vip} was on the interface, and another node may have it: removed it");
            }
        }
        for entry in self.netlink.addresses().await? {
            if entry.interface == self.interface && vips.contains(&entry.address) {
                warn!("the VIP {} is still on the interface, or there again", entry.address);
            }
        }
        lock.write_record(&Record { vips: self.added.iter().copied().collect() })
    }

    /// Puts back what is missing from the interface.
    pub(super) async fn restore(&mut self, addresses: &[InterfaceAddress]) -> Result<Change> {
        let present: BTreeSet<IpAddr> =
            addresses.iter().filter(|entry| entry.interface == self.interface).map(|entry| entry.address).collect();
        let mut change = Change::Unneeded;
        for vip in self.held.difference(&present) {
            if self.netlink.add_vip(self.interface, *vip).await? == Change::Done {
                warn!("something removed the VIP {vip} from the interface: added it again");
                self.added.insert(*vip);
                change = Change::Done;
            }
        }
        Ok(change)
    }

    /// Removes what was added, as far as it goes.
    pub(super) async fn remove_all(&mut self, lock: &Lock) -> Result<()> {
        self.held.clear();
        for vip in self.added.clone() {
            self.netlink.remove_vip(self.interface, vip).await?;
            self.added.remove(&vip);
            info!("removed the VIP {vip}");
        }
        lock.remove_record()
    }
}
