//! The stand-in's HTTPS server.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::HeaderValue, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;

use super::udp_echo;
use crate::{
    body::{self, AnyBody},
    tls,
};

/// What to serve.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The name given in answers.
    pub name: String,
    /// Where to serve HTTPS; `[::]:PORT` is every address of both families.
    pub listen: Vec<SocketAddr>,
    /// Where to echo UDP: an address of its own each, so that an answer leaves from where the question went to.
    pub udp: Vec<SocketAddr>,
}

struct Server {
    name: String,
    tls: TlsAcceptor,
    readyz: AtomicU16,
}

/// Serves without end; `on_listening` is called once every socket is open.
pub async fn serve(options: ServerOptions, on_listening: impl FnOnce()) -> Result<()> {
    let server = Arc::new(Server {
        name: options.name.clone(),
        tls: TlsAcceptor::from(tls::server()?),
        readyz: AtomicU16::new(StatusCode::OK.as_u16()),
    });
    for address in &options.listen {
        let listener = listen(*address).with_context(|| format!("listen on {address}"))?;
        tokio::spawn(accept(listener, Arc::clone(&server)));
    }
    for address in &options.udp {
        let socket = UdpSocket::bind(address).await.with_context(|| format!("bind UDP {address}"))?;
        tokio::spawn(udp_echo::echo(socket, options.name.clone()));
    }
    on_listening();
    std::future::pending().await
}

/// Several stand-ins may share a port, since one process may not have enough descriptors for a crowd of clients.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    const BACKLOG: u32 = 4096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket.listen(BACKLOG)?)
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                tokio::spawn(serve_connection(stream, client, Arc::clone(&server)));
            }
            // The client is gone already, or descriptors have run out: either way the next one may succeed.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

/// Serves one connection. That a client goes away at any moment is its right, and not worth a line.
async fn serve_connection(stream: TcpStream, client: SocketAddr, server: Arc<Server>) {
    // A dual-stack socket writes IPv4 addresses as ::ffff:a.b.c.d.
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let _ = stream.set_nodelay(true);
    let Ok(stream) = server.tls.accept(stream).await else { return };
    let service = service_fn(|request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.respond(request, client).await) }
    });
    // Connections may be idle for as long as a transfer on another one takes.
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

impl Server {
    async fn respond(&self, request: Request<Incoming>, client: SocketAddr) -> Response<AnyBody> {
        let (status, body) = self.route(request, client).await;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        for (name, value) in [("x-node", self.name.clone()), ("x-client", client.to_string())] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    async fn route(&self, request: Request<Incoming>, client: SocketAddr) -> (StatusCode, AnyBody) {
        let ok = |body| (StatusCode::OK, body);
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/version") => ok(body::text(
                json!({
                    "major": "1",
                    "minor": "34",
                    "gitVersion": "v1.34.0+kplb-lab",
                    "node": self.name,
                    "client": client.to_string(),
                })
                .to_string(),
            )),
            (&Method::GET, "/livez") => ok(body::text("ok")),
            (&Method::GET, "/readyz") => self.readyz(),
            (&Method::POST, "/readyz/on") => ok(self.set_readyz(StatusCode::OK)),
            (&Method::POST, "/readyz/off") => ok(self.set_readyz(StatusCode::INTERNAL_SERVER_ERROR)),
            (&Method::POST, "/readyz/unauthorized") => ok(self.set_readyz(StatusCode::UNAUTHORIZED)),
            (&Method::GET, "/watch") => ok(self.watch(query(&request, "interval_ms").unwrap_or(1000))),
            (&Method::GET, "/bytes") => ok(body::pattern(query(&request, "n").unwrap_or(0))),
            (&Method::POST, "/bytes") => match body::sha256(request.into_body()).await {
                Ok((_, hash)) => ok(body::text(hash)),
                Err(error) => (StatusCode::BAD_REQUEST, body::text(error.to_string())),
            },
            _ => (StatusCode::NOT_FOUND, body::text("no such path")),
        }
    }

    /// As an apiserver words it.
    fn readyz(&self) -> (StatusCode, AnyBody) {
        let status = StatusCode::from_u16(self.readyz.load(Ordering::Relaxed)).unwrap_or_default();
        let text = match status {
            StatusCode::INTERNAL_SERVER_ERROR => {
                "[+]ping ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n"
            }
            StatusCode::UNAUTHORIZED => r#"{"kind":"Status","status":"Failure","reason":"Unauthorized","code":401}"#,
            _ => "ok",
        };
        (status, body::text(text))
    }

    fn set_readyz(&self, status: StatusCode) -> AnyBody {
        self.readyz.store(status.as_u16(), Ordering::Relaxed);
        body::text("ok")
    }

    fn watch(&self, interval_ms: u64) -> AnyBody {
        let mut ticks = interval(Duration::from_millis(interval_ms.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let name = self.name.clone();
        body::lines(ticks, move |n| json!({ "type": "BOOKMARK", "node": name, "sequence": n }).to_string())
    }
}

/// A number in the query part of the address.
fn query(request: &Request<Incoming>, key: &str) -> Option<u64> {
    let pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == key).find_map(|(_, value)| value.parse().ok())
}
