//! What an interface leaves to its hardware.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures_util::{TryStreamExt as _, pin_mut};

/// The names of the features that are on, as the kernel has them (`ethtool -k` has others for some). Must be called on a
/// tokio runtime.
///
/// # Minimum kernel version
/// 5.6
///
/// # Errors
/// If there is no such interface.
pub async fn active(interface: &str) -> Result<BTreeSet<String>> {
    let (connection, mut handle, _) = ethtool::new_connection().context("open a netlink socket for ethtool")?;
    tokio::spawn(connection);
    let read = || format!("read the features of {interface}");
    let messages = handle.feature().get(Some(interface)).execute().await.with_context(read)?;
    pin_mut!(messages);
    let mut active = BTreeSet::new();
    while let Some(message) = messages.try_next().await.with_context(read)? {
        for attribute in message.payload.nlas {
            if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                active.extend(bits.into_iter().filter(|bit| bit.value).map(|bit| bit.name));
            }
        }
    }
    Ok(active)
}
