//! One check of one backend, on the wire.
//!
//! A check goes as deep as it is told to, and then keeps its connection open and idle (the *canary*): when the backend's
//! process ends, the kernel closes it, which is news before any check is due. Only a TCP check closes at once, since an
//! open connection without a word is something that servers complain of.

mod http;
mod tls;

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{Instant as Deadline, timeout, timeout_at},
};

use super::outcome::{Code, Finding, Outcome};
use crate::config::{CheckConfig, Config};

/// Within a segment a connection is accepted in a millisecond. One that is not by now, or after half of the time that it
/// has, has lost a packet, or all of them.
const HESITATION: Duration = Duration::from_millis(50);

/// How to check one backend.
pub struct Probe {
    address: SocketAddr,
    connect_timeout: Duration,
    timeout: Duration,
    tls: Option<tls::Client>,
    http: Option<http::Question>,
}

/// What a check needs, as its files say now.
pub struct Check {
    address: SocketAddr,
    connect_timeout: Duration,
    timeout: Duration,
    tls: Option<tls::Connector>,
    http: Option<http::Request>,
}

/// An idle connection that a check has left open.
pub struct Canary(Idle);

enum Idle {
    Tls(Box<tls::Stream>),
    Http(http::Connection),
}

impl Canary {
    /// Waits until the connection is closed, by whichever side.
    pub async fn closed(&mut self) {
        match &mut self.0 {
            Idle::Tls(stream) => {
                let mut byte = [0];
                // A server that speaks first is as alive as one that does not.
                while matches!(stream.read(&mut byte).await, Ok(1..)) {}
            }
            Idle::Http(connection) => connection.closed().await,
        }
    }
}

impl Probe {
    /// How to check the backend at `address`.
    ///
    /// # Errors
    /// If a file that the check needs cannot be used.
    pub fn new(address: SocketAddr, check: &CheckConfig) -> Result<Self> {
        let address = SocketAddr::new(address.ip(), check.port.unwrap_or(address.port()));
        Ok(Self {
            address,
            connect_timeout: check.connect_timeout,
            timeout: check.timeout,
            tls: check.kind.is_tls().then(|| tls::Client::new(address.ip(), check)).transpose()?,
            http: check.kind.is_http().then(|| http::Question::new(address, check)).transpose()?,
        })
    }

    /// A check as of now: files that have changed are read again, those that cannot be are used as they were.
    pub fn check(&mut self) -> Check {
        Check {
            address: self.address,
            connect_timeout: self.connect_timeout,
            timeout: self.timeout,
            tls: self.tls.as_mut().map(tls::Client::connector),
            http: self.http.as_mut().map(http::Question::request),
        }
    }
}

/// How to check each backend of a configuration, by backend id; those that are not checked have none.
///
/// # Errors
/// If a file that a check needs cannot be used.
pub fn probes(config: &Config) -> Result<Vec<Option<Probe>>> {
    let backends = config.services.iter().flat_map(|service| service.backends.iter().map(move |b| (service, b)));
    backends
        .map(|(service, backend)| {
            let Some(check) = &backend.check else { return Ok(None) };
            let probe = Probe::new(backend.address, check).with_context(|| {
                format!("the health check of backend `{}` of service `{}`", backend.name, service.name)
            })?;
            Ok(Some(probe))
        })
        .collect()
}

/// Why a check ended before its end.
struct Failure {
    code: Code,
    finding: Finding,
    words: String,
}

impl Failure {
    fn new(code: Code, finding: Finding, words: impl Into<String>) -> Self {
        Self { code, finding, words: words.into() }
    }

    fn late(code: Code) -> Self {
        Self::new(code, Finding::Unreachable, "no answer in time")
    }
}

/// What a check that came to its end found.
struct Success {
    code: Code,
    finding: Finding,
    words: String,
    canary: Option<Canary>,
}

impl Check {
    /// Carries the check out. It ends within its timeout. `hesitates` is called if the backend does not accept the
    /// connection at once.
    pub async fn run(self, hesitates: impl FnOnce()) -> (Outcome, Option<Canary>) {
        let start = Instant::now();
        let result = self.ask(hesitates).await;
        let latency = start.elapsed();
        match result {
            Ok(Success { code, finding, words, canary }) => (Outcome { code, finding, latency, words }, canary),
            Err(Failure { code, finding, words }) => (Outcome { code, finding, latency, words }, None),
        }
    }

    async fn ask(self, hesitates: impl FnOnce()) -> Result<Success, Failure> {
        let now = Deadline::now();
        let patience = HESITATION.min(self.connect_timeout / 2);
        let connect = noting_hesitation(patience, TcpStream::connect(self.address), hesitates);
        let stream = match timeout_at(now + self.connect_timeout, connect).await {
            Ok(connected) => connected.map_err(|error| not_connected(&error))?,
            Err(_) => return Err(Failure::late(Code::L4tout)),
        };
        let deadline = now + self.timeout;
        match (self.tls, self.http) {
            (Some(connector), Some(request)) => {
                http::ask(request, tls::handshake(connector, stream, deadline).await?, deadline).await
            }
            (None, Some(request)) => http::ask(request, stream, deadline).await,
            (Some(connector), None) => {
                let stream = tls::handshake(connector, stream, deadline).await?;
                let canary = Some(Canary(Idle::Tls(Box::new(stream))));
                Ok(Success { code: Code::L6ok, finding: Finding::Ready, words: String::new(), canary })
            }
            (None, None) => {
                // A reset instead of a farewell leaves nothing behind on either side.
                let _ = stream.set_zero_linger();
                Ok(Success { code: Code::L4ok, finding: Finding::Ready, words: String::new(), canary: None })
            }
        }
    }
}

/// Calls `hesitates` if the future takes longer than `patience`.
async fn noting_hesitation<F: Future>(patience: Duration, future: F, hesitates: impl FnOnce()) -> F::Output {
    tokio::pin!(future);
    match timeout(patience, &mut future).await {
        Ok(output) => output,
        Err(_) => {
            hesitates();
            future.await
        }
    }
}

fn not_connected(error: &io::Error) -> Failure {
    let words = words(error);
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::new(Code::L4con, Finding::Refused, words),
        ErrorKind::TimedOut => Failure::new(Code::L4tout, Finding::Unreachable, words),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::ConnectionReset => {
            Failure::new(Code::L4con, Finding::Unreachable, words)
        }
        _ => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EHOSTDOWN | Errno::ENETDOWN) => Failure::new(Code::L4con, Finding::Unreachable, words),
            // Descriptors, ports, memory, a firewall's rule: says nothing of the backend.
            _ => Failure::new(Code::Sockerr, Finding::Unknown, words),
        },
    }
}

/// An error of the system without its number.
fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
