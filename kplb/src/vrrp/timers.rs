//! How long a backup waits.

use std::time::Duration;

use super::settings::Version;

/// In how many steps the priority divides an interval.
const PRIORITIES: u32 = 256;
/// How many intervals without an advert say that the master is dead (RFC 9568, section 6.1).
const MISSED: u32 = 3;

/// `Skew_Time`: the lower the priority, the longer, so that the best backup comes first. A part of the master's
/// interval (version 3; RFC 9568, section 6.1), or of a second, whatever the interval (version 2; RFC 3768, section
/// 6.1).
pub fn skew(version: Version, priority: u8, master_interval: Duration) -> Duration {
    let whole = match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => master_interval,
    };
    whole * (PRIORITIES - u32::from(priority)) / PRIORITIES
}

/// `Active_Down_Interval` (RFC 9568, section 6.1), `Master_Down_Interval` (RFC 3768, section 6.1): after so long
/// without an advert, a backup of this priority becomes master.
pub fn master_down(version: Version, priority: u8, master_interval: Duration) -> Duration {
    MISSED * master_interval + skew(version, priority, master_interval)
}

/// Whoever stops a service waits for it; with intervals so long, nobody counts on a quick handover.
const MAX_SUCCESSION: Duration = Duration::from_secs(3);

/// How long a master that gives up waits for a successor: by then the backup of the lowest priority has taken over, and
/// said so, if there is one; three seconds at most.
pub fn succession(version: Version, interval: Duration) -> Duration {
    let slowest = skew(version, 1, interval);
    (slowest + slowest / 8).min(MAX_SUCCESSION)
}

/// How long a master may be silent while no backup, whatever its priority, can have taken over.
pub fn patience(interval: Duration) -> Duration {
    MISSED * interval
}

#[cfg(test)]
mod tests {
    use super::{super::settings::INTERVAL_DEFAULT, *};

    #[test]
    fn worked_examples() {
        let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
        for (version, priority, interval, down_micros) in [
            (Version::V2, 100, second, 3_609_375),
            (Version::V3, 100, second, 3_609_375),
            (Version::V3, 100, tenth, 360_937),
            (Version::V3, 200, second, 3_218_750),
            (Version::V3, 254, second, 3_007_812),
            // In version 2 the skew is of a second, whatever the interval.
            (Version::V2, 100, 10 * second, 30_609_375),
            (Version::V3, 100, 10 * second, 36_093_750),
        ] {
            let down = master_down(version, priority, interval);
            assert_eq!(down.as_micros(), down_micros, "{version:?} {priority} {interval:?}");
        }
    }

    #[test]
    fn a_dead_master_is_replaced_in_about_a_second() {
        assert_eq!(master_down(Version::V3, 100, INTERVAL_DEFAULT).as_millis(), 902);
        assert!(master_down(Version::V3, 1, INTERVAL_DEFAULT) <= Duration::from_secs(1));
    }

    #[test]
    fn every_backup_can_succeed_in_time() {
        for version in [Version::V2, Version::V3] {
            for interval in [Duration::from_millis(10), Duration::from_secs(1)] {
                let succession = succession(version, interval);
                assert!((1..=254).all(|priority| skew(version, priority, interval) < succession));
                assert!(version == Version::V2 || succession < patience(interval));
            }
        }
        assert_eq!(succession(Version::V3, Duration::from_secs(40)), MAX_SUCCESSION);
    }

    #[test]
    fn the_best_backup_comes_first() {
        for version in [Version::V2, Version::V3] {
            for priority in 1..255 {
                let down = |priority| master_down(version, priority, INTERVAL_DEFAULT);
                assert!(down(priority + 1) < down(priority));
                assert!(down(priority) > patience(INTERVAL_DEFAULT));
            }
        }
    }
}
