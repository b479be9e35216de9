//! Cases of the fence at egress: who says where a VIP is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kplb_common::{
    fence::Fencing,
    verdict::{DropReason, PassReason, Verdict},
};
use kplb_tests::{
    frames::neighbour::{ADVERTISEMENT, Arp, BROADCAST, Discovery, REPLY},
    reference::Lease,
    testbed::Hook,
};

use super::{
    CLIENT, Gate, NODE, Named, OTHER, OTHER_MAC, VIP, case, cut, every_lease, every_lease_passes, plain,
    this_and_other, v4, v6, vip, with_vlan_tag,
};
use crate::{
    case::{Case, Step},
    scene::{CLIENT_MAC, Family, NODE_MAC},
};

/// What becomes of claims.
pub(super) const GATE: Gate = Gate {
    hook: Hook::Egress,
    leased: Verdict::Pass(PassReason::LeasedClaim),
    fenced: Verdict::Drop(DropReason::FencedClaim),
};

/// All nodes on the link (RFC 4291, section 2.7.1; RFC 2464, section 7).
const ALL_NODES: ([u8; 6], Ipv6Addr) = ([0x33, 0x33, 0, 0, 0, 1], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));

/// All of them.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, frame) in claiming(family, VIP) {
        let what = format!("claims a VIP {name}");
        cases.extend(every_lease(family, &GATE, &what, &frame));
        // The kernel hands no program a frame that ends before the IPv6 header does.
        let shortest = if family == Family::V4 { 15 } else { 54 };
        cases.extend(cut(family, &GATE, &what, &frame, shortest));
        // From it this node learns where the VIP is.
        cases.extend(every_lease_passes(family, Hook::Ingress, &format!("another node {what}"), &frame));
    }
    for (name, frame) in untouched(family) {
        cases.extend(every_lease_passes(family, GATE.hook, &format!("no claim: {name}"), &frame));
    }
    if family == Family::V6 {
        cases.extend(of_two_addresses());
    }
    cases
}

/// Everything that says whose MAC address an address has.
pub(super) fn claiming(family: Family, last: u16) -> Vec<Named> {
    match family {
        Family::V4 => arp_claims(v4(last)),
        Family::V6 => discovery_claims(v6(last)),
    }
}

fn arp_claims(address: Ipv4Addr) -> Vec<Named> {
    let request = Arp::request(NODE_MAC, address, v4(CLIENT));
    let announcement = Arp::request(NODE_MAC, address, address);
    let to_client = |arp: Arp| arp.with(|arp| (arp.destination_mac, arp.target_mac) = (CLIENT_MAC, CLIENT_MAC));
    let reply = |arp: &Arp| arp.clone().with(|arp| arp.operation = REPLY);
    let changed = |change: fn(&mut Arp)| request.clone().with(change);
    let mut frames = vec![
        ("by a question", request.clone()),
        ("by a question at a host that it knows", to_client(request.clone())),
        ("by a question to a host", changed(|arp| arp.destination_mac = CLIENT_MAC)),
        ("by a question for this node", changed(|arp| arp.target = v4(NODE))),
        ("by a question for nobody", changed(|arp| arp.target = Ipv4Addr::UNSPECIFIED)),
        ("by a question with its own MAC address", changed(|arp| arp.target_mac = NODE_MAC)),
        ("by an announcement", announcement.clone()),
        ("by an announcement with its MAC address", announcement.clone().with(|arp| arp.target_mac = NODE_MAC)),
        ("by an announcement that is a reply", reply(&announcement)),
        ("by an announcement to a host", to_client(announcement)),
        ("by an answer", to_client(reply(&request))),
        ("by an answer to all", reply(&request)),
        ("by IEEE 802", changed(|arp| arp.hardware = 6)),
        ("for another MAC address", changed(|arp| arp.sender_mac = OTHER_MAC)),
        ("from another MAC address", changed(|arp| arp.source_mac = OTHER_MAC)),
        ("with padding", changed(|arp| arp.padding = vec![0; 18])),
    ]
    .into_iter()
    .map(|(name, arp)| (name.to_owned(), arp.build()))
    .collect::<Vec<_>>();
    frames.extend([0, 3, 4, 8, 9, 0x0100, 0x0101, 0xffff].map(|operation| {
        (format!("by operation {operation}"), request.clone().with(|arp| arp.operation = operation).build())
    }));
    frames
}

