//! Many connections at once, and what became of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::{sync::Semaphore, task::JoinSet};

use super::Connection;

/// What to do: each connection is opened, makes its requests and is closed.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub address: SocketAddr,
    /// How many connections in all.
    pub connections: usize,
    /// How many of them at a time.
    pub concurrency: usize,
    /// How many requests on each.
    pub requests: usize,
    /// The addresses to connect from, in turn; none for the one the kernel chooses.
    pub sources: Vec<IpAddr>,
}

/// What became of a load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Connections of which every request was answered with status 200, by one node.
    pub n_ok: usize,
    /// How many failed, by reason.
    pub failures: BTreeMap<String, usize>,
    /// Good connections by node.
    pub by_node: BTreeMap<String, usize>,
    /// The nodes each source address was served by.
    pub nodes_by_source: BTreeMap<IpAddr, BTreeSet<String>>,
    /// From before the connect to the last answer, of the good connections, in ascending order.
    pub durations: Vec<Duration>,
}

impl Load {
    /// One request on each connection, 64 connections at a time.
    pub fn new(address: SocketAddr, connections: usize) -> Self {
        Self { address, connections, concurrency: 64, requests: 1, sources: Vec::new() }
    }

    /// Runs it to its end.
    pub async fn run(&self) -> Report {
        let permits = Arc::new(Semaphore::new(self.concurrency));
        let mut tasks = JoinSet::new();
        for number in 0..self.connections {
            let source = (!self.sources.is_empty()).then(|| self.sources[number % self.sources.len()]);
            let (permits, address, requests) = (Arc::clone(&permits), self.address, self.requests);
            tasks.spawn(async move {
                let _permit = permits.acquire().await;
                let start = Instant::now();
                let outcome = connection(address, source, requests).await;
                (outcome, start.elapsed())
            });
        }
        let mut report = Report::default();
        while let Some(result) = tasks.join_next().await {
            match result {
                Ok((Ok((source, node)), duration)) => report.add(source, node, duration),
                Ok((Err(error), _)) => *report.failures.entry(format!("{error:#}")).or_default() += 1,
                Err(panic) => *report.failures.entry(panic.to_string()).or_default() += 1,
            }
        }
        report.durations.sort_unstable();
        report
    }
}

/// One connection's life: the address it came from and the node that served it.
async fn connection(address: SocketAddr, source: Option<IpAddr>, n_requests: usize) -> Result<(IpAddr, String)> {
    let mut connection = Connection::open_from(address, source).await?;
    let source = connection.local_addr().ip();
    let mut node = None;
    for _ in 0..n_requests {
        let answer = connection.get("/version").await?;
        ensure!(answer.status == 200, "status {}", answer.status);
        let first = node.get_or_insert_with(|| answer.node.clone());
        ensure!(*first == answer.node, "one connection was answered by {first} and {}", answer.node);
    }
    connection.close().await?;
    Ok((source, node.unwrap_or_default()))
}

impl Report {
    fn add(&mut self, source: IpAddr, node: String, duration: Duration) {
        self.n_ok += 1;
        self.nodes_by_source.entry(source).or_default().insert(node.clone());
        *self.by_node.entry(node).or_default() += 1;
        self.durations.push(duration);
    }

    /// How many connections failed.
    pub fn n_failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// The duration that this share of the connections, in percent, did not exceed.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.durations.len().checked_sub(1)?;
        self.durations.get((last * percent).div_ceil(100)).copied()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} failed", self.n_ok, self.n_failed())?;
        for (node, n) in &self.by_node {
            write!(f, "; {node} {n}")?;
        }
        if let (Some(median), Some(slow)) = (self.percentile(50), self.percentile(99)) {
            write!(f, "; median {median:.1?}, 99 % within {slow:.1?}")?;
        }
        self.failures.iter().try_for_each(|(reason, n)| write!(f, "\n  {n} times: {reason}"))
    }
}
