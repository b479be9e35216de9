//! The load: watches, requests, new connections, transfers and datagrams of one client host, over both families.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Error, Result, bail};
use tokio::{
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use super::{
    STALL,
    excuse::{Failed, Span},
    integrity,
    ledger::{Activity, Failure, Ledger, Talk},
};
use crate::{
    client::{Answer, Connection, Transfer, UdpFlow, Wrong},
    cluster,
    lab::{Addresses, Host},
    pattern::pattern_sha256,
};

/// Time between the lines of the watches.
const WATCHES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(1)];

/// Connections with one request after the other.
const N_KEPT: usize = 2;
/// Time between those.
const LEISURE: Duration = Duration::from_millis(100);
/// How many of them a connection has before another takes its place.
const MAX_REQUESTS: usize = 300;

/// Time between new connections with one request each.
const KNOCKS: Duration = Duration::from_millis(150);

/// Time between transfers.
const BREATH: Duration = Duration::from_millis(300);
/// How many bytes they have.
const SIZES: [u64; 7] = [1, 1000, 1461, 20_000, 65_536, 300_007, 1_500_003];

/// Time between datagrams of a flow.
const CADENCE: Duration = Duration::from_millis(50);
/// How many a flow has before another takes its place.
const MAX_DATAGRAMS: usize = 60;
/// When one counts as lost. What takes longer is a slow server's answer.
const GIVE_UP: Duration = Duration::from_secs(2);
/// Bytes of the shortest and the longest, which come in fragments.
const DATAGRAMS: [usize; 5] = [0, 18, 500, 1400, 4000];

/// The hashes of transfers.
pub type Hashes = BTreeMap<u64, String>;

/// What a client compares transfers with.
pub fn hashes() -> Hashes {
    SIZES.into_iter().map(|n| (n, pattern_sha256(n))).collect()
}

/// One client host.
#[derive(Debug)]
pub struct Client {
    name: String,
    addresses: Addresses,
    hashes: Arc<Hashes>,
    ledger: Arc<Ledger>,
}

/// A connection that has answered once.
struct Opened {
    /// Counted for as long as the connection is there: fields are dropped in their order.
    connection: Connection,
    _talk: Talk,
    vip: SocketAddr,
    /// The node at its other end.
    node: String,
    at: Duration,
}

impl Client {
    /// A client with these addresses.
    pub fn new(host: &Host, addresses: Addresses, hashes: Arc<Hashes>, ledger: Arc<Ledger>) -> Self {
        Self { name: host.name().to_owned(), addresses, hashes, ledger }
    }

    /// Runs in the client's namespace until the ledger is closed.
    pub async fn run(self) {
        let client = Arc::new(self);
        let mut talks = JoinSet::new();
        for vip in cluster::https() {
            for cadence in WATCHES {
                talks.spawn(Arc::clone(&client).watches(vip, cadence));
            }
            for _ in 0..N_KEPT {
                talks.spawn(Arc::clone(&client).requests(vip));
            }
            talks.spawn(Arc::clone(&client).knocks(vip));
            talks.spawn(Arc::clone(&client).transfers(vip));
        }
        for vip in cluster::udp() {
            talks.spawn(Arc::clone(&client).datagrams(vip));
        }
        talks.join_all().await;
    }

    /// A watch after the other, each for as long as it lasts.
    async fn watches(self: Arc<Self>, vip: SocketAddr, cadence: Duration) {
        let mut ticks = ticks(KNOCKS);
        while !self.ledger.is_over() {
            ticks.tick().await;
            let Some(mut opened) = self.open(vip).await else { continue };
            let mut begun = self.ledger.now();
            if let Err(error) = self.watch(&mut opened, cadence, &mut begun).await {
                self.broke(Activity::Watch, &opened, begun, &error);
            }
        }
    }

    async fn watch(&self, opened: &mut Opened, cadence: Duration, begun: &mut Duration) -> Result<()> {
        let mut watch = opened.connection.watch(cadence).await?;
        let mut expected = 0;
        while !self.ledger.is_over() {
            let line = within(cadence + STALL, watch.next()).await?;
            if line["sequence"] != expected || line["node"] != opened.node.as_str() {
                self.ledger.broken(format!("{} of {}: line {expected} of a watch is {line}", self.name, opened.vip));
            }
            expected += 1;
            *begun = self.ledger.now();
            self.ledger.done(Activity::Watch, 0);
        }
        Ok(())
    }

