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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Arguments { name, listen, udp } = Arguments::parse();
    let addresses = format!("{listen:?} and UDP {udp:?}");
    serve(ServerOptions { name, listen, udp }, || println!("{LISTENING} on {addresses}")).await
}
