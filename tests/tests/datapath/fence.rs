//! Cases of the fence: who asks for a VIP, and when that is let through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use kplb::{dataplane::boottime_now_ns, model, plan::Operation};
use kplb_common::{
    fence::{Fencing, Vip},
    verdict::{DropReason, PassReason, Verdict},
};
use kplb_tests::{
    frames::neighbour::{ADVERTISEMENT, Arp, BROADCAST, Discovery, REPLY},
    reference::Lease,
    testbed::{Hook, Testbed},
};

use crate::{
    case::{Case, Step, take},
    scene::{AMPLE, CLIENT_MAC, Family, NAT_PORTS, NODE_MAC},
    shape::ConcatAll as _,
};

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
const CLIENT: u16 = 101;
const VIP: u16 = 100;
const NODE: u16 = 11;
/// Nobody's.
const OTHER: u16 = 99;

const FENCED: Verdict = Verdict::Drop(DropReason::Fenced);
const LEASED: Verdict = Verdict::Pass(PassReason::Leased);

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    [questions(family), untouched(family), cut(family)].concat_all()
}

/// A frame and what is special about it.
type Named = (String, Vec<u8>);

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

/// The VIP is fenced.
fn fence(family: Family) -> Step {
    Step::Apply(Operation::SetVip { address: family.ip(VIP), vip: Vip::new(Fencing::Fenced) })
}

/// What becomes of a frame that is not about a fenced VIP.
fn plain(frame: &[u8]) -> Verdict {
    let is_ip = [[8, 0], [0x86, 0xdd]].contains(&[frame[12], frame[13]]);
    Verdict::Pass(if frame[..6] == NODE_MAC && !is_ip { PassReason::NotIp } else { PassReason::NotOurs })
}

fn case(name: String, frame: &[u8], verdict: Verdict) -> Case {
    Case { verdict, ..Case::of_bytes(name, Hook::Xdp, frame.to_vec()) }
}

/// Each of them with every kind of fence and lease.
fn questions(family: Family) -> Vec<Case> {
    let [this, other] = this_and_other(family);
    let (fresh, over) = (Step::Lease(this, Lease::Fresh), Step::Lease(this, Lease::Over));
    let others = Step::Lease(other, Lease::Fresh);
    let mut cases = Vec::new();
    for (what, frame) in asking(family, VIP) {
        let fenced = |when: &str, verdict, leases: &[&Step]| {
            case(format!("asks for a fenced VIP {what}: {when}"), &frame, verdict)
                .after([fence(family)])
                .after(leases.iter().copied().cloned())
        };
        let open = |when: &str, leases: &[&Step]| {
            case(format!("asks for a VIP without a fence {what}: {when}"), &frame, plain(&frame))
                .after(leases.iter().copied().cloned())
        };
        cases.extend([
            fenced("no lease", FENCED, &[]),
            fenced("lease over", FENCED, &[&over]),
            fenced("lease fresh", LEASED, &[&fresh]),
            fenced("lease renewed after it was over", LEASED, &[&over, &fresh]),
            fenced("lease given up", FENCED, &[&fresh, &over]),
            fenced("the other family's lease fresh", FENCED, &[&others]),
            fenced("both leases fresh", LEASED, &[&fresh, &others]),
            open("no lease", &[]),
            open("lease over", &[&over]),
            open("lease fresh", &[&fresh]),
        ]);
        // What this node asks is not our business.
        let sent = Case::of_bytes(format!("this node asks for a fenced VIP {what}"), Hook::Tc, frame.clone());
        let verdict = if family == Family::V4 { Verdict::Pass(PassReason::NotIp) } else { sent.verdict };
        cases.push(Case { verdict, ..sent }.after([fence(family)]));
    }
    cases
}

