//! Cases of ICMP errors: about packets that kplb has sent on, about others, and what only looks like one.

use std::time::Duration;

use kplb::plan::Operation;
use kplb_common::{
    backend::{Backend, BackendState},
    flow::Direction,
    net::{TCP, UDP},
    verdict::{DropReason, ForwardReason, PassReason, Verdict},
};
use kplb_tests::{
    frames::{ACK, Frame, Ip, SYN, Transport, icmp::IcmpError},
    testbed::Hook,
};

use crate::{
    case::{Case, Step},
    scene::{Family, Flow, KEPT_PORT, Kind, NODE_MAC, Place},
    shape::ConcatAll as _,
};

/// A router, beyond which clients and backends may be.
const ROUTER: u16 = 99;
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 4, 1];

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    [translated(family), quotations(family), damaged(family), refused(family), unknown(family), not_errors(family)]
        .concat_all()
}

/// An error about a packet of a flow: as it comes, and as it is sent on.
#[derive(Clone)]
struct Told {
    flow: Flow,
    hook: Hook,
    verdict: Verdict,
    /// The packet as whoever complains has seen it.
    seen: Frame,
    /// The packet as it was sent.
    sent: Frame,
    arrives: IcmpError,
    leaves: IcmpError,
}

impl Told {
    /// The error of a router about a packet that went in this direction, quoting all of it.
    fn about(family: Family, flow: Flow, direction: Direction) -> Self {
        let (sent, seen) = match direction {
            Direction::ToBackend => (flow.data(), flow.backend_gets(&flow.data())),
            Direction::ToClient => (flow.reply_data(), flow.client_gets(&flow.reply_data())),
        };
        // A hop further on.
        let seen = seen.one_hop_on();
        let sent = sent.with_ip(|ip| ip.hops = seen.ip.hops);
        let router = family.ip(ROUTER);
        let (hook, reason) = match (direction, flow.place) {
            (Direction::ToBackend, Place::Remote) => (Hook::Ingress, ForwardReason::IcmpToClient),
            (Direction::ToBackend, Place::Local) => (Hook::Egress, ForwardReason::IcmpToClientLocal),
            (Direction::ToClient, Place::Remote) => (Hook::Ingress, ForwardReason::IcmpToBackend),
            (Direction::ToClient, Place::Local) => (Hook::Ingress, ForwardReason::IcmpToLocalBackend),
        };
        let macs = if hook == Hook::Egress { [NODE_MAC, flow.client_mac] } else { [ROUTER_MAC, NODE_MAC] };
        let arrives = IcmpError::too_big(macs, router, seen.ip.source, Vec::new());
        let leaves = arrives.clone().with(|error| {
            error.ip.destination = sent.ip.source;
            if reason != ForwardReason::IcmpToLocalBackend {
                error.ip.source = sent.ip.destination;
            }
            if hook == Hook::Ingress && flow.place == Place::Remote {
                error.ip.hops -= 1;
                error.source_mac = NODE_MAC;
                error.destination_mac = match direction {
                    Direction::ToBackend => flow.client_mac,
                    Direction::ToClient => flow.backend_mac,
                };
            }
        });
        Self { flow, hook, verdict: Verdict::Forward(reason), seen, sent, arrives, leaves }.quoting(usize::MAX)
    }

    /// Quoting so many bytes of TCP or UDP.
    fn quoting(mut self, n: usize) -> Self {
        let seen = self.seen.build()[14..].to_vec();
        let mut sent = self.sent.build()[14..].to_vec();
        let l4 = seen.len() - self.seen.payload.len() - l4_length(&self.seen);
        let end = seen.len().min(l4.saturating_add(n));
        // A checksum of which not all is quoted cannot be mended.
        let checksum = l4 + if self.flow.protocol == TCP { 16 } else { 6 };
        if end < checksum + 2 {
            sent[checksum..].copy_from_slice(&seen[checksum..]);
        }
        self.arrives.quote = seen[..end].to_vec();
        self.leaves.quote = sent[..end].to_vec();
        self
    }

