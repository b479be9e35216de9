//! A stand-in for kube-apiserver on a node of the lab: a real HTTPS server that says who it is and whom it sees.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /version` | JSON: a Kubernetes version, the node's name, the client's address |
//! | `GET /livez` | `ok` |
//! | `GET /readyz` | `ok`, or what it was told to answer |
//! | `POST /readyz/on`, `/readyz/off`, `/readyz/unauthorized` | tells it: 200, 500 as when it is shutting down, 401 |
//! | `GET /watch?interval_ms=` | a JSON line at once and at every interval, without end |
//! | `GET /bytes?n=` | the first `n` bytes of the pattern |
//! | `POST /bytes` | the SHA-256 of what was sent |
//!
//! Every answer carries the headers `x-node` and `x-client`. The same process echoes UDP datagrams.

mod server;
mod udp_echo;

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::server::{ServerOptions, serve};
use crate::{
    client,
    lab::Host,
    process::{Process, workspace_program},
};

/// The port of kube-apiserver.
pub const HTTPS_PORT: u16 = 6443;

/// The port of the UDP echo.
pub const UDP_PORT: u16 = 5353;

/// The line that says that every socket is open.
pub const LISTENING: &str = "listening";

const START: Duration = Duration::from_secs(10);

/// What `GET /readyz` is to answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// 200.
    Ready,
    /// 500.
    NotReady,
    /// 401.
    Unauthorized,
}

/// The stand-in, running on a host. It ends when this is dropped.
#[derive(Debug)]
pub struct Apiserver<'a> {
    host: &'a Host,
    process: Process,
}

impl<'a> Apiserver<'a> {
    /// Starts it on the usual ports, HTTPS on every address and UDP on the host's own two.
    pub fn start(host: &'a Host) -> Result<Self> {
        Self::start_on(host, &[HTTPS_PORT], &[UDP_PORT])
    }

    /// Starts it on other ports.
    pub fn start_on(host: &'a Host, https: &[u16], udp: &[u16]) -> Result<Self> {
        let udp: Vec<SocketAddr> = host
            .addresses()
            .into_iter()
            .flat_map(|address| udp.iter().map(move |port| (address, *port).into()))
            .collect();
        Self::start_at(host, https, &udp)
    }

    /// Starts it on other ports, and for UDP on these addresses: an echo from another one than was asked is none.
    pub fn start_at(host: &'a Host, https: &[u16], udp: &[SocketAddr]) -> Result<Self> {
        let mut command = Command::new(workspace_program("apiserver")?);
        command.args(["--name", host.name()]);
        for &port in https {
            command.arg("--listen").arg(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).to_string());
        }
        for address in udp {
            command.arg("--udp").arg(address.to_string());
        }
        let process = Process::spawn(host.namespace(), "apiserver", command)?;
        process.wait_for_line(LISTENING, START)?;
        Ok(Self { host, process })
    }

    /// Where it runs.
    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// Its own address for HTTPS, past any load balancer.
    pub fn https(&self, address: IpAddr) -> SocketAddr {
        (address, HTTPS_PORT).into()
    }

    /// The process: signals, its end, what it wrote.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Turns `/readyz` on or off, from its own host (on the usual port).
    pub fn set_readiness(&self, readiness: Readiness) -> Result<()> {
        let path = match readiness {
            Readiness::Ready => "/readyz/on",
            Readiness::NotReady => "/readyz/off",
            Readiness::Unauthorized => "/readyz/unauthorized",
        };
        let address = self.https(self.host.ipv4().into());
        let answer =
            self.host.namespace().block_on(async { client::Connection::open(address).await?.post(path).await });
        let answer = answer.with_context(|| format!("{}: POST {path}", self.host.name()))?;
        ensure!(answer.status == 200, "{}: POST {path}: status {}", self.host.name(), answer.status);
        Ok(())
    }
}
