//! One request, and what its answer means.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::{Instant as Deadline, timeout_at},
};
use tracing::warn;

use super::{Canary, Code, Failure, Finding, Idle, Success};
use crate::config::{CheckConfig, Statuses};

/// Of an answer's body no more is read; `/readyz` says in it what is not ready.
const MAX_BODY: usize = 16 * 1024;
/// Of what is said there no more is shown.
const MAX_WORDS: usize = 120;

/// What to ask a backend.
pub(super) struct Question {
    path: String,
    host: HeaderValue,
    expect: Arc<Statuses>,
    token: Option<Token>,
}

/// A bearer token, which others renew from time to time.
struct Token {
    file: PathBuf,
    read: Option<SystemTime>,
    header: HeaderValue,
}

/// A question as it is asked now.
pub(super) struct Request {
    request: hyper::Request<Empty<Bytes>>,
    expect: Arc<Statuses>,
}

/// An open connection over which nothing is asked any more.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    pub(super) async fn closed(&mut self) {
        // It ends however the connection ends.
        let _ = (&mut self.driver).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Question {
    pub(super) fn new(address: SocketAddr, check: &CheckConfig) -> Result<Self> {
        let host = check.host.clone().unwrap_or_else(|| address.to_string());
        Ok(Self {
            path: check.path.clone(),
            host: HeaderValue::from_str(&host).context("the Host header")?,
            expect: Arc::new(check.expect.clone()),
            token: check.token_file.clone().map(Token::read).transpose()?,
        })
    }

    pub(super) fn request(&mut self) -> Request {
        let mut request = hyper::Request::new(Empty::new());
        *request.uri_mut() = self.path.parse().expect("the configuration has checked the path");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("kplb/", env!("CARGO_PKG_VERSION"))));
        if let Some(token) = &mut self.token {
            headers.insert(AUTHORIZATION, token.header());
        }
        Request { request, expect: Arc::clone(&self.expect) }
    }
}

impl Token {
    fn read(file: PathBuf) -> Result<Self> {
        let read = modified(&file);
        let header = header(&file)?;
        Ok(Self { file, read, header })
    }

    fn header(&mut self) -> HeaderValue {
        let modified = modified(&self.file);
        if modified != self.read {
            self.read = modified;
            match header(&self.file) {
                Ok(header) => self.header = header,
                Err(error) => warn!("health checks go on with the token they have: {error:#}"),
            }
        }
        self.header.clone()
    }
}

fn modified(file: &PathBuf) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

fn header(file: &PathBuf) -> Result<HeaderValue> {
    let token = fs::read_to_string(file).with_context(|| format!("read the token {}", file.display()))?;
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .with_context(|| format!("the token in {} cannot stand in a header", file.display()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Asks over an open connection, and keeps it.
pub(super) async fn ask<S>(request: Request, stream: S, deadline: Deadline) -> Result<Success, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Request { request, expect } = request;
    match timeout_at(deadline, exchange(request, stream)).await {
        Ok(Ok((status, body, connection))) => {
            let (code, finding) = judge(status.as_u16(), &expect);
            let canary = body.is_some().then(|| Canary(Idle::Http(connection)));
            Ok(Success { code, finding, words: words(status, body.as_deref().unwrap_or_default(), finding), canary })
        }
        // With its causes: hyper itself says little more than that the connection failed.
        Ok(Err(error)) => {
            Err(Failure::new(Code::L7rsp, Finding::NotReady, format!("{:#}", anyhow::Error::from(error))))
        }
        Err(_) => Err(Failure::late(Code::L7tout)),
    }
}

/// The status, the body unless it is too long, and the connection.
async fn exchange<S>(
    request: hyper::Request<Empty<Bytes>>,
    stream: S,
) -> hyper::Result<(StatusCode, Option<Bytes>, Connection)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(async move {
        // What goes wrong is told to whoever waits for the answer.
        let _ = connection.await;
    });
    let mut connection = Connection { sender, driver };
    let response = connection.sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    Ok((status, body.map(http_body_util::Collected::to_bytes).ok(), connection))
}

fn judge(status: u16, expect: &Statuses) -> (Code, Finding) {
    match status {
        _ if expect.contains(status) => (Code::L7ok, Finding::Ready),
        401 | 403 => (Code::L7sts, Finding::Unjudged),
        _ => (Code::L7sts, Finding::NotReady),
    }
}

/// The status and, of a backend that is not ready, what it says that is for.
fn words(status: StatusCode, body: &[u8], finding: Finding) -> String {
    if finding != Finding::NotReady {
        return status.to_string();
    }
    let body = String::from_utf8_lossy(body);
    let mut lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
    // An apiserver lists its checks, each with a mark.
    let line = lines.clone().find(|line| line.starts_with("[-]")).or_else(|| lines.next()).unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
    if line.is_empty() { status.to_string() } else { format!("{status}: {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_judged() {
        let expect = |text: &str| {
            let text = format!(
                "[[service]]\nvip = '198.18.0.100:1'\ncheck = {{ expect = '{text}' }}\nbackend = [{{ address = '198.18.0.11:1' }}]"
            );
            let config = crate::config::parse(&text, "test").expect("valid");
            config.services[0].backends[0].check.clone().expect("TCP is checked").expect
        };
        for (set, status, expected) in [
            ("200", 200, (Code::L7ok, Finding::Ready)),
            ("200", 204, (Code::L7sts, Finding::NotReady)),
            ("200", 401, (Code::L7sts, Finding::Unjudged)),
            ("200", 403, (Code::L7sts, Finding::Unjudged)),
            ("200", 500, (Code::L7sts, Finding::NotReady)),
            ("200-299, 401", 204, (Code::L7ok, Finding::Ready)),
            ("200-299, 401", 401, (Code::L7ok, Finding::Ready)),
            ("200-299, 401", 300, (Code::L7sts, Finding::NotReady)),
        ] {
            assert_eq!(judge(status, &expect(set)), expected, "{status} of {set}");
        }
    }

    #[test]
    fn what_is_not_ready_is_said() {
        let say = |body: &str| words(StatusCode::INTERNAL_SERVER_ERROR, body.as_bytes(), Finding::NotReady);
        assert_eq!(say(""), "500 Internal Server Error");
        assert_eq!(
            say("[+]ping ok\n[-]etcd failed: reason withheld\n"),
            "500 Internal Server Error: [-]etcd failed: reason withheld"
        );
        assert_eq!(say("\n  not \u{1b}[31mready\n"), "500 Internal Server Error: not [31mready");
        assert_eq!(say(&"x".repeat(1000)).len(), "500 Internal Server Error: ".len() + MAX_WORDS);
        assert_eq!(words(StatusCode::OK, b"ok", Finding::Ready), "200 OK");
        assert_eq!(words(StatusCode::FORBIDDEN, b"no", Finding::Unjudged), "403 Forbidden");
    }
}
