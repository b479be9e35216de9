//! What the data path tells of packets, to whom, and for how long.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use kplb::{
    dataplane::{from_ip, monotonic_now_ns},
    trace::Headers,
};
use kplb_common::{
    abi::map,
    net::{Ip6, TCP, UDP},
    pod,
    trace::{Hook as TraceHook, SNAPSHOT_BYTES, TraceCounts, TraceEvent, TraceRequest},
    verdict::{DropReason, ForwardReason, PassReason, ResetReason, Verdict},
};
use kplb_tests::{
    frames::{ACK, PSH, SYN},
    testbed::{Hook, Ingress, Testbed},
};

use crate::{
    case::take,
    scene::{AMPLE, Family, Flow, Kind, NAT_PORTS},
};

const EVERY_VERDICT: u64 = u64::MAX;
/// More than a test lasts.
const LONG: Duration = Duration::from_secs(3600);

fn everything() -> TraceRequest {
    TraceRequest { verdicts: EVERY_VERDICT, sample: 1, rate: u32::MAX, ..TraceRequest::default() }
}

/// Asks for every packet, for as long as any test lasts.
pub fn ask_for_everything(testbed: &Testbed) -> Result<()> {
    Watcher::new(testbed)?.ask(LONG, everything())
}

/// Of how many packets somebody was told, or would have been if there had been room.
pub fn n_seen(testbed: &Testbed) -> Result<u64> {
    let TraceCounts { told, lost, .. } = Watcher::new(testbed)?.counts()?;
    Ok(told + lost)
}

/// Who asks.
struct Watcher {
    request: Array<MapData, TraceRequest>,
    ring: RingBuf<MapData>,
    counts: PerCpuArray<MapData, TraceCounts>,
}

impl Watcher {
    fn new(testbed: &Testbed) -> Result<Self> {
        Ok(Self {
            request: Map::Array(testbed.open_map(map::TRACE)?).try_into()?,
            ring: Map::RingBuf(testbed.open_map(map::TRACES)?).try_into()?,
            counts: Map::PerCpuArray(testbed.open_map(map::TRACE_COUNTS)?).try_into()?,
        })
    }

    fn ask(&mut self, time: Duration, request: TraceRequest) -> Result<()> {
        let until_ns = monotonic_now_ns() + u64::try_from(time.as_nanos())?;
        self.write(&TraceRequest { until_ns, ..request })
    }

    fn write(&mut self, request: &TraceRequest) -> Result<()> {
        Ok(self.request.set(0, request, 0)?)
    }

    fn events(&mut self) -> Result<Vec<TraceEvent>> {
        let mut events = Vec::new();
        while let Some(record) = self.ring.next() {
            events.push(pod::read(&record).context("a record of another length")?);
        }
        Ok(events)
    }

    fn counts(&self) -> Result<TraceCounts> {
        let mut total = TraceCounts::default();
        self.counts.get(&0, 0)?.iter().for_each(|counts| total.add(counts));
        Ok(total)
    }
}

fn watched(ingress: Ingress, family: Family) -> Result<(Testbed, Watcher)> {
    let testbed = Testbed::new(ingress, &family.configuration(NAT_PORTS), &family.facts(), AMPLE)?;
    let mut watcher = Watcher::new(&testbed)?;
    watcher.ask(LONG, everything())?;
    Ok((testbed, watcher))
}

