//! The VIPs that this node holds: on the interface, and put back when something takes them away.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use tracing::{error, info, warn};

use super::first_error;
use crate::{
    netlink::{
        client::{Change, Netlink},
        message::InterfaceAddress,
    },
    run_dir::Lock,
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
    /// `added`: those that an earlier agent has added.
    pub(super) const fn new(netlink: Netlink, interface: u32, added: BTreeSet<IpAddr>) -> Self {
        Self { netlink, interface, held: BTreeSet::new(), added, missing: BTreeSet::new() }
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
        let mut result = lock.amend_record(|record| record.vips = self.added.iter().chain(&vips).copied().collect());
        for vip in vips {
            if self.added.contains(&vip) && self.is_there(vip).await {
                continue;
            }
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
        let recorded = || self.added.iter().chain(&self.missing).copied().collect();
        result.and(lock.amend_record(|record| record.vips = recorded()))
    }

    async fn is_there(&self, vip: IpAddr) -> bool {
        let is_it = |entry: &InterfaceAddress| entry.interface == self.interface && entry.address == vip;
        self.netlink.addresses().await.is_ok_and(|addresses| addresses.iter().any(is_it))
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

    /// Removes these, whoever added them: another node has them now. Reads back that they are gone. One that cannot be
    /// removed keeps no other.
    pub(super) async fn release(&mut self, vips: &[IpAddr], lock: &Lock) -> Result<()> {
        let mut results = Vec::new();
        for vip in vips {
            self.held.remove(vip);
            results.push(self.banish(*vip).await);
        }
        results.push(self.read_back(vips).await);
        results.push(lock.amend_record(|record| record.vips = self.added.iter().copied().collect()));
        first_error(results)
    }

    async fn banish(&mut self, vip: IpAddr) -> Result<()> {
        let change = self.netlink.banish_vip(self.interface, vip).await?;
        if self.added.remove(&vip) {
            info!("removed the VIP {vip}");
        } else if change == Change::Done {
            warn!("the VIP {vip} was on the interface, and another node may have it: removed it");
        }
        Ok(())
    }

    async fn read_back(&self, vips: &[IpAddr]) -> Result<()> {
        for entry in self.netlink.addresses().await? {
            if entry.interface == self.interface && vips.contains(&entry.address) {
                error!("the VIP {} is still on the interface, or there again", entry.address);
            }
        }
        Ok(())
    }

    /// Puts back what is missing from the interface.
    pub(super) async fn restore(&mut self, addresses: &[InterfaceAddress], lock: &Lock) -> Result<Change> {
        let present: BTreeSet<IpAddr> =
            addresses.iter().filter(|entry| entry.interface == self.interface).map(|entry| entry.address).collect();
        let mut change = Change::Unneeded;
        let absent: BTreeSet<IpAddr> = self.held.difference(&present).copied().collect();
        if !absent.is_subset(&self.added) {
            lock.amend_record(|record| record.vips = self.added.union(&absent).copied().collect())?;
        }
        for vip in &absent {
            if self.netlink.add_vip(self.interface, *vip).await? == Change::Done {
                warn!("something removed the VIP {vip} from the interface: added it again");
                self.added.insert(*vip);
                change = Change::Done;
            }
        }
        Ok(change)
    }

    /// Removes what was added, as far as it goes. What stays is still recorded.
    pub(super) async fn remove_all(&mut self, lock: &Lock) -> Result<()> {
        self.held.clear();
        let mut results = Vec::new();
        for vip in self.added.clone() {
            results.push(self.netlink.remove_vip(self.interface, vip).await.map(|_| {
                self.added.remove(&vip);
                info!("removed the VIP {vip}");
            }));
        }
        // From here on the others may be somebody else's.
        if let Err(error) = lock.amend_record(|record| record.vips = self.added.iter().copied().collect()) {
            error!("{error:#}");
        }
        first_error(results)
    }
}
