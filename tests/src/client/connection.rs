//! One HTTPS connection, kept open for any number of requests.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{net::TcpSocket, task::JoinHandle, time::timeout};
use tokio_rustls::TlsConnector;

use super::{ANSWER_DEADLINE, CONNECT_DEADLINE, TRANSFER_DEADLINE, Wrong};
use crate::{
    body::{self, AnyBody},
    tls,
};

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The node that answered.
    pub node: String,
    /// The client's address and port as the node saw them.
    pub client: SocketAddr,
    /// The body.
    pub body: Bytes,
}

/// A transfer of many bytes, in either direction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transfer {
    /// The node at the other end.
    pub node: String,
    /// The SHA-256 of what arrived, in hexadecimal, computed where it arrived.
    pub sha256: String,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<AnyBody>,
    driver: JoinHandle<hyper::Result<()>>,
    local: SocketAddr,
    peer: SocketAddr,
}

/// A watch: a response without end.
#[derive(Debug)]
pub struct Watch {
    node: String,
    body: Incoming,
    // What has arrived of a line that is not complete.
    rest: Vec<u8>,
}

impl Connection {
    /// Connects from the address the kernel chooses.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        Self::open_from(address, None).await
    }

    /// Connects from this address of the host.
    pub async fn open_from(address: SocketAddr, source: Option<IpAddr>) -> Result<Self> {
        Self::open_within(address, source, CONNECT_DEADLINE).await
    }

    /// The same with a deadline of its own.
    pub async fn open_within(address: SocketAddr, source: Option<IpAddr>, deadline: Duration) -> Result<Self> {
        let source = source.map(|source| (source, 0).into());
        within(deadline, "connect", Self::connect(address, source)).await
    }

    /// Connects from this address and port of the host.
    pub async fn open_bound(address: SocketAddr, source: SocketAddr) -> Result<Self> {
        within(CONNECT_DEADLINE, "connect", Self::connect(address, Some(source))).await
    }

    async fn connect(address: SocketAddr, source: Option<SocketAddr>) -> Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(source) = source {
            socket.bind(source).with_context(|| format!("bind {source}"))?;
        }
        let stream = socket.connect(address).await.context("TCP connect")?;
        stream.set_nodelay(true)?;
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let name = ServerName::try_from(tls::SERVER_NAME)?;
        let stream = TlsConnector::from(tls::client()?).connect(name, stream).await.context("TLS handshake")?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: tokio::spawn(driver), local, peer })
    }

    /// This end's address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The other end's address and port, as this end's kernel tells it.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// `GET path`.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.exchange(Method::GET, path).await
    }

    /// `POST path` without a body.
    pub async fn post(&mut self, path: &str) -> Result<Answer> {
        self.exchange(Method::POST, path).await
    }

    /// Receives the first `n` bytes of the pattern; compare with `pattern_sha256(n)`.
    pub async fn download(&mut self, n: u64) -> Result<Transfer> {
        within(TRANSFER_DEADLINE, "download", async {
            let response = self.request(Method::GET, &format!("/bytes?n={n}"), body::text("")).await?;
            let node = header(&response, "x-node")?;
            let (length, sha256) = body::sha256(response.into_body()).await?;
            // One that is cut off is an error before this.
            if length != n {
                return Err(Wrong::new(format!("{length} bytes of {n}")).into());
            }
            Ok(Transfer { node, sha256 })
        })
        .await
    }

    /// Sends the first `n` bytes of the pattern; compare with `pattern_sha256(n)`.
    pub async fn upload(&mut self, n: u64) -> Result<Transfer> {
        within(TRANSFER_DEADLINE, "upload", async {
            let response = self.request(Method::POST, "/bytes", body::pattern(n)).await?;
            let node = header(&response, "x-node")?;
            let sha256 = String::from_utf8(response.into_body().collect().await?.to_bytes().into())
                .map_err(|error| Wrong::new(format!("no hash: {error}")))?;
            Ok(Transfer { node, sha256 })
        })
        .await
    }

    /// Starts a watch that brings a line at every interval.
    pub async fn watch(&mut self, interval: Duration) -> Result<Watch> {
        within(ANSWER_DEADLINE, "watch", async {
            let path = format!("/watch?interval_ms={}", interval.as_millis());
            let response = self.request(Method::GET, &path, body::text("")).await?;
            Ok(Watch { node: header(&response, "x-node")?, body: response.into_body(), rest: Vec::new() })
        })
        .await
    }

    /// Closes the connection in good order, and reports what went wrong with it unseen.
    pub async fn close(self) -> Result<()> {
        let Self { sender, driver, .. } = self;
        drop(sender);
        within(ANSWER_DEADLINE, "close", async { Ok(driver.await??) }).await
    }

    async fn exchange(&mut self, method: Method, path: &str) -> Result<Answer> {
        let what = format!("{method} {path}");
        within(ANSWER_DEADLINE, &what, async {
            let response = self.request(method, path, body::text("")).await?;
            let (node, client) = (header(&response, "x-node")?, header(&response, "x-client")?);
            let client = client.parse().map_err(|_| Wrong::new(format!("no address and port: {client}")))?;
            let status = response.status().as_u16();
            Ok(Answer { status, node, client, body: response.into_body().collect().await?.to_bytes() })
        })
        .await
    }

    async fn request(&mut self, method: Method, path: &str, body: AnyBody) -> Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(path).header("host", tls::SERVER_NAME).body(body)?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }

    /// The body as text, as far as it is text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Watch {
    /// The node at the other end.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Waits until the watch ends, however long that takes; lines are passed over.
    pub async fn ended(&mut self) {
        while self.goes_on().await {}
    }

    /// Waits until something is heard, which is passed over, or the watch ends, however long that takes; whether it goes on.
    pub async fn goes_on(&mut self) -> bool {
        matches!(self.body.frame().await, Some(Ok(_)))
    }

    /// The next line. Fails when there is none within `ANSWER_DEADLINE`, or when the connection ends.
    pub async fn next(&mut self) -> Result<serde_json::Value> {
        within(ANSWER_DEADLINE, "next line of a watch", async {
            loop {
                if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                    let line = self.rest.drain(..=end).collect::<Vec<_>>();
                    let value = serde_json::from_slice(&line);
                    return Ok(value.map_err(|error| Wrong::new(format!("a line of a watch is no JSON: {error}")))?);
                }
                let frame = self.body.frame().await.ok_or_else(|| anyhow!("the watch ended"))??;
                if let Ok(data) = frame.into_data() {
                    self.rest.extend_from_slice(&data);
                }
            }
        })
        .await
    }
}

/// Runs a future with a deadline; `what` is for the message.
pub(super) async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(deadline, future).await {
        Ok(result) => result.with_context(|| what.to_owned()),
        Err(_) => Err(anyhow!("{what}: no answer within {deadline:?}")),
    }
}

fn header(response: &Response<Incoming>, name: &str) -> Result<String> {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    Ok(value.ok_or_else(|| Wrong::new(format!("no header {name} that is text")))?.to_owned())
}
