//! Cases of a flow's life: how it opens, goes on, ends and is forgotten.

use std::time::Duration;

use kplb_common::{
    flow_state::FlowState::{self, *},
    net::{TCP, UDP},
    verdict::ResetReason,
};
use kplb_tests::{
    frames::{ACK, FIN, PSH, RST, SYN},
    testbed::{
        Hook,
        Table::{Flows, HalfOpen},
    },
};

use crate::{
    case::{Case, Step},
    scene::{Family, Flow, Kind, NODE_MAC, OTHER_PORT},
    shape::ConcatAll as _,
    traffic::{BACKEND_ISN, reset_of},
};

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, kind) in [("remote", Kind::Remote), ("local", Kind::Local)] {
        let (tcp, udp) = (Flow::new(family, TCP, kind), Flow::new(family, UDP, kind));
        let of_both = [tcp_life(&tcp), tcp_promotion(&tcp), udp_life(&udp), expiry(&tcp, &udp)].concat_all();
        cases.extend(of_both.into_iter().map(|case| Case { name: format!("{name}: {}", case.name), ..case }));
    }
    cases.extend(client_mac(family));
    cases.extend(egress(family));
    cases
}

fn tcp_life(flow: &Flow) -> Vec<Case> {
    let ends = |flags| flow.client_sends(flags);
    let backend_ends = |flags| flow.backend_sends(flags);
    let both = |state, table| Some((state, table));
    let again = Case::forward("SYN again", flow, &ends(SYN)).after(flow.opened());
    let moved_on = flow.client_sends(SYN).with_tcp(|tcp| tcp.sequence = 0x7777_0000);
    vec![
        Case::forward("SYN", flow, &ends(SYN)).opens().leaves(flow, both(SynSent, HalfOpen)),
        again.leaves(flow, both(SynSent, HalfOpen)),
        Case::reply("SYN-ACK", flow, &backend_ends(SYN | ACK))
            .after(flow.opened())
            .leaves(flow, both(SynAcked, HalfOpen)),
        Case::reply("SYN-ACK again", flow, &backend_ends(SYN | ACK))
            .after(flow.answered())
            .leaves(flow, both(SynAcked, HalfOpen)),
        Case::forward("ACK", flow, &ends(ACK)).after(flow.answered()).leaves(flow, both(Established, Flows)),
        Case::forward("data", flow, &flow.data()).after(flow.established()).leaves(flow, both(Established, Flows)),
        Case::reply("reply data", flow, &flow.reply_data())
            .after(flow.established())
            .leaves(flow, both(Established, Flows)),
        Case::forward("SYN on an established flow", flow, &moved_on)
            .after(flow.established())
            .leaves(flow, both(Established, Flows)),
        Case::forward("FIN", flow, &ends(FIN | ACK)).after(flow.established()).leaves(flow, both(FinFromClient, Flows)),
        Case::forward("FIN again", flow, &ends(FIN | ACK))
            .after(flow.ended_by_client())
            .leaves(flow, both(FinFromClient, Flows)),
        Case::reply("data after the client's FIN", flow, &flow.reply_data())
            .after(flow.ended_by_client())
            .leaves(flow, both(FinFromClient, Flows)),
        Case::reply("the backend's FIN", flow, &backend_ends(FIN | ACK))
            .after(flow.established())
            .leaves(flow, both(FinFromBackend, Flows)),
        Case::reply("the second FIN, of the backend", flow, &backend_ends(FIN | ACK))
            .after(flow.ended_by_client())
            .leaves(flow, both(Closing, Flows)),
        Case::forward("the second FIN, of the client", flow, &ends(FIN | ACK))
            .after(flow.ended_by_backend())
            .leaves(flow, both(Closing, Flows)),
        Case::forward("the last ACK", flow, &ends(ACK)).after(flow.closed()).leaves(flow, both(Closing, Flows)),
        Case::forward("RST", flow, &ends(RST)).after(flow.established()).leaves(flow, both(Closing, Flows)),
        Case::reply("the backend's RST", flow, &backend_ends(RST | ACK))
            .after(flow.established())
            .leaves(flow, both(Closing, Flows)),
        Case::reply("refusal", flow, &backend_ends(RST | ACK))
            .after(flow.opened())
            .leaves(flow, both(Closing, HalfOpen)),
        Case::forward("RST of a half-open flow", flow, &ends(RST))
            .after(flow.opened())
            .leaves(flow, both(Closing, HalfOpen)),
        Case::forward("SYN after the end", flow, &moved_on)
            .after(flow.closed())
            .opens()
            .leaves(flow, both(SynSent, HalfOpen)),
        Case::forward("SYN after a RST", flow, &moved_on)
            .after(flow.reset())
            .opens()
            .leaves(flow, both(SynSent, HalfOpen)),
        Case::forward("SYN after a refusal", flow, &moved_on)
            .after(flow.opened())
            .after([flow.backend_sent(&backend_ends(RST | ACK))])
            .opens()
            .leaves(flow, both(SynSent, HalfOpen)),
        Case::forward("a SYN that is no opening after the end", flow, &ends(SYN | ACK))
            .after(flow.closed())
            .leaves(flow, both(Closing, Flows)),
    ]
}

