//! Many connections that are open and say nothing.

use std::{
    net::{IpAddr, SocketAddr},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::lab::Host;

/// Connections that are set up at a time.
const CONCURRENCY: usize = 128;
/// How long all of them may take to be there.
const GATHERING: Duration = Duration::from_secs(60);

/// Lets this process and those it starts have as many descriptors as the system allows.
pub(super) fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of descriptors")
}

/// Runs `scene` while `n` connections from these addresses are open, and then waits until each has been ended by the
/// other side. Returns when that was.
pub(super) fn with_crowd<T>(
    host: &Host,
    vip: SocketAddr,
    sources: &[IpAddr],
    n: usize,
    patience: Duration,
    scene: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<Instant>)> {
    let (gathered, all_are_there) = mpsc::channel();
    thread::scope(|scope| {
        let crowd = scope.spawn(move || host.namespace().block_on(run(vip, sources, n, gathered, patience)));
        let ready = all_are_there.recv_timeout(GATHERING);
        let result = ready.context("the crowd did not gather").and_then(|()| scene());
        let ends = crowd.join().expect("the crowd does not panic")?;
        Ok((result?, ends))
    })
}

async fn run(
    vip: SocketAddr,
    sources: &[IpAddr],
    n: usize,
    gathered: mpsc::Sender<()>,
    patience: Duration,
) -> Result<Vec<Instant>> {
    let permits = std::sync::Arc::new(Semaphore::new(CONCURRENCY));
    let mut connecting = JoinSet::new();
    for source in sources.iter().cycle().take(n) {
        let (permits, source) = (std::sync::Arc::clone(&permits), *source);
        connecting.spawn(async move {
            let _permit = permits.acquire().await?;
            connect(vip, source).await
        });
    }
    let mut waiting = JoinSet::new();
    while let Some(stream) = connecting.join_next().await {
        let mut stream: TcpStream = stream??;
        waiting.spawn(async move {
            let mut byte = [0];
            // Whatever comes, and then the end.
            while matches!(stream.read(&mut byte).await, Ok(1..)) {}
            Instant::now()
        });
    }
    let _ = gathered.send(());
    let ends = tokio::time::timeout(patience, waiting.join_all()).await.context("some connections have not ended")?;
    ensure!(ends.len() == n, "{} of {n} connections", ends.len());
    Ok(ends)
}

async fn connect(vip: SocketAddr, source: IpAddr) -> Result<TcpStream> {
    let socket = if vip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind((source, 0).into())?;
    socket.connect(vip).await.with_context(|| format!("connect from {source}"))
}