    /// With a change of the packet that it is about.
    fn of(mut self, change: impl Fn(Frame) -> Frame) -> Self {
        (self.seen, self.sent) = (change(self.seen), change(self.sent));
        self.quoting(usize::MAX)
    }

    /// With a change of the error that does not concern what is translated.
    fn with(mut self, change: impl Fn(&mut IcmpError)) -> Self {
        change(&mut self.arrives);
        change(&mut self.leaves);
        self
    }

    /// It is sent on.
    fn case(self, name: impl Into<String>) -> Case {
        let setup = self.flow.established();
        Case {
            verdict: self.verdict,
            packet_out: self.leaves.build(),
            ..Case::of_bytes(name, self.hook, self.arrives.build())
        }
        .after(setup)
    }

    /// It is not, and stays as it is.
    fn stays(self, name: impl Into<String>, verdict: Verdict) -> Case {
        let setup = self.flow.established();
        Case { verdict, ..Case::of_bytes(name, self.hook, self.arrives.build()) }.after(setup)
    }

    fn passes(self, name: impl Into<String>) -> Case {
        self.stays(name, Verdict::Pass(PassReason::NotOurs))
    }
}

fn ports(frame: &Frame) -> (u16, u16) {
    match &frame.transport {
        Transport::Tcp(tcp) => (tcp.source, tcp.destination),
        Transport::Udp(udp) => (udp.source, udp.destination),
    }
}

fn l4_length(frame: &Frame) -> usize {
    match &frame.transport {
        Transport::Tcp(tcp) => 20 + tcp.options.len(),
        Transport::Udp(_) => 8,
    }
}

/// Both protocols, places and directions, with what they are called.
fn all(family: Family) -> Vec<(String, Told)> {
    let mut all = Vec::new();
    for (protocol_name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        for (place, kind) in [("remote", Kind::Remote), ("local", Kind::Local)] {
            for (whose, direction) in [("client's", Direction::ToBackend), ("backend's", Direction::ToClient)] {
                let told = Told::about(family, Flow::new(family, protocol, kind), direction);
                all.push((format!("{protocol_name}, {place}, about the {whose} packet"), told));
            }
        }
    }
    all
}

/// Types and codes of errors that are translated.
fn kinds(family: Family) -> Vec<(u8, u8)> {
    match family {
        Family::V4 => (0..16).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0), (12, 1), (12, 2)]).collect(),
        Family::V6 => (0..8).map(|code| (1, code)).chain([(2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]).collect(),
    }
}

/// Every type, from every reporter, at every age of a flow.
fn translated(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, told) in all(family) {
        let flow = told.flow;
        for kind in kinds(family) {
            cases.push(told.clone().with(|error| error.kind = kind).case(format!("error {kind:?}: {name}")));
        }
        let mut by_the_end = told.clone();
        by_the_end.arrives.ip.source = told.seen.ip.destination;
        if told.verdict == Verdict::Forward(ForwardReason::IcmpToLocalBackend) {
            by_the_end.leaves.ip.source = told.seen.ip.destination;
        }
        let half_open =
            Case { setup: flow.opened(), ..told.clone().case(format!("error in a half-open flow: {name}")) };
        cases.extend([
            by_the_end.case(format!("error of the other end: {name}")),
            half_open,
            Case { setup: flow.answered(), ..told.clone().case(format!("error in an answered flow: {name}")) },
            told.clone().with(|error| error.rest = [1, 2, 3, 4]).case(format!("error with an odd MTU: {name}")),
            told.clone().with(|error| error.ip.class = 0xc0).case(format!("error with a class of service: {name}")),
            told.clone().with(|error| error.padding = vec![0xee; 9]).case(format!("padded error: {name}")),
            told.clone().with(|error| with_headers(&mut error.ip)).case(format!("error with odd headers: {name}")),
            // A router's error says nothing of where the client is.
            Case::reply(format!("reply after an error: {name}"), &flow, &flow.reply_data())
                .after(flow.established())
                .after([Step::Send(told.hook, told.arrives.build(), told.verdict)]),
        ]);
    }
    cases
}

