//! What a killed agent left, found by the record it kept, by its pins, and by the names of its filters.
//!
//! Invariant: its programs, and with them the fence, are taken away after its VIPs, and not at all while one of those
//! stays: nobody else would keep the node from answering for it.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use tracing::error;

use super::{first_error, present};
use crate::{
    dataplane::{self, ClassicFilter, Side},
    netlink::{
        client::{Change, Netlink},
        message::Link,
    },
    run_dir::{Lock, Record},
};

/// What to do about a record that cannot be read.
#[derive(Clone, Copy, Debug)]
pub enum Unreadable<'v> {
    /// To give up, and leave all as it is.
    Refuse,
    /// To take these VIPs for what it says. An agent is to start, and was most likely killed with the configuration that
    /// it has now; a node that never starts one again, for the sake of a file that it cannot read, helps nobody.
    Assume(&'v BTreeSet<IpAddr>),
}

/// What an agent that is gone has recorded: the lock says that there is none.
///
/// # Errors
/// If it cannot be read, and must be.
pub fn record(lock: &Lock, unreadable: Unreadable<'_>) -> Result<Record> {
    match (lock.record(), unreadable) {
        (Ok(record), _) => Ok(record.unwrap_or_default()),
        (Err(error), Unreadable::Refuse) => Err(error),
        (Err(error), Unreadable::Assume(vips)) => {
            error!("{error:#}; the VIPs of the configuration are taken for what it says");
            Ok(Record { vips: vips.iter().copied().collect(), ..Record::default() })
        }
    }
}

/// Removes recorded VIPs, and the programs of an agent that is gone. Returns what there was, in words. Must be called on a
/// tokio runtime.
///
/// # Errors
/// If something cannot be removed; what could be is not on record any more.
pub async fn remove(lock: &Lock, interface: &str, pin_root: &Path, record: &Record) -> Result<Vec<String>> {
    let removed_vips = remove_vips(lock, interface, &record.vips, Place::Everywhere).await;
    let mut removed = removed_vips.context("its programs stay until its VIPs are gone")?;
    let netlink = Netlink::connect()?;
    // The interface may be gone, and its filters with it.
    let links = netlink.links().await?;
    let device = links.iter().find(|link| link.name == interface);
    let mut found = false;
    // The client's side first, so that no packet is rewritten whose reply would not be.
    if let Some(device) = device {
        found |= detach_filters(&netlink, device, Side::Ingress, None).await?;
    }
    found |= dataplane::take_away(pin_root, interface)?;
    if let Some(device) = device {
        found |= detach_filters(&netlink, device, Side::Egress, None).await?;
    }
    if found {
        removed.push("its programs and maps".to_owned());
    }
    lock.remove_record()?;
    Ok(removed)
}

/// Detaches the filters of kplb's programs on a side of an interface, but for this one. Returns whether there were any.
///
/// # Errors
/// If one cannot be detached.
pub(super) async fn detach_filters(
    netlink: &Netlink,
    device: &Link,
    side: Side,
    keep: Option<ClassicFilter>,
) -> Result<bool> {
    let present = present::filters(netlink, device, side).await?;
    let strays: Vec<_> = dataplane::own_filters(side, &present).map(|(_, filter)| filter).collect();
    let strays = strays.iter().filter(|filter| keep != Some(**filter));
    let mut found = false;
    for filter in strays {
        dataplane::detach_classic(&device.name, side, *filter)?;
        found = true;
    }
    Ok(found)
}

/// Of which links of an interface VIPs are removed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Of it, and of those of its VLANs: the record does not say in which one they were.
    Everywhere,
    /// Of all but the one with this index.
    AllBut(u32),
}

/// Removes those of the VIPs that can be removed, and strikes off the record those that are gone. Must be called on a tokio
/// runtime.
///
/// # Errors
/// If one stays.
pub(super) async fn remove_vips(lock: &Lock, interface: &str, vips: &[IpAddr], place: Place) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    if vips.is_empty() {
        return Ok(removed);
    }
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let (mut stayed, mut results) = (BTreeSet::new(), Vec::new());
    // The interface may be gone, and its addresses with it.
    if let Some(device) = links.iter().find(|link| link.name == interface) {
        let is_meant = |link: &&Link| match place {
            Place::Everywhere => true,
            Place::AllBut(index) => link.index != index,
        };
        for link in links.iter().filter(|link| link.is_on(&links, device.index)).filter(is_meant) {
            for vip in vips {
                match netlink.remove_vip(link.index, *vip).await {
                    Ok(Change::Done) => removed.push(format!("the VIP {vip}")),
                    Ok(Change::Unneeded) => {}
                    Err(error) => {
                        stayed.insert(*vip);
                        results.push(Err(error));
                    }
                }
            }
        }
    }
    if matches!(place, Place::Everywhere) {
        // From here on they may be somebody else's.
        results.push(lock.amend_record(|record| {
            record.vips.retain(|vip| !vips.contains(vip));
            record.vips.extend(&stayed);
        }));
    }
    first_error(results)?;
    Ok(removed)
}
