//! Balancers next to each other. What is compared is compared within each round, since machines are not the same all the time.

use super::{Figures, Peer};
use crate::figure::median;

/// Something that was measured.
pub(super) type Of = fn(&Figures) -> f64;

/// Every balancer's rounds, in the order in which they are told.
pub struct Comparison<'a> {
    rows: Vec<(Peer, &'a [Figures])>,
}

impl<'a> Comparison<'a> {
    /// Of these; round by round, all measured the same.
    pub fn new(rows: Vec<(Peer, &'a [Figures])>) -> Self {
        Self { rows }
    }

    /// The balancers.
    pub(super) fn peers(&self) -> impl Iterator<Item = (Peer, &'a [Figures])> {
        self.rows.iter().copied()
    }

    fn rounds(&self, peer: Peer) -> Option<&'a [Figures]> {
        self.rows.iter().find(|(other, _)| *other == peer).map(|(_, rounds)| *rounds)
    }

    /// One balancer's as a multiple of another's, the median of all rounds; none, if it was not measured of both.
    pub(super) fn ratio(&self, peer: Peer, to: Peer, of: Of) -> Option<f64> {
        let rounds = self.rounds(peer)?.iter().zip(self.rounds(to)?);
        measured(rounds.map(|(figures, to)| of(figures) / of(to)))
    }

    /// What a balancer adds to having none, as a share of what HAProxy adds; the median of all rounds in which that adds something;
    /// none, if it was not measured of all three.
    pub(super) fn added(&self, peer: Peer, of: Of) -> Option<f64> {
        let (none, haproxy) = (self.rounds(Peer::None)?, self.rounds(Peer::Haproxy)?);
        let rounds = self.rounds(peer)?.iter().zip(none).zip(haproxy);
        // A share of nothing, or of less, would be no measure of anything.
        let added = |figures, none| Some(of(figures) - of(none)).filter(|added| *added > 0.0);
        measured(rounds.filter_map(|((figures, none), haproxy)| Some((of(figures) - of(none)) / added(haproxy, none)?)))
    }
}

/// The median of those that are numbers: what was not measured is zero, and a share of that is none.
fn measured(shares: impl Iterator<Item = f64>) -> Option<f64> {
    let shares: Vec<f64> = shares.filter(|share| share.is_finite()).collect();
    (!shares.is_empty()).then(|| median(shares))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests a second, and microseconds for each.
    fn rounds(rounds: [(f64, f64); 3]) -> [Figures; 3] {
        rounds.map(|(requests_per_second, cpu_us_per_request)| Figures {
            requests_per_second,
            cpu_us_per_request,
            ..Figures::default()
        })
    }

    #[test]
    fn rounds_are_compared_each_by_itself() {
        // A machine that is half as fast in one round.
        let none = rounds([(1000.0, 10.0), (500.0, 20.0), (1000.0, 10.0)]);
        let haproxy = rounds([(400.0, 30.0), (200.0, 60.0), (400.0, 30.0)]);
        let tc = rounds([(900.0, 14.0), (450.0, 28.0), (800.0, 16.0)]);
        let comparison = Comparison::new(vec![(Peer::None, &none), (Peer::Haproxy, &haproxy), (Peer::Tc, &tc)]);
        let is = |value: Option<f64>, expected: f64| value.is_some_and(|value| (value - expected).abs() < 1e-9);
        assert!(is(comparison.ratio(Peer::Tc, Peer::None, |figures| figures.requests_per_second), 0.9));
        assert!(is(comparison.ratio(Peer::Tc, Peer::Haproxy, |figures| figures.requests_per_second), 2.25));
        assert!(is(comparison.added(Peer::Tc, |figures| figures.cpu_us_per_request), 0.2));
        assert!(is(comparison.added(Peer::Haproxy, |figures| figures.cpu_us_per_request), 1.0));
        // Where HAProxy seems to add nothing, there is nothing to be a share of.
        let quiet = rounds([(400.0, 10.0), (200.0, 15.0), (400.0, 30.0)]);
        let odd = Comparison::new(vec![(Peer::None, &none), (Peer::Haproxy, &quiet), (Peer::Tc, &tc)]);
        assert!(is(odd.added(Peer::Tc, |figures| figures.cpu_us_per_request), 0.3));
        // Neither a balancer nor a figure that was not measured.
        assert_eq!(comparison.ratio(Peer::Native, Peer::None, |figures| figures.requests_per_second), None);
        assert_eq!(comparison.ratio(Peer::Tc, Peer::None, |figures| figures.gib_per_second), None);
        assert_eq!(comparison.added(Peer::Tc, |figures| figures.cpu_s_per_gib), None);
    }
}
