//! What the agent must be allowed to do, checked before it touches anything.

use std::fs;

use anyhow::{Context as _, Result, bail};

/// A capability that attaching needs.
struct Need {
    name: &'static str,
    bit: u32,
    what_for: &'static str,
}

/// Numbers from the kernel's `include/uapi/linux/capability.h`.
const NEEDS: &[Need] = &[
    Need { name: "CAP_NET_ADMIN", bit: 12, what_for: "attach to the interface and add VIPs" },
    Need { name: "CAP_NET_RAW", bit: 13, what_for: "announce VIPs" },
    // `CAP_BPF` is enough to load, but not to open a program or a map by its number (`bpf_prog_get_fd_by_id` and
    // `bpf_map_get_fd_by_id` in kernel/bpf/syscall.c), as an agent does that takes over.
    Need { name: "CAP_SYS_ADMIN", bit: 21, what_for: "load programs, and to find those of an earlier agent" },
];

/// Fails unless this process has every capability that attaching needs.
pub fn check() -> Result<()> {
    let missing = missing(effective()?);
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing privileges: {}; run kplb as root, or with sudo", missing.join(", "));
}

/// The effective capabilities of this process, a bit each.
///
/// # Errors
/// If the kernel does not say.
pub fn effective() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    effective_capabilities(&status).context("find CapEff in /proc/self/status")
}

/// Whether this capability is among them.
pub const fn has(effective: u64, capability: u32) -> bool {
    effective & (1 << capability) != 0
}

/// The capabilities that attaching needs and that are not among these, with what for.
pub fn missing(effective: u64) -> Vec<String> {
    needs(effective).map(|need| format!("{} (to {})", need.name, need.what_for)).collect()
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn needs(effective: u64) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().filter(move |need| !has(effective, need.bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_names(effective: u64) -> Vec<&'static str> {
        needs(effective).map(|need| need.name).collect()
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing_names(0), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]);
        assert_eq!(missing_names(1 << 12 | 1 << 39), ["CAP_NET_RAW", "CAP_SYS_ADMIN"]);
        assert!(missing_names(1 << 12 | 1 << 13 | 1 << 21).is_empty());
        assert!(missing_names(u64::MAX).is_empty());
    }

    #[test]
    fn reads_the_effective_set() {
        let status = "Name:\tkplb\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective_capabilities("Name:\tkplb\n"), None);
    }
}