fn start(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A packet is told of as it came and as it went.
fn check(testbed: &Testbed, watcher: &mut Watcher, hook: Hook, frame: &[u8], expected: Verdict) -> Result<()> {
    let before_ns = monotonic_now_ns();
    let (verdict, output) = testbed.judge(hook, frame)?;
    ensure!(verdict == expected, "verdict {}, not {}", verdict.name(), expected.name());
    let events = watcher.events()?;
    let [event] = &events[..] else { anyhow::bail!("{} events of {}", events.len(), verdict.name()) };
    let kept = frame.len().min(SNAPSHOT_BYTES);
    assert_eq!((event.length as usize, usize::from(event.kept)), (frame.len(), kept));
    assert_eq!(u32::from(event.verdict), verdict.index());
    let expected_hook = if hook == Hook::Ingress { TraceHook::Ingress } else { TraceHook::Egress };
    assert_eq!(TraceHook::from_u8(event.hook), Some(expected_hook));
    assert_eq!(start(&event.before)[..kept], frame[..kept], "as it came");
    assert_eq!(start(&event.after)[..kept], output.frame[..kept], "as it went");
    assert!((before_ns..=monotonic_now_ns()).contains(&event.time_ns));
    Ok(())
}

fn tells(ingress: Ingress, family: Family) -> Result<()> {
    let (mut testbed, mut watcher) = watched(ingress, family)?;
    for (protocol, kind) in [(TCP, Kind::Remote), (TCP, Kind::Local), (UDP, Kind::Remote), (UDP, Kind::Local)] {
        let flow = Flow::new(family, protocol, kind);
        use kplb_common::flow::Direction::{ToBackend, ToClient};
        let mut forward = |testbed: &Testbed, flags| {
            check(testbed, &mut watcher, Hook::Ingress, &flow.client_sends(flags).build(), flow.verdict(ToBackend))
        };
        forward(&testbed, SYN)?;
        let mut reply = |testbed: &Testbed, flags| {
            check(testbed, &mut watcher, flow.reply_hook(), &flow.backend_sends(flags).build(), flow.verdict(ToClient))
        };
        reply(&testbed, SYN | ACK)?;
        for step in flow.established() {
            take(&mut testbed, &step)?;
        }
        watcher.events()?;
        let mut both = |testbed: &Testbed| -> Result<()> {
            let (sent, answered) = (flow.client_sends(ACK | PSH).build(), flow.backend_sends(ACK | PSH).build());
            check(testbed, &mut watcher, Hook::Ingress, &sent, flow.verdict(ToBackend))?;
            check(testbed, &mut watcher, flow.reply_hook(), &answered, flow.verdict(ToClient))
        };
        both(&testbed)?;
        testbed.clear_flows()?;
    }
    let tcp = Flow::new(family, TCP, Kind::Remote);
    let unknown = Verdict::Reset(ResetReason::UnknownFlow);
    check(&testbed, &mut watcher, Hook::Ingress, &tcp.client_sends(ACK).build(), unknown)?;
    let unresolved = Flow::new(family, UDP, Kind::Unresolved);
    let no_neighbour = Verdict::Drop(DropReason::NoNeighbour);
    check(&testbed, &mut watcher, Hook::Ingress, &unresolved.client_sends(0).build(), no_neighbour)?;
    // To the node itself.
    let other = tcp.client_sends(SYN).to((family.node(), 22).into()).build();
    check(&testbed, &mut watcher, Hook::Ingress, &other, Verdict::Pass(PassReason::NotOurs))
}

#[test]
fn tells_of_packets_as_they_came_and_went_v4() -> Result<()> {
    Ingress::each(|ingress| tells(ingress, Family::V4))
}

#[test]
fn tells_of_packets_as_they_came_and_went_v6() -> Result<()> {
    Ingress::each(|ingress| tells(ingress, Family::V6))
}

fn mask(family: Family) -> Ip6 {
    match family {
        Family::V4 => from_ip(IpAddr::from([255; 4])),
        Family::V6 => from_ip(IpAddr::from([255; 16])),
    }
}

fn filters(ingress: Ingress, family: Family) -> Result<()> {
    let (testbed, mut watcher) = watched(ingress, family)?;
    let version = if family == Family::V4 { 4 } else { 6 };
    let flow = Flow::new(family, TCP, Kind::Remote);
    let sent =
        [(Hook::Ingress, flow.client_sends(SYN).build()), (Hook::Ingress, flow.backend_sends(SYN | ACK).build())];
    let forwarded = [ForwardReason::ToBackend, ForwardReason::ToClient].map(|reason| Verdict::Forward(reason).index());
    let client = |address: IpAddr| TraceRequest {
        client: from_ip(address),
        client_mask: mask(family),
        client_version: version,
        ..everything()
    };
    let vip = |address: IpAddr| TraceRequest { vip: from_ip(address), vip_version: version, ..everything() };
    let verdicts = |verdicts: u64| TraceRequest { verdicts, ..everything() };
    for (what, request, n_expected) in [
        ("everything", everything(), 2),
        ("the client", client(flow.client.ip()), 2),
        ("another client", client(family.ip(102)), 0),
        ("the other family", TraceRequest { client_version: 10 - version, ..everything() }, 0),
        ("the VIP", vip(flow.vip.ip()), 2),
        ("another VIP", vip(family.ip(99)), 0),
        ("one verdict", verdicts(1 << forwarded[0]), 1),
        ("both verdicts", verdicts(1 << forwarded[0] | 1 << forwarded[1]), 2),
        ("other verdicts", verdicts(!(1 << forwarded[0] | 1 << forwarded[1])), 0),
        ("no verdict", verdicts(0), 0),
    ] {
        watcher.ask(LONG, request)?;
        for (hook, frame) in &sent {
            testbed.run(*hook, frame)?;
        }
        let events = watcher.events()?;
        assert_eq!(events.len(), n_expected, "{what}");
        for event in events {
            let endpoints: Vec<_> = [event.before, event.after]
                .into_iter()
                .flat_map(|words| Headers::of(&start(&words)).endpoints().collect::<Vec<_>>())
                .collect();
            assert!(endpoints.contains(&flow.client) && endpoints.contains(&flow.backend), "{what}: {endpoints:?}");
        }
    }
    Ok(())
}

#[test]
fn tells_only_of_what_is_asked_for_v4() -> Result<()> {
    Ingress::each(|ingress| filters(ingress, Family::V4))
}

#[test]
fn tells_only_of_what_is_asked_for_v6() -> Result<()> {
    Ingress::each(|ingress| filters(ingress, Family::V6))
}

/// Whoever is gone is told of nothing, and the first packet after his time ends what he has asked for.
#[test]
fn who_asks_no_more_is_told_of_no_more() -> Result<()> {
    let (testbed, mut watcher) = watched(Ingress::Xdp, Family::V4)?;
    let frame = Flow::new(Family::V4, TCP, Kind::Remote).client_sends(SYN).build();
    let until_ns = |watcher: &Watcher| anyhow::Ok(watcher.request.get(&0, 0)?.until_ns);
    testbed.run(Hook::Ingress, &frame)?;
    assert_eq!(watcher.events()?.len(), 1);
    assert_ne!(until_ns(&watcher)?, 0);

    let over = TraceRequest { until_ns: monotonic_now_ns() - 1_000_000_000, ..everything() };
    watcher.write(&over)?;
    testbed.run(Hook::Ingress, &frame)?;
    assert_eq!(watcher.events()?.len(), 0);
    assert_eq!(until_ns(&watcher)?, 0, "packets go on to be looked at for nobody");

    watcher.ask(LONG, everything())?;
    testbed.run(Hook::Ingress, &frame)?;
    assert_eq!(watcher.events()?.len(), 1);
    assert_eq!(watcher.counts()?, TraceCounts { told: 2, lost: 0, over_rate: 0 });
    Ok(())
}

#[test]
fn tells_of_one_in_so_many() -> Result<()> {
    let (testbed, mut watcher) = watched(Ingress::Xdp, Family::V4)?;
    let frame = Flow::new(Family::V4, TCP, Kind::Remote).client_sends(SYN).build();
    watcher.ask(LONG, TraceRequest { sample: 10, ..everything() })?;
    // On one processor: each counts by itself.
    pinned(|| (0..100).try_for_each(|_| testbed.run(Hook::Ingress, &frame).map(drop)))?;
    assert_eq!(watcher.events()?.len(), 10);
    // What is left of one request's number does not hold up another one.
    watcher.ask(LONG, everything())?;
    pinned(|| (0..3).try_for_each(|_| testbed.run(Hook::Ingress, &frame).map(drop)))?;
    assert_eq!(watcher.events()?.len(), 3);
    Ok(())
}

/// What is too much is counted and not told, and no verdict depends on it.
#[test]
fn what_is_too_much_is_counted() -> Result<()> {
    const N: u64 = 2000;
    let (testbed, mut watcher) = watched(Ingress::Xdp, Family::V4)?;
    let frame = Flow::new(Family::V4, TCP, Kind::Remote).client_sends(SYN).build();
    let flood = || -> Result<()> {
        for _ in 0..N {
            let (verdict, _) = testbed.judge(Hook::Ingress, &frame)?;
            ensure!(verdict == Verdict::Forward(ForwardReason::ToBackend), "{}", verdict.name());
        }
        Ok(())
    };
    // First, since what another request has used up of this second is used up.
    watcher.ask(LONG, TraceRequest { rate: 5, ..everything() })?;
    flood()?;
    let counts = watcher.counts()?;
    assert_eq!(counts.told, watcher.events()?.len() as u64);
    assert_eq!((counts.told + counts.over_rate, counts.lost), (N, 0));
    // Five for each second that it may have taken, even on a busy machine.
    assert!((5..500).contains(&counts.told), "{} were told", counts.told);

    // The ring has room for less.
    watcher.ask(LONG, everything())?;
    flood()?;
    let counts = watcher.counts()?.since(&counts);
    let told = watcher.events()?.len() as u64;
    assert_eq!(counts, TraceCounts { told, lost: N - told, over_rate: 0 });
    assert!(0 < told && told < N, "{told} of {N} had room");
    Ok(())
}

/// Runs something on the processor on which it begins.
fn pinned<T>(run: impl FnOnce() -> T) -> T {
    use nix::{sched, unistd::Pid};
    let this = Pid::from_raw(0);
    let all = sched::sched_getaffinity(this).expect("a thread may ask where it may run");
    let first = (0..sched::CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false));
    let mut one = sched::CpuSet::new();
    one.set(first.expect("it runs somewhere")).expect("a number that it was given");
    sched::sched_setaffinity(this, &one).expect("a thread may run where it may run");
    let result = run();
    sched::sched_setaffinity(this, &all).expect("as above");
    result
}
