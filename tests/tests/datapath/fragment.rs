//! Cases of fragments: which flow they go with, and which are refused.

use std::time::Duration;

use kplb::plan::Operation;
use kplb_common::{
    backend::{Backend, BackendState},
    flow::Direction,
    net::{TCP, UDP},
    verdict::{DropReason, PassReason, ResetReason, Verdict},
};
use kplb_tests::{
    frames::{ACK, Frame, PSH, RST, SYN},
    testbed::Hook,
};

use crate::{
    case::{Case, Step},
    scene::{Family, Flow, KEPT_PORT, Kind, Place},
    traffic::{BACKEND_ISN, reset_of},
};

/// Identification of the datagrams.
const ID: u32 = 0x7a5a_1234;
/// Where they are cut.
const CUTS: [usize; 2] = [40, 72];

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, journey) in Journey::all(family) {
        let of_it = [sent_on(&journey), again(&journey), alone(&journey), stopped(family, &journey)];
        let named = of_it.into_iter().flatten().map(|case| Case { name: format!("{name}: {}", case.name), ..case });
        cases.extend(named);
    }
    cases.extend(opening(family));
    cases.extend(unsound(family));
    cases.extend(not_ours(family));
    cases.extend(answered(family));
    cases
}

/// A datagram or segment of a flow, from one end to the other.
#[derive(Clone)]
struct Journey {
    flow: Flow,
    direction: Direction,
    /// As it comes to kplb, and as it leaves it; of the same length.
    before: Frame,
    after: Frame,
}

impl Journey {
    fn all(family: Family) -> Vec<(String, Self)> {
        let mut all = Vec::new();
        for (protocol_name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
            for (place, kind) in [("remote", Kind::Remote), ("local", Kind::Local)] {
                let flow = Flow::new(family, protocol, kind);
                for (whose, direction) in [("client's", Direction::ToBackend), ("backend's", Direction::ToClient)] {
                    let name = format!("fragments, {protocol_name}, {place}, the {whose}");
                    all.push((name, Self::new(flow, direction)));
                }
            }
        }
        all
    }

    fn new(flow: Flow, direction: Direction) -> Self {
        let payload: Vec<u8> = (0..97).collect();
        let (before, after) = match direction {
            Direction::ToBackend => {
                let before = flow.client_sends(ACK | PSH).carrying(payload);
                (before.clone(), flow.backend_gets(&before))
            }
            Direction::ToClient => {
                let before = flow.backend_sends(ACK | PSH).carrying(payload);
                (before.clone(), flow.client_gets(&before))
            }
        };
        Self { flow, direction, before, after }
    }

    fn hook(&self) -> Hook {
        match self.direction {
            Direction::ToBackend => Hook::Ingress,
            Direction::ToClient => self.flow.reply_hook(),
        }
    }

    /// The identification that goes on: no two flows' datagrams have the same (RFC 6864, section 5.3).
    fn renumbered(&self) -> u32 {
        let (source, destination) = match self.direction {
            Direction::ToBackend => (self.flow.nat, self.flow.backend),
            Direction::ToClient => (self.flow.vip, self.flow.client),
        };
        ID ^ u32::from(source.port() ^ destination.port())
    }

    fn before(&self) -> Vec<Vec<u8>> {
        self.before.fragments(&CUTS, ID)
    }

    fn after(&self) -> Vec<Vec<u8>> {
        self.after.fragments(&CUTS, self.renumbered())
    }

    fn verdict(&self) -> Verdict {
        self.flow.verdict(self.direction)
    }

    /// The fragments with these numbers have been sent on.
    fn sent(&self, numbers: &[usize]) -> Vec<Step> {
        let before = self.before();
        numbers.iter().map(|&nth| Step::Send(self.hook(), before[nth].clone(), self.verdict())).collect()
    }

    fn case(&self, name: impl Into<String>, before: Vec<u8>) -> Case {
        Case::of_bytes(name, self.hook(), before).after(self.flow.established())
    }

    /// The fragment with this number is sent on.
    fn forward(&self, name: impl Into<String>, number: usize) -> Case {
        let before = self.before().swap_remove(number);
        let bytes = before.len() as u64 - 14;
        Case { verdict: self.verdict(), packet_out: self.after().swap_remove(number), ..self.case(name, before) }
            .counts_bytes(&self.flow, self.direction, bytes)
    }

    /// A fragment is refused.
    fn refused(&self, name: impl Into<String>, before: Vec<u8>, reason: DropReason) -> Case {
        Case { verdict: Verdict::Drop(reason), ..self.case(name, before) }
    }
}

fn sent_on(journey: &Journey) -> Vec<Case> {
    let backwards = [journey.sent(&[0, 2])].concat();
    vec![
        journey.forward("the first", 0),
        journey.forward("the second", 1).after(journey.sent(&[0])),
        journey.forward("the last", 2).after(journey.sent(&[0, 1])),
        journey.forward("the last before the second", 2).after(journey.sent(&[0])),
        journey.forward("the second after the last", 1).after(backwards),
        journey
            .forward("the second, a while after", 1)
            .after(journey.sent(&[0]))
            .after([Step::AgeFragments(Duration::from_secs(29))]),
    ]
}

