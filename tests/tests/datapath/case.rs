//! One case, and how it is checked.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kplb::{
    dataplane::boottime_now_ns,
    model,
    plan::{self, Operation},
};
use kplb_common::{
    flow::{Direction, FlowKey},
    flow_state::FlowState,
    net::{Ip4, Ip6},
    stats::BackendStats,
    verdict::{DropReason, PassReason, ResetReason, Verdict},
};
use kplb_tests::{
    frames::{Frame, check_checksums, cut_padding},
    reference::{Lease, Tuple},
    testbed::{Hook, Ingress, Table, TestFamily, Testbed},
};

use crate::scene::Flow;

/// Packets before, a packet, and what is to become of it.
pub struct Case {
    pub name: String,
    pub tables: Tables,
    pub setup: Vec<Step>,
    pub hook: Hook,
    pub packet_in: Vec<u8>,
    pub verdict: Verdict,
    pub packet_out: Vec<u8>,
    /// What the backend with this id counts; all others count nothing.
    pub counters: Option<(u16, BackendStats)>,
    /// What is to be true afterwards.
    pub then: Vec<Step>,
}

/// Which flow tables a case needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tables {
    /// As they are.
    Usual,
    /// A half-open table of [`FULL_AT`] entries that evicts nothing.
    Full,
}

/// One flow, and half of another.
pub const FULL_AT: u32 = 3;

/// Something before or after the packet.
#[derive(Clone)]
pub enum Step {
    /// A packet, and what becomes of it.
    Send(Hook, Vec<u8>, Verdict),
    /// A change of the maps.
    Apply(Operation),
    /// Both entries of a flow have not been used for so long.
    Age(Tuple, Duration),
    /// The first fragments of all datagrams came so long ago.
    AgeFragments(Duration),
    /// One entry has not been used for so long.
    AgeOne(Tuple, Duration),
    /// One entry was used so long after now.
    Ahead(Tuple, Duration),
    /// The lease of a family is given for longer than the tests take, or over as of now.
    Lease(model::Family, Lease),
    /// There is such an entry, or none.
    Entry(Tuple, Option<(FlowState, Table)>),
}

impl Case {
    /// A packet that is passed as it is.
    pub fn new(name: impl Into<String>, hook: Hook, packet: &Frame) -> Self {
        Self::of_bytes(name, hook, packet.build())
    }

    /// As [`Case::new`].
    pub fn of_bytes(name: impl Into<String>, hook: Hook, packet: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            tables: Tables::Usual,
            setup: Vec::new(),
            hook,
            packet_out: packet.clone(),
            packet_in: packet,
            verdict: Verdict::Pass(PassReason::NotOurs),
            counters: None,
            then: Vec::new(),
        }
    }

    /// A client's packet that is sent on.
    pub fn forward(name: impl Into<String>, flow: &Flow, packet: &Frame) -> Self {
        let mut case = Self::new(name, Hook::Ingress, packet);
        case.verdict = flow.verdict(Direction::ToBackend);
        case.packet_out = flow.backend_gets(packet).build();
        case.counts(flow, Direction::ToBackend, packet)
    }

    /// A backend's packet that is sent on.
    pub fn reply(name: impl Into<String>, flow: &Flow, packet: &Frame) -> Self {
        let mut case = Self::new(name, flow.reply_hook(), packet);
        case.verdict = flow.verdict(Direction::ToClient);
        case.packet_out = flow.client_gets(packet).build();
        case.counts(flow, Direction::ToClient, packet)
    }

    /// A packet that is dropped.
    pub fn drop(name: impl Into<String>, packet: &Frame, reason: DropReason) -> Self {
        Self { verdict: Verdict::Drop(reason), ..Self::new(name, Hook::Ingress, packet) }
    }

    /// A packet that is answered.
    pub fn reset(name: impl Into<String>, packet: &Frame, reason: ResetReason, answer: &Frame) -> Self {
        let packet_out = answer.build();
        Self { verdict: Verdict::Reset(reason), packet_out, ..Self::new(name, Hook::Ingress, packet) }
    }

    fn counts(self, flow: &Flow, direction: Direction, packet: &Frame) -> Self {
        self.counts_bytes(flow, direction, packet.ip_length())
    }

    /// The flow's backend counts a packet of so many bytes.
    pub fn counts_bytes(mut self, flow: &Flow, direction: Direction, bytes: u64) -> Self {
        let mut stats = BackendStats::default();
        stats.packets[direction as usize] = 1;
        stats.bytes[direction as usize] = bytes;
        self.counters = Some((flow.backend_id, stats));
        self
    }

    /// The packet opens a flow.
    pub fn opens(mut self) -> Self {
        let (_, stats) = self.counters.as_mut().expect("only packets that are sent on open flows");
        stats.flows = 1;
        self
    }

    /// What is before the packet.
    pub fn after(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.setup.extend(steps);
        self
    }

    /// What is after the packet.
    pub fn then(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.then.extend(steps);
        self
    }

    /// Both entries of the flow are in this state afterwards.
    pub fn leaves(self, flow: &Flow, entry: Option<(FlowState, Table)>) -> Self {
        self.then([Step::Entry(flow.forward(), entry), Step::Entry(flow.reply(), entry)])
    }
}

