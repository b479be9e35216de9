//! The agent's side of the control socket.
//!
//! Invariant: no client can hold up the agent. Each is served by its own task, with bounds on its number, its line's
//! length and its patience; the agent only ever sees whole requests.

use std::{fs::Permissions, future, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, warn};

use super::{Answer, MAX_REQUEST_BYTES, Request, RequestLine};

const MAX_CLIENTS: usize = 16;
/// For a client to send its request, or to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time to recover when a connection cannot be accepted, as when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// Takes the answer.
    pub reply: oneshot::Sender<Answer>,
}

/// The requests of all clients.
pub struct Server {
    calls: mpsc::Receiver<Call>,
    sender: mpsc::Sender<Call>,
}

impl Server {
    /// Listens at `path`, for the owner alone. Must be called on a tokio runtime.
    pub fn listen(path: &Path) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("listen at the control socket {}", path.display()))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("restrict access to {}", path.display()))?;
        let (sender, calls) = mpsc::channel(MAX_CLIENTS);
        tokio::spawn(accept(listener, sender.clone()));
        Ok(Self { calls, sender })
    }

    /// For requests that come by another way.
    pub fn sender(&self) -> mpsc::Sender<Call> {
        self.sender.clone()
    }

    /// The next request. Safe to cancel.
    pub async fn next(&mut self) -> Option<Call> {
        self.calls.recv().await
    }
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        // Clients beyond the bound wait in the socket's backlog.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &calls).await {
                        debug!("control client: {error:#}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!("cannot accept a control client: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves requests until the client has no more.
async fn serve(stream: UnixStream, calls: &mpsc::Sender<Call>) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reader).take(MAX_REQUEST_BYTES);
        timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await.context("no request in time")??;
        if line.is_empty() {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let answer = match serde_json::from_slice(&line) {
            Ok(RequestLine { command }) => ask(command, calls).await,
            Err(_) if !is_whole => Answer::Error(format!("a request is one line of at most {MAX_REQUEST_BYTES} bytes")),
            Err(error) => Answer::Error(format!("not a request: {error}")),
        };
        let mut text = serde_json::to_vec(&answer).context("encode the answer")?;
        text.push(b'\n');
        timeout(PATIENCE, writer.write_all(&text)).await.context("the answer was not taken in time")??;
        match answer {
            // The end of the connection says that the agent has ended: it comes with the end of the process.
            Answer::Stopping { .. } => return future::pending().await,
            Answer::Error(_) if !is_whole => return Ok(()),
            Answer::Status(_) | Answer::Backends(_) | Answer::Reloaded(_) | Answer::Error(_) => {}
        }
    }
}

async fn ask(request: Request, calls: &mpsc::Sender<Call>) -> Answer {
    let (reply, answer) = oneshot::channel();
    let ending = || Answer::Error("the agent is ending".into());
    if calls.send(Call { request, reply }).await.is_err() {
        return ending();
    }
    answer.await.unwrap_or_else(|_| ending())
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;

    /// Sends bytes, closes, and returns all that comes back.
    async fn exchange(path: &Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.expect("a server listens");
        // The server may have hung up on too long a request.
        let sent = stream.write_all(bytes).await;
        if sent.is_ok() {
            stream.shutdown().await.expect("open");
        }
        let mut text = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            text.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(text).expect("JSON")
    }

    #[test]
    fn bad_input_gets_an_error_and_good_input_an_answer() {
        let path = env::temp_dir().join(format!("kplb-control-{}.sock", process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut server = Server::listen(&path).expect("a free path");
            tokio::spawn(async move {
                while let Some(call) = server.next().await {
                    call.reply.send(Answer::Error(format!("{:?}", call.request))).expect("the client waits");
                }
            });
            let stop = br#"{"command":"stop"}"#;
            let answer = "{\"error\":\"Stop\"}\n";
            assert_eq!(exchange(&path, stop).await, answer);
            assert_eq!(exchange(&path, &[stop, b"\n".as_slice(), stop, b"\n"].concat()).await, answer.repeat(2));
            assert!(exchange(&path, b"{\"command\":\"fly\"}\n").await.starts_with("{\"error\":\"not a request"));
            assert!(exchange(&path, &[0xff, 0, b'\n']).await.starts_with("{\"error\":"));
            assert!(exchange(&path, &vec![b'x'; 4096]).await.starts_with("{\"error\":\"a request is one line"));
            assert_eq!(exchange(&path, b"").await, "");
            // Clients that say nothing take nothing from the others.
            let mut silent = Vec::new();
            for _ in 0..MAX_CLIENTS - 1 {
                silent.push(UnixStream::connect(&path).await.expect("a server listens"));
            }
            assert_eq!(exchange(&path, stop).await, answer);
        });
        fs::remove_file(&path).expect("the socket's file");
    }
}