    /// One request after the other on a connection that is kept.
    async fn requests(self: Arc<Self>, vip: SocketAddr) {
        let mut ticks = ticks(LEISURE);
        while !self.ledger.is_over() {
            ticks.tick().await;
            let Some(mut opened) = self.open(vip).await else { continue };
            for _ in 0..MAX_REQUESTS {
                ticks.tick().await;
                let begun = self.ledger.now();
                if self.ledger.is_over() {
                    break;
                }
                match request(&mut opened).await {
                    Ok(()) => self.ledger.done(Activity::Request, 0),
                    Err(error) => {
                        self.broke(Activity::Request, &opened, begun, &error);
                        break;
                    }
                }
            }
        }
    }

    /// A connection after the other, closed at once.
    async fn knocks(self: Arc<Self>, vip: SocketAddr) {
        let mut ticks = ticks(KNOCKS);
        while !self.ledger.is_over() {
            ticks.tick().await;
            let Some(opened) = self.open(vip).await else { continue };
            let begun = self.ledger.now();
            let Opened { connection, _talk, node, at, .. } = opened;
            if let Err(error) = within(STALL, connection.close()).await {
                let failed = Failed::Established { opened: at, backend: number(&node) };
                self.failed(Activity::Connection, failed, vip, begun, &error);
            }
        }
    }

    /// One transfer after the other, down and up, on a connection each.
    async fn transfers(self: Arc<Self>, vip: SocketAddr) {
        let mut ticks = ticks(BREATH);
        while !self.ledger.is_over() {
            for activity in [Activity::Download, Activity::Upload] {
                ticks.tick().await;
                let Some(mut opened) = self.open(vip).await else { continue };
                let begun = self.ledger.now();
                let n = SIZES[rand::random_range(0..SIZES.len())];
                let transfer = within(STALL, transfer(&mut opened.connection, activity, n)).await;
                match transfer.and_then(|transfer| expect_transfer(&transfer, &opened.node, self.hashes.get(&n))) {
                    Ok(()) => self.ledger.done(activity, n),
                    Err(error) => self.broke(activity, &opened, begun, &error.context(format!("{n} bytes"))),
                }
            }
        }
    }

    /// A flow of datagrams after the other. One whose answer is overdue is given up, so that no late answer is taken for
    /// the next one's.
    async fn datagrams(self: Arc<Self>, vip: SocketAddr) {
        let mut ticks = ticks(CADENCE);
        while !self.ledger.is_over() {
            ticks.tick().await;
            let mut backend = None;
            let _talk = Talk::begin(&self.ledger);
            let flow = match UdpFlow::open(vip, self.source(vip)).await {
                Ok(flow) => flow,
                Err(error) => {
                    self.ledger.broken(format!("{}: {error:#}", self.name));
                    continue;
                }
            };
            for n in 0..MAX_DATAGRAMS {
                ticks.tick().await;
                if self.ledger.is_over() {
                    break;
                }
                let begun = self.ledger.now();
                let payload = payload(n, DATAGRAMS[rand::random_range(0..DATAGRAMS.len())]);
                match within(GIVE_UP, flow.exchange(&payload)).await {
                    Ok(answer) if answer.payload == payload => {
                        backend = Some(number(&answer.node));
                        self.ledger.done(Activity::Datagram, payload.len() as u64);
                    }
                    Ok(answer) => {
                        let words = format!("{}: an echo of {vip} is wrong: {:?}", self.name, answer.payload);
                        self.ledger.broken(words);
                    }
                    Err(error) => {
                        let error = error.context(format!("{} bytes", payload.len()));
                        self.failed(Activity::Datagram, Failed::Datagram { backend }, vip, begun, &error);
                        break;
                    }
                }
            }
        }
    }

