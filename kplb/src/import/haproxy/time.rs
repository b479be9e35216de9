//! Times of haproxy (configuration manual, section 2.5).

use std::time::Duration;

/// Longer ones than haproxy counts, in milliseconds.
const MAX_MILLISECONDS: u64 = i32::MAX as u64;

/// A number and a unit; milliseconds without. None if it is no time.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let microseconds = match unit {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60 * 1_000_000,
        "h" => 60 * 60 * 1_000_000,
        "d" => 24 * 60 * 60 * 1_000_000,
        _ => return None,
    };
    let time = Duration::from_micros(number.parse::<u64>().ok()?.checked_mul(microseconds)?);
    (time <= Duration::from_millis(MAX_MILLISECONDS)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, time) in [
            ("5000", Some(Duration::from_secs(5))),
            ("5000ms", Some(Duration::from_secs(5))),
            ("20us", Some(Duration::from_micros(20))),
            ("35s", Some(Duration::from_secs(35))),
            ("1m", Some(Duration::from_secs(60))),
            ("2h", Some(Duration::from_secs(7200))),
            ("1d", Some(Duration::from_secs(86400))),
            ("0", Some(Duration::ZERO)),
            ("", None),
            ("s", None),
            ("1x", None),
            ("-1s", None),
            ("1.5s", None),
            ("25d", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(parse(text), time, "{text}");
        }
    }
}
