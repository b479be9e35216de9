//! Clients that go on in the background while something fails.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::{client::Connection, lab::Host, poll};

/// Connections at a time.
const N_WORKERS: usize = 8;
/// How long clients may take to be there.
const SOON: Duration = Duration::from_secs(10);

/// One connection with one request: from before the connect to the answer.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it was begun.
    pub start: Instant,
    /// When it was answered, or had failed.
    pub end: Instant,
    /// The node that answered, or why none did.
    pub result: Result<String, String>,
}

/// A watch that says nothing, and when it ended.
#[derive(Clone, Debug)]
pub struct IdleWatch {
    /// The node at its other end.
    pub node: String,
    /// None: not before the end of the scene.
    pub ended: Option<Instant>,
}

/// What clients in the background did.
#[derive(Debug, Default)]
pub struct Clients {
    /// Connections, each client's in their order.
    pub attempts: Vec<Attempt>,
    /// Watches, in the order of the addresses.
    pub watches: Vec<IdleWatch>,
}

/// Runs `scene` while clients of `host` connect over and over, from these addresses in turn, and others keep a watch
/// each that brings nothing; the scene begins when all are there.
pub fn with_clients<T>(
    host: &Host,
    vip: SocketAddr,
    sources: &[IpAddr],
    scene: impl FnOnce() -> Result<T>,
) -> Result<(T, Clients)> {
    let (are_there, is_over) = (Flag::default(), Flag::default());
    thread::scope(|scope| {
        let clients = scope.spawn(|| host.namespace().block_on(run(vip, sources, &are_there, &is_over)));
        let ready = poll::until("clients in the background", SOON, || are_there.is_set() || clients.is_finished());
        let result = ready.and_then(|()| scene());
        is_over.set();
        let clients = clients.join().expect("clients do not panic")?;
        Ok((result?, clients))
    })
}

/// Something that was not so, and is so for ever.
#[derive(Clone, Debug, Default)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

async fn run(vip: SocketAddr, sources: &[IpAddr], are_there: &Flag, is_over: &Flag) -> Result<Clients> {
    let mut waiting = JoinSet::new();
    let mut nodes = Vec::new();
    for source in sources {
        let mut connection = Connection::open_from(vip, Some(*source)).await?;
        let mut watch = connection.watch(Duration::from_secs(3600)).await?;
        watch.next().await?;
        let (node, number) = (watch.node().to_owned(), nodes.len());
        nodes.push(node);
        waiting.spawn(async move {
            watch.ended().await;
            drop(connection);
            (number, Instant::now())
        });
    }
    are_there.set();

    let mut workers = JoinSet::new();
    for number in 0..N_WORKERS {
        workers.spawn(worker(vip, sources.to_vec(), number, is_over.clone()));
    }
    let attempts = workers.join_all().await.into_iter().flatten().collect();
    let mut watches: Vec<_> = nodes.into_iter().map(|node| IdleWatch { node, ended: None }).collect();
    while let Some(ended) = waiting.try_join_next() {
        let (number, ended) = ended?;
        watches[number].ended = Some(ended);
    }
    Ok(Clients { attempts, watches })
}

/// Connects over and over.
async fn worker(vip: SocketAddr, sources: Vec<IpAddr>, number: usize, is_over: Flag) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for source in sources.iter().cycle().skip(number) {
        if is_over.is_set() {
            break;
        }
        let start = Instant::now();
        let result = attempt(vip, *source).await.map_err(|error| format!("{error:#}"));
        attempts.push(Attempt { start, end: Instant::now(), result });
        // The others' turn, on the one thread.
        tokio::task::yield_now().await;
    }
    attempts
}

async fn attempt(vip: SocketAddr, source: IpAddr) -> Result<String> {
    let mut connection = Connection::open_from(vip, Some(source)).await?;
    Ok(connection.get("/version").await?.node)
}

impl Clients {
    /// Watches on this node.
    pub fn watches_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a IdleWatch> {
        self.watches.iter().filter(move |watch| watch.node == node)
    }

    /// When the last watch on this node ended.
    ///
    /// # Errors
    /// If one has not, or none was there.
    pub fn last_end_on(&self, node: &str) -> Result<Instant> {
        let ends: Option<Vec<Instant>> = self.watches_on(node).map(|watch| watch.ended).collect();
        let ends = ends.with_context(|| format!("a watch on {node} has not ended"))?;
        ends.into_iter().max().with_context(|| format!("there was no watch on {node}"))
    }

    /// Connections that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.result.is_err())
    }

    /// The longest that a connection took that was begun or went on after `moment`.
    pub fn longest_after(&self, moment: Instant) -> Duration {
        let after = self.attempts.iter().filter(|attempt| attempt.result.is_ok() && attempt.end >= moment);
        after.map(|attempt| attempt.end - attempt.start).max().unwrap_or_default()
    }

    /// Nodes that answered connections begun after `moment`.
    pub fn nodes_after(&self, moment: Instant) -> BTreeSet<&str> {
        let after = self.attempts.iter().filter(|attempt| attempt.start >= moment);
        after.filter_map(|attempt| attempt.result.as_deref().ok()).collect()
    }
}
