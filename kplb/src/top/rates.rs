//! From two looks at counters to what happens in a second.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::status::{Status, Traffic};

/// Looks that are remembered: two minutes of one a second, wider than most windows.
const MAX_LOOKS: usize = 120;
/// Two looks closer than this tell nothing.
const SHORTEST: Duration = Duration::from_millis(10);

/// What happens in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Packets, both ways.
    pub(super) packets: f64,
    /// Bits of IP packets, both ways.
    pub(super) bits: f64,
    /// Flows opened.
    pub(super) flows: f64,
}

impl Rates {
    /// What has happened between two looks; nothing if the counters began anew.
    pub(super) fn between(before: &Traffic, after: &Traffic, period: Duration) -> Self {
        let rate = |of: fn(&Traffic) -> u64| per_second(of(before), of(after), period);
        Self {
            packets: rate(|t| t.packets_to_backend) + rate(|t| t.packets_to_client),
            bits: 8.0 * (rate(|t| t.bytes_to_backend) + rate(|t| t.bytes_to_client)),
            flows: rate(|t| t.flows_opened),
        }
    }
}

/// Of a counter; nothing if it began anew.
fn per_second(before: u64, after: u64, period: Duration) -> f64 {
    match after.checked_sub(before) {
        Some(n) if period >= SHORTEST => n as f64 / period.as_secs_f64(),
        _ => 0.0,
    }
}

/// A backend, by the names of its service and its own.
pub(super) type Name = (String, String);

/// What happens in a second, at all places, and what happened before.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity {
    total: Past,
    backends: BTreeMap<Name, Past>,
    /// By verdict.
    verdicts: BTreeMap<String, f64>,
}

/// The rates of the last look, and packets a second of those before.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    pub(super) rates: Rates,
    pub(super) packets: VecDeque<f64>,
}

impl Past {
    fn take(&mut self, rates: Rates) {
        self.rates = rates;
        if self.packets.len() == MAX_LOOKS {
            self.packets.pop_front();
        }
        self.packets.push_back(rates.packets);
    }
}

impl Activity {
    /// Takes a look into account, and the one before, if it is of the same agent.
    pub(super) fn take(&mut self, before: Option<(&Status, Duration)>, after: &Status) {
        let same =
            before.filter(|(before, _)| before.pid == after.pid && before.uptime_seconds <= after.uptime_seconds);
        let traffic_before: BTreeMap<Name, &Traffic> = same.iter().flat_map(|(before, _)| traffic(before)).collect();
        let period = same.map_or(Duration::ZERO, |(_, period)| period);
        let (mut total, mut backends) = (Rates::default(), BTreeMap::new());
        for (name, after) in traffic(after) {
            let rates = match traffic_before.get(&name) {
                Some(before) => Rates::between(before, after, period),
                None => Rates::default(),
            };
            total.packets += rates.packets;
            total.bits += rates.bits;
            total.flows += rates.flows;
            let mut past = self.backends.remove(&name).unwrap_or_default();
            past.take(rates);
            backends.insert(name, past);
        }
        // Those that are no more are forgotten.
        self.backends = backends;
        self.total.take(total);
        let verdict = |(name, after): (&String, &u64)| {
            let before = same.and_then(|(before, _)| before.verdicts.get(name));
            (name.clone(), before.map_or(0.0, |before| per_second(*before, *after, period)))
        };
        self.verdicts = after.verdicts.iter().map(verdict).collect();
    }

    /// There was nobody to look at.
    pub(super) fn pause(&mut self) {
        self.total.take(Rates::default());
        self.backends.values_mut().for_each(|past| past.take(Rates::default()));
        self.verdicts.clear();
    }

    /// Of all backends together.
    pub(super) const fn total(&self) -> &Past {
        &self.total
    }

    /// Of a backend.
    pub(super) fn backend(&self, service: &str, backend: &str) -> Past {
        self.backends.get(&(service.to_owned(), backend.to_owned())).cloned().unwrap_or_default()
    }

    /// Packets a second that had this verdict.
    pub(super) fn verdict(&self, name: &str) -> f64 {
        self.verdicts.get(name).copied().unwrap_or(0.0)
    }
}

fn traffic(status: &Status) -> impl Iterator<Item = (Name, &Traffic)> {
    status.services.iter().flat_map(|service| {
        service.backends.iter().map(|backend| ((service.name.clone(), backend.name.clone()), &backend.traffic))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_traffic() -> impl Strategy<Value = Traffic> {
        any::<[u64; 5]>().prop_map(|[flows_opened, a, b, c, d]| Traffic {
            flows_opened,
            packets_to_backend: a,
            bytes_to_backend: b,
            packets_to_client: c,
            bytes_to_client: d,
        })
    }

    #[test]
    fn worked_examples() {
        let before = Traffic { packets_to_backend: 100, bytes_to_client: 1000, flows_opened: 7, ..Traffic::default() };
        let after = Traffic { packets_to_backend: 150, bytes_to_client: 1250, flows_opened: 8, ..Traffic::default() };
        let rates = Rates::between(&before, &after, Duration::from_millis(500));
        assert_eq!(rates, Rates { packets: 100.0, bits: 4000.0, flows: 2.0 });
        assert_eq!(Rates::between(&after, &before, Duration::from_millis(500)), Rates::default());
        assert_eq!(Rates::between(&before, &after, Duration::ZERO), Rates::default());
    }

    proptest! {
        #[test]
        fn never_negative_and_never_more_than_was_counted(
            before in any_traffic(), after in any_traffic(), millis in 0_u64..100_000
        ) {
            let period = Duration::from_millis(millis);
            let Rates { packets, bits, flows } = Rates::between(&before, &after, period);
            let seconds = period.as_secs_f64();
            let counted = |a: u64, b: u64| (a as f64 + b as f64) * 1.000_001;
            for (rate, counted) in [
                (packets, counted(after.packets_to_backend, after.packets_to_client)),
                (bits / 8.0, counted(after.bytes_to_backend, after.bytes_to_client)),
                (flows, counted(after.flows_opened, 0)),
            ] {
                prop_assert!(rate >= 0.0 && rate.is_finite());
                prop_assert!(rate * seconds <= counted, "{rate} {seconds} {counted}");
            }
        }
    }
}
