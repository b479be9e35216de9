//! What kplb is to reach under load.

use super::{Comparison, Peer, comparison::Of};
use crate::goal::{
    Bound::{AtLeast, AtMost},
    Goal,
};

const REQUESTS: Of = |figures| figures.requests_per_second;
const CONNECTIONS: Of = |figures| figures.connections_per_second;
const MEDIAN: Of = |figures| figures.p50_us;
const OF_REQUEST: Of = |figures| figures.cpu_us_per_request;
const OF_CONNECTION: Of = |figures| figures.cpu_us_per_connection;

/// The goals, and what was reached.
pub fn goals(comparison: &Comparison<'_>) -> Vec<Goal> {
    let goal = |what: &str, bound, reached| Goal { what: what.to_owned(), bound, reached };
    let tc = |of| comparison.ratio(Peer::Tc, Peer::None, of);
    let native = |of| comparison.ratio(Peer::Native, Peer::Haproxy, of);
    let added = |of| comparison.added(Peer::Native, of);
    vec![
        goal("kplb, TC: requests/s, of none's", AtLeast(0.85), tc(REQUESTS)),
        goal("kplb, TC: connections/s, of none's", AtLeast(0.85), tc(CONNECTIONS)),
        goal("kplb, TC: p50 of one connection, of none's", AtMost(1.2), tc(MEDIAN)),
        goal("kplb, native XDP: requests/s, of HAProxy's", AtLeast(1.4), native(REQUESTS)),
        goal("kplb, native XDP: connections/s, of HAProxy's", AtLeast(1.4), native(CONNECTIONS)),
        goal("kplb, native XDP: CPU added to a request, of HAProxy's", AtMost(0.45), added(OF_REQUEST)),
        goal("kplb, native XDP: CPU added to a connection, of HAProxy's", AtMost(0.45), added(OF_CONNECTION)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Figures;

    fn round(rate: f64, p50_us: f64, cpu: f64) -> [Figures; 1] {
        let [requests_per_second, connections_per_second] = [rate, rate / 10.0];
        let [cpu_us_per_request, cpu_us_per_connection] = [cpu, cpu * 10.0];
        [Figures {
            requests_per_second,
            connections_per_second,
            p50_us,
            cpu_us_per_request,
            cpu_us_per_connection,
            ..Figures::default()
        }]
    }

    #[test]
    fn each_goal_is_of_its_own_mode_and_peer() {
        let (none, haproxy) = (round(1000.0, 100.0, 10.0), round(500.0, 150.0, 30.0));
        let (tc, native) = (round(900.0, 110.0, 12.0), round(600.0, 130.0, 20.0));
        let comparison = Comparison::new(vec![
            (Peer::None, &none),
            (Peer::Haproxy, &haproxy),
            (Peer::Native, &native),
            (Peer::Tc, &tc),
        ]);
        let goals = goals(&comparison);
        let reached: Vec<f64> = goals.iter().filter_map(|goal| goal.reached).collect();
        let expected = [0.9, 0.9, 1.1, 1.2, 1.2, 0.5, 0.5];
        assert!(reached.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{reached:?}");
        assert_eq!(reached.len(), expected.len());
        let met: Vec<Option<bool>> = goals.iter().map(Goal::is_met).collect();
        assert_eq!(met, [true, true, true, false, false, false, false].map(Some));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let none = round(1000.0, 100.0, 10.0);
        let goals = goals(&Comparison::new(vec![(Peer::None, &none)]));
        assert!(goals.iter().all(|goal| goal.is_met().is_none()), "{goals:?}");
    }
}
