//! What the agent takes of the machine, under the names that all programs have for it.

use std::{fmt, fs};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage},
        time::TimeValLike as _,
    },
    unistd::{SysconfVar, sysconf},
};

use super::Page;

/// What the agent takes of the machine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProcessStats {
    /// Memory in use, in bytes.
    pub(super) resident_bytes: u64,
    /// Descriptors that are open.
    pub(super) open_fds: u64,
    /// Descriptors that may be.
    pub(super) max_fds: u64,
    /// Time of processors, in seconds.
    pub(super) cpu_seconds: f64,
}

impl ProcessStats {
    /// Of this process, now.
    pub(super) fn read() -> Result<Self> {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok());
        let statm = fs::read_to_string("/proc/self/statm").context("read /proc/self/statm")?;
        let fds = fs::read_dir("/proc/self/fd").context("read /proc/self/fd")?.count();
        let (max_fds, _) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of descriptors")?;
        let usage = getrusage(UsageWho::RUSAGE_SELF).context("read the time of processors")?;
        let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Ok(Self {
            resident_bytes: resident_pages(&statm).context("understand /proc/self/statm")?
                * page.context("the size of a page is unknown")?,
            // Without the one that reads the directory.
            open_fds: fds.saturating_sub(1) as u64,
            max_fds,
            cpu_seconds: cpu as f64 / 1e6,
        })
    }

    pub(super) fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let Self { resident_bytes, open_fds, max_fds, cpu_seconds } = self;
        let one = |value| [(Vec::new(), value)];
        page.counter("process_cpu_seconds", "Time of processors, of the user and of the system.", one(*cpu_seconds))?;
        page.gauge("process_resident_memory_bytes", "Memory in use.", one(*resident_bytes as f64))?;
        page.gauge("process_open_fds", "Open file descriptors.", one(*open_fds as f64))?;
        page.gauge("process_max_fds", "File descriptors that may be open.", one(*max_fds as f64))
    }
}

/// The pages in memory: the second number (proc_pid_statm(5)).
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_memory_are_the_second_number() {
        assert_eq!(resident_pages("30512 1876 1402 1203 0 2240 0\n"), Some(1876));
        assert_eq!(resident_pages("30512"), None);
        assert_eq!(resident_pages(""), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let file = fs::File::open("/dev/null").expect("always there");
        let stats = ProcessStats::read().expect("/proc is there");
        assert!(stats.resident_bytes > 0, "{stats:?}");
        assert!((1..=stats.max_fds).contains(&stats.open_fds), "{stats:?}");
        drop(file);
    }
}
