//! Where a packet meets a program, and what becomes of it there.

use anyhow::{Context as _, Result};
use kplb::dataplane::ModeChoice;
use kplb_common::verdict::{ForwardReason, Verdict};

/// Of `include/uapi/linux/pkt_cls.h`.
pub(super) const TC_ACT_REDIRECT: u32 = 7;

/// Where a packet passes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hook {
    /// It comes in: `kplb_xdp`, or `kplb_tc_ingress` in its place.
    Ingress,
    /// It leaves: `kplb_tc`.
    Egress,
}

/// Which program is at ingress.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ingress {
    /// `kplb_xdp`.
    Xdp,
    /// `kplb_tc_ingress`.
    Tc,
}

impl Ingress {
    /// Does something with each.
    ///
    /// # Errors
    /// The first, and with which it was.
    pub fn each(mut act: impl FnMut(Self) -> Result<()>) -> Result<()> {
        [Self::Xdp, Self::Tc].into_iter().try_for_each(|ingress| act(ingress).with_context(|| format!("{ingress:?}")))
    }

    pub(super) const fn mode(self) -> ModeChoice {
        match self {
            Self::Xdp => ModeChoice::Native,
            Self::Tc => ModeChoice::Tc,
        }
    }

    /// The action that a verdict comes to at a hook: an `XDP_*` or `TC_ACT_*` code of `include/uapi/linux`.
    pub fn action(self, hook: Hook, verdict: Verdict) -> u32 {
        const XDP_DROP: u32 = 1;
        const XDP_PASS: u32 = 2;
        const XDP_TX: u32 = 3;
        const TC_ACT_UNSPEC: u32 = (-1_i32).cast_unsigned();
        const TC_ACT_SHOT: u32 = 2;
        let [pass, drop, send] = match (hook, self) {
            (Hook::Ingress, Self::Xdp) => [XDP_PASS, XDP_DROP, XDP_TX],
            (Hook::Ingress, Self::Tc) => [TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT],
            // Whatever passes here is sent already.
            (Hook::Egress, _) => [TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_UNSPEC],
        };
        match verdict {
            Verdict::Pass(_) | Verdict::Forward(ForwardReason::ToLocalBackend | ForwardReason::IcmpToLocalBackend) => {
                pass
            }
            Verdict::Forward(_) | Verdict::Reset(_) => send,
            Verdict::Drop(_) => drop,
        }
    }
}
