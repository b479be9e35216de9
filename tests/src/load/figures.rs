//! What is measured of a balancer.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use serde::Serialize;

use super::Outcome;
use crate::figure::median;

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
    /// Memory that the kernel has for its processes' BPF maps, in MiB.
    pub maps_mib: f64,
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
            maps_mib: of(|figures| figures.maps_mib),
        }
    }
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
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
}
