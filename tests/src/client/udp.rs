//! Datagrams to the stand-in's UDP echo.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;

use super::{CONNECT_DEADLINE, Wrong, connection::within};

/// The largest payload of a datagram, rounded up.
const MAX_DATAGRAM: usize = 65_536;

/// What the echo answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UdpAnswer {
    /// The node that answered.
    pub node: String,
    /// The client's address and port as the node saw them.
    pub client: SocketAddr,
    /// The payload, as it came back.
    pub payload: Vec<u8>,
}

/// A socket with one source port and one destination. Answers from anywhere else are not seen.
#[derive(Debug)]
pub struct UdpFlow {
    socket: UdpSocket,
}

impl UdpFlow {
    /// Opens a socket on this address of the host, or on the one the kernel chooses.
    pub async fn open(address: SocketAddr, source: Option<IpAddr>) -> Result<Self> {
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((source.unwrap_or(any), 0)).await.context("bind UDP")?;
        socket.connect(address).await.context("connect UDP")?;
        Ok(Self { socket })
    }

    /// This end's address and port.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends one datagram and waits for one answer. Nothing is sent again.
    pub async fn exchange(&self, payload: &[u8]) -> Result<UdpAnswer> {
        within(CONNECT_DEADLINE, "UDP exchange", async {
            self.socket.send(payload).await.context("send")?;
            let mut buffer = vec![0; MAX_DATAGRAM];
            let length = self.socket.recv(&mut buffer).await.context("receive")?;
            parse(&buffer[..length]).ok_or_else(|| Wrong::new(format!("not an echo: {length} bytes")).into())
        })
        .await
    }
}

/// One exchange from a port of its own.
pub async fn udp_exchange(address: SocketAddr, payload: &[u8]) -> Result<UdpAnswer> {
    UdpFlow::open(address, None).await?.exchange(payload).await
}

/// `name client-address payload`, with one space between.
fn parse(datagram: &[u8]) -> Option<UdpAnswer> {
    let mut parts = datagram.splitn(3, |&byte| byte == b' ');
    let node = String::from_utf8(parts.next()?.to_vec()).ok()?;
    let client = str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    Some(UdpAnswer { node, client, payload: parts.next()?.to_vec() })
}
