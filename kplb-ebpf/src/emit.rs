//! From a verdict to an action: the only place that counts verdicts, and the only one that knows action codes.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use kplb_common::verdict::{ForwardReason, Verdict};

use crate::{maps, packet::SkbPacket};

/// What to do with the packet.
enum Action {
    Pass = 1,
    Transmit,
    Drop,
}

impl Action {
    const PASS: u32 = Self::Pass as u32;
    const TRANSMIT: u32 = Self::Transmit as u32;
    const DROP: u32 = Self::Drop as u32;
}

/// A verdict with its action in one register, so that functions that are not inlined can return it: BPF functions return
/// integers only.
#[repr(transparent)]
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Outcome(u32);

impl Outcome {
    /// No verdict yet: another part of the pipeline decides. No action is zero.
    pub const UNDECIDED: Self = Self(0);

    /// A verdict and what is done with the packet.
    #[inline(always)]
    pub const fn new(verdict: Verdict) -> Self {
        let action = match verdict {
            Verdict::Pass(_)
            | Verdict::Forward(
                ForwardReason::ToLocalBackend
                | ForwardReason::ToClientLocal
                | ForwardReason::IcmpToLocalBackend
                | ForwardReason::IcmpToClientLocal,
            ) => Action::Pass,
            Verdict::Forward(
                ForwardReason::ToBackend
                | ForwardReason::ToClient
                | ForwardReason::IcmpToBackend
                | ForwardReason::IcmpToClient,
            )
            | Verdict::Reset(_) => Action::Transmit,
            Verdict::Drop(_) => Action::Drop,
        };
        Self((action as u32) << 8 | verdict.index())
    }

    /// As a number, which is 256 at least.
    #[inline(always)]
    pub const fn to_register(self) -> u32 {
        self.0
    }

    /// From [`Self::to_register`].
    #[inline(always)]
    pub const fn from_register(number: u32) -> Self {
        Self(number)
    }

    /// This outcome, or what `decide` decides.
    #[inline(always)]
    pub fn or_else(self, decide: impl FnOnce() -> Self) -> Self {
        if self.0 == Self::UNDECIDED.0 { decide() } else { self }
    }

    /// Whether the packet was sent on as one of a flow.
    #[inline(always)]
    pub fn is_forward(self) -> bool {
        ForwardReason::ALL.iter().any(|reason| self.index() == Verdict::Forward(*reason).index())
    }

    #[inline(always)]
    const fn action(self) -> u32 {
        self.0 >> 8
    }

    /// Index of the verdict.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 & 0xff
    }
}

impl From<Verdict> for Outcome {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::new(verdict)
    }
}

/// Counts the verdict and returns its XDP action. A failed count changes nothing.
#[inline(always)]
pub fn xdp(outcome: Outcome) -> u32 {
    maps::count_verdict(outcome.index());
    match outcome.action() {
        Action::PASS => xdp_action::XDP_PASS,
        Action::TRANSMIT => xdp_action::XDP_TX,
        _ => xdp_action::XDP_DROP,
    }
}

/// Counts the verdict and returns its TC action at ingress. What is passed is seen by other TC programs, too.
#[inline(always)]
pub fn tc_ingress(packet: &SkbPacket, outcome: Outcome) -> i32 {
    maps::count_verdict(outcome.index());
    match outcome.action() {
        Action::PASS => TC_ACT_UNSPEC,
        Action::TRANSMIT => packet.send_back(),
        _ => TC_ACT_SHOT,
    }
}

/// Counts the verdict and returns its TC action at egress. What is not dropped is seen by other TC programs, too.
#[inline(always)]
pub fn tc_egress(outcome: Outcome) -> i32 {
    maps::count_verdict(outcome.index());
    match outcome.action() {
        Action::DROP => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}
