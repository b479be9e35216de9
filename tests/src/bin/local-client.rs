//! A client that is a process of its own, so that it can be in a host's control group. What becomes of it, it says.
//!
//! | it says | when |
//! | --- | --- |
//! | `connected to <peer> node <node>` | a connection is set up, and `getpeername` and the server have answered |
//! | `answered by <source> node <node>` | a datagram came back |
//! | `ended` | the connection is over |
//! | `failed after <n> ms: <error>` | there was none |

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use kplb_tests::client::Connection;
use tokio::net::UdpSocket;

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Connects, watches until the connection ends, and begins anew, until it fails.
    Tcp { address: SocketAddr },
    /// Exchanges datagrams on a connected socket.
    Connected { address: SocketAddr },
    /// Exchanges datagrams on an unconnected socket, with each of these in turn.
    Unconnected { addresses: Vec<SocketAddr> },
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let start = Instant::now();
    let done = match Arguments::parse().kind {
        Kind::Tcp { address } => tcp(address).await,
        Kind::Connected { address } => connected(address).await,
        Kind::Unconnected { addresses } => unconnected(&addresses).await,
    };
    if let Err(error) = done {
        let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        println!("failed after {} ms: {kind:?}: {error:#}", start.elapsed().as_millis());
    }
}

async fn tcp(address: SocketAddr) -> Result<()> {
    loop {
        let mut connection = Connection::open(address).await?;
        let peer = connection.peer_addr();
        let mut watch = connection.watch(Duration::from_secs(3600)).await?;
        watch.next().await?;
        println!("connected to {peer} node {}", watch.node());
        watch.ended().await;
        println!("ended");
    }
}

async fn connected(address: SocketAddr) -> Result<()> {
    let socket = socket(address).await?;
    socket.connect(address).await?;
    let peer = socket.peer_addr()?;
    socket.send(b"hello").await?;
    let (node, source) = receive(&socket).await?;
    println!("connected to {peer} node {node}");
    println!("answered by {source} node {node}");
    Ok(())
}

async fn unconnected(addresses: &[SocketAddr]) -> Result<()> {
    let first = addresses.first().context("no address")?;
    let socket = socket(*first).await?;
    for address in addresses {
        socket.send_to(b"hello", address).await?;
        let (node, source) = receive(&socket).await?;
        println!("answered by {source} node {node}");
    }
    Ok(())
}

async fn socket(address: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Ok(UdpSocket::bind((any, 0)).await?)
}

/// The node that has answered, and from where.
async fn receive(socket: &UdpSocket) -> Result<(String, SocketAddr)> {
    let mut buffer = [0; 2048];
    let (length, source) =
        tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await.context("no answer")??;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    Ok((text.split(' ').next().unwrap_or_default().to_owned(), source))
}
