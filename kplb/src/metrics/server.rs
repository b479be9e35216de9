//! Serving metrics over HTTP.
//!
//! Invariant: no client can hold up the agent. Each is served by its own task, with bounds on its number and on the time
//! that it takes from its first byte to its last; and however many ask, the agent's loop is asked once a second at most.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{process::ProcessStats, text};
use crate::{
    config::MetricsConfig,
    control::{Answer, Request as ControlRequest, server::Call},
};

const PATH: &str = "/metrics";
const MAX_CLIENTS: usize = 8;
/// For a client to ask and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the agent's loop to answer; less than what a scrape may take by default.
const LOOP_PATIENCE: Duration = Duration::from_secs(5);
/// How old an answer may be: to count flows, the kernel walks its tables.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Longest request, in bytes; hyper takes no less.
const MAX_REQUEST_BYTES: usize = 8192;
/// Time to recover when a connection cannot be accepted, as when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound address at which nobody is served yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds the address. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If that is not possible.
    pub async fn bind(config: &MetricsConfig) -> Result<Self> {
        let address = config.listen;
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot serve metrics at {address}: give another `listen` in [metrics], or leave the table out")
        })?;
        Ok(Self { listener, address })
    }

    /// Serves for as long as the runtime runs, by asking the agent's loop.
    pub fn serve(self, calls: mpsc::Sender<Call>) {
        info!("metrics at http://{}{PATH}", self.address);
        tokio::spawn(accept(self.listener, Arc::new(Scraper { calls, last: Mutex::new(None) })));
    }
}

async fn accept(listener: TcpListener, scraper: Arc<Scraper>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        // Clients beyond the bound wait in the socket's backlog.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let scraper = Arc::clone(&scraper);
                tokio::spawn(async move {
                    if timeout(PATIENCE, serve(stream, &scraper)).await.is_err() {
                        debug!("metrics client {client}: not done in time");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!("cannot accept a client for metrics: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one request. One that keeps its connection would keep its place, too.
async fn serve(stream: TcpStream, scraper: &Scraper) {
    let service = service_fn(async |request| Ok::<_, Infallible>(scraper.respond(&request).await));
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).max_buf_size(MAX_REQUEST_BYTES);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!("metrics client: {error}");
    }
}

/// Asks the agent's loop, but not for each client.
struct Scraper {
    calls: mpsc::Sender<Call>,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Scraper {
    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        match (request.uri().path(), request.method()) {
            (PATH, &Method::GET) => match self.scrape().await {
                Ok(body) => response(StatusCode::OK, HeaderValue::from_static(super::CONTENT_TYPE), body),
                Err(error) => response(StatusCode::SERVICE_UNAVAILABLE, plain, format!("{error:#}\n")),
            },
            (PATH, _) => {
                let mut response = response(StatusCode::METHOD_NOT_ALLOWED, plain, "only GET\n");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
                response
            }
            _ => response(StatusCode::NOT_FOUND, plain, format!("only {PATH}\n")),
        }
    }

    /// The metrics of now, or nearly. Who asks meanwhile gets the same.
    async fn scrape(&self) -> Result<Bytes> {
        let mut last = self.last.lock().await;
        if let Some((moment, text)) = &*last
            && moment.elapsed() < MAX_AGE
        {
            return Ok(text.clone());
        }
        let asked = Instant::now();
        let answer = timeout(LOOP_PATIENCE, self.ask()).await.context("the agent is busy")??;
        let text = match answer {
            Answer::Status(status) => Bytes::from(text(*status, ProcessStats::read()?)),
            Answer::Error(error) => bail!(error),
            _ => bail!("the agent did not answer what it was asked"),
        };
        *last = Some((asked, text.clone()));
        Ok(text)
    }

    async fn ask(&self) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { request: ControlRequest::Status, reply }).await.ok().context("the agent is ending")?;
        answer.await.context("the agent is ending")
    }
}

fn response(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
