//! Connections that are there before it happens, of each manner from each of the client's addresses.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::Fate;
use crate::{
    client::{ANSWER_DEADLINE, Connection},
    netns::Namespace,
    poll,
};

/// How long they may take to be there.
const START: Duration = Duration::from_secs(20);
/// How often it is looked whether all is over.
const LOOK: Duration = Duration::from_millis(50);

/// Who speaks on a connection, and how often.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Manner {
    /// The client asks ten times a second, and waits for each answer.
    Asks,
    /// The server speaks ten times a second, as in a busy watch.
    Watches,
    /// The server speaks every fifteen seconds, as in a watch of what hardly changes.
    Idles,
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Asks, Self::Watches, Self::Idles];

    /// Time between two words.
    pub fn interval(self) -> Duration {
        match self {
            Self::Asks | Self::Watches => Duration::from_millis(100),
            Self::Idles => Duration::from_secs(15),
        }
    }
}

/// What became of a connection.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who speaks.
    pub manner: Manner,
    /// The node at the other end.
    pub node: String,
    /// When something was heard, in this order.
    pub heard: Vec<Instant>,
    /// When the client was told that it has ended, if it was.
    pub ended: Option<Instant>,
}

impl Account {
    /// What has become of it at `now`, since `moment`.
    pub fn fate(&self, moment: Instant, now: Instant) -> Fate {
        Fate::of(&self.heard, self.ended, moment, now, self.manner.interval())
    }
}

/// Connections of one host.
pub(super) struct Kept {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    accounts: Mutex<Vec<Account>>,
    is_over: AtomicBool,
}

impl Kept {
    /// Opens them, and waits until all are there.
    pub(super) fn start(namespace: &Namespace, target: SocketAddr, sources: &[IpAddr]) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let n_wanted = sources.len() * Manner::ALL.len();
        let thread = namespace.thread({
            let (shared, sources) = (Arc::clone(&shared), sources.to_vec());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(run(target, &sources, &shared))
            }
        })?;
        let are_there = || shared.lock().len() == n_wanted;
        poll::until("connections to keep", START, || are_there() || thread.is_finished())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What has become of them by now.
    ///
    /// # Errors
    /// If one could not be opened.
    pub(super) fn stop(mut self) -> Result<Vec<Account>> {
        self.end()?;
        Ok(std::mem::take(&mut *self.shared.lock()))
    }

    fn end(&mut self) -> Result<()> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().expect("connections do not panic"),
            None => Ok(()),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Whoever drops them has an error of his own to tell.
        let _ = self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an account, and returns its place.
    fn begin(&self, manner: Manner, node: &str) -> usize {
        let mut accounts = self.lock();
        accounts.push(Account { manner, node: node.to_owned(), heard: vec![Instant::now()], ended: None });
        accounts.len() - 1
    }

    fn hear(&self, place: usize) {
        self.lock()[place].heard.push(Instant::now());
    }

    fn end(&self, place: usize) {
        self.lock()[place].ended = Some(Instant::now());
    }
}

async fn run(target: SocketAddr, sources: &[IpAddr], shared: &Arc<Shared>) -> Result<()> {
    let mut talks = JoinSet::new();
    // A balancer that gives connections to one backend after the other is not to give each a manner of its own.
    for manner in Manner::ALL {
        for source in sources {
            let connection = Connection::open_from(target, Some(*source)).await?;
            let shared = Arc::clone(shared);
            talks.spawn(async move {
                match manner {
                    Manner::Asks => ask(connection, &shared).await,
                    Manner::Watches | Manner::Idles => watch(connection, manner, &shared).await,
                }
            });
        }
    }
    // What hangs is not waited for.
    let mut ticks = interval(LOOK);
    while !shared.is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
    }
    Ok(())
}

async fn ask(mut connection: Connection, shared: &Shared) -> Result<()> {
    let place = shared.begin(Manner::Asks, &connection.get("/version").await?.node);
    let mut ticks = interval(Manner::Asks.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        match connection.get("/version").await {
            Ok(_) => shared.hear(place),
            // It hangs: nobody has told the client anything.
            Err(_) if asked.elapsed() >= ANSWER_DEADLINE => return Ok(()),
            Err(_) => {
                shared.end(place);
                return Ok(());
            }
        }
    }
}

async fn watch(mut connection: Connection, manner: Manner, shared: &Shared) -> Result<()> {
    let mut watch = connection.watch(manner.interval()).await?;
    let place = shared.begin(manner, watch.node());
    while watch.goes_on().await {
        shared.hear(place);
    }
    shared.end(place);
    Ok(())
}
