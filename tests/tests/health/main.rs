//! Health checks against real servers on loopback: what a check finds, what it asks with, and when a watch checks.
//!
//! Time is real. What is to happen at once is waited for with a deadline that no machine needs; what is not to happen is
//! given a while in which it would.

mod probe;
mod tls;
mod watch;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use kplb::{
    config::{self, CheckConfig},
    health::{
        outcome::{Code, Finding, Outcome},
        probe::{Canary, Probe},
    },
};
use kplb_tests::{
    authority::{Authority, Versions},
    backend::{Backend, SOON, Speech},
};
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::time::timeout;

const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// In which what is not to happen would have happened.
const A_WHILE: Duration = Duration::from_millis(200);

/// So that no check ends early on a machine that is busy.
const PATIENT: &str = "connect_timeout = '20s', timeout = '20s'";

/// A check with these settings.
fn check(settings: &str) -> Result<CheckConfig> {
    let text = format!(
        "[[service]]\nvip = '198.18.0.100:1'\ncheck = {{ {settings} }}\nbackend = [{{ address = '198.18.0.11:1' }}]"
    );
    let config = config::parse(&text, "check")?;
    config.services[0].backends[0].check.clone().context("nothing is checked")
}

/// A check with these settings that has time.
fn patient(settings: &str) -> Result<CheckConfig> {
    check(&format!("{settings}, {PATIENT}"))
}

/// Checks once, with time.
async fn probe(address: SocketAddr, settings: &str) -> Result<(Outcome, Option<Canary>)> {
    Ok(Probe::new(address, &patient(settings)?)?.check().run(|| ()).await)
}

/// What a check with time found.
async fn found(address: SocketAddr, settings: &str) -> Result<(Code, Finding)> {
    let (outcome, _) = probe(address, settings).await?;
    Ok((outcome.code, outcome.finding))
}

/// Who closes an idle connection is not its concern.
async fn is_closed_soon(canary: &mut Canary) -> bool {
    timeout(SOON, canary.closed()).await.is_ok()
}

async fn stays_open(canary: &mut Canary) -> bool {
    timeout(A_WHILE, canary.closed()).await.is_err()
}

/// A server's side of TLS that nobody has heard of.
fn any_tls() -> Result<Arc<ServerConfig>> {
    Authority::new("nobody")?.issue(&["backend.kplb.test"])?.server(Versions::All, None)
}

async fn https() -> Result<Backend> {
    Backend::start(IPV4, Some(any_tls()?), Speech::Http).await
}

/// Files of a test, gone with it.
struct Files(TempDir);

impl Files {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A setting that names the file.
    fn setting(&self, key: &str, name: &str) -> String {
        format!("{key} = '{}'", self.path(name).display())
    }
}
