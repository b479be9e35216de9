//! What clients notice when a part of a small cluster dies: with kplb, and with what people use today.
//!
//! ```text
//!   node1: balancer, apiserver ----+        +---- client1: new connections at every beat, and 72 that it keeps
//!   node2: balancer, apiserver ----+ switch +
//!   node3: balancer, apiserver ----+        +
//! ```
//!
//! Invariant: nothing about a scene depends on who balances, but the balancer's own settings: the same labs, servers, clients,
//! and the same time of looking on.

mod contender;
mod fate;
mod figures;
mod kept;
mod record;
mod table;

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use self::kept::Kept;
pub use self::{
    contender::Contender,
    fate::Fate,
    figures::{End, Fates, Figures},
    kept::{Account, Manner},
    record::Record,
    table::table,
};
use crate::{
    cluster,
    lab::{Lab, LabOptions, LinkState},
    poll,
    vip_client::{Asking, Question, VipClient},
};

/// How many nodes there are.
const N_NODES: usize = 3;
/// Addresses that the client asks from.
const N_SOURCES: usize = 24;
/// Time between the starts of two new connections.
const BEAT: Duration = Duration::from_millis(20);
/// When a client gives up: that of Go's HTTP client for a TLS handshake (`net/http`, `DefaultTransport`), which Kubernetes'
/// programs are.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long clients go on before it happens.
const BEFORE: Duration = Duration::from_secs(2);
/// How long they are looked at afterwards.
const AFTERWARDS: Duration = Duration::from_secs(20);
/// Checks and adverts keep time: what happens at the same distance from each would be one case of many.
const PHASE: Duration = Duration::from_secs(3);

/// What happens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum Event {
    /// The apiserver of a node that has not the VIP is killed.
    BackendKilled,
    /// A node that has not the VIP is cut off.
    BackendCut,
    /// The node that has the VIP is cut off, with its balancer and its apiserver.
    HolderCut,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BackendKilled, Self::BackendCut, Self::HolderCut];

    /// A short name, for files.
    pub fn name(self) -> &'static str {
        match self {
            Self::BackendKilled => "backend-killed",
            Self::BackendCut => "backend-cut",
            Self::HolderCut => "holder-cut",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BackendKilled => "An apiserver is killed",
            Self::BackendCut => "An apiserver's node is cut off",
            Self::HolderCut => "The balancer's node is cut off, with its apiserver",
        })
    }
}

/// Plays an event on a lab of its own.
///
/// # Errors
/// If something does not start, or the VIP is nowhere.
pub fn measure(contender: Contender, event: Event) -> Result<Record> {
    let lab = Lab::new(LabOptions { nodes: N_NODES, clients: 1 })?;
    let client = lab.client(1);
    let sources: Vec<IpAddr> = client.add_addresses(N_SOURCES)?.ipv4.into_iter().map(IpAddr::from).collect();
    let mut apiservers = cluster::start_apiservers(&lab)?;
    let balancers = contender.start(&lab)?;
    let holder = balancers.wait_for_holder(&lab)?;

    let target = contender.address();
    let kept = Kept::start(client.namespace(), target, &sources)?;
    let asking = Asking { target, question: Question::Version, sources, cadence: BEAT, patience: PATIENCE };
    let knocking = VipClient::start_asking(client, asking)?;
    poll::pass(BEFORE + PHASE.mul_f64(rand::random_range(0.0..1.0)), || false);

    let place = match event {
        Event::HolderCut => holder,
        Event::BackendKilled | Event::BackendCut => (holder + 1) % N_NODES,
    };
    let victim = &lab.nodes()[place];
    let moment = Instant::now();
    match event {
        Event::BackendKilled => apiservers.get_mut(place).context("a stand-in for each node")?.process().kill()?,
        Event::BackendCut | Event::HolderCut => lab.set_cable(victim, LinkState::Down)?,
    }
    poll::pass(AFTERWARDS, || false);
    let end = Instant::now();
    let kept = kept.stop()?;
    let attempts = knocking.stop();
    Ok(Record { moment, end, dead: victim.name().to_owned(), attempts, kept })
}