/// Everything that is a question for an address.
fn asking(family: Family, last: u16) -> Vec<Named> {
    let named = |(name, frame): (&str, Vec<u8>)| (name.to_owned(), frame);
    match family {
        Family::V4 => {
            let request = Arp::request(CLIENT_MAC, v4(CLIENT), v4(last));
            let probe = request.clone().with(|arp| arp.sender = Ipv4Addr::UNSPECIFIED);
            let to = |arp: &Arp, mac| arp.clone().with(|arp| arp.destination_mac = mac).build();
            let known = request.clone().with(|arp| (arp.destination_mac, arp.target_mac) = (NODE_MAC, NODE_MAC));
            vec![
                ("of all", request.build()),
                ("at this node", to(&request, NODE_MAC)),
                ("at this node, whose MAC address it repeats", known.build()),
                ("at another node", to(&request, OTHER_MAC)),
                ("of a group", to(&request, [1, 0, 0x5e, 0, 0, 18])),
                ("by a probe", probe.build()),
                ("by a probe at this node", to(&probe, NODE_MAC)),
                ("by IEEE 802", request.clone().with(|arp| arp.hardware = 6).build()),
                ("from a MAC address and for another", request.clone().with(|arp| arp.sender_mac = OTHER_MAC).build()),
                ("with padding", request.with(|arp| arp.padding = vec![0; 18]).build()),
            ]
        }
        Family::V6 => {
            let solicitation = Discovery::solicitation(CLIENT_MAC, v6(CLIENT), v6(last));
            let bare = solicitation.clone().with(|nd| nd.options.clear());
            let duplicate = bare.clone().with(|nd| nd.ip.source = Ipv6Addr::UNSPECIFIED.into());
            let nonce = duplicate.clone().with(|nd| nd.options = vec![14, 1, 1, 2, 3, 4, 5, 6]);
            vec![
                ("of its group", solicitation.build()),
                ("at this node", solicitation.clone().to(NODE_MAC, v6(last)).build()),
                ("at this node, without options", bare.clone().to(NODE_MAC, v6(last)).build()),
                ("at this node's MAC address, of its group", {
                    solicitation.clone().with(|nd| nd.destination_mac = NODE_MAC).build()
                }),
                ("at another node", solicitation.clone().to(OTHER_MAC, v6(last)).build()),
                ("of all nodes", {
                    solicitation.clone().to([0x33, 0x33, 0, 0, 0, 1], "ff02::1".parse().expect("an address")).build()
                }),
                ("by a search for duplicates", duplicate.build()),
                ("by a search for duplicates with a nonce", nonce.build()),
                ("without options", bare.build()),
                ("with a flow label and a traffic class", {
                    solicitation.clone().with(|nd| (nd.ip.class, nd.ip.id) = (0xff, 0xffff)).build()
                }),
                ("with padding", solicitation.with(|nd| nd.padding = vec![0xee; 9]).build()),
            ]
        }
    }
    .into_iter()
    .map(named)
    .collect()
}

/// What is no question for a fenced VIP passes, whatever the lease is.
fn untouched(family: Family) -> Vec<Case> {
    let [this, _] = this_and_other(family);
    let mut frames = match family {
        Family::V4 => other_arp(),
        Family::V6 => other_ipv6(),
    };
    for (what, address) in [("another address", OTHER), ("this node's address", NODE), ("the client's address", 102)] {
        let asking = asking(family, address);
        frames.extend(asking.into_iter().map(|(name, frame)| (format!("asks for {what} {name}"), frame)));
    }
    // IEEE 802.1Q.
    for (name, mut frame) in asking(family, VIP) {
        frame.splice(12..12, [0x81, 0, 0, 5]);
        frames.push((format!("with a VLAN tag, asks {name}"), frame));
    }
    let mut cases = Vec::new();
    for (name, frame) in frames {
        for (when, lease) in [("lease over", Lease::Over), ("lease fresh", Lease::Fresh)] {
            let setup = [fence(family), Step::Lease(this, lease)];
            cases.push(case(format!("no question, {when}: {name}"), &frame, plain(&frame)).after(setup));
        }
    }
    cases
}

