//! Cases of the fence: what is let through about a VIP, and when.

mod claim;
mod question;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use kplb::{dataplane::boottime_now_ns, model, plan::Operation};
use kplb_common::{
    fence::{Fencing, Vip},
    verdict::{PassReason, Verdict},
};
use kplb_tests::{
    reference::Lease,
    testbed::{Hook, Testbed},
};

use crate::{
    case::{Case, Step, take},
    scene::{AMPLE, Family, NAT_PORTS, NODE_MAC, everywhere},
    shape::ConcatAll as _,
};

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
const CLIENT: u16 = 101;
const VIP: u16 = 100;
const NODE: u16 = 11;
/// Nobody's.
const OTHER: u16 = 99;

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    [question::cases(family), claim::cases(family)].concat_all()
}

/// A frame and what is special about it.
type Named = (String, Vec<u8>);

/// What the fence makes of a kind of frame.
struct Gate {
    hook: Hook,
    /// The verdict while the lease is fresh.
    leased: Verdict,
    /// The verdict while it is not.
    fenced: Verdict,
}

fn v4(last: u16) -> Ipv4Addr {
    match Family::V4.ip(last) {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => unreachable!("of the other family"),
    }
}

fn v6(last: u16) -> Ipv6Addr {
    match Family::V6.ip(last) {
        IpAddr::V4(_) => unreachable!("of the other family"),
        IpAddr::V6(v6) => v6,
    }
}

fn this_and_other(family: Family) -> [model::Family; 2] {
    match family {
        Family::V4 => [model::Family::V4, model::Family::V6],
        Family::V6 => [model::Family::V6, model::Family::V4],
    }
}

/// An address is a VIP with or without a fence.
fn vip(family: Family, last: u16, fencing: Fencing) -> Step {
    Step::Apply(Operation::SetVip { address: family.ip(last), vip: Vip::new(fencing) })
}

/// The VIP is fenced.
fn fence(family: Family) -> Step {
    vip(family, VIP, Fencing::Fenced)
}

/// What becomes of a frame that is not about a fenced VIP.
fn plain(hook: Hook, frame: &[u8]) -> Verdict {
    // A tag makes it one of another VLAN.
    let may_be_ours = [[8, 0], [0x86, 0xdd], [0x81, 0]].contains(&[frame[12], frame[13]]);
    let is_looked_into = hook == Hook::Egress || frame[..6] == NODE_MAC;
    Verdict::Pass(if is_looked_into && !may_be_ours { PassReason::NotIp } else { PassReason::NotOurs })
}

fn case(name: String, hook: Hook, frame: &[u8], verdict: Verdict) -> Case {
    Case { verdict, ..Case::of_bytes(name, hook, frame.to_vec()) }
}

/// A frame about the VIP with every kind of fence and lease.
fn every_lease(family: Family, gate: &Gate, what: &str, frame: &[u8]) -> Vec<Case> {
    let [this, other] = this_and_other(family);
    let (fresh, over) = (Step::Lease(this, Lease::Fresh), Step::Lease(this, Lease::Over));
    let others = Step::Lease(other, Lease::Fresh);
    let fenced = |when: &str, verdict, leases: &[&Step]| {
        case(format!("{what}, fenced: {when}"), gate.hook, frame, verdict)
            .after([fence(family)])
            .after(leases.iter().copied().cloned())
    };
    let open = |when: &str, leases: &[&Step]| {
        case(format!("{what}, without a fence: {when}"), gate.hook, frame, plain(gate.hook, frame))
            .after(leases.iter().copied().cloned())
    };
    vec![
        fenced("no lease", gate.fenced, &[]),
        fenced("lease over", gate.fenced, &[&over]),
        fenced("lease fresh", gate.leased, &[&fresh]),
        fenced("lease renewed after it was over", gate.leased, &[&over, &fresh]),
        fenced("lease given up", gate.fenced, &[&fresh, &over]),
        fenced("the other family's lease fresh", gate.fenced, &[&others]),
        fenced("both leases fresh", gate.leased, &[&fresh, &others]),
        open("no lease", &[]),
        open("lease over", &[&over]),
        open("lease fresh", &[&fresh]),
    ]
}

/// A frame that the fence has nothing to do with passes, whatever the lease is.
fn every_lease_passes(family: Family, hook: Hook, what: &str, frame: &[u8]) -> Vec<Case> {
    let [this, _] = this_and_other(family);
    let pass = |(when, lease)| {
        let setup = [fence(family), Step::Lease(this, lease)];
        case(format!("{what}, {when}"), hook, frame, plain(hook, frame)).after(setup)
    };
    [("lease over", Lease::Over), ("lease fresh", Lease::Fresh)].into_iter().map(pass).collect()
}

/// A frame about the VIP that ends too early, of every length from `shortest` on.
fn cut(family: Family, gate: &Gate, what: &str, frame: &[u8], shortest: usize) -> Vec<Case> {
    // Without padding and options: 28 bytes of ARP, 24 of ICMPv6.
    let whole = if family == Family::V4 { 42 } else { 78 };
    let cut = |length: usize| {
        let frame = &frame[..length];
        let verdict = if length == whole { gate.fenced } else { plain(gate.hook, frame) };
        case(format!("{what}, cut to {length}"), gate.hook, frame, verdict).after([fence(family)])
    };
    (shortest..=whole).map(cut).collect()
}

/// As in IEEE 802.1Q.
fn with_vlan_tag(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, 5]);
    frame
}

/// The moment is that of the lease, and the clock is the one that it is given by.
#[test]
fn a_lease_runs_out_at_its_moment() -> Result<()> {
    const LEASE_NS: u64 = 100_000_000;
    for (ingress, family) in everywhere() {
        let mut testbed = Testbed::new(ingress, &family.configuration(NAT_PORTS), &family.facts(), AMPLE)?;
        take(&mut testbed, &fence(family))?;
        let [this, _] = this_and_other(family);
        for (gate, (_, frame)) in [
            (question::GATE, question::asking(family, VIP).remove(0)),
            (claim::GATE, claim::claiming(family, VIP).remove(0)),
        ] {
            let expires_ns = boottime_now_ns() + LEASE_NS;
            testbed.leases().renew(this, expires_ns)?;
            loop {
                let before_ns = boottime_now_ns();
                let (verdict, _) = testbed.judge(gate.hook, &frame)?;
                let after_ns = boottime_now_ns();
                // A run across the moment may have come to either.
                ensure!(
                    verdict == gate.leased || after_ns >= expires_ns,
                    "{} while the lease is fresh",
                    verdict.name()
                );
                ensure!(verdict == gate.fenced || before_ns < expires_ns, "{} after the lease", verdict.name());
                if before_ns >= expires_ns {
                    break;
                }
            }
        }
    }
    Ok(())
}
