//! Ends that speak in vain, which are reported, and clients that are led elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kplb::dataplane::Sighting;
use kplb_common::{
    flow::Direction,
    net::{Mac, TCP, UDP},
    report::{REPORT_INTERVAL_NS, Symptom},
};
use kplb_tests::{
    frames::{ACK, FIN, Frame},
    poll,
    testbed::{Ingress, Testbed},
};

use crate::{
    case::{Case, Step, check, take},
    scene::{AMPLE, CLIENT_MAC, Family, Flow, KEPT_PORT, Kind, NAT_PORTS, everywhere},
    traffic::{BACKEND_ISN, CLIENT_ISN},
};

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 9];

/// Shorter, by more than a busy machine takes for a step, and longer than what counts as silence.
const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_millis(200);
/// Longer than a period.
const LONGER: Duration = Duration::from_millis(600);

/// For moments in which a machine does nothing to be over.
const SOON: Duration = Duration::from_secs(10);

fn testbed(ingress: Ingress, family: Family) -> Result<Testbed> {
    Testbed::new(ingress, &family.configuration(NAT_PORTS), &family.facts(), AMPLE)
}

/// One end of a flow.
#[derive(Clone, Copy)]
struct End {
    flow: Flow,
    direction: Direction,
}

impl End {
    /// Data with the n-th byte at its front.
    fn data(self, n: u32) -> Frame {
        let (frame, isn) = match self.direction {
            Direction::ToBackend => (self.flow.data(), CLIENT_ISN),
            Direction::ToClient => (self.flow.reply_data(), BACKEND_ISN),
        };
        if self.flow.protocol == TCP {
            return frame.with_tcp(|tcp| tcp.sequence = isn.wrapping_add(1 + n));
        }
        frame
    }

    /// Nothing but an acknowledgement, of all before the other end's data with the 100th byte at its front.
    fn acknowledgement(self) -> Frame {
        let (frame, isn) = match self.direction {
            Direction::ToBackend => (self.flow.client_sends(ACK), BACKEND_ISN),
            Direction::ToClient => (self.flow.backend_sends(ACK), CLIENT_ISN),
        };
        frame.with_tcp(|tcp| tcp.acknowledgement = isn.wrapping_add(1 + 100))
    }

    fn other(self) -> Self {
        let direction = match self.direction {
            Direction::ToBackend => Direction::ToClient,
            Direction::ToClient => Direction::ToBackend,
        };
        Self { direction, ..self }
    }

    fn sent(self, frame: &Frame) -> Step {
        match self.direction {
            Direction::ToBackend => self.flow.client_sent(frame),
            Direction::ToClient => self.flow.backend_sent(frame),
        }
    }

    /// It spoke last so long ago.
    fn rested(self, age: Duration) -> Step {
        let tuple = match self.direction {
            Direction::ToBackend => self.flow.forward(),
            Direction::ToClient => self.flow.reply(),
        };
        Step::AgeOne(tuple, age)
    }

    /// What is reported of the other end.
    fn report(self) -> Sighting {
        match self.direction {
            Direction::ToBackend => Sighting::Backend(self.flow.backend_id, Symptom::Silent),
            Direction::ToClient => {
                Sighting::SilentClient { client: self.flow.client.ip(), mac: Mac::new(self.flow.client_mac) }
            }
        }
    }
}

/// What is reported by these steps in an established flow.
fn reported(testbed: &mut Testbed, end: End, steps: &[Step]) -> Result<Vec<Sighting>> {
    poll::until_ok("steps without a pause", SOON, || reported_now(testbed, end, steps))
}

fn reported_now(testbed: &mut Testbed, end: End, steps: &[Step]) -> Result<Vec<Sighting>> {
    testbed.clear_flows()?;
    end.flow.established().iter().try_for_each(|step| take(testbed, step))?;
    // Whatever was reported of the last one.
    let start = Instant::now();
    let interval = Duration::from_nanos(REPORT_INTERVAL_NS);
    poll::until("the interval between two reports", 20 * interval, || start.elapsed() > 2 * interval)?;
    testbed.reports()?;
    let start = Instant::now();
    steps.iter().try_for_each(|step| take(testbed, step))?;
    ensure!(start.elapsed() < LONG / 2, "the machine stood still: more time has passed than was meant to");
    testbed.reports()
}

