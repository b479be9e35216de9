//! Connections that are there before it happens, of each manner from each of the client's addresses.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::{Serialize, Serializer};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::Fate;
use crate::{
    accounts::{Accounts, Clients},
    client::{ANSWER_DEADLINE, Connection},
    netns::Namespace,
    poll,
};

/// How long they may take to be there.
const START: Duration = Duration::from_secs(20);

/// Who speaks on a connection, and how often.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// The client asks ten times a second, and waits for each answer.
    Asks,
    /// The server speaks ten times a second, as in a busy watch.
    Watches,
    /// The server speaks every fifteen seconds, as in a watch of what hardly changes.
    Idles,
}

impl Serialize for Manner {
    /// Its name.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Asks, Self::Watches, Self::Idles];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asks => "asking",
            Self::Watches => "watching",
            Self::Idles => "idle",
        }
    }

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
pub(super) struct Kept(Clients<Account>);

impl Kept {
    /// Opens them, and waits until all are there.
    pub(super) fn start(namespace: &Namespace, target: SocketAddr, sources: &[IpAddr]) -> Result<Self> {
        let n_wanted = sources.len() * Manner::ALL.len();
        let sources = sources.to_vec();
        let run = move |accounts| async move { run(target, &sources, &accounts).await };
        let clients = Clients::start(namespace, Vec::new(), run)?;
        poll::until("connections to keep", START, || clients.lock().len() == n_wanted || clients.have_ended())?;
        Ok(Self(clients))
    }

    /// What has become of them by now.
    ///
    /// # Errors
    /// If one could not be opened.
    pub(super) fn stop(self) -> Result<Vec<Account>> {
        self.0.stop()
    }
}

impl Accounts<Account> {
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

async fn run(target: SocketAddr, sources: &[IpAddr], accounts: &Arc<Accounts<Account>>) -> Result<()> {
    let mut talks = JoinSet::new();
    // A balancer that gives connections to one backend after the other is not to give each a manner of its own.
    for manner in Manner::ALL {
        for source in sources {
            let connection = Connection::open_from(target, Some(*source)).await?;
            let accounts = Arc::clone(accounts);
            talks.spawn(async move {
                match manner {
                    Manner::Asks => ask(connection, &accounts).await,
                    Manner::Watches | Manner::Idles => watch(connection, manner, &accounts).await,
                }
            });
        }
    }
    accounts.over().await;
    Ok(())
}

async fn ask(mut connection: Connection, accounts: &Accounts<Account>) -> Result<()> {
    let place = accounts.begin(Manner::Asks, &connection.get("/version").await?.node);
    let mut ticks = interval(Manner::Asks.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        match connection.get("/version").await {
            Ok(_) => accounts.hear(place),
            // It hangs: nobody has told the client anything.
            Err(_) if asked.elapsed() >= ANSWER_DEADLINE => return Ok(()),
            Err(_) => {
                accounts.end(place);
                return Ok(());
            }
        }
    }
}

async fn watch(mut connection: Connection, manner: Manner, accounts: &Accounts<Account>) -> Result<()> {
    let mut watch = connection.watch(manner.interval()).await?;
    let place = accounts.begin(manner, watch.node());
    while watch.goes_on().await {
        accounts.hear(place);
    }
    accounts.end(place);
    Ok(())
}
