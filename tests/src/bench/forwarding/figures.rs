//! What was measured, and the table of it.

use comfy_table::Table;
use serde::Serialize;

use super::{super::scene::Traffic, Fed, Forwarder};
use crate::{
    figure::{grouped, median, page, sheet},
    goal::{Bound, Goal},
};

/// Packets to forward.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What they are, for the table.
    pub name: &'static str,
    /// Which packets.
    pub traffic: Traffic,
    /// How many flows they are of; a power of two.
    pub n_flows: u32,
    /// The most packets of a measurement, if there is a limit.
    pub at_most: Option<u32>,
    /// The part of the MAC swap's rate that kplb is to reach with XDP, if there is one.
    pub reach: Option<f64>,
}

/// What was measured of a forwarder in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// The forwarder.
    pub forwarder: Forwarder,
    /// Packets that have arrived.
    pub n_packets: u64,
    /// Seconds that the processor was at it.
    pub busy_seconds: f64,
    /// Seconds that this took.
    pub wall_seconds: f64,
}

impl Sample {
    /// Of what came of feeding.
    pub fn new(forwarder: Forwarder, fed: Fed) -> Self {
        Self {
            forwarder,
            n_packets: fed.n_arrived,
            busy_seconds: fed.busy.as_secs_f64(),
            wall_seconds: fed.wall.as_secs_f64(),
        }
    }

    fn nanoseconds(&self) -> f64 {
        self.busy_seconds * 1e9 / self.n_packets as f64
    }
}

/// A forwarder's nanoseconds a packet in a round.
fn of(round: &[Sample], forwarder: Forwarder) -> Option<f64> {
    round.iter().find(|sample| sample.forwarder == forwarder).map(Sample::nanoseconds)
}

/// The median of a forwarder's nanoseconds a packet; none, if it was not measured.
fn nanoseconds(rounds: &[Vec<Sample>], forwarder: Forwarder) -> Option<f64> {
    let times: Vec<f64> = rounds.iter().filter_map(|round| of(round, forwarder)).collect();
    (!times.is_empty()).then(|| median(times))
}

/// A forwarder's rate as a share of the MAC swap's, which is compared within each round; none, if it was not measured of both.
fn share(rounds: &[Vec<Sample>], forwarder: Forwarder) -> Option<f64> {
    let share = |round: &Vec<Sample>| Some(of(round, Forwarder::Swap)? / of(round, forwarder)?);
    let shares: Vec<f64> = rounds.iter().filter_map(share).collect();
    (!shares.is_empty()).then(|| median(shares))
}

/// What kplb is to reach in a case, if there is something, and what it has reached.
pub fn goal(case: &Case, rounds: &[Vec<Sample>]) -> Option<Goal> {
    Some(Goal {
        what: format!("kplb, native XDP: {}, of the MAC swap's rate", case.name),
        bound: Bound::AtLeast(case.reach?),
        reached: share(rounds, Forwarder::Xdp),
    })
}

/// All cases side by side, as the page has them: nanoseconds a packet, and the share of the MAC swap's rate.
pub fn overview(cases: &[(&Case, &[Vec<Sample>])]) -> Table {
    let header = [String::new()].into_iter().chain(cases.iter().map(|(case, _)| case.name.to_owned()));
    let rows =
        Forwarder::ALL.into_iter().filter(|forwarder| *forwarder != Forwarder::Nothing).filter_map(|forwarder| {
            let cell = |rounds: &[Vec<Sample>]| {
                let ns = nanoseconds(rounds, forwarder)?;
                let share = share(rounds, forwarder).filter(|_| forwarder != Forwarder::Swap);
                let ns = grouped(ns.round() as u64);
                Some(share.map_or_else(|| ns.clone(), |share| format!("{ns}, {share:.2}")))
            };
            let cells: Vec<Option<String>> = cases.iter().map(|(_, rounds)| cell(rounds)).collect();
            let is_measured = cells.iter().any(Option::is_some);
            let cells = cells.into_iter().map(Option::unwrap_or_default);
            is_measured.then(|| [forwarder.to_string()].into_iter().chain(cells).collect::<Vec<_>>())
        });
    page(header.collect::<Vec<_>>(), rows)
}

/// The table of a case's rounds. What is compared is compared within each round.
pub fn table(case: &Case, rounds: &[Vec<Sample>]) -> Table {
    let header = [case.name, "packets/s", "ns/packet", "ns more than fed", "x MAC swap", "to reach"];
    let rows = Forwarder::ALL.into_iter().filter_map(|forwarder| {
        let ns = nanoseconds(rounds, forwarder)?;
        let more =
            median(rounds.iter().filter_map(|round| Some(of(round, forwarder)? - of(round, Forwarder::Nothing)?)));
        let ratio = share(rounds, forwarder).unwrap_or_default();
        let reach = match case.reach.filter(|_| forwarder == Forwarder::Xdp) {
            Some(reach) if ratio >= reach => format!(">= {reach:.2}"),
            Some(reach) => format!(">= {reach:.2} (missed)"),
            None => String::new(),
        };
        Some([
            forwarder.to_string(),
            format!("{:.0}", 1e9 / ns),
            format!("{ns:.1}"),
            format!("{more:.1}"),
            format!("{ratio:.2}"),
            reach,
        ])
    });
    sheet(header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(forwarder: Forwarder, busy_seconds: f64) -> Sample {
        Sample { forwarder, n_packets: 1_000_000, busy_seconds, wall_seconds: 9.0 }
    }

    #[test]
    fn rounds_are_compared_each_by_itself() {
        let case = Case { name: "case", traffic: Traffic::ToBackend, n_flows: 1, at_most: None, reach: Some(0.75) };
        // The machine was slower in each round than in the one before; the ratio is 0.5, 0.8, 0.8.
        let rounds: Vec<Vec<Sample>> = [(1.0, 0.5), (2.0, 0.8), (4.0, 0.8)]
            .map(|(slow, ratio)| {
                vec![
                    sample(Forwarder::Nothing, 0.1 * slow),
                    sample(Forwarder::Swap, 0.2 * slow),
                    sample(Forwarder::Xdp, 0.2 * slow / ratio),
                ]
            })
            .into();
        let text = table(&case, &rounds).to_string();
        let row = text.lines().find(|line| line.trim_start().starts_with("kplb, native XDP")).expect("its row");
        let cells: Vec<&str> = row.split_whitespace().skip(3).collect();
        // 500 ns, of which 300 are more than the 200 of feeding.
        assert_eq!(cells, ["2000000", "500.0", "300.0", "0.80", ">=", "0.75"]);
        assert!(!text.contains("nftables"), "nothing was measured of it");
        let goal = goal(&case, &rounds).expect("there is one");
        assert!(goal.reached.is_some_and(|reached| (reached - 0.8).abs() < 1e-9), "{goal:?}");
        assert_eq!((goal.bound, goal.is_met()), (Bound::AtLeast(0.75), Some(true)));
        let nothing = Case { reach: None, ..case };
        let text = overview(&[(&case, &rounds), (&nothing, &[])]).to_string();
        let rows: Vec<Vec<&str>> = text.lines().skip(2).map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(rows.iter().any(|row| row[1..] == ["kplb, native XDP", "500, 0.80", "", ""]), "{text}");
        assert_eq!(super::goal(&nothing, &rounds), None);
    }
}
