//! The clock of the data path: the monotonic one, told by the kernel's ticks.
//!
//! To count ticks is to load a word of memory, while the time takes a call, which costs as much as all that is done with a
//! packet's addresses. The kernel counts them by its monotonic clock (`tick_do_update_jiffies64` in
//! kernel/time/tick-sched.c), so the two do not drift apart; but where it is told to have neither timers of high resolution
//! nor idle processors without ticks (`highres=off nohz=off`), it counts interrupts, which do not follow NTP as the clock
//! does.

/// How ticks become time; part of [`crate::node::Node`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Clock {
    /// Nanoseconds from one tick to the next: what `clock_getres(2)` says of `CLOCK_MONOTONIC_COARSE`.
    pub tick_ns: u64,
    /// The time at tick zero, which was before the machine started: nanoseconds of the monotonic clock, modulo 2^64.
    pub start_ns: u64,
}

const _: () = assert!(size_of::<Clock>() == 16);

impl Clock {
    /// The clock that shows what was read, with ticks of this many nanoseconds.
    pub const fn new(tick_ns: u64, reading: Reading) -> Self {
        Self { tick_ns, start_ns: reading.now_ns.wrapping_sub(reading.ticks.wrapping_mul(tick_ns)) }
    }

    /// The one of both, of ticks as long, that is not behind the other.
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if other.start_ns.wrapping_sub(self.start_ns).cast_signed() > 0 { other } else { self }
    }

    /// The time at a tick: nanoseconds of the monotonic clock, at most two ticks behind; and at most one ahead, if the wall
    /// clock was set just before it was read.
    #[inline(always)]
    pub const fn at(self, ticks: u64) -> u64 {
        ticks.wrapping_mul(self.tick_ns).wrapping_add(self.start_ns)
    }
}

/// Both clocks at a moment, as `kplb_clock` writes them into its packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// The monotonic clock in nanoseconds, as of the last tick, or as of when the wall clock was set, if that is later. To
    /// be read first: ticks in between, and those that are counted before the time follows them, make a clock that is
    /// behind, and none that is ahead.
    pub now_ns: u64,
    /// Ticks since some moment.
    pub ticks: u64,
}

const _: () = assert!(size_of::<Reading>() == 16);

impl Reading {
    /// From the beginning of a packet; none if that is too short.
    pub fn from_packet(bytes: &[u8]) -> Option<Self> {
        let (now_ns, rest) = bytes.split_first_chunk()?;
        let (ticks, _) = rest.split_first_chunk()?;
        Some(Self { now_ns: u64::from_ne_bytes(*now_ns), ticks: u64::from_ne_bytes(*ticks) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As on a machine of 250 ticks a second, whose count begins five minutes before it turns 32 bits over.
    const TICK_NS: u64 = 4_000_000;
    const FIRST_TICK: u64 = (1 << 32) - 300 * 250;

    #[test]
    fn it_goes_on_from_what_was_read() {
        let clock = Clock::new(TICK_NS, Reading { now_ns: 1_000_000_007, ticks: FIRST_TICK + 250 });
        assert_eq!(clock.at(FIRST_TICK + 250), 1_000_000_007);
        assert_eq!(clock.at(FIRST_TICK + 251), 1_004_000_007);
        assert_eq!(clock.at(FIRST_TICK), 7);
        // Ten years later.
        assert_eq!(clock.at(FIRST_TICK + 250 + 78_840_000_000), 1_000_000_007 + 315_360_000_000_000_000);
    }

    proptest! {
        #[test]
        fn whatever_was_read_is_shown(tick_ns: u64, now_ns: u64, ticks: u64) {
            prop_assert_eq!(Clock::new(tick_ns, Reading { now_ns, ticks }).at(ticks), now_ns);
        }
    }

    #[test]
    fn what_is_behind_is_told_also_where_the_count_turns_over() {
        let clock = |now_ns| Clock::new(TICK_NS, Reading { now_ns, ticks: FIRST_TICK });
        let at_start = FIRST_TICK * TICK_NS;
        for now_ns in [at_start, at_start + 1, at_start + TICK_NS, at_start + 3_600_000_000_000] {
            let (behind, right) = (clock(now_ns - TICK_NS), clock(now_ns));
            assert_eq!(
                (behind.later(right), right.later(behind), right.later(right)),
                (right, right, right),
                "{now_ns}"
            );
        }
    }

    #[test]
    fn a_packet_that_is_too_short_says_nothing() {
        assert_eq!(Reading::from_packet(&[0; 15]), None);
        assert_eq!(Reading::from_packet(&[0; 64]), Some(Reading::default()));
    }
}
