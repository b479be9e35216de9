//! What balancers do and what they cost, as the page has it. Where something was not measured, nothing is told.

use comfy_table::Table;

use super::{Comparison, Figures, Peer, comparison::Of};
use crate::figure::{grouped, page};

/// Rates and latencies: medians, and in brackets what they are of those without a balancer.
pub fn rates(comparison: &Comparison<'_>) -> Table {
    let header = [
        "",
        "requests/s (of none's)",
        "connections/s (of none's)",
        "GiB/s (of none's)",
        "p50 us of one connection (of none's)",
        "p99, p99.9 us",
        "failed",
    ];
    let rows = comparison.peers().map(|(peer, rounds)| {
        let figures = Figures::median(rounds);
        let cell = |of: Of, n_digits| {
            let ratio = comparison.ratio(peer, Peer::None, of).filter(|_| peer != Peer::None);
            cell(of(&figures), n_digits, ratio)
        };
        [
            peer.to_string(),
            cell(|figures| figures.requests_per_second, 0),
            cell(|figures| figures.connections_per_second, 0),
            cell(|figures| figures.gib_per_second, 2),
            cell(|figures| figures.p50_us, 1),
            if figures.p99_us > 0.0 { format!("{:.0}, {:.0}", figures.p99_us, figures.p999_us) } else { String::new() },
            format!("{:.0}", figures.failed),
        ]
    });
    page(header, rows)
}

/// Time of all processors of the machine together, client's and server's work included: medians, and in brackets what is more
/// than without a balancer, as a share of what HAProxy adds; and memory.
pub fn costs(comparison: &Comparison<'_>) -> Table {
    let header = [
        "",
        "CPU us a request (added, of HAProxy's)",
        "CPU us a connection (added, of HAProxy's)",
        "CPU s a GiB (added, of HAProxy's)",
        "MiB: processes + maps",
    ];
    let rows = comparison.peers().map(|(peer, rounds)| {
        let figures = Figures::median(rounds);
        let cell = |of: Of, n_digits| {
            let added = comparison.added(peer, of).filter(|_| peer != Peer::None);
            cell(of(&figures), n_digits, added)
        };
        [
            peer.to_string(),
            cell(|figures| figures.cpu_us_per_request, 1),
            cell(|figures| figures.cpu_us_per_connection, 0),
            cell(|figures| figures.cpu_s_per_gib, 2),
            memory(&figures),
        ]
    });
    page(header, rows)
}

fn cell(value: f64, n_digits: usize, share: Option<f64>) -> String {
    if value == 0.0 {
        return String::new();
    }
    let value = if n_digits == 0 { grouped(value.round() as u64) } else { format!("{value:.n_digits$}") };
    share.map_or_else(|| value.clone(), |share| format!("{value} ({share:.2})"))
}

/// What has no processes has no memory that could be told.
fn memory(figures: &Figures) -> String {
    match (figures.resident_mib, figures.maps_mib) {
        (0.0, 0.0) => String::new(),
        (resident, 0.0) => format!("{resident:.1}"),
        (resident, maps) => format!("{resident:.1} + {maps:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_beside_what_they_are_of() {
        let round = |requests_per_second, cpu_us_per_request, resident_mib, maps_mib| {
            [Figures { requests_per_second, cpu_us_per_request, resident_mib, maps_mib, ..Figures::default() }]
        };
        let none = round(1000.0, 10.0, 0.0, 0.0);
        let (haproxy, tc) = (round(400.0, 30.0, 15.4, 0.0), round(900.0, 14.0, 14.2, 50.1));
        let comparison = Comparison::new(vec![(Peer::None, &none), (Peer::Haproxy, &haproxy), (Peer::Tc, &tc)]);
        let cells = |table: Table| -> Vec<Vec<String>> {
            let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
            table.to_string().lines().skip(2).map(cells).collect()
        };
        let rates = cells(rates(&comparison));
        assert_eq!(rates[0], ["", "none", "1,000", "", "", "", "", "0", ""]);
        assert_eq!(rates[2], ["", "kplb, TC", "900 (0.90)", "", "", "", "", "0", ""]);
        let costs = cells(costs(&comparison));
        assert_eq!(costs[0], ["", "none", "10.0", "", "", "", ""]);
        assert_eq!(costs[1], ["", "HAProxy", "30.0 (1.00)", "", "", "15.4", ""]);
        assert_eq!(costs[2], ["", "kplb, TC", "14.0 (0.20)", "", "", "14.2 + 50.1", ""]);
    }
}