/// Runs a case, and puts everything back.
pub fn check(testbed: &mut Testbed, case: &Case) -> Result<()> {
    let before = testbed.desired().clone();
    let result = run(testbed, case).with_context(|| case.name.clone());
    if *testbed.desired() != before {
        for operation in plan::plan(&before, Some(testbed.desired())) {
            testbed.apply(&operation)?;
        }
    }
    testbed.clear_flows()?;
    [model::Family::V4, model::Family::V6].into_iter().try_for_each(|family| testbed.leases().expire(family))?;
    result
}

fn run(testbed: &mut Testbed, case: &Case) -> Result<()> {
    for (i, step) in case.setup.iter().enumerate() {
        take(testbed, step).with_context(|| format!("step {i} of the set-up"))?;
    }
    let stats_before = all_stats(testbed)?;
    let (verdict, output) = testbed.judge(case.hook, &case.packet_in)?;
    ensure!(verdict == case.verdict, "verdict {}, not {}", verdict.name(), case.verdict.name());
    let expected = testbed.ingress().action(case.hook, case.verdict);
    ensure!(output.action == expected, "action {} and not {expected}", output.action);
    let mut expected = case.packet_out.clone();
    if let (Verdict::Reset(_), Ingress::Tc) = (case.verdict, testbed.ingress()) {
        // XDP leaves it as padding.
        cut_padding(&mut expected);
    }
    ensure!(
        output.frame == expected,
        "in\n{}out\n{}expected\n{}",
        dump(&case.packet_in),
        dump(&output.frame),
        dump(&expected)
    );
    match verdict {
        Verdict::Reset(_) => check_checksums(&output.frame)?,
        // What was wrong before is wrong after.
        Verdict::Forward(_) => ensure!(
            check_checksums(&case.packet_in).is_ok() == check_checksums(&output.frame).is_ok(),
            "a checksum was broken or mended"
        ),
        Verdict::Pass(_) | Verdict::Drop(_) => {}
    }
    for (id, (after, before)) in (0_u16..).zip(all_stats(testbed)?.into_iter().zip(stats_before)) {
        let counted = BackendStats {
            packets: [0, 1].map(|i| after.packets[i] - before.packets[i]),
            bytes: [0, 1].map(|i| after.bytes[i] - before.bytes[i]),
            flows: after.flows - before.flows,
        };
        let expected = case.counters.filter(|(counting, _)| *counting == id).map_or_else(Default::default, |(_, s)| s);
        ensure!(counted == expected, "backend {id} counted {counted:?} and not {expected:?}");
    }
    for (i, step) in case.then.iter().enumerate() {
        take(testbed, step).with_context(|| format!("step {i} afterwards"))?;
    }
    Ok(())
}

fn all_stats(testbed: &Testbed) -> Result<Vec<BackendStats>> {
    testbed
        .desired()
        .backends
        .keys()
        .last()
        .map_or(Ok(Vec::new()), |last| (0..=*last).map(|id| testbed.backend_stats(id)).collect())
}

