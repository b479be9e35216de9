//! Cases of backends that no longer serve, and of services that have none yet.

use std::sync::Arc;

use kplb::{model::Desired, plan::Operation};
use kplb_common::{
    backend::{Backend, BackendState},
    flow_state::FlowState::{Established, SynAcked, SynSent},
    maglev::slot,
    net::{TCP, UDP},
    service::{Service, WhenEmpty},
    verdict::{DropReason, ResetReason, Verdict},
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
    choice::hashes,
    scene::{Family, Flow, Kind, Place},
    shape::ConcatAll as _,
    traffic::{BACKEND_ISN, CLIENT_ISN, reset_of},
};

/// All of them.
pub fn cases(family: Family, desired: &Desired) -> Vec<Case> {
    let gone = Lost {
        name: "gone",
        leave: |flow, _| Operation::RemoveBackend { id: flow.backend_id },
        reset: ResetReason::BackendGone,
        drop: DropReason::BackendGone,
    };
    let down = Lost {
        name: "down",
        leave: |flow, desired| Operation::SetBackend {
            id: flow.backend_id,
            backend: Backend { state: BackendState::Down as u8, ..desired.backends[&flow.backend_id] },
        },
        reset: ResetReason::BackendDown,
        drop: DropReason::BackendDown,
    };
    [
        lost(family, desired, &gone),
        lost(family, desired, &down),
        another(family, desired),
        first_checks(family, desired),
    ]
    .concat_all()
}

/// How a backend is lost, and why its flows' packets are refused then.
struct Lost {
    name: &'static str,
    leave: fn(&Flow, &Desired) -> Operation,
    reset: ResetReason,
    drop: DropReason,
}

/// The backend of a known flow is lost, and the ring still names it.
fn lost(family: Family, desired: &Desired, lost: &Lost) -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, kind) in [("remote", Kind::Remote), ("local", Kind::Local)] {
        let (tcp, udp) = (Flow::new(family, TCP, kind), Flow::new(family, UDP, kind));
        let after = |flow: &Flow, setup: Vec<Step>| {
            let leave = Step::Apply((lost.leave)(flow, desired));
            setup.into_iter().chain([leave]).collect::<Vec<_>>()
        };
        let name = |what: &str| format!("{place}, {}: {what}", lost.name);
        let reset = |what: &str, frame: &_, answer: &_| Case::reset(name(what), frame, lost.reset, answer);
        let drop = |what: &str, frame: &_| Case::drop(name(what), frame, lost.drop);

        // Exactly what the sender expects next, hops or not.
        let data = tcp.data().with_ip(|ip| ip.hops = 1);
        let answer = reset_of(&data, BACKEND_ISN.wrapping_add(1), 0, RST);
        let later = tcp.client_sends(ACK | PSH).with_tcp(|tcp| tcp.acknowledgement = 0x0bad_cafe);
        let fin = tcp.client_sends(FIN | ACK);
        let syn = tcp.client_sends(SYN);
        let syn_answer = reset_of(&syn, 0, CLIENT_ISN.wrapping_add(1), RST | ACK);
        let (ack, datagram) = (tcp.client_sends(ACK), udp.client_sends(0));
        cases.extend([
            reset("data", &data, &answer)
                .after(after(&tcp, tcp.established()))
                .leaves(&tcp, Some((Established, Flows))),
            reset("data that acknowledges more", &later, &reset_of(&later, 0x0bad_cafe, 0, RST))
                .after(after(&tcp, tcp.established())),
            reset("FIN", &fin, &reset_of(&fin, BACKEND_ISN.wrapping_add(1), 0, RST))
                .after(after(&tcp, tcp.established()))
                .leaves(&tcp, Some((Established, Flows))),
            reset("ACK of the SYN-ACK", &ack, &reset_of(&ack, BACKEND_ISN.wrapping_add(1), 0, RST))
                .after(after(&tcp, tcp.answered()))
                .leaves(&tcp, Some((SynAcked, HalfOpen))),
            drop("RST", &tcp.client_sends(RST))
                .after(after(&tcp, tcp.established()))
                .leaves(&tcp, Some((Established, Flows))),
            // A packet that can open a flow is none of the old one's.
            Case::reset(name("SYN again"), &syn, ResetReason::NoBackend, &syn_answer)
                .after(after(&tcp, tcp.opened()))
                .leaves(&tcp, None),
            Case::drop(name("datagram"), &datagram, DropReason::NoBackend)
                .after(after(&udp, udp.established()))
                .leaves(&udp, None),
            Case::drop(name("second datagram"), &datagram, DropReason::NoBackend)
                .after(after(&udp, udp.opened()))
                .leaves(&udp, None),
            Case::reset(name("new SYN"), &syn, ResetReason::NoBackend, &syn_answer)
                .after(after(&tcp, Vec::new()))
                .leaves(&tcp, None),
            Case::drop(name("new datagram"), &datagram, DropReason::NoBackend)
                .after(after(&udp, Vec::new()))
                .leaves(&udp, None),
        ]);
        // The client is told that it is over: what the backend still sends must not arrive.
        let reply = tcp.reply_data();
        let refused = match tcp.place {
            Place::Remote => reset("reply", &reply, &reset_of(&reply, CLIENT_ISN.wrapping_add(1), 0, RST)),
            Place::Local => {
                Case { verdict: Verdict::Drop(lost.drop), ..Case::new(name("reply"), Hook::Egress, &reply) }
            }
        };
        cases.push(refused.after(after(&tcp, tcp.established())).leaves(&tcp, Some((Established, Flows))));
        let dropped = |what: &str, flow: &Flow, frame| Case {
            verdict: Verdict::Drop(lost.drop),
            ..Case::new(name(what), flow.reply_hook(), frame)
        };
        cases.extend([
            dropped("reply's RST", &tcp, &tcp.backend_sends(RST)).after(after(&tcp, tcp.established())),
            dropped("answer", &udp, &udp.backend_sends(0)).after(after(&udp, udp.established())),
            dropped("first answer", &udp, &udp.backend_sends(0)).after(after(&udp, udp.opened())),
        ]);
    }
    cases
}

