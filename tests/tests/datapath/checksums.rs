//! Cases of checksums where sums carry, and of those that are none.

use kplb_common::net::{TCP, UDP};
use kplb_tests::frames::{ACK, Frame, Transport};

use crate::{
    case::Case,
    scene::{Family, Flow, Kind},
};

/// Where one's complement turns around.
const EDGES: [u16; 12] =
    [0x0000, 0x0001, 0x00ff, 0x0100, 0x0101, 0x7fff, 0x8000, 0xfeff, 0xff00, 0xfffd, 0xfffe, 0xffff];

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, kind) in [("remote", Kind::Remote), ("local", Kind::Local)] {
        for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
            let flow = Flow::new(family, protocol, kind);
            let (forward, reply) = (flow.client_sends(ACK), flow.backend_sends(ACK));
            let [forward, reply] = [forward, reply].map(|frame| frame.carrying(*b"sum it up!"));
            for edge in EDGES {
                let before = |frame: &Frame| frame.clone().with_transport_checksum(edge);
                // The payload with which the checksum comes out so.
                let after = |frame: &Frame, out: &Frame| {
                    frame.clone().carrying(out.clone().with_transport_checksum(edge).payload)
                };
                let named = |what: &str| format!("{place} {name} checksum {edge:#06x} {what}");
                cases.extend(
                    [
                        Case::forward(named("before"), &flow, &before(&forward)),
                        Case::forward(named("after"), &flow, &after(&forward, &flow.backend_gets(&forward))),
                        Case::reply(named("before, reply"), &flow, &before(&reply)),
                        Case::reply(named("after, reply"), &flow, &after(&reply, &flow.client_gets(&reply))),
                    ]
                    .map(|case| case.after(flow.established())),
                );
                if family == Family::V4 {
                    let out = flow.backend_gets(&forward).with_ip_checksum(edge);
                    let named = |what: &str| format!("{place} {name} IP checksum {edge:#06x} {what}");
                    cases.extend(
                        [
                            Case::forward(named("before"), &flow, &forward.clone().with_ip_checksum(edge)),
                            Case::forward(named("after"), &flow, &forward.clone().with_ip(|ip| ip.id = out.ip.id)),
                        ]
                        .map(|case| case.after(flow.established())),
                    );
                }
            }
            cases.extend(wrong(place, name, &flow));
        }
        cases.extend(none(place, &Flow::new(family, UDP, kind)));
    }
    cases
}

/// The checksum of a frame's transport.
fn transport_checksum(frame: &Frame) -> u16 {
    let bytes = frame.build();
    let l4 = if frame.ip.source.is_ipv4() { 34 } else { 54 };
    let at = l4 + if matches!(frame.transport, Transport::Tcp(_)) { 16 } else { 6 };
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn with_checksum(frame: &Frame, checksum: u16) -> Frame {
    match frame.transport {
        Transport::Tcp(_) => frame.clone().with_tcp(|tcp| tcp.checksum = Some(checksum)),
        Transport::Udp(_) => frame.clone().with_udp(|udp| udp.checksum = Some(checksum)),
    }
}

/// What was wrong before is as wrong after.
fn wrong(place: &str, name: &str, flow: &Flow) -> Vec<Case> {
    let error = 0x0123;
    let shifted = |frame: &Frame| {
        let (sum, carry) = transport_checksum(frame).overflowing_add(error);
        with_checksum(frame, sum + u16::from(carry))
    };
    let (data, reply) = (flow.data(), flow.reply_data());
    let forward = Case::forward(format!("{place} {name}: a wrong checksum stays wrong"), flow, &shifted(&data));
    let back = Case::reply(format!("{place} {name}: a wrong checksum of a reply stays wrong"), flow, &shifted(&reply));
    let forward = Case { packet_out: shifted(&flow.backend_gets(&data)).build(), ..forward };
    let back = Case { packet_out: shifted(&flow.client_gets(&reply)).build(), ..back };
    [forward, back].map(|case| case.after(flow.established())).into()
}

/// UDP's zero is no checksum, and stays none.
fn none(place: &str, flow: &Flow) -> Vec<Case> {
    let without = |frame: Frame| frame.with_udp(|udp| udp.checksum = Some(0));
    let case = |what: &str| format!("{place} UDP without checksum: {what}");
    vec![
        Case::forward(case("first datagram"), flow, &without(flow.client_sends(0))).opens(),
        Case::forward(case("datagram"), flow, &without(flow.data())).after(flow.established()),
        Case::reply(case("answer"), flow, &without(flow.backend_sends(0))).after(flow.opened()),
        Case::reply(case("later answer"), flow, &without(flow.reply_data())).after(flow.established()),
    ]
}
