//! Cases of packets that cannot be sent on: what is answered, and what is dropped.

use kplb::plan::Operation;
use kplb_common::{
    flow_state::FlowState::{Established, SynSent, UdpUnreplied},
    net::{TCP, UDP},
    verdict::{DropReason, ResetReason},
};
use kplb_tests::{
    frames::{ACK, FIN, Frame, PSH, RST, SYN},
    testbed::{
        Hook,
        Table::{Flows, HalfOpen},
    },
};

use crate::{
    case::{Case, FULL_AT, Step, Tables},
    scene::{Family, Flow, Kind},
    shape::ConcatAll as _,
    traffic::{BACKEND_ISN, CLIENT_ISN, reset_of},
};

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    [unknown(family), resets(family), none(family), hops(family), neighbours(family), full(family)].concat_all()
}

/// Packets of no flow.
fn unknown(family: Family) -> Vec<Case> {
    let (tcp, udp) = (Flow::new(family, TCP, Kind::Remote), Flow::new(family, UDP, Kind::Remote));
    let unanswered = |name: &str, frame: Frame| Case::drop(name, &frame, DropReason::UnknownFlow);
    vec![
        unanswered("unknown RST", tcp.client_sends(RST)),
        unanswered("unknown RST with ACK", tcp.client_sends(RST | ACK)),
        unanswered("unknown SYN with RST", tcp.client_sends(SYN | RST)),
        unanswered("every flag", tcp.client_sends(0xff)),
        // The node's own connections to backends may have any port.
        Case::new("unknown RST of a backend", Hook::Ingress, &tcp.backend_sends(RST)),
        Case::new("unknown answer of a backend", Hook::Ingress, &udp.backend_sends(0)),
        Case::new("unknown data of a backend", Hook::Ingress, &tcp.reply_data()),
        Case::new("unknown SYN-ACK of a backend", Hook::Ingress, &tcp.backend_sends(SYN | ACK)),
    ]
}

/// Every form of a reset: with the number that was acknowledged, or acknowledging all that was sent.
fn resets(family: Family) -> Vec<Case> {
    let flow = Flow::new(family, TCP, Kind::Remote);
    let frame = |flags, sequence: u32, acknowledgement: u32, data: &[u8]| {
        flow.client_sends(flags).carrying(data).with_tcp(|tcp| {
            tcp.sequence = sequence;
            tcp.acknowledgement = acknowledgement;
        })
    };
    let options = |frame: Frame| frame.with_tcp(|tcp| tcp.options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    let padded = |frame: Frame| frame.with(|f| f.padding = vec![0xee; 33]);
    let (with_ack, without) = (RST, RST | ACK);
    let most = 0xffff_ffff;
    let table = [
        ("ACK", frame(ACK, 5, 0xdead_beef, b""), (0xdead_beef, 0, with_ack)),
        ("ACK of 0", frame(ACK, 5, 0, b""), (0, 0, with_ack)),
        ("data", frame(ACK | PSH, 5, 77, b"data"), (77, 0, with_ack)),
        ("FIN with ACK", frame(FIN | ACK, 5, most, b""), (most, 0, with_ack)),
        ("SYN with ACK", frame(SYN | ACK, 5, 78, b""), (78, 0, with_ack)),
        ("SYN and FIN with ACK", frame(SYN | FIN | ACK, 5, 78, b"x"), (78, 0, with_ack)),
        ("data with options and padding", padded(options(frame(ACK, 5, 79, b"abc"))), (79, 0, with_ack)),
        ("no flag", frame(0, 1000, 9, b""), (0, 1000, without)),
        ("data without ACK", frame(PSH, 1000, 9, b"12345"), (0, 1005, without)),
        ("data of odd length with options", options(frame(PSH, 1000, 9, b"123")), (0, 1003, without)),
        ("data without ACK and padding", padded(frame(PSH, 1000, 9, b"12345")), (0, 1005, without)),
        ("FIN without ACK", frame(FIN, 1000, 9, b""), (0, 1001, without)),
        ("FIN without ACK and data", frame(FIN, 1000, 9, b"12"), (0, 1003, without)),
        ("SYN and FIN", frame(SYN | FIN, 1000, 9, b""), (0, 1002, without)),
        ("SYN and FIN with data", frame(SYN | FIN, 1000, 9, b"1234"), (0, 1006, without)),
        ("a number that wraps", frame(FIN, most, 9, b""), (0, 0, without)),
        ("a number that wraps by data", frame(PSH, most - 2, 9, b"12345"), (0, 2, without)),
        ("the last hop", frame(ACK, 5, 6, b"").with_ip(|ip| ip.hops = 1), (6, 0, with_ack)),
        ("much data", frame(PSH, 1000, 9, &[7; 1400]), (0, 2400, without)),
        ("more data than a page", frame(PSH, 1000, 9, &[7; 5000]), (0, 6000, without)),
        ("DSCP", frame(ACK, 5, 80, b"").with_ip(|ip| ip.class = 0xb8), (80, 0, with_ack)),
        ("ECN and URG", frame(ACK | 0xe0, 5, 81, b"").with_tcp(|tcp| tcp.urgent = 7), (81, 0, with_ack)),
        ("a wrong checksum", frame(ACK, 5, 82, b"").with_tcp(|tcp| tcp.checksum = Some(1)), (82, 0, with_ack)),
    ];
    table
        .into_iter()
        .map(|(name, frame, (sequence, acknowledgement, flags))| {
            let answer = reset_of(&frame, sequence, acknowledgement, flags);
            assert_eq!(answer.build().len(), frame.build().len(), "the frame keeps its length");
            Case::reset(format!("reset of {name}"), &frame, ResetReason::UnknownFlow, &answer)
        })
        .collect()
}

/// The service has no backend.
fn none(family: Family) -> Vec<Case> {
    let (tcp, udp) = (Flow::new(family, TCP, Kind::Empty), Flow::new(family, UDP, Kind::Empty));
    let remote = Flow::new(family, TCP, Kind::Remote);
    let syn = tcp.client_sends(SYN);
    let data = syn.clone().carrying(*b"early").with(|f| f.padding = vec![3; 3]);
    let ack = tcp.client_sends(ACK);
    let no_ring = [Step::Apply(Operation::RemoveRing { service: 0 })];
    let other_syn = remote.client_sends(SYN);
    let answer = |frame: &Frame, n: u32| reset_of(frame, 0, CLIENT_ISN.wrapping_add(n), RST | ACK);
    vec![
        Case::reset("no backend: SYN", &syn, ResetReason::NoBackend, &answer(&syn, 1)).leaves(&tcp, None),
        Case::reset("no backend: SYN with data", &data, ResetReason::NoBackend, &answer(&data, 6)),
        Case::reset("no ring: SYN", &other_syn, ResetReason::NoBackend, &answer(&other_syn, 1)).after(no_ring),
        Case::reset(
            "no backend: ACK",
            &ack,
            ResetReason::UnknownFlow,
            &reset_of(&ack, BACKEND_ISN.wrapping_add(1), 0, RST),
        ),
        Case::drop("no backend: RST", &tcp.client_sends(RST), DropReason::UnknownFlow),
        Case::drop("no backend: datagram", &udp.client_sends(0), DropReason::NoBackend).leaves(&udp, None),
    ]
}

/// The last hop.
fn hops(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let flow = Flow::new(family, protocol, Kind::Remote);
        let left = |frame: Frame, hops| frame.with_ip(|ip| ip.hops = hops);
        let before = if protocol == TCP { SynSent } else { UdpUnreplied };
        for hops in [0, 1] {
            let expired = |what: &str, frame: &Frame| {
                Case::drop(format!("{name} with {hops} hops left: {what}"), frame, DropReason::TtlExpired)
            };
            cases.extend([
                expired("first packet", &left(flow.client_sends(SYN), hops)).leaves(&flow, None),
                expired("first answer", &left(flow.backend_sends(SYN | ACK), hops))
                    .after(flow.opened())
                    .leaves(&flow, Some((before, HalfOpen))),
                expired("data", &left(flow.data(), hops)).after(flow.established()),
                expired("reply data", &left(flow.reply_data(), hops)).after(flow.established()),
            ]);
        }
        cases.extend([
            Case::forward(format!("{name} with 2 hops left"), &flow, &left(flow.client_sends(SYN), 2)).opens(),
            Case::forward(format!("{name} with 255 hops left"), &flow, &left(flow.data(), 255))
                .after(flow.established()),
            Case::reply(format!("{name} reply with 2 hops left"), &flow, &left(flow.reply_data(), 2))
                .after(flow.established()),
        ]);
    }
    let tcp = Flow::new(family, TCP, Kind::Remote);
    let fin = tcp.client_sends(FIN | ACK).with_ip(|ip| ip.hops = 1);
    cases.push(
        Case::drop("a FIN that does not arrive ends nothing", &fin, DropReason::TtlExpired)
            .after(tcp.established())
            .leaves(&tcp, Some((Established, Flows))),
    );
    cases
}

