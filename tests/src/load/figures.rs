//! What is measured of a balancer, and the table of it.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use comfy_table::Table;
use serde::Serialize;

use super::{Outcome, Peer};
use crate::figure::{median, sheet};

/// Something to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Measure {
    /// Requests on one connection, one after the other: how long each takes.
    Single,
    /// Requests on many connections.
    Requests,
    /// New connections, with one request each.
    Connections,
    /// Bytes without end.
    Bulk,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Single, Self::Requests, Self::Connections, Self::Bulk];
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Requests => "requests",
            Self::Connections => "connections",
            Self::Bulk => "bulk",
        })
    }
}

/// What was measured of a balancer in a round; zero, if it was not.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Figures {
    /// Requests a second on many connections.
    pub requests_per_second: f64,
    /// Microseconds that all processors together were busy for each of them.
    pub cpu_us_per_request: f64,
    /// New connections a second.
    pub connections_per_second: f64,
    /// As for requests.
    pub cpu_us_per_connection: f64,
    /// Bulk, in GiB a second.
    pub gib_per_second: f64,
    /// Seconds that all processors together were busy for a GiB.
    pub cpu_s_per_gib: f64,
    /// Microseconds from request to answer on a single connection, which half of them do not exceed,
    pub p50_us: f64,
    /// 99 of a hundred,
    pub p99_us: f64,
    /// and 999 of a thousand.
    pub p999_us: f64,
    /// Connections that failed.
    pub failed: f64,
    /// Resident memory of its processes after that, in MiB.
    pub resident_mib: f64,
}

impl Figures {
    /// Takes down what came of a measurement.
    pub fn note(&mut self, measure: Measure, outcome: &Outcome) {
        let each = || microseconds(outcome.cpu.total()) / outcome.n_answers as f64;
        let gib = |bytes: f64| bytes / f64::from(1 << 30);
        self.failed += outcome.n_failed as f64;
        match measure {
            Measure::Single => {
                [self.p50_us, self.p99_us, self.p999_us] =
                    [50.0, 99.0, 99.9].map(|percent| microseconds(outcome.percentile(percent)));
            }
            Measure::Requests => (self.requests_per_second, self.cpu_us_per_request) = (outcome.rate(), each()),
            Measure::Connections => {
                (self.connections_per_second, self.cpu_us_per_connection) = (outcome.rate(), each());
            }
            Measure::Bulk => {
                self.gib_per_second = gib(outcome.byte_rate());
                self.cpu_s_per_gib = outcome.cpu.total().as_secs_f64() / gib(outcome.n_bytes as f64);
            }
        }
    }

    /// The median of each; zero, if there was no round.
    pub fn median(rounds: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(rounds.iter().map(value));
        Self {
            requests_per_second: of(|figures| figures.requests_per_second),
            cpu_us_per_request: of(|figures| figures.cpu_us_per_request),
            connections_per_second: of(|figures| figures.connections_per_second),
            cpu_us_per_connection: of(|figures| figures.cpu_us_per_connection),
            gib_per_second: of(|figures| figures.gib_per_second),
            cpu_s_per_gib: of(|figures| figures.cpu_s_per_gib),
            p50_us: of(|figures| figures.p50_us),
            p99_us: of(|figures| figures.p99_us),
            p999_us: of(|figures| figures.p999_us),
            failed: of(|figures| figures.failed),
            resident_mib: of(|figures| figures.resident_mib),
        }
    }
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What is compared of two balancers in the same round.
type Comparison = fn(&Figures, &Figures) -> f64;

/// A row for each balancer: medians, ratios to having none, and what each adds to the processors' work as a share of what HAProxy
/// adds. What is compared is compared within each round, since machines are not the same all the time.
pub fn table(rows: &[(Peer, &[Figures])]) -> Table {
    let of = |peer: Peer| rows.iter().find(|(other, _)| *other == peer).map(|(_, rounds)| *rounds);
    let (none, haproxy) = (of(Peer::None), of(Peer::Haproxy));
    let ratio = |rounds: &[Figures], compare: Comparison| {
        let Some(none) = none else { return String::new() };
        format!("{:.2}", median(rounds.iter().zip(none).map(|(figures, none)| compare(figures, none))))
    };
    let added = |rounds: &[Figures], of: fn(&Figures) -> f64| {
        let (Some(none), Some(haproxy)) = (none, haproxy) else { return String::new() };
        let shares = rounds.iter().zip(none).zip(haproxy);
        let shares = shares.map(|((figures, none), haproxy)| (of(figures) - of(none)) / (of(haproxy) - of(none)));
        format!("{:.2}", median(shares))
    };
    let header = [
        "",
        "req/s",
        "ratio",
        "conn/s",
        "ratio",
        "GiB/s",
        "ratio",
        "p50 us",
        "ratio",
        "p99",
        "p99.9",
        "CPU us/req",
        "added",
        "us/conn",
        "added",
        "s/GiB",
        "added",
        "failed",
        "MiB",
    ];
    let rows = rows.iter().map(|(peer, rounds)| {
        let figures = Figures::median(rounds);
        [
            peer.to_string(),
            format!("{:.0}", figures.requests_per_second),
            ratio(rounds, |a, b| a.requests_per_second / b.requests_per_second),
            format!("{:.0}", figures.connections_per_second),
            ratio(rounds, |a, b| a.connections_per_second / b.connections_per_second),
            format!("{:.2}", figures.gib_per_second),
            ratio(rounds, |a, b| a.gib_per_second / b.gib_per_second),
            format!("{:.1}", figures.p50_us),
            ratio(rounds, |a, b| a.p50_us / b.p50_us),
            format!("{:.0}", figures.p99_us),
            format!("{:.0}", figures.p999_us),
            format!("{:.1}", figures.cpu_us_per_request),
            added(rounds, |figures| figures.cpu_us_per_request),
            format!("{:.0}", figures.cpu_us_per_connection),
            added(rounds, |figures| figures.cpu_us_per_connection),
            format!("{:.2}", figures.cpu_s_per_gib),
            added(rounds, |figures| figures.cpu_s_per_gib),
            format!("{:.0}", figures.failed),
            format!("{:.1}", figures.resident_mib),
        ]
    });
    sheet(header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_each_figure() {
        let rounds = [(3.0, 1.0), (1.0, 9.0), (2.0, 5.0)].map(|(p50_us, p99_us)| Figures {
            p50_us,
            p99_us,
            ..Figures::default()
        });
        let median = Figures::median(&rounds);
        assert_eq!((median.p50_us, median.p99_us), (2.0, 5.0));
    }

    #[test]
    fn ratios_are_to_none_and_to_what_haproxy_adds() {
        let rounds = |rounds: [(f64, f64); 3]| {
            rounds.map(|(requests_per_second, cpu_us_per_request)| Figures {
                requests_per_second,
                cpu_us_per_request,
                ..Figures::default()
            })
        };
        // A machine that is half as fast in one round.
        let none = rounds([(1000.0, 10.0), (500.0, 20.0), (1000.0, 10.0)]);
        let haproxy = rounds([(400.0, 30.0), (200.0, 60.0), (400.0, 30.0)]);
        let tc = rounds([(900.0, 14.0), (450.0, 28.0), (800.0, 16.0)]);
        let rows: [(Peer, &[Figures]); 3] = [(Peer::None, &none), (Peer::Haproxy, &haproxy), (Peer::Tc, &tc)];
        let text = table(&rows).to_string();
        let line = text.lines().find(|line| line.contains("kplb, TC")).expect("a row");
        assert!(line.contains("0.90") && line.contains("0.20"), "{text}");
    }
}
