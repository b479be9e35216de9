//! Whether an agent takes more and more memory or descriptors: the medians of two windows of its life at the same load.

use std::{collections::BTreeMap, time::Duration};

/// An agent younger than this has not got all that it will take: buffers fill up.
const WARM_UP: Duration = Duration::from_secs(20);

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(30);

/// How much more resident memory the last window may have, in KiB, beyond a part in [`MEMORY_PART`] of the first one's:
/// allocators take memory in steps.
const MEMORY_STEP: u64 = 2048;
const MEMORY_PART: u64 = 20;

/// How many more descriptors: those of checks that are under way.
const DESCRIPTORS_STEP: u64 = 8;

/// What an agent took at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sample {
    /// Since the start of the load.
    pub at: Duration,
    /// Resident memory in KiB.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

/// What one agent took in the first and the last window of its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Growth {
    /// The node it ran on.
    pub node: usize,
    /// From its first sample to its last.
    pub life: Duration,
    /// Medians of resident memory, in KiB.
    pub memory: [u64; 2],
    /// Medians of open descriptors.
    pub descriptors: [u64; 2],
}

impl Growth {
    /// Of the samples of one agent, the oldest first; none if it did not live long enough to tell.
    pub fn of(node: usize, samples: &[Sample]) -> Option<Self> {
        let (first, last) = (samples.first()?.at, samples.last()?.at);
        let life = last.checked_sub(first)?;
        if life < WARM_UP + 2 * WINDOW {
            return None;
        }
        let early = |sample: &&Sample| (first + WARM_UP..first + WARM_UP + WINDOW).contains(&sample.at);
        let late = |sample: &&Sample| sample.at + WINDOW > last;
        let medians = |what: fn(&Sample) -> u64| {
            Some([median(samples.iter().filter(early).map(what))?, median(samples.iter().filter(late).map(what))?])
        };
        let (memory, descriptors) = (medians(|sample| sample.memory)?, medians(|sample| sample.descriptors)?);
        Some(Self { node, life, memory, descriptors })
    }

    /// Whether it took no more than is allowed.
    pub fn is_bounded(&self) -> bool {
        let [memory, descriptors] = [self.memory, self.descriptors];
        memory[1] <= memory[0] + memory[0] / MEMORY_PART + MEMORY_STEP
            && descriptors[1] <= descriptors[0] + DESCRIPTORS_STEP
    }
}

/// The growth of every agent that lived long enough, by its node and process id.
pub fn growths(samples: &BTreeMap<(usize, u32), Vec<Sample>>) -> Vec<Growth> {
    samples.iter().filter_map(|((node, _), samples)| Growth::of(*node, samples)).collect()
}

fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample each second.
    fn samples(seconds: u64, memory: impl Fn(u64) -> u64, descriptors: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |n| Sample { at: Duration::from_secs(n), memory: memory(n), descriptors: descriptors(n) };
        (0..=seconds).map(sample).collect()
    }

    #[test]
    fn a_short_life_tells_nothing() {
        assert_eq!(Growth::of(1, &samples(79, |_| 1, |_| 1)), None);
        assert_eq!(Growth::of(1, &[]), None);
        assert!(Growth::of(1, &samples(80, |_| 1, |_| 1)).is_some());
    }

    #[test]
    fn what_fills_up_in_the_beginning_is_no_growth() {
        let growth = Growth::of(2, &samples(100, |n| if n < 10 { 1000 } else { 40_000 }, |_| 30)).expect("long enough");
        assert_eq!((growth.memory, growth.descriptors, growth.node), ([40_000; 2], [30; 2], 2));
        assert!(growth.is_bounded());
    }

    #[test]
    fn what_goes_on_growing_is() {
        let growth = Growth::of(1, &samples(600, |n| 40_000 + 10 * n, |_| 30)).expect("long enough");
        assert!(!growth.is_bounded(), "{growth:?}");
        let growth = Growth::of(1, &samples(600, |_| 40_000, |n| 30 + n / 30)).expect("long enough");
        assert!(!growth.is_bounded(), "{growth:?}");
    }

    #[test]
    fn a_peak_is_none() {
        let peak = |n: u64| if n.is_multiple_of(7) { 100_000 } else { 40_000 };
        assert!(Growth::of(1, &samples(300, peak, |_| 30)).expect("long enough").is_bounded());
    }
}
