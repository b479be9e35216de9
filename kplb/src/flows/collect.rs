//! Keeping what is to be shown of flows that come in any order, and counting all of them.
//!
//! Invariant: with a limit, the room that is taken does not grow with the table.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{CountReport, FlowFilter, FlowRecord, Phase};
use crate::{directory::Directory, model::Endpoint};

/// The flows that came so far.
#[derive(Clone, Debug)]
pub struct Collection {
    limit: Option<usize>,
    flows: Vec<FlowRecord>,
    total: u64,
}

/// Flows that are put aside at least before the first ones are sought among them.
const ROOM: usize = 1024;

impl Collection {
    /// None yet; of all that will come, at most the first `limit` are kept, in the order of
    /// [`FlowRecord::identity`].
    pub const fn new(limit: Option<usize>) -> Self {
        Self { limit, flows: Vec::new(), total: 0 }
    }

    /// Takes a flow.
    pub fn push(&mut self, flow: FlowRecord) {
        self.flows.push(flow);
        self.total += 1;
        if self.limit.is_some_and(|limit| self.flows.len() >= limit.saturating_mul(2).max(ROOM)) {
            self.tidy();
        }
    }

    /// Sorts, and drops what is too much. A flow that moved to the other table meanwhile is there twice.
    fn tidy(&mut self) {
        self.flows.sort_unstable_by_key(|flow| (flow.identity(), flow.phase));
        let n_before = self.flows.len();
        self.flows.dedup_by_key(|flow| flow.identity());
        self.total -= (n_before - self.flows.len()) as u64;
        self.flows.truncate(self.limit.unwrap_or(usize::MAX));
    }

    /// How many came, and those that are kept.
    pub fn finish(mut self) -> (u64, Vec<FlowRecord>) {
        self.tidy();
        (self.total, self.flows)
    }
}

/// The flows by service and backend; those that have none are counted, too, if they could be asked for.
pub fn count(flows: &[FlowRecord], directory: &Directory, filter: &FlowFilter) -> Vec<CountReport> {
    let mut counts: BTreeMap<(Endpoint, SocketAddr), [u64; 3]> = BTreeMap::new();
    for (service, backend) in directory.backends().filter(|(service, backend)| filter.takes_backend(service, backend)) {
        counts.entry((service, backend)).or_default();
    }
    for flow in flows {
        let [established, half_open, closing] = counts.entry((flow.service(), flow.backend)).or_default();
        match flow.phase {
            Phase::Established => *established += 1,
            Phase::HalfOpen => *half_open += 1,
            Phase::Closing => *closing += 1,
        }
    }
    counts
        .into_iter()
        .map(|((service, backend_address), [established, half_open, closing])| CountReport {
            service: directory.service(&service),
            backend: directory.backend(&service, backend_address),
            backend_address,
            established,
            half_open,
            closing,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kplb_common::flow_state::FlowState;

    use super::*;
    use crate::config::Protocol;

    fn flow(port: u16, phase: Phase) -> FlowRecord {
        FlowRecord {
            vip: ([198, 18, 0, 100], 6443).into(),
            protocol: Protocol::Tcp,
            client: ([198, 18, 0, 101], port).into(),
            phase,
            backend: ([198, 18, 0, 12], 6443).into(),
            nat: None,
            state: FlowState::Established,
            idle_ns: 0,
        }
    }

    #[test]
    fn the_first_are_kept_whatever_order_they_come_in() {
        let mut ports: Vec<u16> = (1..=5000).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut ports);
        for limit in [0, 1, 7, 4999, 5000, 6000] {
            let mut collection = Collection::new(Some(limit));
            for port in &ports {
                collection.push(flow(*port, Phase::Established));
                assert!(collection.flows.len() <= (2 * limit).max(ROOM));
            }
            let (total, kept) = collection.finish();
            let kept: Vec<u16> = kept.iter().map(|flow| flow.client.port()).collect();
            assert_eq!((total, kept), (5000, (1..=5000).take(limit).collect()));
        }
    }

    #[test]
    fn who_moved_meanwhile_is_counted_once() {
        let mut collection = Collection::new(None);
        for (port, phase) in [(1, Phase::HalfOpen), (2, Phase::HalfOpen), (1, Phase::Established)] {
            collection.push(flow(port, phase));
        }
        assert_eq!(collection.finish(), (2, vec![flow(1, Phase::Established), flow(2, Phase::HalfOpen)]));
    }

    #[test]
    fn counts_by_backend() {
        let flows = [flow(1, Phase::Established), flow(2, Phase::Closing), flow(3, Phase::Established)];
        let counts = count(&flows, &Directory::default(), &FlowFilter::default());
        let [count] = &counts[..] else { panic!("{counts:?}") };
        assert_eq!((count.established, count.half_open, count.closing), (2, 0, 1));
        assert_eq!((count.service.as_str(), count.backend.as_str()), ("198.18.0.100:6443/tcp", "198.18.0.12:6443"));
    }
}