fn discovery_claims(address: Ipv6Addr) -> Vec<Named> {
    let asks = Discovery::solicitation(NODE_MAC, address, v6(CLIENT));
    let bare = |nd: &Discovery| nd.clone().with(|nd| nd.options.clear());
    let answers = advertisement(address, address).to(CLIENT_MAC, v6(CLIENT));
    let changed = |change: fn(&mut Discovery)| asks.clone().with(change);
    let mut frames = vec![
        ("by a question", asks.clone()),
        ("by a question at a host that it knows", asks.clone().to(CLIENT_MAC, v6(CLIENT))),
        ("by a question without options", bare(&asks)),
        ("by a question from another MAC address", changed(|nd| nd.source_mac = OTHER_MAC)),
        ("by a question with a flow label and a traffic class", changed(|nd| (nd.ip.class, nd.ip.id) = (0xff, 0xffff))),
        ("by a question with padding", changed(|nd| nd.padding = vec![0xee; 9])),
        ("by an announcement", advertisement(address, address)),
        ("by an announcement with padding", advertisement(address, address).with(|nd| nd.padding = vec![0xee; 9])),
        ("by an announcement from this node's address", advertisement(v6(NODE), address)),
        (
            "by an announcement from a link-local address",
            advertisement("fe80::11".parse().expect("an address"), address),
        ),
        ("by an announcement for another MAC address", {
            advertisement(address, address).with(|nd| nd.options[2..].copy_from_slice(&OTHER_MAC))
        }),
        ("by an answer", answers.clone()),
        ("by an answer from this node's address", answers.clone().with(|nd| nd.ip.source = IpAddr::V6(v6(NODE)))),
        ("by an answer without options", bare(&answers)),
        ("by an answer that is about this node", advertisement(address, v6(NODE)).to(CLIENT_MAC, v6(CLIENT))),
        ("by an answer that is about nobody", advertisement(address, Ipv6Addr::UNSPECIFIED)),
    ];
    frames.extend([
        // Solicited; override, too; router, too: RFC 4861, section 4.4.
        ("by an answer that is solicited", answers.clone().with(|nd| nd.flags = 0x4000_0000)),
        ("by an answer that overrides", answers.clone().with(|nd| nd.flags = 0x6000_0000)),
        ("by an answer of a router", answers.with(|nd| nd.flags = 0xe000_0000)),
    ]);
    frames.into_iter().map(|(name, nd)| (name.to_owned(), nd.build())).collect()
}

/// An advertisement to all nodes that the target is at this node.
fn advertisement(source: Ipv6Addr, target: Ipv6Addr) -> Discovery {
    let (mac, address) = ALL_NODES;
    Discovery::solicitation(NODE_MAC, source, target)
        .to(mac, address)
        .with(|nd| (nd.kind, nd.options[0]) = (ADVERTISEMENT, 2))
}

/// An advertisement from one VIP about another is a claim to each of them.
fn of_two_addresses() -> Vec<Case> {
    let family = Family::V6;
    let [this, _] = this_and_other(family);
    let frame = advertisement(v6(OTHER), v6(VIP)).build();
    let pairs = [
        ("neither is fenced", [Fencing::Open, Fencing::Open]),
        ("the source is fenced", [Fencing::Fenced, Fencing::Open]),
        ("the target is fenced", [Fencing::Open, Fencing::Fenced]),
        ("both are fenced", [Fencing::Fenced, Fencing::Fenced]),
    ];
    let mut cases = Vec::new();
    for (which, [source, target]) in pairs {
        for (when, lease, judged) in
            [("lease over", Lease::Over, GATE.fenced), ("lease fresh", Lease::Fresh, GATE.leased)]
        {
            let is_open = (source, target) == (Fencing::Open, Fencing::Open);
            let verdict = if is_open { plain(GATE.hook, &frame) } else { judged };
            let setup = [vip(family, OTHER, source), vip(family, VIP, target), Step::Lease(this, lease)];
            cases.push(case(format!("claims two VIPs, {which}: {when}"), GATE.hook, &frame, verdict).after(setup));
        }
    }
    cases
}

/// What is no claim to a fenced VIP.
fn untouched(family: Family) -> Vec<Named> {
    let mut frames = match family {
        Family::V4 => other_arp(),
        Family::V6 => other_ipv6(),
    };
    for (what, address) in [("another address", OTHER), ("this node's address", NODE), ("the client's address", 102)] {
        let claiming = claiming(family, address);
        frames.extend(claiming.into_iter().map(|(name, frame)| (format!("claims {what} {name}"), frame)));
    }
    let claiming = claiming(family, VIP);
    frames.extend(claiming.into_iter().map(|(name, frame)| (format!("with a VLAN tag, {name}"), with_vlan_tag(frame))));
    frames
}