/// ARP that looks like a question for the VIP.
fn other_arp() -> Vec<Named> {
    let request = Arp::request(CLIENT_MAC, v4(CLIENT), v4(VIP));
    let announcement = Arp::request(OTHER_MAC, v4(VIP), v4(VIP));
    let reply = |arp: &Arp| arp.clone().with(|arp| arp.operation = REPLY);
    let answer = reply(&Arp::request(OTHER_MAC, v4(VIP), v4(CLIENT)));
    let mut frames = vec![
        ("announcement by a request", announcement.clone()),
        ("announcement by a reply", reply(&announcement)),
        ("announcement with its MAC address", announcement.clone().with(|arp| arp.target_mac = OTHER_MAC)),
        ("answer of the VIP", answer.clone()),
        ("answer of the VIP to this node", answer.with(|arp| (arp.target, arp.target_mac) = (v4(NODE), NODE_MAC))),
        ("reply to the VIP", reply(&request)),
        ("the VIP asks", Arp::request(OTHER_MAC, v4(VIP), v4(CLIENT))),
        ("the VIP asks for this node", Arp::request(OTHER_MAC, v4(VIP), v4(NODE))),
        ("probe for another address", Arp::request(CLIENT_MAC, Ipv4Addr::UNSPECIFIED, v4(OTHER))),
        ("RARP", request.clone().with(|arp| arp.ethertype = 0x8035)),
        ("IPv4 by its ethertype", request.clone().with(|arp| arp.ethertype = 0x0800)),
        ("protocol IPv6", request.clone().with(|arp| arp.protocol = 0x86dd)),
        ("protocol 8", request.clone().with(|arp| arp.protocol = 8)),
        ("hardware addresses of 8 bytes", request.clone().with(|arp| arp.lengths = [8, 4])),
        ("hardware addresses of no byte", request.clone().with(|arp| arp.lengths = [0, 4])),
        ("protocol addresses of 16 bytes", request.clone().with(|arp| arp.lengths = [6, 16])),
        ("lengths in the wrong order", request.clone().with(|arp| arp.lengths = [4, 6])),
    ];
    frames.extend([0, 3, 4, 8, 9, 0x0100, 0x0101, 0xffff].map(|operation| {
        ("another operation", request.clone().with(|arp| (arp.operation, arp.padding) = (operation, vec![0; 18])))
    }));
    frames.extend([0, 2, 7, 24, 0x0100, 0x0600].map(|hardware| {
        ("another hardware type", request.clone().with(|arp| (arp.hardware, arp.padding) = (hardware, vec![0; 18])))
    }));
    let to = |mac: [u8; 6], arp: Arp| arp.with(|arp| arp.destination_mac = mac).build();
    let name = |name: &str, arp: &Arp| format!("{name} ({}, {})", arp.operation, arp.hardware);
    let both = |(what, arp): (&str, Arp)| {
        let name = name(what, &arp);
        [(format!("{name} to this node"), to(NODE_MAC, arp.clone())), (format!("{name} to all"), to(BROADCAST, arp))]
    };
    frames.into_iter().flat_map(both).collect()
}

