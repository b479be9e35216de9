//! When an end of a flow speaks in vain: the other end has said nothing for a while, and not answered.
//!
//! To look at the other end takes a second lookup. It is time for one when TCP repeats itself, which it does after 200 ms
//! at the earliest (`TCP_RTO_MIN` of Linux; RFC 6298 has it that a second is better). But Linux repeats nothing while it
//! has something new to send, for as long as its window lasts, and a datagram does not tell whether it is a repetition. So
//! it is also time once in a period, for who has something to say.

/// For so long an end that was spoken to is silent, in nanoseconds: longer than an answer takes, even an acknowledgement
/// that is held back (40 ms on Linux), shorter than the time after which TCP repeats itself.
pub const SILENCE_NS: u64 = 150_000_000;

/// A period is two to the power of this many nanoseconds, half a second.
const PERIOD: u32 = 29;

/// Whether a number is not after another one in sequence space (RFC 9293, section 3.4): a segment with data that is not
/// after the last one with data repeats something; an acknowledgement that is not after a segment's number has not seen it.
#[inline(always)]
pub const fn is_not_after(number: u32, last: u32) -> bool {
    number.wrapping_sub(last).cast_signed() <= 0
}

/// Whether an end that spoke last at `last_ns`, and now again, has not spoken in this period.
#[inline(always)]
pub const fn is_new_period(last_ns: u64, now_ns: u64) -> bool {
    (last_ns ^ now_ns) >> PERIOD != 0
}

/// Whether an end that spoke last at `last_ns` has been silent for long.
#[inline(always)]
pub const fn is_silent(last_ns: u64, now_ns: u64) -> bool {
    // Another processor may have read the clock later.
    now_ns.saturating_sub(last_ns) >= SILENCE_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn numbers_go_round() {
        for last in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            assert!(is_not_after(last, last));
            assert!(is_not_after(last.wrapping_sub(1448), last));
            assert!(!is_not_after(last.wrapping_add(1), last));
            assert!(!is_not_after(last.wrapping_add(1 << 30), last));
        }
    }

    #[test]
    fn silence_is_longer_than_an_answer_takes() {
        let now = 1_000_000 * MS;
        assert!(!is_silent(now, now));
        assert!(!is_silent(now - 149 * MS, now));
        assert!(is_silent(now - 150 * MS, now));
        assert!(!is_silent(now + 4 * MS, now), "another processor may have read the clock later");
    }

    #[test]
    fn within_a_second_there_is_time_for_a_look() {
        // A stream: from when a silence is one to the next look, wherever in a period it begins.
        for start in (1 << 40..(1 << 40) + (1 << PERIOD)).step_by(9_999_983) {
            let mut times = (0..).map(|n| start + n * 20 * MS);
            let is_time = |now: &u64| is_silent(start, *now) && is_new_period(now - 20 * MS, *now);
            let look = times.find(is_time).expect("the clock goes on");
            assert!(look - start < 700 * MS, "{} ms after {start}", (look - start) / MS);
        }
        // And not often.
        let looks = (0..1000).filter(|n| is_new_period(n * MS, (n + 1) * MS)).count();
        assert_eq!(looks, 1);
    }
}
