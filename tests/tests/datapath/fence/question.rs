//! Cases of the fence at ingress: who asks for a VIP.

use std::net::{Ipv4Addr, Ipv6Addr};

use kplb_common::verdict::{DropReason, PassReason, Verdict};
use kplb_tests::{
    frames::neighbour::{ADVERTISEMENT, Arp, BROADCAST, Discovery, REPLY},
    testbed::Hook,
};

use super::{
    CLIENT, Gate, NODE, Named, OTHER, OTHER_MAC, VIP, case, cut, every_lease, every_lease_passes, fence, plain, v4, v6,
    with_vlan_tag,
};
use crate::{
    case::Case,
    scene::{CLIENT_MAC, Family, NODE_MAC},
};

/// What becomes of questions.
pub(super) const GATE: Gate =
    Gate { hook: Hook::Ingress, leased: Verdict::Pass(PassReason::Leased), fenced: Verdict::Drop(DropReason::Fenced) };

/// All of them.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, frame) in asking(family, VIP) {
        let what = format!("asks for a VIP {name}");
        cases.extend(every_lease(family, &GATE, &what, &frame));
        cases.extend(cut(family, &GATE, &what, &frame, 14));
        // What this node asks is not our business, unless it is in the name of a VIP.
        let verdict = plain(Hook::Egress, &frame);
        cases.push(case(format!("this node {what}"), Hook::Egress, &frame, verdict).after([fence(family)]));
    }
    for (name, frame) in untouched(family) {
        cases.extend(every_lease_passes(family, GATE.hook, &format!("no question: {name}"), &frame));
    }
    cases
}

/// Everything that is a question for an address.
pub(super) fn asking(family: Family, last: u16) -> Vec<Named> {
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

/// What is no question for a fenced VIP.
fn untouched(family: Family) -> Vec<Named> {
    let mut frames = match family {
        Family::V4 => other_arp(),
        Family::V6 => other_ipv6(),
    };
    for (what, address) in [("another address", OTHER), ("this node's address", NODE), ("the client's address", 102)] {
        let asking = asking(family, address);
        frames.extend(asking.into_iter().map(|(name, frame)| (format!("asks for {what} {name}"), frame)));
    }
    let asking = asking(family, VIP);
    frames.extend(
        asking.into_iter().map(|(name, frame)| (format!("with a VLAN tag, asks {name}"), with_vlan_tag(frame))),
    );
    frames
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