/// Gives an error an IPv4 option or an IPv6 extension header.
fn with_headers(ip: &mut Ip) {
    if ip.source.is_ipv4() {
        ip.options = vec![148, 4, 0, 0];
    } else {
        (ip.protocol, ip.options) = (Some(60), vec![58, 0, 1, 4, 0, 0, 0, 0]);
    }
}

/// How much is quoted, and what.
fn quotations(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, told) in all(family) {
        for n in 8..=24 {
            let cut = told.clone().quoting(n);
            cases.push(cut.clone().case(format!("{n} bytes quoted: {name}")));
            // The frame's padding is none of the quotation.
            cases.push(cut.with(|error| error.padding = vec![0; 40]).case(format!("{n} bytes quoted, padded: {name}")));
        }
        for n in 0..8 {
            cases.push(told.clone().quoting(n).passes(format!("{n} bytes quoted: {name}")));
        }
        cases.push(
            told.clone()
                .with(|error| error.quote.extend([0; 70]))
                .case(format!("an extension behind the quotation: {name}")),
        );
        if family == Family::V4 {
            for words in [1, 3, 10] {
                let long = told.clone().of(|frame| frame.with_ip(|ip| ip.options = vec![1; words * 4]));
                cases.push(long.clone().case(format!("{words} words of options quoted: {name}")));
                cases.push(long.quoting(8).case(format!("{words} words of options and 8 bytes quoted: {name}")));
            }
            let first = told.clone().of(|frame| frame.with_ip(|ip| ip.fragment = 0x2000));
            let later = told.clone().of(|frame| frame.with_ip(|ip| ip.fragment = 0x2001));
            cases.push(first.case(format!("a first fragment quoted: {name}")));
            cases.push(later.passes(format!("a later fragment quoted: {name}")));
        }
        if family == Family::V6 {
            let protocol = told.flow.protocol;
            let header = move |number, rest: [u8; 6]| {
                let options = [&[protocol, 0], &rest[..]].concat();
                move |frame: Frame| frame.with_ip(|ip| (ip.protocol, ip.options) = (Some(number), options.clone()))
            };
            let extended = told.clone().of(header(60, [1, 4, 0, 0, 0, 0]));
            cases.push(extended.clone().case(format!("an extension header quoted: {name}")));
            cases.push(extended.quoting(8).case(format!("an extension header and 8 bytes quoted: {name}")));
            let whole = told.clone().of(header(44, [0, 0, 0x7a, 0x5a, 0x12, 0x34]));
            cases.push(whole.case(format!("a fragment header of a whole datagram quoted: {name}")));
            let later = told.clone().of(header(44, [0, 8, 0x7a, 0x5a, 0x12, 0x34]));
            cases.push(later.passes(format!("a later fragment quoted: {name}")));
            let authenticated = told.clone().of(header(51, [0; 6]));
            cases.push(authenticated.passes(format!("an authentication header quoted: {name}")));
            // The identification of what was sent on is not that of what was sent.
            let mut first = told.clone();
            let (from, to) = ports(&first.seen);
            let [high, low] = (0x1234 ^ from ^ to).to_be_bytes();
            first.seen = header(44, [0, 1, 0x7a, 0x5a, high, low])(first.seen);
            first.sent = header(44, [0, 1, 0x7a, 0x5a, 0x12, 0x34])(first.sent);
            cases.push(first.clone().quoting(usize::MAX).case(format!("a first fragment quoted: {name}")));
            cases.push(first.quoting(8).case(format!("8 bytes of a first fragment quoted: {name}")));
        }
        let protocol = |number| move |frame: Frame| frame.with_ip(|ip| ip.protocol = Some(number));
        for number in [0, 1, 44, 58, 132] {
            cases.push(told.clone().of(protocol(number)).passes(format!("protocol {number} quoted: {name}")));
        }
        for byte in [0x00, 0x44, 0x55, 0xf0] {
            let strange = told.clone().of(|frame| frame.with_ip(|ip| ip.first_byte = Some(byte)));
            cases.push(strange.passes(format!("version and length {byte:#04x} quoted: {name}")));
        }
    }
    cases
}