/// Takes a step.
pub fn take(testbed: &mut Testbed, step: &Step) -> Result<()> {
    match step {
        Step::Send(hook, frame, expected) => {
            let (verdict, _) = testbed.judge(*hook, frame)?;
            ensure!(verdict == *expected, "verdict {}, not {}", verdict.name(), expected.name());
            Ok(())
        }
        Step::Apply(operation) => testbed.apply(operation),
        Step::Age(tuple, age) => age_of(testbed, tuple, *age),
        Step::AgeFragments(age) => testbed.age_fragments(*age),
        Step::AgeOne(tuple, age) => move_time_of(testbed, tuple, |ns| ns.wrapping_sub(nanoseconds(*age))),
        Step::Ahead(tuple, time) => move_time_of(testbed, tuple, |ns| ns.wrapping_add(nanoseconds(*time))),
        Step::Lease(family, lease) => {
            const HOUR_NS: u64 = 60 * 60 * 1_000_000_000;
            let left_ns = match lease {
                Lease::Fresh => HOUR_NS,
                Lease::Over => 0,
            };
            testbed.leases().renew(*family, boottime_now_ns() + left_ns)
        }
        Step::Entry(tuple, expected) => {
            let entry = entry(testbed, tuple);
            ensure!(entry == *expected, "the entry of {tuple:?} is {entry:?} and not {expected:?}");
            Ok(())
        }
    }
}

/// A 5-tuple as a key of its family's tables.
enum Key {
    V4(FlowKey<Ip4>),
    V6(FlowKey<Ip6>),
}

fn key(tuple: &Tuple) -> Key {
    match (tuple.source.ip(), tuple.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Key::V4(tuple.key(source.into(), destination.into())),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Key::V6(tuple.key(source.into(), destination.into())),
        _ => unreachable!("a flow is of one family"),
    }
}

/// State and table of an entry, whatever its age.
pub fn entry(testbed: &mut Testbed, tuple: &Tuple) -> Option<(FlowState, Table)> {
    match key(tuple) {
        Key::V4(key) => testbed.flow(&key).map(|(flow, table)| (flow.state(), table)),
        Key::V6(key) => testbed.flow(&key).map(|(flow, table)| (flow.state(), table)),
    }
}

/// When an entry was used last, on the clock of the data path.
pub fn seen_ns(testbed: &mut Testbed, tuple: &Tuple) -> Option<u64> {
    match key(tuple) {
        Key::V4(key) => testbed.flow(&key).map(|(flow, _)| flow.last_seen_ns),
        Key::V6(key) => testbed.flow(&key).map(|(flow, _)| flow.last_seen_ns),
    }
}

/// Changes when an entry was used last.
fn move_time_of(testbed: &mut Testbed, tuple: &Tuple, change: impl FnOnce(u64) -> u64) -> Result<()> {
    match key(tuple) {
        Key::V4(key) => testbed.change_flow(&key, |flow| flow.last_seen_ns = change(flow.last_seen_ns)),
        Key::V6(key) => testbed.change_flow(&key, |flow| flow.last_seen_ns = change(flow.last_seen_ns)),
    }
}

/// Centuries fit.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn age_of(testbed: &mut Testbed, tuple: &Tuple, age: Duration) -> Result<()> {
    fn age_both<A: TestFamily>(testbed: &mut Testbed, key: &FlowKey<A>, ns: u64) -> Result<()> {
        let (flow, _) = testbed.flow(key).context("there is no such flow")?;
        for key in [*key, flow.opposite(key.protocol)] {
            testbed.change_flow(&key, |flow| flow.last_seen_ns = flow.last_seen_ns.wrapping_sub(ns))?;
        }
        Ok(())
    }
    let ns = u64::try_from(age.as_nanos())?;
    match key(tuple) {
        Key::V4(key) => age_both(testbed, &key, ns),
        Key::V6(key) => age_both(testbed, &key, ns),
    }
}

fn dump(frame: &[u8]) -> String {
    let line = |(i, line): (usize, &[u8])| {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}  {}\n", i * 16, bytes.join(" "))
    };
    frame.chunks(16).enumerate().map(line).collect()
}
