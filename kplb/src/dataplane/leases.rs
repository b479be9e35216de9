//! The leases by which this node answers for its fenced VIPs, and the clocks of the data path.

use std::{os::fd::AsFd as _, time::Duration};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
};
use kplb_common::{
    abi::map,
    fence::{Lease, lease_index},
    net::{Ip4, Ip6},
};
use nix::time::{ClockId, clock_gettime};

use crate::model::Family;

/// The leases. They are apart from the [`super::Dataplane`], so that the election can renew them on a thread of its own;
/// a call that succeeds is one system call, and allocates nothing.
///
/// Dropped, they stay as they are, and end by themselves.
pub struct Leases(Array<MapData, Lease>);

impl Leases {
    /// Opens the map of the object for itself.
    pub(super) fn open(ebpf: &Ebpf) -> anyhow::Result<Self> {
        let name = map::LEASES;
        let Some(Map::Array(map)) = ebpf.map(name) else { bail!("the object has no array {name}") };
        let fd = map.fd().as_fd().try_clone_to_owned().context("clone a descriptor")?;
        Ok(Self(Map::Array(MapData::from_fd(fd)?).try_into()?))
    }

    /// Whether the lease of a family has not ended yet on the clock of [`boottime_now_ns`].
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn is_fresh(&self, family: Family, now_ns: u64) -> anyhow::Result<bool> {
        let lease = self.0.get(&index(family), 0).with_context(|| format!("read {}", map::LEASES))?;
        Ok(now_ns < lease.expires_ns)
    }

    /// Lets this node answer for the fenced VIPs of a family until the clock of [`boottime_now_ns`] shows `expires_ns`,
    /// whatever the lease was before.
    ///
    /// # Errors
    /// If the kernel refuses; the lease is as it was.
    pub fn renew(&mut self, family: Family, expires_ns: u64) -> anyhow::Result<()> {
        self.set(family, &Lease { expires_ns })
    }

    /// Ends the lease of a family now.
    ///
    /// # Errors
    /// If the kernel refuses; the lease is as it was, and ends when it would have.
    pub fn expire(&mut self, family: Family) -> anyhow::Result<()> {
        self.set(family, &Lease::default())
    }

    fn set(&mut self, family: Family, lease: &Lease) -> anyhow::Result<()> {
        self.0.set(index(family), lease, 0).with_context(|| format!("write to {}", map::LEASES))
    }
}

const fn index(family: Family) -> u32 {
    match family {
        Family::V4 => lease_index::<Ip4>(),
        Family::V6 => lease_index::<Ip6>(),
    }
}

/// The time on the clock of the leases, which is that of the fence: `CLOCK_BOOTTIME`, in nanoseconds (`bpf-helpers(7)`,
/// `bpf_ktime_get_boot_ns`). It goes on while the machine is suspended, unlike that of standard Rust's `Instant`.
pub fn boottime_now_ns() -> u64 {
    now_ns(ClockId::CLOCK_BOOTTIME)
}

/// The time on the clock of the flows: `CLOCK_MONOTONIC`, in nanoseconds. What the data path takes for it is usually two of
/// the kernel's ticks behind at most ([`kplb_common::clock`]).
pub fn monotonic_now_ns() -> u64 {
    now_ns(ClockId::CLOCK_MONOTONIC)
}

fn now_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("Linux has these clocks, and the pointer is valid");
    // Centuries fit.
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_can_be_renewed_on_another_thread() {
        const fn is_send<T: Send + 'static>() {}
        is_send::<Leases>();
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = boottime_now_ns();
        let after = boottime_now_ns();
        assert!(0 < before && before <= after);
    }
}
