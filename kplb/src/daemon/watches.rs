//! The watches over all backends, each a task of its own.

use anyhow::Result;
use tokio::sync::mpsc;

use crate::{
    config::Config,
    health::{
        fsm::Pace,
        probe,
        watch::{News, Order, watch},
    },
};

/// The watches, by backend id.
pub(super) struct Watches {
    watches: Vec<Option<Watch>>,
    news: mpsc::UnboundedReceiver<(usize, News)>,
    /// Keeps the channel open when nothing is watched.
    _sender: mpsc::UnboundedSender<(usize, News)>,
}

struct Watch {
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
        let checks = config.services.iter().flat_map(|service| &service.backends).map(|backend| &backend.check);
        let watches = (probe::probes(config)?.into_iter().zip(checks).enumerate())
            .map(|(id, (probe, check))| {
                let (probe, check) = probe.zip(check.clone())?;
                let (orders, receiver) = mpsc::unbounded_channel();
                let sender = sender.clone();
                let tell = move |news| sender.send((id, news)).is_ok();
                tokio::spawn(watch(probe, check, receiver, tell));
                Some(Watch { orders, pace: Some(Pace::Fast) })
            })
            .collect();
        Ok(Self { watches, news, _sender: sender })
    }

    /// Waits for news of backends, and returns all that have come: together they are one change. Safe to cancel.
    pub(super) async fn next(&mut self) -> Vec<(usize, News)> {
        let mut all = Vec::new();
        all.extend(self.news.recv().await);
        while let Ok(news) = self.news.try_recv() {
            all.push(news);
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
