//! What a killed agent left, found by the record it kept and by its pins.

use std::path::Path;

use anyhow::Result;

use crate::{
    dataplane,
    netlink::client::{Change, Netlink},
    run_dir::Lock,
};

/// Removes pins and recorded VIPs of an agent that is gone: the lock says that there is none. Returns what there was,
/// in words. Must be called on a tokio runtime.
pub async fn remove(lock: &Lock, interface: &str, pin_root: &Path) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    if dataplane::remove_pins(&dataplane::pin_directory(pin_root, interface))? {
        removed.push("its programs and maps".to_owned());
    }
    let Some(record) = lock.record()? else { return Ok(removed) };
    let netlink = Netlink::connect()?;
    // The interface may be gone, and its addresses with it.
    if let Some(link) = netlink.links().await?.into_iter().find(|link| link.name == interface) {
        for vip in record.vips {
            if netlink.remove_vip(link.index, vip).await? == Change::Done {
                removed.push(format!("the VIP {vip}"));
            }
        }
    }
    lock.remove_record()?;
    Ok(removed)
}
