//! Cases of VLAN tags.

use std::net::IpAddr;

use kplb::plan::Operation;
use kplb_common::{
    fence::{Fencing, Vip},
    flow::Direction,
    net::{TCP, UDP},
    node::{Node, Vlan},
    verdict::{DropReason, PassReason, Verdict},
};
use kplb_tests::{
    frames::{
        ACK, SYN,
        neighbour::{Arp, BROADCAST, Discovery},
        tagged,
    },
    testbed::Hook,
};

use crate::{
    case::{Case, Step},
    scene::{CLIENT_MAC, Family, Flow, Kind, NODE_MAC},
};

/// Ethertypes of IEEE 802.1Q and 802.1ad.
const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;

/// Ethertype and control information of each tag.
type Tags = &'static [(u16, u16)];

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, vlan, right, wrong) in vlans() {
        for (tags_name, tags) in right {
            cases.extend(sent_on(family, vlan).into_iter().map(|case| in_vlan(case, what, tags_name, tags)));
        }
        for (tags_name, tags) in wrong {
            cases.extend(foreign(family, vlan).into_iter().map(|case| in_vlan(case, what, tags_name, tags)));
        }
    }
    cases.push(cut(family));
    cases
}

type Named = (&'static str, Tags);

/// Each VLAN that a node can be told of, with tags that are of it and tags that are not.
fn vlans() -> [(&'static str, Vlan, Vec<Named>, Vec<Named>); 3] {
    [
        (
            "no VLAN",
            Vlan::NONE,
            vec![
                ("a priority", &[(Q, 0xe000)]),
                ("a provider's priority", &[(AD, 0x6000)]),
                ("two priorities", &[(AD, 0x6000), (Q, 0)]),
                ("three priorities", &[(AD, 0x6000), (Q, 0), (Q, 0)]),
            ],
            vec![
                ("a VLAN", &[(Q, 42)]),
                ("a provider's VLAN", &[(AD, 42)]),
                ("a VLAN behind a priority", &[(Q, 0), (Q, 42)]),
                ("four priorities", &[(Q, 0), (Q, 0), (Q, 0), (Q, 0)]),
            ],
        ),
        (
            "VLAN 42",
            Vlan([42, 0]),
            vec![
                ("its tag", &[(Q, 42)]),
                ("its tag with a priority", &[(Q, 0xf000 | 42)]),
                ("its tag, a provider's", &[(AD, 42)]),
                ("its tag and a priority", &[(Q, 42), (Q, 0x2000)]),
                ("a priority and its tag", &[(AD, 0x2000), (Q, 42)]),
            ],
            vec![
                ("no tag", &[]),
                ("a priority", &[(Q, 0xe000)]),
                ("another VLAN", &[(Q, 43)]),
                ("a VLAN with another highest bit", &[(Q, 0x800 | 42)]),
                ("its tag in another VLAN", &[(AD, 100), (Q, 42)]),
                ("another VLAN in its tag", &[(AD, 42), (Q, 100)]),
                ("its tag twice", &[(Q, 42), (Q, 42)]),
            ],
        ),
        (
            "VLAN 42 in VLAN 100",
            Vlan([100, 42]),
            vec![
                ("its tags", &[(AD, 100), (Q, 42)]),
                ("its tags, both a customer's", &[(Q, 100), (Q, 42)]),
                ("its tags with a priority between", &[(AD, 100), (Q, 0), (Q, 42)]),
            ],
            vec![
                ("no tag", &[]),
                ("the outer tag", &[(AD, 100)]),
                ("the inner tag", &[(Q, 42)]),
                ("the tags the other way round", &[(AD, 42), (Q, 100)]),
                ("a third tag", &[(AD, 100), (Q, 42), (Q, 42)]),
            ],
        ),
    ]
}

/// The case with tags on all its frames.
fn in_vlan(mut case: Case, what: &str, tags_name: &str, tags: Tags) -> Case {
    case.name = format!("{what}, {tags_name}: {}", case.name);
    case.packet_in = tagged(&case.packet_in, tags);
    case.packet_out = tagged(&case.packet_out, tags);
    for step in &mut case.setup {
        if let Step::Send(_, frame, _) = step {
            *frame = tagged(frame, tags);
        }
    }
    case
}

fn of_node(family: Family, vlan: Vlan) -> Step {
    Step::Apply(Operation::SetNode(Node { vlan, ..crate::desired(family).node }))
}

fn sent_on(family: Family, vlan: Vlan) -> Vec<Case> {
    let mut cases = Vec::new();
    for (protocol_name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        for (place, kind) in [("remote", Kind::Remote), ("local", Kind::Local)] {
            let flow = Flow::new(family, protocol, kind);
            let name = |what: &str| format!("{what}, {protocol_name}, {place}");
            let established = || [vec![of_node(family, vlan)], flow.established()].concat();
            let fragments = flow.data().carrying(vec![7; 97]).fragments(&[40], 9);
            let mix = u32::from(flow.nat.port() ^ flow.backend.port());
            let on = flow.backend_gets(&flow.data().carrying(vec![7; 97])).fragments(&[40], 9 ^ mix);
            let verdict = flow.verdict(Direction::ToBackend);
            let first = Step::Send(Hook::Ingress, fragments[0].clone(), verdict);
            let bytes = fragments[1].len() as u64 - 14;
            cases.extend([
                Case::forward(name("a first packet"), &flow, &flow.client_sends(SYN))
                    .opens()
                    .after([of_node(family, vlan)]),
                Case::forward(name("data"), &flow, &flow.data()).after(established()),
                Case::reply(name("reply data"), &flow, &flow.reply_data()).after(established()),
                Case {
                    verdict,
                    packet_out: on[1].clone(),
                    ..Case::of_bytes(name("a fragment"), Hook::Ingress, fragments[1].clone())
                }
                .counts_bytes(&flow, Direction::ToBackend, bytes)
                .after(established())
                .after([first]),
            ]);
        }
    }
    for (name, frame) in questions(family) {
        let verdict = Verdict::Drop(DropReason::Fenced);
        cases.push(Case { verdict, ..Case::of_bytes(name, Hook::Ingress, frame) }.after(fenced(family, vlan)));
    }
    cases.push(
        Case {
            verdict: Verdict::Drop(DropReason::FencedClaim),
            ..Case::of_bytes("a claim", Hook::Egress, claim(family))
        }
        .after(fenced(family, vlan)),
    );
    cases
}

/// In another VLAN, these are other addresses.
fn foreign(family: Family, vlan: Vlan) -> Vec<Case> {
    let flow = Flow::new(family, TCP, Kind::Remote);
    let local = Flow::new(family, TCP, Kind::Local);
    let pass = |name: &str, hook, frame: Vec<u8>| Case {
        verdict: Verdict::Pass(PassReason::NotOurs),
        ..Case::of_bytes(name, hook, frame).after(fenced(family, vlan))
    };
    let mut cases = vec![
        pass("a first packet", Hook::Ingress, flow.client_sends(SYN).build()),
        pass("data of no flow", Hook::Ingress, flow.data().build()),
        pass("what a backend here says", Hook::Egress, local.backend_sends(ACK).build()),
        pass("a claim", Hook::Egress, claim(family)),
    ];
    cases.extend(questions(family).map(|(name, frame)| pass(name, Hook::Ingress, frame)));
    cases
}

/// The VIP is fenced, and the lease over.
fn fenced(family: Family, vlan: Vlan) -> [Step; 2] {
    let address = Flow::new(family, TCP, Kind::Remote).vip.ip();
    let fence = Operation::SetVip { address, vip: Vip::new(Fencing::Fenced) };
    [of_node(family, vlan), Step::Apply(fence)]
}

/// Who has the VIP: asked of all, and of this node.
fn questions(family: Family) -> [(&'static str, Vec<u8>); 2] {
    let to = |mac| match (family.ip(101), family.ip(100)) {
        (IpAddr::V4(client), IpAddr::V4(vip)) => {
            Arp::request(CLIENT_MAC, client, vip).with(|arp| arp.destination_mac = mac).build()
        }
        (IpAddr::V6(client), IpAddr::V6(vip)) => {
            let solicitation = Discovery::solicitation(CLIENT_MAC, client, vip);
            solicitation.with(|discovery| discovery.destination_mac = mac).build()
        }
        _ => unreachable!("a family has addresses of one kind"),
    };
    [("a question of all", to(BROADCAST)), ("a question of this node", to(NODE_MAC))]
}

/// This node asks in the VIP's name.
fn claim(family: Family) -> Vec<u8> {
    match (family.ip(100), family.ip(101)) {
        (IpAddr::V4(vip), IpAddr::V4(client)) => Arp::request(NODE_MAC, vip, client).build(),
        (IpAddr::V6(vip), IpAddr::V6(client)) => Discovery::solicitation(NODE_MAC, vip, client).build(),
        _ => unreachable!("a family has addresses of one kind"),
    }
}

/// A tag of which a part is missing is none of ours.
fn cut(family: Family) -> Case {
    let whole = tagged(&Flow::new(family, TCP, Kind::Remote).client_sends(SYN).build(), &[(Q, 0)]);
    Case::of_bytes("a tag cut off", Hook::Ingress, whole[..16].to_vec())
}
