//! What the agent must be allowed to do, checked before it touches anything.

use std::fs;

use anyhow::{Context as _, Result, bail};

/// A capability that attaching needs: any of `bits` will do.
struct Need {
    names: &'static str,
    bits: &'static [u32],
    what_for: &'static str,
}

/// Numbers from the kernel's `include/uapi/linux/capability.h`.
const NEEDS: &[Need] = &[
    Need { names: "CAP_NET_ADMIN", bits: &[12], what_for: "attach to the interface and add VIPs" },
    Need { names: "CAP_NET_RAW", bits: &[13], what_for: "announce VIPs" },
    Need { names: "CAP_BPF or CAP_SYS_ADMIN", bits: &[39, 21], what_for: "load programs and create maps" },
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
    needs(effective).map(|need| format!("{} (to {})", need.names, need.what_for)).collect()
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn needs(effective: u64) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().filter(move |need| need.bits.iter().all(|bit| !has(effective, *bit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_names(effective: u64) -> Vec<&'static str> {
        needs(effective).map(|need| need.names).collect()
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing_names(0), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF or CAP_SYS_ADMIN"]);
        assert_eq!(missing_names(1 << 12 | 1 << 39), ["CAP_NET_RAW"]);
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