fn again(journey: &Journey) -> Vec<Case> {
    use DropReason::FragmentOverlap;

    let second = journey.before.fragment(CUTS[0]..CUTS[1], ID);
    let begins_early = journey.before.fragment(CUTS[0] - 8..CUTS[1], ID);
    let ends_late = journey.before.fragment(CUTS[0]..CUTS[1] + 8, ID);
    let all_the_rest = journey.before.fragment(CUTS[0]..journey.before.fragmentable().len(), ID);
    let first_byte = journey.before.fragment(8..16, ID);
    vec![
        journey.refused("the second again", second, FragmentOverlap).after(journey.sent(&[0, 1])),
        journey.refused("a second that begins in the first", begins_early, FragmentOverlap).after(journey.sent(&[0])),
        journey.refused("one within the first", first_byte, FragmentOverlap).after(journey.sent(&[0])),
        journey.refused("a second that ends in the last", ends_late, FragmentOverlap).after(journey.sent(&[0, 2])),
        journey.refused("one over all the rest", all_the_rest, FragmentOverlap).after(journey.sent(&[0, 1])),
        // Whoever sends fast goes round in the identifications.
        journey.forward("the second of the next datagram", 1).after(journey.sent(&[0, 1, 2, 0])),
    ]
}

/// Without the first one, nobody knows whose they are.
fn alone(journey: &Journey) -> Vec<Case> {
    let before = journey.before();
    let unknown = match journey.direction {
        Direction::ToBackend => Verdict::Drop(DropReason::FragmentUnknown),
        Direction::ToClient => Verdict::Pass(PassReason::NotOurs),
    };
    let stays = |name: &str, frame: Vec<u8>| Case { verdict: unknown, ..journey.case(name, frame) };
    let other_id = journey.before.fragment(CUTS[0]..CUTS[1], ID + 1);
    vec![
        stays("the second alone", before[1].clone()),
        stays("the last alone", before[2].clone()),
        stays("the second of another datagram", other_id).after(journey.sent(&[0])),
        stays("the second, far too late", before[1].clone())
            .after(journey.sent(&[0]))
            .after([Step::AgeFragments(Duration::from_secs(31))]),
    ]
}

/// What stops the packets of a flow stops its fragments.
fn stopped(family: Family, journey: &Journey) -> Vec<Case> {
    let (flow, id) = (journey.flow, journey.flow.backend_id);
    let second = journey.before().swap_remove(1);
    let backend = Backend { state: BackendState::Down as u8, ..crate::desired(family).backends[&id] };
    let old = Step::Age(flow.forward(), Duration::from_secs(1_000_000));
    let mut cases = vec![
        journey
            .refused("the backend is gone meanwhile", second.clone(), DropReason::BackendGone)
            .after(journey.sent(&[0]))
            .after([Step::Apply(Operation::RemoveBackend { id })]),
        journey
            .refused("the backend is down meanwhile", second.clone(), DropReason::BackendDown)
            .after(journey.sent(&[0]))
            .after([Step::Apply(Operation::SetBackend { id, backend })]),
        journey
            .refused("the flow is over meanwhile", second.clone(), DropReason::UnknownFlow)
            .after(journey.sent(&[0]))
            .after([old]),
    ];
    if flow.place == Place::Remote {
        let last_hop = journey.before.clone().with_ip(|ip| ip.hops = 1).fragment(CUTS[0]..CUTS[1], ID);
        cases.push(journey.refused("the last hop", last_hop, DropReason::TtlExpired).after(journey.sent(&[0])));
        if journey.direction == Direction::ToBackend {
            let lost = Step::Apply(flow.set_backend_mac(family, [0; 6]));
            let case = journey.refused("an unknown neighbour", second, DropReason::NoNeighbour);
            cases.push(case.after(journey.sent(&[0])).after([lost]));
        }
    }
    cases
}

/// A first fragment opens a flow as any packet does.
fn opening(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let flow = Flow::new(family, protocol, Kind::Remote);
        let mut journey = Journey::new(flow, Direction::ToBackend);
        journey.before = flow.client_sends(SYN).carrying(vec![7; 97]);
        journey.after = flow.backend_gets(&journey.before);
        let first = journey.forward(format!("a first fragment that opens a flow: {name}"), 0).opens();
        let second = journey.forward(format!("what follows a fragment that opened a flow: {name}"), 1);
        cases.push(Case { setup: Vec::new(), ..first });
        cases.push(Case { setup: journey.sent(&[0]), ..second });

        let empty = Flow::new(family, protocol, Kind::Empty);
        let refused = empty.client_sends(SYN).carrying(vec![7; 97]).fragments(&CUTS, ID);
        let verdict = Verdict::Drop(DropReason::FragmentUnknown);
        let instead = Step::Send(Hook::Ingress, refused[0].clone(), Verdict::Drop(DropReason::NoBackend));
        let name = format!("what follows a fragment that opened none: {name}");
        cases.push(Case { verdict, ..Case::of_bytes(name, Hook::Ingress, refused[1].clone()) }.after([instead]));
    }
    cases
}

