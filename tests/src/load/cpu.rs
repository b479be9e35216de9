//! How long the machine's processors were busy, whoever kept them so.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Time of all processors together since the machine was started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cpu {
    /// In user space.
    pub user: Duration,
    /// In the kernel, interrupts included.
    pub kernel: Duration,
}

/// Ticks a second, in which `/proc/stat` counts (`USER_HZ`).
const TICKS: u64 = 100;

impl Cpu {
    /// What the kernel counts now.
    ///
    /// # Errors
    /// If `/proc/stat` says nothing.
    pub fn now() -> Result<Self> {
        parse(&fs::read_to_string("/proc/stat").context("read /proc/stat")?).context("understand /proc/stat")
    }

    /// The time since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, kernel: self.kernel - earlier.kernel }
    }

    /// All of it.
    pub fn total(self) -> Duration {
        self.user + self.kernel
    }
}

fn parse(stat: &str) -> Option<Cpu> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // proc_stat(5): user, nice, system, idle, iowait, irq, softirq.
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else { return None };
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / TICKS);
    Some(Cpu { user: time(user + nice), kernel: time(system + irq + softirq) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_the_kernels() {
        let cpu = parse("cpu  100 20 300 4000 50 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n").expect("a line");
        assert_eq!(cpu, Cpu { user: Duration::from_millis(1200), kernel: Duration::from_millis(3130) });
        assert_eq!(parse("cpu0 1 2 3"), None);
        assert_eq!(parse("cpu  1 2 3"), None);
    }
}
