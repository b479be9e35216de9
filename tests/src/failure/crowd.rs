//! Many connections that are open and say nothing.

use std::{
    net::{IpAddr, SocketAddr},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};
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

/// Connections that one process, or one thread with a table of descriptors of its own, is asked to hold: fewer than the
/// descriptors that any system allows it.
pub(super) const MAX_PER_PROCESS: usize = 15_000;

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
    let (gathered, are_there) = mpsc::channel();
    let n_parts = n.div_ceil(MAX_PER_PROCESS);
    thread::scope(|scope| {
        let parts: Vec<_> = (0..n_parts)
            .map(|part| {
                let n = n * (part + 1) / n_parts - n * part / n_parts;
                let gathered = gathered.clone();
                scope.spawn(move || {
                    host.namespace().run(|| part_of_crowd(vip, sources, n, gathered, GATHERING + patience))
                })
            })
            .collect();
        // A part that is early waits for the others as well.
        let gathering = Instant::now() + GATHERING;
        let ready: Result<Vec<()>, _> =
            (0..n_parts).map(|_| are_there.recv_timeout(gathering.saturating_duration_since(Instant::now()))).collect();
        let result = ready.context("the crowd did not gather").and_then(|_| scene());
        let ends: Result<Vec<_>> =
            parts.into_iter().map(|part| part.join().expect("the crowd does not panic")).collect();
        // Had the scene failed, that would be why nothing ended.
        let value = result?;
        Ok((value, ends?.concat()))
    })
}

fn part_of_crowd(
    vip: SocketAddr,
    sources: &[IpAddr],
    n: usize,
    gathered: mpsc::Sender<()>,
    patience: Duration,
) -> Result<Vec<Instant>> {
    // Limits are those of a table of descriptors, and this thread gets its own.
    unshare(CloneFlags::CLONE_FILES).context("unshare the table of descriptors")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(vip, sources, n, gathered, patience))
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
    let mut ends = Vec::with_capacity(n);
    let deadline = tokio::time::Instant::now() + patience;
    while let Ok(Some(end)) = tokio::time::timeout_at(deadline, waiting.join_next()).await {
        ends.push(end?);
    }
    ensure!(ends.len() == n, "only {} of {n} connections have ended", ends.len());
    Ok(ends)
}

async fn connect(vip: SocketAddr, source: IpAddr) -> Result<TcpStream> {
    let socket = if vip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind((source, 0).into())?;
    socket.connect(vip).await.with_context(|| format!("connect from {source}"))
}
