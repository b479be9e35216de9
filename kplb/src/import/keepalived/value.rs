//! Values of keepalived.conf. What keepalived takes no notice of is no value here either, and a finding.

use std::{fmt::Display, net::IpAddr, ops::RangeInclusive, time::Duration};

use super::tree::Directive;
use crate::import::finding::{Findings, shown};

/// Delays that keepalived takes at all, roughly: it counts in microseconds.
const MAX_SECONDS: f64 = 4e9;

/// The number after the keyword.
pub(super) fn number<T>(directive: &Directive, range: RangeInclusive<T>, findings: &mut Findings) -> Option<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    let number = directive.argument().and_then(integer);
    let value = number.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
    if value.is_none() {
        ignored(directive, &format!("a number from {} to {}", range.start(), range.end()), findings);
    }
    value
}

/// A number as keepalived reads it.
pub(super) fn integer(text: &str) -> Option<i64> {
    text.trim_start_matches(super::words::BLANKS).parse().ok()
}

/// The time after the keyword, in seconds and parts of them.
pub(super) fn seconds(directive: &Directive, findings: &mut Findings) -> Option<Duration> {
    let value = directive.argument().and_then(duration);
    if value.is_none() {
        ignored(directive, "a number of seconds", findings);
    }
    value
}

/// Seconds to the microsecond.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    // Neither infinite nor no number: both are out of the range. The cast is exact far beyond it.
    (0.0..=MAX_SECONDS).contains(&seconds).then(|| Duration::from_micros((seconds * 1e6).round() as u64))
}

/// `on`, `off` and the like after the keyword; the keyword alone is `on`.
pub(super) fn switch(directive: &Directive, findings: &mut Findings) -> Option<bool> {
    match directive.argument() {
        None | Some("on" | "true" | "yes") => Some(true),
        Some("off" | "false" | "no") => Some(false),
        Some(_) => {
            ignored(directive, "on or off", findings);
            None
        }
    }
}

/// An address, whatever length of a network follows it.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// keepalived takes no notice of this directive.
fn ignored(directive: &Directive, expected: &str, findings: &mut Findings) {
    let why = match directive.argument() {
        Some(argument) => format!("{} is not {expected}, so keepalived takes no notice of it", shown(argument)),
        None => format!("{expected} is missing"),
    };
    findings.left_out(&directive.written, why, "write what was meant into the table that was printed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_parts() {
        for (text, duration_) in [
            ("1", Some(Duration::from_secs(1))),
            ("0.25", Some(Duration::from_millis(250))),
            ("0.000001", Some(Duration::from_micros(1))),
            ("1e3", Some(Duration::from_secs(1000))),
            ("-1", None),
            ("inf", None),
            ("NaN", None),
            ("1s", None),
            ("1e300", None),
            ("", None),
        ] {
            assert_eq!(duration(text), duration_, "{text}");
        }
    }

    #[test]
    fn addresses_may_have_a_length() {
        assert_eq!(address("198.18.0.100/24"), "198.18.0.100".parse().ok());
        assert_eq!(address("2001:2::100"), "2001:2::100".parse().ok());
        assert_eq!(address("198.18.0"), None);
        assert_eq!(address(""), None);
    }
}
