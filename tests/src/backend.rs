//! A backend on loopback for health checks to be tried on: it behaves as it is told, and tells what it saw.
//!
//! It lives on the caller's tokio runtime. When it is dropped, it ends as a process does that is killed: nobody listens
//! any more, and every connection is closed without a farewell.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink, split},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::body::{self, AnyBody};

/// How long something may take that is to happen at once; far more than it takes.
pub const SOON: Duration = Duration::from_secs(20);

/// What a backend speaks, below it TLS or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speech {
    /// HTTP/1.1.
    Http,
    /// These words to whoever comes, and nothing more; it listens until the other end is gone.
    Words(&'static str),
}

/// What it does with a connection over which it has answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Afterwards {
    /// It keeps it open.
    Keeps,
    /// It closes it, and says so before.
    Closes,
}

/// What it answers to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// What comes then.
    pub afterwards: Afterwards,
}

/// A TLS handshake that succeeded for the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handshake {
    /// The name that was asked for.
    pub server_name: Option<String>,
    /// The protocol that was agreed on.
    pub protocol: Option<String>,
    /// How many certificates the client has shown.
    pub n_client_certificates: usize,
}

/// A request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    /// The path, and the query if there was one.
    pub path: String,
    /// `Host`.
    pub host: Option<String>,
    /// `Authorization`.
    pub authorization: Option<String>,
}

/// Connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// All that were ever accepted.
    pub accepted: usize,
    /// Those that are open.
    pub open: usize,
}

/// The backend.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    stage: Arc<Stage>,
    accepting: JoinHandle<()>,
}

/// What its connections share.
#[derive(Debug)]
struct Stage {
    answer: watch::Sender<Option<Answer>>,
    connections: watch::Sender<Connections>,
    /// Raised to close all connections that are open.
    closing: watch::Sender<u64>,
    handshakes: Mutex<Vec<Handshake>>,
    asked: watch::Sender<Vec<Asked>>,
}

impl Backend {
    /// Listens on a port that the system chooses. It answers 200 and keeps connections until told otherwise.
    pub async fn start(address: IpAddr, tls: Option<Arc<ServerConfig>>, speech: Speech) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await.with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr()?;
        let stage = Arc::new(Stage {
            answer: watch::Sender::new(Some(Answer::new(200, "ok"))),
            connections: watch::Sender::default(),
            closing: watch::Sender::default(),
            handshakes: Mutex::default(),
            asked: watch::Sender::default(),
        });
        let accepting = tokio::spawn(accept(listener, tls.map(TlsAcceptor::from), speech, Arc::clone(&stage)));
        Ok(Self { address, stage, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers like this from now on, requests that wait for an answer as well; with nothing, it lets them wait.
    pub fn set_answer(&self, answer: impl Into<Option<Answer>>) {
        self.stage.answer.send_replace(answer.into());
    }

    /// Closes every connection that is open.
    pub fn close_connections(&self) {
        self.stage.closing.send_modify(|n| *n += 1);
    }

    /// Ends; when this returns, nobody listens any more.
    pub async fn end(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    /// The handshakes so far.
    pub fn handshakes(&self) -> Vec<Handshake> {
        lock(&self.stage.handshakes).clone()
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.stage.asked.borrow().clone()
    }

    /// The connections now.
    pub fn connections(&self) -> Connections {
        *self.stage.connections.borrow()
    }

    /// Waits until its connections are so; fails, naming `what`, when they are not soon.
    pub async fn until(&self, what: &str, is_so: impl Fn(Connections) -> bool) -> Result<()> {
        let met = wait(&self.stage.connections, |connections| is_so(*connections)).await;
        met.with_context(|| format!("{what}: {:?}", self.connections()))
    }

    /// Waits until it was asked so many times.
    pub async fn until_asked(&self, n: usize) -> Result<()> {
        let met = wait(&self.stage.asked, |asked| asked.len() >= n).await;
        met.with_context(|| format!("asked {n} times: {:?}", self.asked()))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
        self.close_connections();
    }
}

impl Answer {
    /// Of this status and body; the connection is kept.
    pub fn new(status: u16, body: &str) -> Self {
        Self { status, body: body.to_owned(), afterwards: Afterwards::Keeps }
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, speech: Speech, stage: Arc<Stage>) {
    loop {
        // A client that is gone already is of no interest.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, open) = (tls.clone(), Open::new(&stage));
        let mut closing = stage.closing.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = serve(stream, tls, speech, &open.0) => {}
                _ = closing.changed() => {}
            }
        });
    }
}

/// A connection that is counted as open.
struct Open(Arc<Stage>);

impl Open {
    fn new(stage: &Arc<Stage>) -> Self {
        stage.connections.send_modify(|connections| {
            connections.accepted += 1;
            connections.open += 1;
        });
        Self(Arc::clone(stage))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.send_modify(|connections| connections.open -= 1);
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, speech: Speech, stage: &Stage) {
    let Some(acceptor) = tls else { return speak(stream, speech, stage).await };
    let stream = match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => stream,
        // It was told why. To close before everything is read would be a reset, which may overtake that.
        Err((_, stream)) => return speak(stream, Speech::Words(""), stage).await,
    };
    let (_, connection) = stream.get_ref();
    lock(&stage.handshakes).push(Handshake {
        server_name: connection.server_name().map(str::to_owned),
        protocol: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        n_client_certificates: connection.peer_certificates().map_or(0, <[_]>::len),
    });
    speak(stream, speech, stage).await;
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin>(stream: S, speech: Speech, stage: &Stage) {
    // Whatever goes wrong ends the connection, as its end does.
    match speech {
        Speech::Words(words) => {
            let (mut reader, mut writer) = split(stream);
            if writer.write_all(words.as_bytes()).await.is_ok() && writer.flush().await.is_ok() {
                let _ = copy(&mut reader, &mut sink()).await;
            }
        }
        Speech::Http => {
            let service = service_fn(|request| async move { Ok::<_, Infallible>(respond(&request, stage).await) });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    }
}

async fn respond(request: &Request<Incoming>, stage: &Stage) -> Response<AnyBody> {
    let header = |name| Some(String::from_utf8_lossy(request.headers().get(name)?.as_bytes()).into_owned());
    let asked = Asked { path: request.uri().to_string(), host: header(HOST), authorization: header(AUTHORIZATION) };
    stage.asked.send_modify(|all| all.push(asked));
    let mut answers = stage.answer.subscribe();
    // The sender is part of the stage.
    let answer = answers.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
    let Answer { status, body, afterwards } = answer.unwrap_or_else(|| Answer::new(500, ""));
    let mut response = Response::new(body::text(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if afterwards == Afterwards::Closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn wait<T>(sender: &watch::Sender<T>, is_so: impl Fn(&T) -> bool) -> Result<()> {
    let mut receiver = sender.subscribe();
    let waited = timeout(SOON, receiver.wait_for(is_so)).await;
    waited.with_context(|| format!("not within {SOON:?}"))?.map(drop).context("the sender is there")
}

/// Whoever panicked with the lock has failed the test already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