/// IPv6 that looks like a question for the VIP. It is to the VIP's group: what is to the VIP itself is dropped for other
/// reasons, some of it.
fn other_ipv6() -> Vec<Named> {
    let solicitation = Discovery::solicitation(CLIENT_MAC, v6(CLIENT), v6(VIP));
    let changed = |change: fn(&mut Discovery)| solicitation.clone().with(change);
    // Of eight bytes; next is ICMPv6.
    let extended = |number: u8| {
        solicitation.clone().with(|nd| (nd.ip.protocol, nd.ip.options) = (Some(number), vec![58, 0, 1, 4, 0, 0, 0, 0]))
    };
    let mut frames = vec![
        ("forwarded by a router".to_owned(), changed(|nd| nd.ip.hops = 254)),
        ("hop limit of 64".to_owned(), changed(|nd| nd.ip.hops = 64)),
        ("hop limit of 0".to_owned(), changed(|nd| nd.ip.hops = 0)),
        ("code 1".to_owned(), changed(|nd| nd.code = 1)),
        ("code 255".to_owned(), changed(|nd| nd.code = 255)),
        ("advertisement".to_owned(), changed(|nd| (nd.kind, nd.options[0]) = (ADVERTISEMENT, 2))),
        ("a byte too short".to_owned(), changed(|nd| nd.ip.length = Some(23))),
        ("no length".to_owned(), changed(|nd| nd.ip.length = Some(0))),
        ("version 4".to_owned(), changed(|nd| nd.ip.first_byte = Some(0x40))),
        ("version 7".to_owned(), changed(|nd| nd.ip.first_byte = Some(0x70))),
        ("IPv4 by its ethertype".to_owned(), changed(|nd| nd.ethertype = 0x0800)),
        ("TCP by its next header".to_owned(), changed(|nd| nd.ip.protocol = Some(6))),
        ("UDP by its next header".to_owned(), changed(|nd| nd.ip.protocol = Some(17))),
        ("no next header".to_owned(), changed(|nd| nd.ip.protocol = Some(59))),
        ("ICMP by its next header".to_owned(), changed(|nd| nd.ip.protocol = Some(1))),
        (
            "for its group's address".to_owned(),
            changed(|nd| nd.target = "ff02::1:ff00:64".parse().expect("an address")),
        ),
    ];
    frames.extend(
        [0, 128, 129, 133, 134, 137, 143, 255]
            .map(|kind| (format!("ICMPv6 of type {kind}"), solicitation.clone().with(|nd| nd.kind = kind))),
    );
    frames.extend([0, 43, 44, 60].map(|number| (format!("behind extension header {number}"), extended(number))));
    let both = |(name, nd): (String, Discovery)| {
        let to_node = nd.clone().with(|nd| nd.destination_mac = NODE_MAC);
        [(format!("{name}, at this node's MAC address"), to_node.build()), (name, nd.build())]
    };
    frames.into_iter().flat_map(both).collect()
}

/// Frames that end too early, of every length.
fn cut(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, mut frame) in asking(family, VIP) {
        // Without padding and options: 28 bytes of ARP, 24 of ICMPv6.
        let whole = if family == Family::V4 { 42 } else { 78 };
        frame.truncate(whole);
        for length in 14..=whole {
            let frame = &frame[..length];
            let verdict = if length == whole { FENCED } else { plain(frame) };
            cases.push(case(format!("asks {name}, cut to {length}"), frame, verdict).after([fence(family)]));
        }
    }
    cases
}

/// The moment is that of the lease, and the clock is the one that it is given by.
#[test]
fn a_lease_runs_out_at_its_moment() -> Result<()> {
    const LEASE_NS: u64 = 100_000_000;
    for family in [Family::V4, Family::V6] {
        let mut testbed = Testbed::new(&family.configuration(NAT_PORTS), &family.facts(), AMPLE)?;
        take(&mut testbed, &fence(family))?;
        let [this, _] = this_and_other(family);
        let (_, question) = asking(family, VIP).remove(0);
        let expires_ns = boottime_now_ns() + LEASE_NS;
        testbed.leases().renew(this, expires_ns)?;
        loop {
            let before_ns = boottime_now_ns();
            let (verdict, _) = testbed.judge(Hook::Xdp, &question)?;
            let after_ns = boottime_now_ns();
            // A run across the moment may have come to either.
            ensure!(verdict == LEASED || after_ns >= expires_ns, "{} while the lease is fresh", verdict.name());
            ensure!(verdict == FENCED || before_ns < expires_ns, "{} after the lease", verdict.name());
            if before_ns >= expires_ns {
                break;
            }
        }
    }
    Ok(())
}
