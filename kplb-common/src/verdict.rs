//! What kplb decided about a packet, and why.
//!
//! Every packet of ours ends in exactly one verdict, counted once. The order of the reasons is part of the layout: the
//! counters are indexed by it.

/// Defines an enum of reasons with its names and their meaning, so that none can be forgotten.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal: $meaning:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name {
            $(#[doc = $meaning] $variant,)+
        }

        impl $name {
            /// Every reason, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The reason as users see it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What the reason means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

reasons! {
    /// Why a packet was passed to the kernel untouched.
    PassReason {
        NotIp = "not-ip": "Neither IPv4 nor IPv6.",
        NotOurs = "not-ours": "Neither to a service nor the reply to a known flow.",
        Leased = "leased": "Asks who has a fenced VIP, and this node's lease on it is fresh.",
        LeasedClaim = "leased-claim": "Says that a fenced VIP is on this node, whose lease on it is fresh.",
    }
}

reasons! {
    /// Where a packet was forwarded to.
    ForwardReason {
        ToBackend = "to-backend": "Rewritten and sent to a backend behind the wire.",
        ToLocalBackend = "to-local-backend": "Rewritten and passed up to a backend on this node.",
        ToClient = "to-client": "A reply from behind the wire, rewritten and sent to the client.",
        ToClientLocal = "to-client-local": "A reply of a backend on this node, rewritten on its way out.",
        IcmpToBackend = "icmp-to-backend": "An ICMP error about a flow, translated and sent to its backend behind the wire.",
        IcmpToLocalBackend = "icmp-to-local-backend": "An ICMP error about a flow, translated and passed up to its backend on this node.",
        IcmpToClient = "icmp-to-client": "An ICMP error about a flow, translated and sent to its client.",
        IcmpToClientLocal = "icmp-to-client-local": "An ICMP error of this node about a flow to its own backend, translated on its way out.",
    }
}

reasons! {
    /// Why a packet was answered with a TCP reset.
    ResetReason {
        UnknownFlow = "reset-unknown-flow": "To a service, of no known flow, and not opening one.",
        NoBackend = "reset-no-backend": "A new flow, and the service has no backend.",
        BackendGone = "reset-backend-gone": "A packet of a flow whose backend is gone.",
        BackendDown = "reset-backend-down": "A packet of a flow whose backend is down.",
    }
}

reasons! {
    /// Why a packet was dropped.
    DropReason {
        Malformed = "drop-malformed": "To a VIP, with lengths or a version that contradict each other.",
        IpOptions = "drop-ip-options": "To a VIP, with an IPv4 source route.",
        ExtensionHeader = "drop-extension-header": "To a VIP, with an IPv6 extension header that no backend would take from another address, or more of them than are looked at.",
        FragmentTiny = "drop-fragment-tiny": "To a VIP, the first fragment of a datagram, and too short for its headers.",
        FragmentUnknown = "drop-fragment-unknown": "To a VIP, a fragment of a datagram whose first one has not been sent on.",
        FragmentOverlap = "drop-fragment-overlap": "A fragment that brings again what has come already.",
        TtlExpired = "drop-ttl-expired": "No hop left to live.",
        UnknownFlow = "drop-unknown-flow": "To a service, of no known flow, and nothing that could be answered with a reset.",
        NoBackend = "drop-no-backend": "A new UDP flow, and the service has no backend.",
        BackendGone = "drop-backend-gone": "Of a flow whose backend is gone, and nothing that could be answered with a reset.",
        BackendDown = "drop-backend-down": "Of a flow whose backend is down, and nothing that could be answered with a reset.",
        FirstChecks = "drop-first-checks": "A new flow, and the service's first checks are still running.",
        NoNeighbour = "drop-no-neighbour": "The backend's MAC address is not known.",
        NoNatPort = "drop-no-nat-port": "All NAT ports that were tried are in use.",
        FlowTableFull = "drop-flow-table-full": "The flow could not be stored.",
        IcmpUnknownFlow = "drop-icmp-unknown-flow": "An ICMP error about a packet of a service, of no known flow.",
        Fenced = "drop-fenced": "Asks who has a fenced VIP, and this node's lease on it is over.",
        FencedClaim = "drop-fenced-claim": "Says that a fenced VIP is on this node, whose lease on it is over.",
    }
}

/// What kplb decided about a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// Passed to the kernel untouched.
    Pass(PassReason),
    /// Rewritten.
    Forward(ForwardReason),
    /// Answered with a TCP reset.
    Reset(ResetReason),
    /// Dropped.
    Drop(DropReason),
}

const FORWARD_FIRST: u32 = PassReason::ALL.len() as u32;
const RESET_FIRST: u32 = FORWARD_FIRST + ForwardReason::ALL.len() as u32;
const DROP_FIRST: u32 = RESET_FIRST + ResetReason::ALL.len() as u32;

impl Verdict {
    /// How many verdicts there are.
    pub const COUNT: u32 = DROP_FIRST + DropReason::ALL.len() as u32;

    /// Every verdict, in the order of the counters.
    pub fn all() -> impl Iterator<Item = Self> {
        (PassReason::ALL.iter().copied().map(Self::Pass))
            .chain(ForwardReason::ALL.iter().copied().map(Self::Forward))
            .chain(ResetReason::ALL.iter().copied().map(Self::Reset))
            .chain(DropReason::ALL.iter().copied().map(Self::Drop))
    }

    /// Index of the verdict's counter in `VERDICTS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Pass(reason) => reason as u32,
            Self::Forward(reason) => FORWARD_FIRST + reason as u32,
            Self::Reset(reason) => RESET_FIRST + reason as u32,
            Self::Drop(reason) => DROP_FIRST + reason as u32,
        }
    }

    /// The verdict as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.name(),
            Self::Forward(reason) => reason.name(),
            Self::Reset(reason) => reason.name(),
            Self::Drop(reason) => reason.name(),
        }
    }

    /// What the verdict means, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.meaning(),
            Self::Forward(reason) => reason.meaning(),
            Self::Reset(reason) => reason.meaning(),
            Self::Drop(reason) => reason.meaning(),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{collections::HashSet, vec::Vec};

    use super::*;

    #[test]
    fn indices_are_dense_and_in_order() {
        let indices: Vec<u32> = Verdict::all().map(Verdict::index).collect();
        assert_eq!(indices, (0..Verdict::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = Verdict::all().map(Verdict::name).collect();
        assert_eq!(names.len() as u32, Verdict::COUNT);
    }
}
