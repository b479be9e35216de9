//! Table `[metrics]`: where the agent tells Prometheus how it is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::value::{Wrong, shown};

/// Where it listens unless the table says otherwise: nobody else reaches it there.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9643);

/// Table `[metrics]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MetricsConfig {
    /// Where to listen; the port is not 0.
    pub listen: SocketAddr,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: DEFAULT }
    }
}

/// An address of this host and a port.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Wrong> {
    let address: SocketAddr = text.parse().map_err(|_| {
        let hint = "write it as 127.0.0.1:9643, or [::]:9643 for every address of this host";
        Wrong::new(format!("{} is not an IP address and port", shown(text)), hint)
    })?;
    if address.port() == 0 {
        return Err(Wrong::new(format!("port 0 in {}", shown(text)), "ports are 1 to 65535"));
    }
    let is_broadcast = matches!(address.ip(), IpAddr::V4(v4) if v4.is_broadcast());
    if address.ip().is_multicast() || is_broadcast {
        return Err(Wrong::new(
            format!("{} is an address of many hosts", address.ip()),
            "give one of this host's own, or 0.0.0.0 for all of them",
        ));
    }
    Ok(address)
}
