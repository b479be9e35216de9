//! Conversations through a VIP that go on while the network changes: how long was each without an answer, and was it
//! lost?

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    accounts::{Accounts, Clients},
    client::{Connection, UdpFlow},
    netns::Namespace,
    poll,
};

/// Time between two things that are said in a watch or by datagrams.
const CADENCE: Duration = Duration::from_millis(20);

/// Time between two requests: long enough for the client to acknowledge the answer before (it may hold that back for
/// 40 ms), so that the server has nothing left to say.
const LEISURE: Duration = Duration::from_millis(100);

/// For how long something was heard in a conversation that is well under way: more than a second, in which the kernel does
/// not believe that a neighbour that is new to it has moved (`locktime`, arp(7)).
const WELL_UNDER_WAY: Duration = Duration::from_millis(1200);

/// How long they may take to get there.
const START: Duration = Duration::from_secs(10);

/// When a datagram counts as lost.
const GIVE_UP: Duration = Duration::from_millis(100);

/// Who speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// The client asks over one TCP connection, and waits for each answer.
    Requests,
    /// The server speaks over a TCP connection, and the client only acknowledges.
    Watch,
    /// The client asks by datagrams of one flow, and waits a moment for each answer.
    Datagrams,
}

/// A conversation: who speaks, and with whom.
pub type Topic = (Manner, SocketAddr);

/// What became of a conversation.
#[derive(Clone, Debug)]
pub struct Account {
    /// Which one it was.
    pub topic: Topic,
    /// When something was heard, in this order.
    pub heard: Vec<Instant>,
    /// Why it ended by itself, if it did.
    pub lost: Option<String>,
}

/// Conversations of one host.
#[derive(Debug)]
pub struct Conversations(Clients<Account>);

impl Conversations {
    /// Starts them, and waits until each is well under way.
    ///
    /// # Errors
    /// If one does not come about.
    pub fn start(namespace: &Namespace, topics: &[Topic]) -> Result<Self> {
        let accounts = topics.iter().map(|topic| Account { topic: *topic, heard: Vec::new(), lost: None }).collect();
        let topics = topics.to_vec();
        let conversations = Self(Clients::start(namespace, accounts, move |accounts| run(topics, accounts))?);
        conversations.wait_until("conversations", START, |account| account.span() >= WELL_UNDER_WAY)?;
        Ok(conversations)
    }

    /// Waits until something was heard in each after `moment`.
    ///
    /// # Errors
    /// If a conversation was lost, or has stalled.
    pub fn wait_for_all_after(&self, moment: Instant, deadline: Duration) -> Result<()> {
        self.wait_until("an answer in every conversation", deadline, |account| {
            account.heard.last().is_some_and(|last| *last > moment)
        })
    }

    fn wait_until(&self, what: &str, deadline: Duration, is_so: impl Fn(&Account) -> bool) -> Result<()> {
        poll::until_ok(what, deadline, || {
            for account in &*self.0.lock() {
                ensure!(is_so(account), "{account}");
            }
            Ok(())
        })
    }

    /// Lets them go on until `period` after `moment`, and ends them.
    ///
    /// # Errors
    /// If one was lost or could not be had.
    pub fn stop_after(self, moment: Instant, period: Duration) -> Result<Vec<Account>> {
        poll::until("time to pass", period + START, || moment.elapsed() >= period)?;
        let accounts = self.0.stop().context("conversations")?;
        for account in &accounts {
            ensure!(account.lost.is_none(), "{account}");
        }
        Ok(accounts)
    }
}

async fn run(topics: Vec<Topic>, accounts: Arc<Accounts<Account>>) -> Result<()> {
    let mut talks = JoinSet::new();
    for (number, topic) in topics.into_iter().enumerate() {
        let accounts = Arc::clone(&accounts);
        talks.spawn(async move {
            let end = talk(topic, &accounts, number).await;
            accounts.lock()[number].lost = end.err().map(|error| format!("{error:#}"));
        });
    }
    accounts.over().await;
    Ok(())
}

/// Talks until it is over.
async fn talk((manner, address): Topic, accounts: &Accounts<Account>, number: usize) -> Result<()> {
    let hear = || accounts.lock()[number].heard.push(Instant::now());
    let mut ticks = interval(if manner == Manner::Requests { LEISURE } else { CADENCE });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    match manner {
        Manner::Requests => {
            let mut connection = Connection::open(address).await?;
            while !accounts.is_over() {
                ticks.tick().await;
                connection.get("/version").await?;
                hear();
            }
        }
        Manner::Watch => {
            let mut watch = Connection::open(address).await?.watch(CADENCE).await?;
            while !accounts.is_over() {
                watch.next().await?;
                hear();
            }
        }
        Manner::Datagrams => {
            let flow = UdpFlow::open(address, None).await?;
            while !accounts.is_over() {
                ticks.tick().await;
                if let Ok(answer) = timeout(GIVE_UP, flow.exchange(b"still there?")).await {
                    answer?;
                    hear();
                }
            }
        }
    }
    Ok(())
}

impl Account {
    /// From the first to the last time that something was heard.
    fn span(&self) -> Duration {
        let ends = self.heard.first().zip(self.heard.last());
        ends.map(|(first, last)| *last - *first).unwrap_or_default()
    }

    /// The longest time without a word that was not over at `moment`; the last one counts to now.
    pub fn longest_silence_after(&self, moment: Instant) -> Duration {
        let ends = self.heard.iter().copied().skip(1).chain([Instant::now()]);
        let silences = self.heard.iter().zip(ends).filter(|(_, end)| *end > moment);
        silences.map(|(start, end)| end.saturating_duration_since(*start)).max().unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic: (manner, address), heard, lost } = self;
        write!(f, "{manner:?} with {address}: {} times something was heard", heard.len())?;
        if let Some(last) = heard.last() {
            write!(f, ", last {:.1?} ago", last.elapsed())?;
        }
        match lost {
            Some(why) => write!(f, "; lost: {why}"),
            None => Ok(()),
        }
    }
}
