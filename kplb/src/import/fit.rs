//! Values of others within the bounds of kplb's.

use std::{ops::RangeInclusive, time::Duration};

use super::finding::{Findings, NOTHING_TO_DO, Written};
use crate::config::{CheckConfig, INTERVAL_RANGE, MAX_WEIGHT, STREAK_RANGE, TIMEOUT_RANGE};

/// When a check starts, and when it gives up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Times {
    pub(super) interval: Duration,
    pub(super) fast_interval: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) rise: u32,
    pub(super) fall: u32,
}

impl Times {
    /// Writes them into a check. `written`: where they come from.
    pub(super) fn write(self, check: &mut CheckConfig, written: &Written, findings: &mut Findings) {
        let fitted = Self {
            interval: self.interval.clamp(*INTERVAL_RANGE.start(), *INTERVAL_RANGE.end()),
            fast_interval: self.fast_interval.clamp(*INTERVAL_RANGE.start(), *INTERVAL_RANGE.end()),
            connect_timeout: self.connect_timeout.clamp(*TIMEOUT_RANGE.start(), *TIMEOUT_RANGE.end()),
            timeout: self.timeout.clamp(*TIMEOUT_RANGE.start(), *TIMEOUT_RANGE.end()),
            rise: self.rise.clamp(*STREAK_RANGE.start(), *STREAK_RANGE.end()),
            fall: self.fall.clamp(*STREAK_RANGE.start(), *STREAK_RANGE.end()),
        };
        let fitted = Self {
            fast_interval: fitted.fast_interval.min(fitted.interval),
            connect_timeout: fitted.connect_timeout.min(fitted.timeout),
            ..fitted
        };
        let durations = [
            ("interval", self.interval, fitted.interval),
            ("fast_interval", self.fast_interval, fitted.fast_interval),
            ("connect_timeout", self.connect_timeout, fitted.connect_timeout),
            ("timeout", self.timeout, fitted.timeout),
        ];
        for (key, before, after) in durations.into_iter().filter(|(_, before, after)| before != after) {
            let [before, after] = [before, after].map(humantime::format_duration);
            let why = format!("kplb's `{key}` cannot be {before} here, and is {after}");
            findings.changed(written, why, "nothing to do, if that is soon enough");
        }
        for (key, before, after) in [("rise", self.rise, fitted.rise), ("fall", self.fall, fitted.fall)] {
            if before != after {
                let why = format!("kplb's `{key}` cannot be {before}, and is {after}");
                findings.changed(written, why, NOTHING_TO_DO);
            }
        }
        check.interval = fitted.interval;
        check.fast_interval = fitted.fast_interval;
        check.connect_timeout = fitted.connect_timeout;
        check.timeout = fitted.timeout;
        check.rise = fitted.rise;
        check.fall = fitted.fall;
    }
}

/// A duration of a range.
pub(super) fn duration(
    value: Duration,
    range: &RangeInclusive<Duration>,
    written: &Written,
    findings: &mut Findings,
) -> Duration {
    let fitted = value.clamp(*range.start(), *range.end());
    if fitted != value {
        let why = format!("kplb makes {} of it, which is as far as it goes", humantime::format_duration(fitted));
        findings.changed(written, why, "nothing to do, if that is right");
    }
    fitted
}

/// Weights that relate to each other as before, none too heavy; one that is not zero does not become zero.
pub(super) fn weights(weights: &[u32]) -> Vec<u16> {
    let heaviest = weights.iter().copied().max().unwrap_or(0).max(u32::from(MAX_WEIGHT));
    let fit = |weight: u32| {
        let scaled = (u64::from(weight) * u64::from(MAX_WEIGHT)).div_ceil(u64::from(heaviest));
        u16::try_from(scaled).unwrap_or(MAX_WEIGHT)
    };
    weights.iter().map(|weight| fit(*weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_proportions() {
        assert_eq!(weights(&[1, 0, 256]), [1, 0, 256]);
        assert_eq!(weights(&[1000, 500, 1, 0]), [256, 128, 1, 0]);
        assert_eq!(weights(&[]), Vec::<u16>::new());
    }
}