/// What was wrong before is wrong after, and what is none stays none.
fn damaged(family: Family) -> Vec<Case> {
    let add = |word: u16| {
        let (sum, carry) = word.overflowing_add(0x0123);
        sum + u16::from(carry)
    };
    let mut cases = Vec::new();
    for (name, told) in all(family) {
        cases.push(told.clone().with(|error| error.checksum_error = 0x0123).case(format!("wrong checksum: {name}")));
        let l4 = family.l4_offset();
        let wrong = |frame: Frame| {
            let bytes = frame.build();
            let at = |offset: usize| Some(add(u16::from_be_bytes([bytes[l4 + offset], bytes[l4 + offset + 1]])));
            match frame.transport {
                Transport::Tcp(_) => frame.with_tcp(|tcp| tcp.checksum = at(16)),
                Transport::Udp(_) => frame.with_udp(|udp| udp.checksum = at(6)),
            }
        };
        cases.push(told.clone().of(wrong).case(format!("wrong checksum quoted: {name}")));
        if family == Family::V4 {
            let wrong = |frame: Frame| {
                let bytes = frame.build();
                frame.with_ip(|ip| ip.checksum = Some(add(u16::from_be_bytes([bytes[24], bytes[25]]))))
            };
            cases.push(told.clone().of(wrong).case(format!("wrong IP checksum quoted: {name}")));
        }
        if told.flow.protocol == UDP {
            let none = |frame: Frame| frame.with_udp(|udp| udp.checksum = Some(0));
            cases.push(told.of(none).case(format!("no checksum quoted: {name}")));
        }
    }
    cases
}

/// Errors about packets of flows that cannot be sent on.
fn refused(family: Family) -> Vec<Case> {
    let desired = crate::desired(family);
    let drop = Verdict::Drop;
    let mut cases = Vec::new();
    for (name, told) in all(family) {
        let (flow, id) = (told.flow, told.flow.backend_id);
        let is_remote = flow.place == Place::Remote;
        let gone = [Step::Apply(Operation::RemoveBackend { id })];
        let backend = Backend { state: BackendState::Down as u8, ..desired.backends[&id] };
        let down = [Step::Apply(Operation::SetBackend { id, backend })];
        let old = [Step::Age(flow.forward(), Duration::from_secs(1_000_000))];
        let forgotten = match told.verdict {
            Verdict::Forward(ForwardReason::IcmpToBackend | ForwardReason::IcmpToLocalBackend) => {
                drop(DropReason::IcmpUnknownFlow)
            }
            _ => Verdict::Pass(PassReason::NotOurs),
        };
        cases.extend([
            told.clone()
                .stays(format!("error, and the backend is gone: {name}"), drop(DropReason::BackendGone))
                .after(gone),
            told.clone()
                .stays(format!("error, and the backend is down: {name}"), drop(DropReason::BackendDown))
                .after(down),
            told.clone().stays(format!("error, and the flow is over: {name}"), forgotten).after(old),
        ]);
        for hops in [0, 1] {
            let last = told.clone().with(|error| error.ip.hops = hops);
            let name = format!("error with {hops} hops left: {name}");
            cases.push(if is_remote { last.stays(name, drop(DropReason::TtlExpired)) } else { last.case(name) });
        }
        if told.verdict == Verdict::Forward(ForwardReason::IcmpToBackend) {
            let lost = [Step::Apply(flow.set_backend_mac(family, [0; 6]))];
            let name = format!("error to an unknown neighbour: {name}");
            cases.push(told.clone().stays(name, drop(DropReason::NoNeighbour)).after(lost));
        }
    }
    cases
}