    /// Opens a connection and has it answer; a failure is entered.
    async fn open(&self, vip: SocketAddr) -> Option<Opened> {
        let begun = self.ledger.now();
        let mut talk = Talk::begin(&self.ledger);
        let opening = async {
            let mut connection = Connection::open_from(vip, self.source(vip)).await?;
            let answer = within(STALL, connection.get("/version")).await?;
            expect_ok(&answer)?;
            anyhow::Ok((connection, answer.node))
        };
        match opening.await {
            Ok((connection, node)) => {
                self.ledger.done(Activity::Connection, 0);
                talk.answered();
                Some(Opened { connection, _talk: talk, vip, node, at: self.ledger.now() })
            }
            Err(error) => {
                self.failed(Activity::Connection, Failed::Opening, vip, begun, &error);
                None
            }
        }
    }

    /// One of the client's addresses.
    fn source(&self, vip: SocketAddr) -> Option<IpAddr> {
        let addresses = self.addresses.like(vip.ip());
        (!addresses.is_empty()).then(|| addresses[rand::random_range(0..addresses.len())])
    }

    fn broke(&self, activity: Activity, opened: &Opened, begun: Duration, error: &Error) {
        let failed = Failed::Established { opened: opened.at, backend: number(&opened.node) };
        self.failed(activity, failed, opened.vip, begun, error);
    }

    fn failed(&self, activity: Activity, failed: Failed, vip: SocketAddr, begun: Duration, error: &Error) {
        if integrity::is_wrong(error) {
            let what = activity.name();
            self.ledger
                .broken(format!("{what} of {} with {vip}, {failed:?}: what came is WRONG: {error:#}", self.name));
            return;
        }
        let span = Span { failed, begun, ended: self.ledger.now() };
        self.ledger.failed(Failure { activity, span, words: format!("{} with {vip}: {error:#}", self.name) });
    }
}

async fn within<T>(deadline: Duration, future: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(deadline, future).await {
        Ok(result) => result,
        Err(_) => bail!("nothing for {deadline:?}"),
    }
}

async fn request(opened: &mut Opened) -> Result<()> {
    let answer = within(STALL, opened.connection.get("/version")).await?;
    expect_ok(&answer)?;
    expect_node(&answer.node, &opened.node)
}

async fn transfer(connection: &mut Connection, activity: Activity, n: u64) -> Result<Transfer> {
    match activity {
        Activity::Upload => connection.upload(n).await,
        _ => connection.download(n).await,
    }
}

fn expect_ok(answer: &Answer) -> Result<()> {
    if answer.status == 200 { Ok(()) } else { Err(Wrong::new(format!("status {}", answer.status)).into()) }
}

/// A connection is of one node, to its end.
fn expect_node(answers: &str, opened: &str) -> Result<()> {
    let is_same = answers == opened;
    if is_same { Ok(()) } else { Err(Wrong::new(format!("{answers} answers on a connection to {opened}")).into()) }
}

fn expect_transfer(transfer: &Transfer, opened: &str, sha256: Option<&String>) -> Result<()> {
    expect_node(&transfer.node, opened)?;
    let is_whole = Some(&transfer.sha256) == sha256;
    if is_whole { Ok(()) } else { Err(Wrong::new(format!("other bytes, with {opened}: {}", transfer.sha256)).into()) }
}

/// Its number and as many bytes that differ from one to the next.
fn payload(n: usize, length: usize) -> Vec<u8> {
    let mut payload = format!("{n} ").into_bytes();
    payload.extend((0..length).map(|i| ((i + n) % 251).to_be_bytes()[7]));
    payload
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The number of a node by its name, or 0, which no node has.
fn number(name: &str) -> usize {
    name.trim_start_matches("node").parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_nodes_answer_is_wrong_and_so_are_other_bytes() {
        let transfer = |node: &str, hash: &str| Transfer { node: node.to_owned(), sha256: hash.to_owned() };
        let (hash, judge) = ("ab".to_owned(), expect_transfer);
        assert!(judge(&transfer("node1", "ab"), "node1", Some(&hash)).is_ok());
        for wrong in [transfer("node2", "ab"), transfer("node1", "cd")] {
            let error = judge(&wrong, "node1", Some(&hash)).expect_err("it is wrong");
            assert!(integrity::is_wrong(&error), "{error:#}");
        }
    }

    #[test]
    fn payloads_differ() {
        assert_eq!(payload(3, 2), [b'3', b' ', 3, 4]);
        assert_ne!(payload(3, 500), payload(4, 500));
        assert_eq!(number("node2"), 2);
    }
}
