//! The watches over all backends, each a task of its own.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::sync::mpsc;

use crate::{
    config::{CheckConfig, Config},
    health::{
        fsm::Pace,
        probe::{self, Probe},
        watch::{News, Order, watch},
    },
};

/// The watches, by place of the backend in the configuration.
pub(super) struct Watches {
    watches: Vec<Option<Watch>>,
    news: mpsc::UnboundedReceiver<(u64, News)>,
    /// Keeps the channel open when nothing is watched.
    sender: mpsc::UnboundedSender<(u64, News)>,
    n_started: u64,
}

struct Watch {
    /// No other watch has, or had, this number.
    number: u64,
    address: SocketAddr,
    check: CheckConfig,
    orders: mpsc::UnboundedSender<Order>,
    pace: Option<Pace>,
}

impl Watches {
    /// Starts a watch over each backend that is to be checked. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If a file that a check needs cannot be used.
    pub(super) fn start(config: &Config) -> Result<Self> {
        let (sender, news) = mpsc::unbounded_channel();
        let mut watches = Self { watches: Vec::new(), news, sender, n_started: 0 };
        watches.follow(config)?;
        Ok(watches)
    }

    /// Follows another configuration: a watch goes on as it is where the same address is checked in the same way.
    ///
    /// # Errors
    /// If a file that a check needs cannot be used; nothing has changed then.
    pub(super) fn follow(&mut self, config: &Config) -> Result<()> {
        let probes = probe::probes(config)?;
        let backends = config.services.iter().flat_map(|service| &service.backends);
        let mut earlier = std::mem::take(&mut self.watches);
        for (probe, backend) in probes.into_iter().zip(backends) {
            let Some((probe, check)) = probe.zip(backend.check.clone()) else {
                self.watches.push(None);
                continue;
            };
            let same = earlier.iter_mut().find(|watch| {
                watch.as_ref().is_some_and(|watch| watch.address == backend.address && watch.check == check)
            });
            let watch = match same.and_then(Option::take) {
                Some(watch) => watch,
                None => self.begin(probe, backend.address, check),
            };
            self.watches.push(Some(watch));
        }
        Ok(())
    }

    fn begin(&mut self, probe: Probe, address: SocketAddr, check: CheckConfig) -> Watch {
        let number = self.n_started;
        self.n_started += 1;
        let (orders, receiver) = mpsc::unbounded_channel();
        let sender = self.sender.clone();
        let tell = move |news| sender.send((number, news)).is_ok();
        tokio::spawn(watch(probe, check.clone(), receiver, tell));
        Watch { number, address, check, orders, pace: Some(Pace::Fast) }
    }

    /// Waits for news of backends, and returns all that have come: together they are one change. Safe to cancel.
    pub(super) async fn next(&mut self) -> Vec<(usize, News)> {
        let mut all = Vec::new();
        let mut next = self.news.recv().await;
        while let Some((number, news)) = next {
            // One that was started for an earlier configuration may have had something to say.
            let of_watch = |watch: &Option<Watch>| watch.as_ref().is_some_and(|watch| watch.number == number);
            all.extend(self.watches.iter().position(of_watch).map(|place| (place, news)));
            next = self.news.try_recv().ok();
        }
        all
    }

    /// Checks a backend now.
    pub(super) fn check_now(&self, backend: usize) {
        if let Some(Some(watch)) = self.watches.get(backend) {
            watch.order(Order::Now);
        }
    }

    /// Checks a backend at this pace from now on; not at all without one.
    pub(super) fn set_pace(&mut self, backend: usize, pace: Option<Pace>) {
        let Some(Some(watch)) = self.watches.get_mut(backend) else { return };
        if watch.pace != pace {
            watch.pace = pace;
            watch.order(pace.map_or(Order::Rest, Order::Pace));
        }
    }
}

impl Watch {
    fn order(&self, order: Order) {
        // The task ends only with this end of the channel.
        let _ = self.orders.send(order);
    }
}