/// Who repeats himself, or goes on, and gets no answer for a while, speaks in vain; nobody else does.
#[test]
fn who_speaks_in_vain_is_reported() -> Result<()> {
    for (ingress, family) in everywhere() {
        let mut testbed = testbed(ingress, family)?;
        for direction in [Direction::ToBackend, Direction::ToClient] {
            let end = End { flow: Flow::new(family, TCP, Kind::Remote), direction };
            let other = end.other();
            let (question, next) = (end.sent(&end.data(100)), end.sent(&end.data(200)));
            let too_little = other.sent(&other.acknowledgement());
            let enough = other.sent(&other.acknowledgement().with_tcp(|tcp| tcp.acknowledgement += 1));
            let in_vain = vec![end.report()];
            let cases: [(&str, Vec<Step>, _); 10] = [
                ("repeated", vec![question.clone(), other.rested(LONG), question.clone()], in_vain.clone()),
                ("repeated in part", vec![next.clone(), other.rested(LONG), question.clone()], in_vain.clone()),
                ("repeated soon", vec![question.clone(), other.rested(SHORT), question.clone()], vec![]),
                (
                    "gone on without an answer",
                    vec![question.clone(), end.rested(LONGER), other.rested(LONGER), next.clone()],
                    in_vain.clone(),
                ),
                (
                    "gone on with an answer to what was before",
                    vec![question.clone(), too_little.clone(), end.rested(LONGER), other.rested(LONGER), next.clone()],
                    in_vain.clone(),
                ),
                (
                    "gone on after an answer",
                    vec![question.clone(), enough, end.rested(LONGER), other.rested(LONGER), next.clone()],
                    vec![],
                ),
                (
                    "acknowledged twice",
                    vec![
                        question.clone(),
                        other.rested(LONG),
                        end.sent(&end.acknowledgement()),
                        end.sent(&end.acknowledgement()),
                    ],
                    vec![],
                ),
                ("ended twice", vec![end.sent(&ended(end)), other.rested(LONG), end.sent(&ended(end))], vec![]),
                (
                    "repeated after a while, and something else was said",
                    vec![question.clone(), too_little.clone(), end.rested(LONG), question.clone()],
                    in_vain,
                ),
                ("answered late", vec![question.clone(), other.rested(LONG), too_little, question], vec![]),
            ];
            for (name, steps, expected) in cases {
                let found = reported(&mut testbed, end, &steps).with_context(|| name.to_owned())?;
                assert_eq!(found, expected, "{name}: {family:?}, {direction:?}");
            }
        }
    }
    Ok(())
}

fn ended(end: End) -> Frame {
    match end.direction {
        Direction::ToBackend => end.flow.client_sends(FIN | ACK),
        Direction::ToClient => end.flow.backend_sends(FIN | ACK),
    }
}

/// A client that asks by datagrams, and is not answered.
#[test]
fn datagrams_in_vain_are_reported() -> Result<()> {
    for (ingress, family) in everywhere() {
        let mut testbed = testbed(ingress, family)?;
        let client = End { flow: Flow::new(family, UDP, Kind::Remote), direction: Direction::ToBackend };
        let backend = client.other();
        let (question, answer) = (client.sent(&client.data(0)), backend.sent(&backend.data(0)));
        let assured = [question.clone(), answer.clone(), question.clone()];
        // The client spoke last.
        let unanswered = [client.rested(LONGER), backend.rested(2 * LONGER), question.clone()];
        let steps = [&assured[..], &unanswered].concat();
        assert_eq!(reported(&mut testbed, client, &steps)?, [client.report()], "{family:?}");
        // The backend did.
        let answered = [client.rested(2 * LONGER), backend.rested(LONGER), question.clone()];
        let steps = [&assured[..], &answered].concat();
        assert_eq!(reported(&mut testbed, client, &steps)?, [], "{family:?}");
        // Whom it tells nobody knows.
        let told = [backend.rested(LONGER), client.rested(2 * LONGER), answer.clone(), answer];
        let steps = [&assured[..], &told].concat();
        assert_eq!(reported(&mut testbed, client, &steps)?, [], "{family:?}");
    }
    Ok(())
}

