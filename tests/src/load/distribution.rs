//! How latencies are distributed.

use std::time::Duration;

/// Latencies above the last one that is told: less would be chance.
const TAIL: usize = 10;
/// Points for a tenth of those above.
const FINENESS: i32 = 8;

/// One in so many latencies is higher than this one, in microseconds: from the lowest (one in one) to one that ten are above.
pub fn distribution(latencies: &[Duration]) -> Vec<(f64, f64)> {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let one_in = (0..).map(|step| 10_f64.powf(f64::from(step) / f64::from(FINENESS)));
    let last = sorted.len() as f64 / TAIL as f64;
    one_in
        .take_while(|one_in| *one_in <= last)
        .map(|one_in| {
            let place = (sorted.len() as f64 * (1.0 - 1.0 / one_in)) as usize;
            (one_in, sorted[place.min(sorted.len() - 1)].as_secs_f64() * 1e6)
        })
        .collect()
}

/// How many percent are below, where one in so many is above.
pub fn percent_below(one_in: &f64) -> String {
    format!("{} %", 100.0 - 100.0 / one_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_above() {
        let latencies: Vec<Duration> = (0..1000).rev().map(Duration::from_micros).collect();
        let points = distribution(&latencies);
        let at = |one_in: f64| points.iter().find(|(x, _)| (x - one_in).abs() < 1e-9).map(|(_, y)| *y);
        assert_eq!((at(1.0), at(10.0), at(100.0)), (Some(0.0), Some(900.0), Some(990.0)));
        assert_eq!(points.len(), 17);
        assert!(distribution(&latencies[..9]).is_empty());
    }

    #[test]
    fn percents_have_as_many_digits_as_they_need() {
        assert_eq!([1.0, 10.0, 1000.0].map(|one_in| percent_below(&one_in)), ["0 %", "90 %", "99.9 %"]);
    }
}