/// What takes a flow out of the half-open table, and what does not.
fn tcp_promotion(flow: &Flow) -> Vec<Case> {
    let proof = BACKEND_ISN.wrapping_add(1);
    let ack = |number: u32, flags| flow.client_sends(flags).with_tcp(|tcp| tcp.acknowledgement = number);
    let half_open = Some((SynAcked, HalfOpen));
    let established = Some((Established, Flows));
    let later = flow.backend_sends(SYN | ACK).with_tcp(|tcp| tcp.sequence = 0x5000_0000);
    [
        ("ACK of the SYN-ACK, not a byte more", ack(proof, ACK), established),
        ("ACK of more", ack(proof.wrapping_add(0x1000), ACK), established),
        ("ACK of most", ack(proof.wrapping_add(0x7fff_ffff), ACK), established),
        ("ACK with data", ack(proof, ACK | PSH).carrying(*b"GET"), established),
        ("ACK with FIN", ack(proof, ACK | FIN), Some((FinFromClient, Flows))),
        ("ACK of a byte less", ack(proof.wrapping_sub(1), ACK), half_open),
        ("ACK of half the sequence space ahead", ack(proof.wrapping_add(0x8000_0000), ACK), half_open),
        ("data without ACK", ack(proof, PSH).carrying(*b"GET"), half_open),
        ("a SYN-ACK of the client", ack(proof, SYN | ACK), half_open),
        ("a FIN that acknowledges more", ack(0x1234_5678, FIN | ACK), Some((FinFromClient, Flows))),
        ("a FIN that acknowledges too little", ack(proof.wrapping_sub(9), FIN | ACK), half_open),
    ]
    .map(|(name, frame, entry)| Case::forward(name, flow, &frame).after(flow.answered()).leaves(flow, entry))
    .into_iter()
    .chain([
        Case::forward("ACK before the SYN-ACK", flow, &ack(proof, ACK))
            .after(flow.opened())
            .leaves(flow, Some((SynSent, HalfOpen))),
        // What was seen first counts: the client may have acknowledged it already.
        Case::forward("ACK of the first of two SYN-ACKs", flow, &ack(proof, ACK))
            .after(flow.answered())
            .after([flow.backend_sent(&later)])
            .leaves(flow, established),
    ])
    .collect()
}

fn udp_life(flow: &Flow) -> Vec<Case> {
    let (datagram, answer) = (flow.client_sends(0), flow.backend_sends(0));
    let both = |state, table| Some((state, table));
    vec![
        Case::forward("datagram", flow, &datagram).opens().leaves(flow, both(UdpUnreplied, HalfOpen)),
        Case::forward("second datagram", flow, &datagram)
            .after(flow.opened())
            .leaves(flow, both(UdpUnreplied, HalfOpen)),
        Case::reply("answer", flow, &answer).after(flow.opened()).leaves(flow, both(UdpReplied, HalfOpen)),
        Case::reply("second answer", flow, &answer).after(flow.answered()).leaves(flow, both(UdpReplied, HalfOpen)),
        Case::forward("datagram after the answer", flow, &datagram)
            .after(flow.answered())
            .leaves(flow, both(UdpAssured, Flows)),
        Case::forward("datagram of an assured flow", flow, &datagram)
            .after(flow.established())
            .leaves(flow, both(UdpAssured, Flows)),
        Case::reply("answer of an assured flow", flow, &answer)
            .after(flow.established())
            .leaves(flow, both(UdpAssured, Flows)),
    ]
}

const SECOND: Duration = Duration::from_secs(1);
const HALF_OPEN_LIFETIME: Duration = Duration::from_secs(10);
const ESTABLISHED_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const CLOSING_LIFETIME: Duration = Duration::from_secs(10);
const UDP_LIFETIME: Duration = Duration::from_secs(120);

