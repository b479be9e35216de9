//! The fence around a VIP: while this node's lease is not fresh, nobody who asks the segment for the VIP's MAC address
//! is answered, and nobody is told that it is here.
//!
//! The kernel answers for an address for as long as it is on an interface, and an agent that has died or hangs cannot
//! take it away. By then another node is master, so two would answer. Nor does the kernel wait to be asked: when a socket
//! sends from the VIP, the kernel looks for the next hop in the VIP's name, and whoever it asks takes note of where the
//! VIP seems to be. The fence needs no one: what the master's agent has to do is to renew its lease, and a lease that is
//! not renewed ends by itself.
//!
//! ```text
//!                                              +-- ingress <--- questions: ARP request, neighbour solicitation
//! election -- renews --> LEASES[family] <-- fresh?
//!                                              +-- kplb_tc <--- claims: ARP, solicitation, advertisement of the VIP's
//! ```
//!
//! A VIP that is not fenced is answered and spoken for in any case: with a single balancer, nobody else would.

use crate::net::Address;

/// Whether a VIP has a fence.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fencing {
    /// This node always answers and speaks for it.
    Open = 0,
    /// This node answers and speaks for it while its lease is fresh.
    Fenced = 1,
}

/// A VIP; value of `VIPS4` and `VIPS6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Vip {
    /// A [`Fencing`].
    pub fencing: u8,
}

const _: () = assert!(size_of::<Vip>() == 1);

impl Vip {
    /// A VIP with or without a fence.
    pub const fn new(fencing: Fencing) -> Self {
        Self { fencing: fencing as u8 }
    }

    /// Whether it has a fence; the numbers of no [`Fencing`], which nobody writes, read as one.
    #[inline(always)]
    pub const fn is_fenced(self) -> bool {
        self.fencing != Fencing::Open as u8
    }
}

/// The right to answer and speak for the fenced VIPs of an address family; value of `LEASES`, indexed by [`lease_index`].
///
/// One aligned word, so that the agent's update of it is seen whole.
///
/// It is on the boot-time clock, which goes on while the machine is suspended, as the clocks of the other nodes do. The
/// monotonic clock stands still: by it, what was left of a lease would be left on waking, hours after another node has
/// taken over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lease {
    /// When it ends, in nanoseconds of the boot-time clock; one that was never given has ended at zero.
    pub expires_ns: u64,
}

const _: () = assert!(size_of::<Lease>() == 8);

impl Lease {
    /// Whether it still holds.
    #[inline(always)]
    pub const fn is_fresh(self, now_ns: u64) -> bool {
        now_ns < self.expires_ns
    }
}

/// Index of the lease of an address family. Each has its own: an election is of one family (RFC 9568, section 1).
#[inline(always)]
pub const fn lease_index<A: Address>() -> u32 {
    match A::VERSION {
        4 => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        abi::N_LEASES,
        net::{Ip4, Ip6},
    };

    #[test]
    fn a_lease_ends_at_its_moment() {
        let lease = Lease { expires_ns: 1000 };
        assert!(lease.is_fresh(0) && lease.is_fresh(999));
        assert!(!lease.is_fresh(1000) && !lease.is_fresh(1001) && !lease.is_fresh(u64::MAX));
    }

    #[test]
    fn a_lease_that_was_never_given_is_over() {
        assert!(!Lease::default().is_fresh(0));
    }

    #[test]
    fn each_family_has_a_lease() {
        assert_eq!([lease_index::<Ip4>(), lease_index::<Ip6>()], [0, 1]);
        assert_eq!(N_LEASES, 2);
    }

    #[test]
    fn in_doubt_a_vip_is_fenced() {
        assert!(!Vip::new(Fencing::Open).is_fenced());
        assert!(Vip::new(Fencing::Fenced).is_fenced());
        assert!(Vip { fencing: 0xa5 }.is_fenced());
    }
}
