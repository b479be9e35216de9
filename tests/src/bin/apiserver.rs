//! The stand-in for kube-apiserver as a program: see `kplb_tests::apiserver`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;
use kplb_tests::apiserver::{LISTENING, ServerOptions, serve};

/// A stand-in for kube-apiserver, and a UDP echo.
#[derive(Parser)]
struct Arguments {
    /// The node's name, as answers give it.
    #[arg(long)]
    name: String,
    /// An address and port to serve HTTPS on.
    #[arg(long, default_value = "[::]:6443")]
    listen: Vec<SocketAddr>,
    /// An address (one of this host's own) and port to echo UDP on.
    #[arg(long)]
    udp: Vec<SocketAddr>,
}

fn main() -> Result<()> {
    let Arguments { name, listen, udp } = Arguments::parse();
    let addresses = format!("{listen:?} and UDP {udp:?}");
    // A large transfer is always ready to go on, and by default new connections are looked for after sixty times of that: on
    // a slow processor so late that the agent's checks would take the stand-in for down.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build()?;
    runtime.block_on(serve(ServerOptions { name, listen, udp }, || println!("{LISTENING} on {addresses}")))
}
