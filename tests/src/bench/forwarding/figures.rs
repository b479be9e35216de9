//! What was measured, and the table of it.

use comfy_table::Table;
use serde::Serialize;

use super::{super::scene::Traffic, Fed, Forwarder};
use crate::figure::{median, sheet};

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

/// The table of a case's rounds. What is compared is compared within each round.
pub fn table(case: &Case, rounds: &[Vec<Sample>]) -> Table {
    let of = |round: &[Sample], forwarder: Forwarder| {
        round.iter().find(|sample| sample.forwarder == forwarder).map(Sample::nanoseconds)
    };
    let header = [case.name, "packets/s", "ns/packet", "ns more than fed", "x MAC swap", "to reach"];
    let rows = Forwarder::ALL.into_iter().filter_map(|forwarder| {
        let times = rounds.iter().filter_map(|round| of(round, forwarder));
        let ns = median(times.clone());
        if ns == 0.0 {
            return None;
        }
        let more =
            median(rounds.iter().filter_map(|round| Some(of(round, forwarder)? - of(round, Forwarder::Nothing)?)));
        let ratio = median(rounds.iter().filter_map(|round| Some(of(round, Forwarder::Swap)? / of(round, forwarder)?)));
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
    }
}
