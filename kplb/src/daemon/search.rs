//! Looking for clients that say nothing any more: one that has moved, and only listens, would not be found by its frames.
//!
//! A client gets its packets at the MAC address that its own come from. If a backend speaks to it in vain, the segment is
//! asked for it, or for the router that the node's routes name; if it answers from elsewhere, its flows are led there.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use kplb_common::net::Mac;
use tokio::{sync::mpsc, task::spawn_blocking};
use tracing::debug;

use crate::who_has::{Inquiry, pacing::Pacing, question::Question};

/// For an answer: whoever takes longer is asked for again when its backend tries again.
const PATIENCE: Duration = Duration::from_millis(200);

/// The search.
pub(super) struct Search {
    interface: String,
    pacing: Pacing,
    /// Clients behind each neighbour that is being asked for, and where their frames came from. A client on the segment is
    /// its own neighbour.
    missing: HashMap<IpAddr, BTreeMap<IpAddr, Mac>>,
    sender: mpsc::UnboundedSender<Outcome>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

/// A client that says nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub(super) client: IpAddr,
    /// Where its frames came from.
    pub(super) mac: Mac,
}

/// A neighbour that was asked for, and where it is, if anywhere.
struct Outcome {
    neighbour: IpAddr,
    mac: Option<Mac>,
}

/// Clients that were found elsewhere.
pub(super) struct Found {
    pub(super) clients: Vec<IpAddr>,
    pub(super) mac: Mac,
}

impl Search {
    pub(super) fn new(interface: &str) -> Self {
        let (sender, outcomes) = mpsc::unbounded_channel();
        let (pacing, missing) = (Pacing::default(), HashMap::new());
        Self { interface: interface.to_owned(), pacing, missing, sender, outcomes }
    }

    /// Looks for a client behind the neighbour that the question is about, if it is time to ask. Must be called on a tokio
    /// runtime; asks off this thread.
    pub(super) fn look_for(&mut self, Missing { client, mac }: Missing, question: Question, own: Mac, now: Instant) {
        let neighbour = question.target();
        if let Some(clients) = self.missing.get_mut(&neighbour) {
            clients.insert(client, mac);
            return;
        }
        if !self.pacing.may_ask(neighbour, now) {
            return;
        }
        debug!("client {client} says nothing: is {neighbour} still at {mac}?");
        self.missing.insert(neighbour, BTreeMap::from([(client, mac)]));
        let (interface, sender) = (self.interface.clone(), self.sender.clone());
        spawn_blocking(move || {
            // Closing its sockets takes the kernel longer than all else: what is known is told before.
            let inquiry = Inquiry::start(&interface, own, &[question]);
            let mac =
                inquiry.as_ref().ok().and_then(|inquiry| inquiry.first_answer(neighbour, PATIENCE).ok().flatten());
            // An agent that ends looks for nobody.
            let _ = sender.send(Outcome { neighbour, mac });
            if let Err(error) = inquiry {
                debug!("cannot look for {neighbour}: {error:#}");
            }
        });
    }

    /// Waits until clients are found elsewhere. Safe to cancel.
    pub(super) async fn found(&mut self) -> Option<Found> {
        loop {
            let Outcome { neighbour, mac } = self.outcomes.recv().await?;
            let missing = self.missing.remove(&neighbour).unwrap_or_default();
            let Some(mac) = mac else { continue };
            let clients: Vec<IpAddr> =
                missing.into_iter().filter(|(_, before)| *before != mac).map(|(client, _)| client).collect();
            if !clients.is_empty() {
                return Some(Found { clients, mac });
            }
        }
    }
}