/// The backend's MAC address.
fn neighbours(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let unresolved = Flow::new(family, protocol, Kind::Unresolved);
        let known = Flow::new(family, protocol, Kind::Remote);
        let moved = Flow { backend_mac: [2, 0, 0, 0, 3, 99], ..known };
        let lost = known.established().into_iter().chain([Step::Apply(known.set_backend_mac(family, [0; 6]))]);
        let moves =
            known.established().into_iter().chain([Step::Apply(known.set_backend_mac(family, moved.backend_mac))]);
        let found = [Step::Apply(unresolved.set_backend_mac(family, unresolved.backend_mac))];
        let first = unresolved.client_sends(SYN);
        cases.extend([
            Case::drop(format!("{name} to an unknown neighbour"), &first, DropReason::NoNeighbour)
                .leaves(&unresolved, None),
            Case::forward(format!("{name} to a neighbour found since"), &unresolved, &first).after(found).opens(),
            Case::drop(format!("{name} to a neighbour lost since"), &known.data(), DropReason::NoNeighbour).after(lost),
            Case::forward(format!("{name} to a neighbour with a new MAC address"), &moved, &moved.data()).after(moves),
            Case::drop(
                format!("{name} to an unknown neighbour by the last hop"),
                &first.clone().with_ip(|ip| ip.hops = 1),
                DropReason::TtlExpired,
            ),
        ]);
    }
    cases
}

/// A flow that cannot be stored leaves nothing behind.
fn full(family: Family) -> Vec<Case> {
    assert_eq!(FULL_AT, 3);
    let mut cases = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let flow = Flow::new(family, protocol, Kind::Remote);
        let other = flow.of_client(family.at(102, 20_001), 20_001);
        cases.push(
            Case::drop(format!("{name}: no room for a flow"), &other.client_sends(SYN), DropReason::FlowTableFull)
                .after(flow.opened())
                .leaves(&other, None)
                // Twice, for what was left behind would be found now.
                .then([Step::Send(
                    Hook::Ingress,
                    other.client_sends(SYN).build(),
                    kplb_common::verdict::Verdict::Drop(DropReason::FlowTableFull),
                )]),
        );
    }
    cases.into_iter().map(|case| Case { tables: Tables::Full, ..case }).collect()
}