/// Each state a second before and after its lifetime's end.
fn expiry(tcp: &Flow, udp: &Flow) -> Vec<Case> {
    let mut cases = Vec::new();
    let states: [(FlowState, _, Duration); 6] = [
        (SynSent, tcp.opened(), HALF_OPEN_LIFETIME),
        (SynAcked, tcp.answered(), HALF_OPEN_LIFETIME),
        (Established, tcp.established(), ESTABLISHED_LIFETIME),
        (FinFromClient, tcp.ended_by_client(), ESTABLISHED_LIFETIME),
        (FinFromBackend, tcp.ended_by_backend(), ESTABLISHED_LIFETIME),
        (Closing, tcp.closed(), CLOSING_LIFETIME),
    ];
    let data = tcp.data();
    let answer = reset_of(&data, BACKEND_ISN.wrapping_add(1), 0, RST);
    for (state, setup, lifetime) in states {
        let aged = |age| setup.iter().cloned().chain([Step::Age(tcp.forward(), age)]).collect::<Vec<_>>();
        let (young, old) = (aged(lifetime - SECOND), aged(lifetime + SECOND));
        cases.push(Case::forward(format!("{state:?} just young enough"), tcp, &data).after(young));
        cases.push(
            Case::reset(format!("{state:?} too old"), &data, ResetReason::UnknownFlow, &answer).after(old.clone()),
        );
        cases.push(
            Case::forward(format!("SYN on {state:?}, too old"), tcp, &tcp.client_sends(SYN)).after(old.clone()).opens(),
        );
        let late = tcp.reply_data();
        cases.push(late_reply(format!("reply on {state:?}, too old"), tcp, &late).after(old));
    }
    let states = [
        (UdpUnreplied, udp.opened(), HALF_OPEN_LIFETIME),
        (UdpReplied, udp.answered(), HALF_OPEN_LIFETIME),
        (UdpAssured, udp.established(), UDP_LIFETIME),
    ];
    for (state, setup, lifetime) in states {
        let aged = |age| setup.iter().cloned().chain([Step::Age(udp.forward(), age)]).collect::<Vec<_>>();
        let (young, old) = (aged(lifetime - SECOND), aged(lifetime + SECOND));
        cases.push(
            Case::forward(format!("{state:?} just young enough"), udp, &udp.client_sends(0)).after(young.clone()),
        );
        cases.push(
            Case::reply(format!("answer on {state:?} just young enough"), udp, &udp.backend_sends(0)).after(young),
        );
        cases.push(Case::forward(format!("{state:?} too old"), udp, &udp.client_sends(0)).after(old.clone()).opens());
        cases.push(late_reply(format!("answer on {state:?}, too old"), udp, &udp.backend_sends(0)).after(old));
    }
    // Each packet gives another life.
    let mut kept = tcp.established();
    for _ in 0..3 {
        kept.push(Step::Age(tcp.forward(), ESTABLISHED_LIFETIME - SECOND));
        kept.push(tcp.client_sent(&data));
    }
    cases.push(Case::forward("kept alive", tcp, &data).after(kept));
    cases
}

/// A reply of a flow that is no more: the kernel may know better.
fn late_reply(name: String, flow: &Flow, frame: &kplb_tests::frames::Frame) -> Case {
    Case::new(name, flow.reply_hook(), frame)
}

/// Replies go to where the client's frames come from now.
fn client_mac(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in [TCP, UDP] {
        let old = Flow::new(family, protocol, Kind::Remote);
        let new = Flow { client_mac: [2, 0, 0, 0, 2, 2], ..old };
        for (name, setup) in [("half-open", old.answered()), ("established", old.established())] {
            let setup = setup.into_iter().chain([new.client_sent(&new.data())]);
            let case = Case::reply(
                format!("{name} flow of protocol {protocol}, client with a new MAC address"),
                &new,
                &new.reply_data(),
            );
            cases.push(case.after(setup));
        }
        // While no change of the state writes both entries anyway.
        let again = new.client_sent(&new.client_sends(SYN));
        cases.push(
            Case::reply(
                format!("new flow of protocol {protocol}, client with a new MAC address"),
                &new,
                &new.backend_sends(SYN | ACK),
            )
            .after(old.opened().into_iter().chain([again])),
        );
        // The backend's MAC address is none of the client's.
        let elsewhere = old.reply_data().between([[2, 0, 0, 0, 8, 8], NODE_MAC]);
        cases.push(
            Case::reply(format!("protocol {protocol}, reply by another router"), &old, &elsewhere)
                .after(old.established())
                .then([old.backend_sent(&old.reply_data())]),
        );
    }
    cases
}

/// What leaves the node and is not for us.
fn egress(family: Family) -> Vec<Case> {
    let (local, remote) = (Flow::new(family, TCP, Kind::Local), Flow::new(family, TCP, Kind::Remote));
    let client = family.at(102, OTHER_PORT);
    vec![
        Case::new("TC: the node's backend to a client of its own", Hook::Egress, &local.backend_sends(ACK).to(client))
            .after(local.established()),
        Case::new(
            "TC: another service of the node",
            Hook::Egress,
            &local.backend_sends(ACK).from((family.node(), 22).into()),
        )
        .after(local.established()),
        Case::new("TC: as if from the VIP", Hook::Egress, &local.client_sends(ACK).from(local.vip).to(local.client))
            .after(local.established()),
        Case::new("TC: as if from the client", Hook::Egress, &local.client_sends(ACK)).after(local.established()),
        Case::new("TC: as if from a backend behind the wire", Hook::Egress, &remote.backend_sends(ACK))
            .after(remote.established()),
        Case::new(
            "TC: half-open, as if from a backend behind the wire",
            Hook::Egress,
            &remote.backend_sends(SYN | ACK),
        )
        .after(remote.opened())
        .leaves(&remote, Some((SynSent, HalfOpen))),
        // Whatever MAC addresses the kernel has given it.
        Case::reply("TC: by a router", &local, &local.reply_data().between([[2, 0, 0, 0, 1, 9], [2, 0, 0, 0, 7, 7]]))
            .after(local.established()),
        Case::reply("TC: the last hop", &local, &local.reply_data().with_ip(|ip| ip.hops = 1))
            .after(local.established()),
        Case::forward("local: the last hop", &local, &local.data().with_ip(|ip| ip.hops = 1))
            .after(local.established()),
    ]
}