/// Fragments that cannot be.
fn unsound(family: Family) -> Vec<Case> {
    use DropReason::{FragmentTiny, Malformed};

    let mut cases = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let journey = Journey::new(Flow::new(family, protocol, Kind::Remote), Direction::ToBackend);
        let frame = &journey.before;
        let fragment = |offset_and_more, brings: &[u8]| frame.fragment_with(offset_and_more, brings, ID);
        let mut add = |what: &str, fragment: Vec<u8>, reason| {
            cases.push(journey.refused(format!("{what}: {name}"), fragment, reason).after(journey.sent(&[0])));
        };
        add("a fragment of nothing", fragment(40 | 1, &[]), Malformed);
        add("a last fragment of nothing", fragment(40, &[]), Malformed);
        add("a fragment of half a unit", fragment(40 | 1, &[1; 12]), Malformed);
        add("a fragment beyond the longest datagram", fragment(0xfff8, &[1; 8]), Malformed);
        add("a first fragment of half a unit", frame.fragment(0..44, ID), Malformed);
        if protocol == TCP {
            add("a first fragment with half a header", frame.fragment(0..16, ID), FragmentTiny);
            let options = frame.clone().with_tcp(|tcp| tcp.options = vec![1; 20]);
            add("a first fragment with half of the options", options.fragment(0..24, ID), FragmentTiny);
            let short = frame.clone().with_tcp(|tcp| tcp.data_offset = Some(4));
            add("a first fragment with a short header", short.fragment(0..40, ID), Malformed);
        } else {
            let short = frame.clone().with_udp(|udp| udp.length = Some(7));
            add("a first fragment with a short length", short.fragment(0..40, ID), Malformed);
        }
        let last = frame.fragment_with(0xfff8, &[1; 7], ID);
        let after = journey.after.fragment_with(0xfff8, &[1; 7], journey.renumbered());
        let bytes = last.len() as u64 - 14;
        let end = journey.case(format!("a fragment at the end of the longest datagram: {name}"), last);
        cases.push(
            Case { verdict: journey.verdict(), packet_out: after, ..end }.after(journey.sent(&[0])).counts_bytes(
                &journey.flow,
                Direction::ToBackend,
                bytes,
            ),
        );
    }
    cases
}

fn not_ours(family: Family) -> Vec<Case> {
    let journey = Journey::new(Flow::new(family, UDP, Kind::Remote), Direction::ToBackend);
    let elsewhere = journey.before.clone().with_ip(|ip| ip.destination = family.ip(99));
    let icmp = journey.before.clone().with_ip(|ip| ip.protocol = Some(if family == Family::V4 { 1 } else { 58 }));
    let esp = journey.before.clone().with_ip(|ip| ip.protocol = Some(50));
    let pass = |name: &str, fragment: &[u8]| Case::of_bytes(name, Hook::Ingress, fragment.to_vec());
    let mut cases = Vec::new();
    for (name, frame) in [("to another host", elsewhere), ("of ICMP to the VIP", icmp), ("of ESP to the VIP", esp)] {
        for (nth, fragment) in frame.fragments(&CUTS, ID).iter().enumerate() {
            cases.push(pass(&format!("fragment {nth} {name}"), fragment));
        }
    }
    // The same addresses and identification, and nothing of a flow's.
    let flow = Flow::new(family, UDP, Kind::Remote);
    let reply = Journey::new(flow, Direction::ToClient);
    let own = reply.before.clone().to((family.node(), KEPT_PORT - 1).into());
    let passed = Step::Send(Hook::Ingress, own.fragment(0..40, ID), Verdict::Pass(PassReason::NotOurs));
    cases.push(
        pass("what follows a fragment to the node itself", &own.fragment(40..72, ID))
            .after(flow.established())
            .after(reply.sent(&[0]))
            .after([passed]),
    );
    cases
}

/// A first fragment of no flow.
fn answered(family: Family) -> Vec<Case> {
    let flow = Flow::new(family, TCP, Kind::Remote);
    let frame = flow.client_sends(ACK).carrying(vec![7; 97]);
    let first = frame.fragment(0..40, ID);
    let mut answer = reset_of(&frame, BACKEND_ISN.wrapping_add(1), 0, RST);
    // What is left of the fragment's own bytes.
    answer.padding = first[family.l4_offset() + 20..].to_vec();
    let reset = Case {
        verdict: Verdict::Reset(ResetReason::UnknownFlow),
        packet_out: answer.build(),
        ..Case::of_bytes("a first fragment of no flow", Hook::Ingress, first)
    };
    // How far its sender has got is not known from a part.
    let frame = flow.client_sends(PSH).carrying(vec![7; 97]);
    let verdict = Verdict::Drop(DropReason::UnknownFlow);
    let name = "a first fragment of no flow that acknowledges nothing";
    vec![reset, Case { verdict, ..Case::of_bytes(name, Hook::Ingress, frame.fragment(0..40, ID)) }]
}