/// ARP that looks like a claim to the VIP.
fn other_arp() -> Vec<Named> {
    let request = Arp::request(NODE_MAC, v4(VIP), v4(CLIENT));
    let asks = Arp::request(NODE_MAC, v4(NODE), v4(VIP));
    let changed = |change: fn(&mut Arp)| request.clone().with(change);
    let mut frames = vec![
        ("a question for the VIP".to_owned(), asks.clone()),
        ("a probe for the VIP".to_owned(), asks.clone().with(|arp| arp.sender = Ipv4Addr::UNSPECIFIED)),
        ("an answer to the VIP".to_owned(), asks.with(|arp| arp.operation = REPLY)),
        ("RARP".to_owned(), changed(|arp| arp.ethertype = 0x8035)),
        ("IPv4 by its ethertype".to_owned(), changed(|arp| arp.ethertype = 0x0800)),
        ("protocol IPv6".to_owned(), changed(|arp| arp.protocol = 0x86dd)),
        ("protocol 8".to_owned(), changed(|arp| arp.protocol = 8)),
        ("hardware addresses of 8 bytes".to_owned(), changed(|arp| arp.lengths = [8, 4])),
        ("hardware addresses of no byte".to_owned(), changed(|arp| arp.lengths = [0, 4])),
        ("protocol addresses of 16 bytes".to_owned(), changed(|arp| arp.lengths = [6, 16])),
        ("lengths in the wrong order".to_owned(), changed(|arp| arp.lengths = [4, 6])),
    ];
    frames
        .extend([0, 2, 7, 24, 0x0100, 0x0600].map(|hardware| {
            (format!("hardware type {hardware}"), request.clone().with(|arp| arp.hardware = hardware))
        }));
    let to = |mac: [u8; 6], arp: Arp| arp.with(|arp| arp.destination_mac = mac).build();
    let both = |(name, arp): (String, Arp)| {
        [(format!("{name} to a host"), to(CLIENT_MAC, arp.clone())), (format!("{name} to all"), to(BROADCAST, arp))]
    };
    frames.into_iter().flat_map(both).collect()
}

/// IPv6 that looks like a claim to the VIP.
fn other_ipv6() -> Vec<Named> {
    let asks = Discovery::solicitation(NODE_MAC, v6(VIP), v6(CLIENT));
    let says = advertisement(v6(VIP), v6(VIP));
    let duplicate = Discovery::solicitation(NODE_MAC, Ipv6Addr::UNSPECIFIED, v6(VIP)).with(|nd| nd.options.clear());
    let mut frames = vec![
        ("a question for the VIP".to_owned(), Discovery::solicitation(NODE_MAC, v6(NODE), v6(VIP))),
        ("a search for duplicates of the VIP".to_owned(), duplicate.clone()),
        (
            "a search for duplicates with a nonce".to_owned(),
            duplicate.with(|nd| nd.options = vec![14, 1, 1, 2, 3, 4, 5, 6]),
        ),
        ("an answer to the VIP".to_owned(), advertisement(v6(NODE), v6(NODE)).to(CLIENT_MAC, v6(VIP))),
    ];
    for (what, claim) in [("question", &asks), ("announcement", &says)] {
        let mut push = |name: String, change: &dyn Fn(&mut Discovery)| {
            frames.push((format!("{what} {name}"), claim.clone().with(change)));
        };
        for hops in [0, 1, 64, 254] {
            push(format!("with a hop limit of {hops}"), &|nd| nd.ip.hops = hops);
        }
        for code in [1, 255] {
            push(format!("of code {code}"), &|nd| nd.code = code);
        }
        for kind in [0, 128, 129, 133, 134, 137, 143, 255] {
            push(format!("of type {kind}"), &|nd| nd.kind = kind);
        }
        for length in [0, 8, 23] {
            push(format!("of {length} bytes by its header"), &|nd| nd.ip.length = Some(length));
        }
        for first in [0x40, 0x50, 0x70] {
            push(format!("that begins with {first:#x}"), &|nd| nd.ip.first_byte = Some(first));
        }
        for next_header in [0, 1, 6, 17, 43, 44, 59, 60] {
            push(format!("of next header {next_header}"), &|nd| nd.ip.protocol = Some(next_header));
        }
        // Of eight bytes; next is ICMPv6.
        for number in [0, 43, 44, 60] {
            push(format!("behind extension header {number}"), &|nd| {
                (nd.ip.protocol, nd.ip.options) = (Some(number), vec![58, 0, 1, 4, 0, 0, 0, 0]);
            });
        }
        push("that is IPv4 by its ethertype".to_owned(), &|nd| nd.ethertype = 0x0800);
    }
    frames.into_iter().map(|(name, nd)| (name, nd.build())).collect()
}
