//! Whether an agent takes more and more memory or descriptors: two windows of its life, at the same load, and only moments
//! at which nothing goes wrong.
//!
//! One agent lives for all of the run: a run that is long enough must tell something of it.

use std::{collections::BTreeMap, time::Duration};

/// An agent younger than this has not got all that it will take: buffers fill up.
const WARM_UP: Duration = Duration::from_secs(20);

/// How many samples a window has.
const WINDOW: usize = 20;

/// How much more resident memory the last window may have, in KiB, beyond a part in [`MEMORY_PART`] of the first one's:
/// allocators take memory in steps.
const MEMORY_STEP: u64 = 2048;
const MEMORY_PART: u64 = 20;

/// How many more descriptors, when fewest are open: no check is under way and nobody asks for the status. What is left is
/// a check's idle connection that is just being made anew.
const DESCRIPTORS_STEP: u64 = 2;

/// A run that is longer tells whether an agent grows.
const TELLING: Duration = Duration::from_secs(5 * 60);

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
    /// The fewest open descriptors.
    pub descriptors: [u64; 2],
}

impl Growth {
    /// Of the samples of one agent, the oldest first; none if it did not live long enough to tell.
    pub fn of(node: usize, samples: &[Sample]) -> Option<Self> {
        let (first, last) = (samples.first()?.at, samples.last()?.at);
        let warm = &samples[samples.partition_point(|sample| sample.at < first + WARM_UP)..];
        if warm.len() < 2 * WINDOW {
            return None;
        }
        let windows = [&warm[..WINDOW], &warm[warm.len() - WINDOW..]];
        let fewest = |window: &[Sample]| window.iter().map(|sample| sample.descriptors).min();
        let [early, late] = windows;
        Some(Self {
            node,
            life: last.saturating_sub(first),
            memory: [
                median(early.iter().map(|sample| sample.memory))?,
                median(late.iter().map(|sample| sample.memory))?,
            ],
            descriptors: [fewest(early)?, fewest(late)?],
        })
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

/// What is wrong with how the agent of a node was looked at that is never ended; `lives` is how many it had.
pub fn untold(growths: &[Growth], load: Duration, spared: usize, lives: usize) -> Option<String> {
    if lives != 1 {
        return Some(format!("node{spared} is to have one agent all the time, and had {lives}"));
    }
    let is_told = growths.iter().any(|growth| growth.node == spared);
    (load > TELLING && !is_told).then(|| format!("nothing tells whether the agent of node{spared} grows"))
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
        assert_eq!(Growth::of(1, &samples(58, |_| 1, |_| 1)), None);
        assert_eq!(Growth::of(1, &[]), None);
        assert!(Growth::of(1, &samples(59, |_| 1, |_| 1)).is_some());
    }

    #[test]
    fn a_long_run_tells_something() {
        let growth = Growth::of(2, &samples(400, |_| 1, |_| 1)).expect("long enough");
        let minutes = |n: u64| Duration::from_secs(60 * n);
        assert_eq!(untold(&[growth], minutes(6), 2, 1), None);
        assert_eq!(untold(&[], minutes(5), 2, 1), None);
        assert!(untold(&[], minutes(6), 2, 1).is_some());
        assert!(untold(&[growth], minutes(6), 1, 1).is_some(), "of another node");
        assert!(untold(&[growth], minutes(6), 2, 2).is_some(), "it was replaced");
        assert!(untold(&[growth], minutes(1), 2, 0).is_some(), "it was never seen");
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
        // A descriptor every three minutes, among those that come and go.
        let leak = |n: u64| if n.is_multiple_of(3) { 30 } else { 34 } + n / 180;
        let growth = Growth::of(1, &samples(600, |_| 40_000, leak)).expect("long enough");
        assert!(!growth.is_bounded(), "{growth:?}");
    }

    #[test]
    fn a_peak_is_none() {
        let peak = |n: u64| if n.is_multiple_of(7) { 100_000 } else { 40_000 };
        let checks = |n: u64| if n > 200 && !n.is_multiple_of(5) { 60 } else { 30 };
        assert!(Growth::of(1, &samples(300, peak, checks)).expect("long enough").is_bounded());
    }
}
