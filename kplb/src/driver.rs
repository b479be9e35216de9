//! What the driver of an interface has of native XDP, as far as that is known before a program is attached.

use std::fs;

use crate::{
    dataplane::NativeXdp,
    netlink::{
        message::Link,
        netdev::{self, XdpFeatures},
    },
};

/// Drivers with native XDP in the oldest kernel that kplb runs on, for those that do not say it themselves.
///
/// Source: `ndo_bpf` with `XDP_SETUP_PROG` in the kernel's drivers/net, version 5.18.
const NATIVE_DRIVERS: [&str; 25] = [
    "bnxt_en",
    "cpsw",
    "dpaa2-eth",
    "ena",
    "fsl_enetc",
    "fsl_dpa",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "qede",
    "sfc",
    "st_gmac",
    "thunder-nic",
    "tsnep",
    "virtio_net",
];

/// A driver, as far as the kernel tells.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Its name, where sysfs has one: of a device of its own.
    pub name: Option<String>,
    /// What it says; none where the kernel cannot say it.
    pub features: Result<Option<XdpFeatures>, String>,
}

impl Driver {
    /// That of an interface. Must be called on a tokio runtime.
    pub async fn of(interface: &str, index: u32) -> Self {
        let link = fs::read_link(format!("/sys/class/net/{interface}/device/driver")).ok();
        let name = link.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
        let features = netdev::xdp_features(index).await.map_err(|error| format!("{error:#}"));
        Self { name, features }
    }

    /// Whether it is one of those that have native XDP, whatever it says.
    pub fn is_known_to_have_xdp(&self) -> bool {
        self.name.as_deref().is_some_and(|name| NATIVE_DRIVERS.contains(&name))
    }

    /// What is known of native XDP on an interface with this driver.
    pub fn native_xdp(&self, device: &Link) -> NativeXdp {
        if device.vlan.is_some() {
            return NativeXdp::Unfit("the interface of a VLAN has no native XDP".to_owned());
        }
        if device.kind.as_deref() == Some("veth") {
            // `veth_xdp_rcv_skb` in drivers/net/veth.c; what is sent back gets lost unless the peer polls (`veth_xdp_xmit`).
            return NativeXdp::Unfit("a veth copies each packet for a native XDP program".to_owned());
        }
        match (&self.features, &self.name) {
            (Ok(Some(features)), _) if features.are_enough() => NativeXdp::Promised,
            (Ok(Some(_)), Some(name)) => NativeXdp::Unfit(format!("the driver {name} has no native XDP")),
            (Ok(Some(_)), None) => NativeXdp::Unfit("the driver has no native XDP".to_owned()),
            (Ok(None) | Err(_), _) => NativeXdp::Unknown,
        }
    }
}