/// The backend is lost and no longer on the ring: a client that tries again is given to another one.
fn another(family: Family, desired: &Desired) -> Vec<Case> {
    let any = Flow::new(family, TCP, Kind::ByClient);
    let service = desired.backends[&any.backend_id].service;
    let first = desired.rings[&service][slot(hashes(&any.forward()).client)];
    let second = any.backend_id + (first - any.backend_id + 1) % 4;
    let [first, second] = [first, second].map(|id| any.to_backend_number(id - any.backend_id, family));
    let ring = desired.rings[&service].map(|id| if id == first.backend_id { second.backend_id } else { id });
    let leave = [
        Step::Apply(Operation::SetRing { service, ring: Arc::new(ring) }),
        Step::Apply(Operation::SetBackend {
            id: first.backend_id,
            backend: Backend { state: BackendState::Down as u8, ..desired.backends[&first.backend_id] },
        }),
    ];
    let syn = second.client_sends(SYN);
    let in_state = |name: &str, setup: Vec<Step>| {
        Case::forward(format!("to another backend: {name}"), &second, &syn)
            .opens()
            .after(setup)
            .after(leave.clone())
            .leaves(&second, Some((SynSent, HalfOpen)))
            .then([Step::Entry(first.reply(), None)])
    };
    vec![
        in_state("SYN again", first.opened()),
        in_state("SYN again after the SYN-ACK", first.answered()),
        in_state("SYN of a client that was restarted", first.established()),
    ]
}

/// Nobody is on the ring, but may be in a moment.
fn first_checks(family: Family, desired: &Desired) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        let flow = Flow::new(family, protocol, Kind::Empty);
        let (endpoint, service) = (desired.services.iter())
            .find(|(endpoint, _)| endpoint.address == flow.vip && endpoint.protocol.number() == protocol)
            .expect("the flow's service");
        let waits = Service { when_empty: WhenEmpty::Wait as u8, ..*service };
        let setup = [Step::Apply(Operation::SetService { endpoint: *endpoint, service: waits })];
        cases.push(
            Case::drop(
                format!("{name}: silence while first checks run"),
                &flow.client_sends(SYN),
                DropReason::FirstChecks,
            )
            .after(setup.clone())
            .leaves(&flow, None),
        );
        if protocol == TCP {
            let ack = flow.client_sends(ACK);
            let answer = reset_of(&ack, BACKEND_ISN.wrapping_add(1), 0, RST);
            let name = "but no silence for what opens no flow";
            cases.push(Case::reset(name, &ack, ResetReason::UnknownFlow, &answer).after(setup));
        }
    }
    cases
}
