//! Numbers as short as a glance needs them, and bars.

use std::time::Duration;

/// With a prefix: `12.3k`.
pub(super) fn short(value: f64) -> String {
    const PREFIXES: [&str; 5] = ["k", "M", "G", "T", "P"];
    if !value.is_finite() || value < 0.05 {
        return "0".to_owned();
    }
    if value < 9.95 {
        return format!("{value:.1}");
    }
    if value < 999.5 {
        return format!("{value:.0}");
    }
    let (mut value, mut prefix) = (value, "");
    for larger in PREFIXES {
        if value < 999.5 {
            break;
        }
        (value, prefix) = (value / 1000.0, larger);
    }
    match value {
        ..9.95 => format!("{value:.1}{prefix}"),
        _ => format!("{value:.0}{prefix}"),
    }
}

/// A period by its largest unit.
pub(super) fn period(seconds: f64) -> String {
    let period = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    match period.as_secs() {
        0 => format!("{}ms", period.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A bar for each of the last values, as many as there is room for, the largest of them as high as it goes.
pub(super) fn bars<'v>(values: impl ExactSizeIterator<Item = &'v f64>, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let skipped = values.len().saturating_sub(width);
    let values: Vec<f64> = values.skip(skipped).copied().collect();
    let highest = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| match highest > 0.0 && *value > 0.0 {
        // Something is never as low as nothing.
        true => BARS[((value / highest * 7.0).round() as usize).clamp(1, 7)],
        false => BARS[0],
    };
    let blank = " ".repeat(width - values.len());
    blank + &values.iter().map(bar).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.5, "0.5"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (1_250_000.0, "1.2M"),
            (f64::MAX, "0"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
            (-1.0, "0"),
        ] {
            if value == f64::MAX {
                assert!(short(value).ends_with('P'));
            } else {
                assert_eq!(short(value), expected, "{value}");
            }
        }
    }

    #[test]
    fn periods_are_short() {
        for (seconds, expected) in
            [(0.25, "250ms"), (1.9, "1s"), (61.0, "1m"), (7200.0, "2h"), (1e6, "11d"), (-1.0, "0ms"), (f64::NAN, "0ms")]
        {
            assert_eq!(period(seconds), expected);
        }
    }

    #[test]
    fn bars_are_relative() {
        let values = [0.0, 1.0, 50.0, 100.0];
        assert_eq!(bars(values.iter(), 6), "  ▁▂▅█");
        assert_eq!(bars(values.iter(), 2), "▅█");
        assert_eq!(bars(values.iter(), 0), "");
        assert_eq!(bars([0.0, 0.0].iter(), 2), "▁▁");
        assert_eq!(bars([].iter(), 2), "  ");
    }
}