/// Errors about packets of no flow.
fn unknown(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, told) in all(family) {
        let alone = |told: Told, what: &str, verdict| Case {
            setup: Vec::new(),
            ..told.stays(format!("{what}: {name}"), verdict)
        };
        let not_ours = Verdict::Pass(PassReason::NotOurs);
        let is_of_service = told.seen.ip.source == told.flow.vip.ip();
        let verdict = if is_of_service { Verdict::Drop(DropReason::IcmpUnknownFlow) } else { not_ours };
        cases.push(alone(told.clone(), "error about no flow", verdict));
        cases.push(alone(told.clone().quoting(8), "short error about no flow", verdict));
        // At the other hook none is ours.
        let other = if told.hook == Hook::Egress { Hook::Ingress } else { Hook::Egress };
        let elsewhere = |mut told: Told| {
            told.hook = other;
            told.with(|error| error.destination_mac = NODE_MAC)
        };
        cases.push(elsewhere(told.clone()).passes(format!("error at the other hook: {name}")));

        // The sender of another packet.
        let other_port = (told.seen.ip.source, 4321).into();
        cases.push(told.clone().of(|frame| frame.from(other_port)).passes(format!("error about another port: {name}")));
        let strange = told.clone().with(|error| error.ip.destination = family.ip(98));
        cases.push(strange.passes(format!("error to another host than the sender: {name}")));
        let mac = [2, 0, 0, 0, 9, 9];
        if told.hook == Hook::Ingress {
            let missent = told.clone().with(|error| error.destination_mac = mac);
            cases.push(missent.passes(format!("error to another MAC address: {name}")));
        }
    }
    // This node is a client of a VIP that another one has, too.
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let flow = Flow::new(family, protocol, Kind::Remote);
        for port in [33_333, KEPT_PORT] {
            let own = flow.client_sends(SYN).from((family.node(), port).into());
            let quote = own.build()[14..].to_vec();
            let error = IcmpError::too_big([ROUTER_MAC, NODE_MAC], family.ip(ROUTER), family.node(), quote);
            let name = format!("error about this node's own {name} from port {port} to a VIP");
            cases.push(Case::of_bytes(name, Hook::Ingress, error.build()));
        }
    }
    cases
}

/// What is ICMP, but no error that is to be translated, or no sound one.
fn not_errors(family: Family) -> Vec<Case> {
    let (kinds, lying): (Vec<u8>, _) = match family {
        Family::V4 => (vec![0, 4, 5, 8, 9, 10, 13, 14, 30, 40], [0, 19, 20, 55, 0xffff]),
        Family::V6 => (vec![0, 5, 100, 127, 128, 129, 133, 134, 137, 255], [0, 1, 8, 55, 0xffff]),
    };
    let mut cases = Vec::new();
    for (name, told) in all(family) {
        for &kind in &kinds {
            cases.push(told.clone().with(|error| error.kind = (kind, 0)).passes(format!("type {kind}: {name}")));
        }
        for length in lying {
            let lie = told.clone().with(|error| error.ip.length = Some(length));
            cases.push(lie.passes(format!("error of claimed length {length}: {name}")));
        }
        if family == Family::V4 {
            for fragment in [0x2000, 0x0001, 0x3fff] {
                let part = told.clone().with(|error| error.ip.fragment = fragment);
                cases.push(part.passes(format!("error in a fragment, {fragment:#06x}: {name}")));
            }
            let route = told.clone().with(|error| error.ip.options = vec![131, 7, 4, 198, 18, 0, 1, 0]);
            cases.push(route.passes(format!("error with a source route: {name}")));
        }
        let bytes = told.arrives.build();
        for length in (family.l4_offset()..bytes.len()).step_by(3) {
            let setup = told.flow.established();
            let cut = bytes[..length].to_vec();
            cases.push(Case::of_bytes(format!("error cut to {length}: {name}"), told.hook, cut).after(setup));
        }
    }
    let echo = Flow::new(family, TCP, Kind::Remote).client_sends(ACK);
    let protocol = if family == Family::V4 { 1 } else { 58 };
    cases.push(Case::new(
        "echo to the VIP",
        Hook::Ingress,
        &echo.with_ip(|ip| ip.protocol = Some(protocol)).with_tcp(|tcp| {
            // Type and code.
            tcp.source = if family == Family::V4 { 8 << 8 } else { 128 << 8 };
        }),
    ));
    cases
}