/// The kernel finds this node's own backends, and their clients.
#[test]
fn backends_on_the_node_are_nobodys_business() -> Result<()> {
    for (ingress, family) in everywhere() {
        let mut testbed = testbed(ingress, family)?;
        for direction in [Direction::ToBackend, Direction::ToClient] {
            let end = End { flow: Flow::new(family, TCP, Kind::Local), direction };
            let question = end.sent(&end.data(100));
            let steps = [question.clone(), end.other().rested(LONG), question];
            assert_eq!(reported(&mut testbed, end, &steps)?, [], "{family:?}, {direction:?}");
        }
    }
    Ok(())
}

/// Flows of a client that was found elsewhere go there, but for one on which it has spoken since; others stay.
#[test]
fn silent_clients_are_led() -> Result<()> {
    for (ingress, family) in everywhere() {
        let mut testbed = testbed(ingress, family)?;
        let led = Flow::new(family, TCP, Kind::Remote);
        let datagrams = Flow::new(family, UDP, Kind::Remote);
        let speaks = led.of_client((led.client.ip(), KEPT_PORT + 1).into(), KEPT_PORT + 1);
        let stranger = led.of_client(family.at(102, KEPT_PORT + 2), KEPT_PORT + 2);
        for flow in [led, datagrams, speaks, stranger] {
            flow.established().iter().try_for_each(|step| take(&mut testbed, step))?;
        }
        let question = datagrams.client_sent(&datagrams.client_sends(0));
        [&question, &datagrams.backend_sent(&datagrams.backend_sends(0)), &question]
            .into_iter()
            .try_for_each(|step| take(&mut testbed, step))?;
        // Of the future: it speaks after the client was found.
        take(&mut testbed, &Step::Ahead(speaks.forward(), Duration::from_secs(60)))?;
        testbed.lead_clients(&[led.client.ip(), family.ip(99)], Mac::new(OTHER_MAC))?;
        for (flow, mac) in [(led, OTHER_MAC), (datagrams, OTHER_MAC), (speaks, CLIENT_MAC), (stranger, CLIENT_MAC)] {
            let now = Flow { client_mac: mac, ..flow };
            let reply = now.backend_sends(ACK).carrying(*b"where?");
            take(&mut testbed, &now.backend_sent(&reply))?;
            check_reply(&mut testbed, &now, &reply)?;
        }
        testbed.clear_flows()?;
    }
    Ok(())
}

/// A backend's packet goes to where the client is now.
fn check_reply(testbed: &mut Testbed, flow: &Flow, reply: &Frame) -> Result<()> {
    let (_, output) = testbed.judge(flow.reply_hook(), &reply.build())?;
    assert_eq!(output.frame, flow.client_gets(reply).build(), "{flow:?}");
    Ok(())
}

/// What a client says of itself is worth more than what was found.
#[test]
fn clients_that_were_led_can_move_on() -> Result<()> {
    for (ingress, family) in everywhere() {
        let mut testbed = testbed(ingress, family)?;
        let flow = Flow::new(family, TCP, Kind::Remote);
        flow.established().iter().try_for_each(|step| take(&mut testbed, step))?;
        testbed.lead_clients(&[flow.client.ip()], Mac::new(OTHER_MAC))?;
        let back = flow.client_sent(&flow.data());
        take(&mut testbed, &back)?;
        check_reply(&mut testbed, &flow, &flow.reply_data())?;
        testbed.clear_flows()?;
        // Without a flow there is nobody to lead.
        testbed.lead_clients(&[flow.client.ip()], Mac::new(OTHER_MAC))?;
        check(&mut testbed, &Case::reply("as ever", &flow, &flow.reply_data()).after(flow.established()))?;
    }
    Ok(())
}
