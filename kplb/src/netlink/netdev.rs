//! What an interface's driver can do with XDP programs, as it says itself.

use std::fmt;

use anyhow::{Context as _, Result};
use futures_util::{TryStreamExt as _, pin_mut};
use genetlink::GenetlinkError;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _, NlasIterator,
    ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES` (include/uapi/linux/netdev.h).
const GET: u8 = 1;
const INDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;

/// What a driver can do with XDP programs: a set of `NETDEV_XDP_ACT_*` (include/uapi/linux/netdev.h).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct XdpFeatures(pub u64);

impl XdpFeatures {
    /// The names of the bits, from the first on.
    const NAMES: [&str; 7] = ["basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg"];

    /// Whether it runs programs that pass, drop and send back packets: all that kplb's does.
    pub const fn are_enough(self) -> bool {
        self.0 & 1 != 0
    }
}

impl fmt::Display for XdpFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            (0..).zip(Self::NAMES).filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| name).collect();
        f.write_str(&if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }
}

/// What the driver of the interface with this index says; `None` where the kernel knows no such question. Must be called on
/// a tokio runtime.
///
/// # Minimum kernel version
/// 6.3
///
/// # Errors
/// If there is no such interface, or the kernel cannot be asked.
pub async fn xdp_features(index: u32) -> Result<Option<XdpFeatures>> {
    let (connection, mut handle, _) = genetlink::new_connection().context("open a socket of generic netlink")?;
    tokio::spawn(connection);
    match handle.resolve_family::<Device>().await {
        Ok(_) => {}
        Err(GenetlinkError::NetlinkError(_)) => return Ok(None),
        Err(error) => return Err(error).context("ask the kernel for the family `netdev`"),
    }
    let mut request = NetlinkMessage::from(GenlMessage::from_payload(Device(vec![attribute(INDEX, index)])));
    request.header.flags = NLM_F_REQUEST;
    let read = || format!("ask the kernel for the XDP features of interface {index}");
    let answers = handle.request(request).await.with_context(read)?;
    pin_mut!(answers);
    while let Some(answer) = answers.try_next().await.with_context(read)? {
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => return Ok(message.payload.xdp_features()),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()).with_context(read),
            _ => {}
        }
    }
    Ok(None)
}

fn attribute(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

/// A message of the family.
#[derive(Clone, Debug)]
struct Device(Vec<DefaultNla>);

impl Device {
    fn xdp_features(&self) -> Option<XdpFeatures> {
        let attribute = self.0.iter().find(|attribute| attribute.kind() == XDP_FEATURES)?;
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        Some(XdpFeatures(u64::from_ne_bytes(value.try_into().ok()?)))
    }
}

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn version(&self) -> u8 {
        1
    }

    fn command(&self) -> u8 {
        GET
    }
}

impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(buffer: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(buffer).map(|attribute| {
            let attribute = attribute?;
            Ok(DefaultNla::new(attribute.kind(), attribute.value().to_vec()))
        });
        attributes.collect::<Result<_, DecodeError>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Option<XdpFeatures> {
        let header = GenlHeader { cmd: GET, version: 1 };
        Device::parse_with_param(bytes, header).ok()?.xdp_features()
    }

    #[test]
    fn features_are_found_among_others() {
        let index = DefaultNla::new(INDEX, 7_u32.to_ne_bytes().to_vec());
        let features = DefaultNla::new(XDP_FEATURES, 0x23_u64.to_ne_bytes().to_vec());
        let message = Device(vec![index, features]);
        let mut bytes = vec![0xa5; message.buffer_len()];
        message.emit(&mut bytes);
        assert_eq!(decode(&bytes), Some(XdpFeatures(0x23)));
        assert_eq!(decode(&bytes[..8]), None);
        for length in 0..bytes.len() {
            decode(&bytes[..length]);
        }
    }

    #[test]
    fn features_have_names() {
        assert_eq!(XdpFeatures(0x23).to_string(), "basic, redirect, rx-sg");
        assert!(XdpFeatures(0x23).are_enough());
        assert_eq!(XdpFeatures(0).to_string(), "none");
        assert!(!XdpFeatures(0x4).are_enough());
    }
}
