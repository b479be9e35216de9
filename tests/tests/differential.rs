//! The programs against the model: random packets, and for each the same verdict, the same action, the same bytes.
//!
//! A run depends on its seed only, which is printed; `KPLB_SEED` repeats one.

use std::{env, fmt::Write as _, net::IpAddr, path::Path, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use kplb::{
    dataplane::{FlowTableSizes, boottime_now_ns},
    model::{Desired, Family},
    plan::Operation,
};
use kplb_common::{
    abi::map,
    backend::{Backend, BackendState},
    fence::{Fencing, Vip},
    flow::{Direction, Flow},
    fragment::{FragmentKey, Fragments},
    net::{Address, Ip4, Ip6, Mac},
    verdict::Verdict,
};
use kplb_tests::{
    reference::{
        Flow as ModelFlow, Lease, Proof, Reference,
        generate::{Generator, Profile},
        world,
    },
    testbed::{Hook, Ingress, Output, Table, Testbed},
};
use rand::{
    Rng as _,
    seq::{IndexedRandom as _, IteratorRandom as _},
};

/// Packets of a run.
const PACKETS: u64 = 40_000;
/// Packets after which the counters are compared.
const WINDOW: u64 = 64;
/// Packets after which a backend changes, and a fence.
const CHANGE: u64 = 400;
/// Longer than a run takes.
const LEASE_NS: u64 = 60 * 60 * 1_000_000_000;

/// Of `include/uapi/linux/bpf.h`.
const BPF_F_NO_PREALLOC: u32 = 1;

const BALANCED: Profile = Profile {
    ipv6: 10,
    opening: 12,
    stranger: 12,
    odd: 8,
    garbage: 2,
    asking: 6,
    errors: 8,
    headers: 4,
    pieces: 6,
    tags: 2,
    damaged: 6,
    local: 20,
};

#[test]
fn ipv4() -> Result<()> {
    compare("ipv4", BALANCED)
}

#[test]
fn ipv6() -> Result<()> {
    compare("ipv6", Profile { ipv6: 90, ..BALANCED })
}

#[test]
fn damaged() -> Result<()> {
    compare("damaged", Profile { ipv6: 50, odd: 15, garbage: 25, damaged: 60, ..BALANCED })
}

#[test]
fn errors() -> Result<()> {
    compare("errors", Profile { ipv6: 50, stranger: 4, odd: 2, asking: 2, errors: 60, local: 50, ..BALANCED })
}

#[test]
fn local() -> Result<()> {
    compare("local", Profile { ipv6: 40, opening: 8, stranger: 8, odd: 4, local: 90, ..BALANCED })
}

#[test]
fn fragments() -> Result<()> {
    compare("fragments", Profile { ipv6: 50, opening: 15, pieces: 60, damaged: 3, local: 40, ..BALANCED })
}

#[test]
fn options_and_extension_headers() -> Result<()> {
    compare("headers", Profile { ipv6: 50, errors: 20, headers: 60, pieces: 10, ..BALANCED })
}

#[test]
fn tags_that_only_give_a_priority() -> Result<()> {
    compare("tags", Profile { ipv6: 50, tags: 60, ..BALANCED })
}

#[test]
fn in_a_vlan() -> Result<()> {
    compare_in("42", "vlan", Profile { ipv6: 50, local: 40, ..BALANCED })
}

#[test]
fn in_a_vlan_of_a_vlan() -> Result<()> {
    compare_in("[100, 42]", "vlans", Profile { ipv6: 50, local: 40, ..BALANCED })
}

#[test]
fn a_difference_of_one_bit_is_found() -> Result<()> {
    let mut run = Run::new(Ingress::Xdp, "", "differences", BALANCED)?;
    for _ in 0..200 {
        run.packet(|_| ())?;
    }
    let last_bit = |(_, output): &mut (Verdict, Output)| *output.frame.last_mut().expect("not empty") ^= 1;
    ensure!(run.packet(last_bit).is_err(), "a wrong frame was taken for right");
    ensure!(run.packet(|(_, output)| output.action ^= 1).is_err(), "a wrong action was taken for right");
    ensure!(run.packet(|(_, output)| output.frame.push(0)).is_err(), "a wrong length was taken for right");
    run.counters().context("the counters are still right")?;
    run.counts[0] += 1;
    ensure!(run.counters().is_err(), "a wrong counter was taken for right");
    Ok(())
}

/// Runs packets through programs and model.
fn compare(name: &str, profile: Profile) -> Result<()> {
    compare_in("", name, profile)
}

/// As [`compare`], on an interface of a VLAN.
fn compare_in(vlan: &str, name: &str, profile: Profile) -> Result<()> {
    Ingress::each(|ingress| compare_at(ingress, vlan, name, profile))
}

fn compare_at(ingress: Ingress, vlan: &str, name: &str, profile: Profile) -> Result<()> {
    let mut run = Run::new(ingress, vlan, name, profile)?;
    let started = Instant::now();
    while run.index < PACKETS {
        if run.index.is_multiple_of(CHANGE) {
            run.change_backend()?;
            run.change_fence()?;
        }
        run.packet(|_| ())?;
        if run.index.is_multiple_of(WINDOW) {
            run.counters()?;
        }
    }
    run.counters()?;
    run.traffic()?;
    let flows = run.flow_tables()?;
    let rate = PACKETS as f64 / started.elapsed().as_secs_f64();
    eprintln!("{name}: {PACKETS} packets, {rate:.0} per second, {flows} flows left; verdicts:");
    for (verdict, count) in Verdict::all().zip(&run.counts) {
        eprintln!("{name}: {count:8} {}", verdict.name());
    }
    Ok(())
}

/// A table of datagrams in fragments that evicts none.
fn pin_ample<A: Address>(path: &Path) -> Result<()>
where
    FragmentKey<A>: Pod,
{
    let n_entries = u32::try_from(PACKETS)?;
    Ok(HashMap::<MapData, FragmentKey<A>, Fragments>::create(n_entries, BPF_F_NO_PREALLOC)?.pin(path)?)
}

struct Run {
    seed: u64,
    index: u64,
    testbed: Testbed,
    original: Desired,
    reference: Reference,
    generator: Generator,
    counts: Vec<u64>,
    counted: Vec<u64>,
}

impl Run {
    fn new(ingress: Ingress, vlan: &str, name: &str, profile: Profile) -> Result<Self> {
        let seed = match env::var("KPLB_SEED") {
            Ok(text) => text.parse().context("KPLB_SEED is not a number")?,
            Err(_) => rand::random(),
        };
        eprintln!("{name} at {ingress:?}: KPLB_SEED={seed}");
        let sizes = FlowTableSizes { max_flows: 65_536, max_half_open: 65_536 };
        let testbed = Testbed::with_pins(ingress, &world::configuration(vlan), &world::facts(), sizes, |maps| {
            pin_ample::<Ip4>(&maps.join(map::FRAGMENTS4))?;
            pin_ample::<Ip6>(&maps.join(map::FRAGMENTS6))
        })?;
        let counted = testbed.verdicts()?;
        Ok(Self {
            seed,
            index: 0,
            original: testbed.desired().clone(),
            reference: Reference::default(),
            generator: Generator::new(seed, profile, testbed.desired()),
            counts: vec![0; counted.len()],
            counted,
            testbed,
        })
    }

    /// Compares what becomes of the next packet; `alter` may falsify what is expected.
    fn packet(&mut self, alter: impl FnOnce(&mut (Verdict, Output))) -> Result<()> {
        let (hook, frame) = self.generator.next(&self.reference);
        if !self.testbed.takes(hook, &frame) {
            return Ok(());
        }
        let mut expected = self.reference.judge(self.testbed.desired(), self.testbed.ingress(), hook, &frame);
        self.counts[expected.0.index() as usize] += 1;
        let index = self.index;
        self.index += 1;
        alter(&mut expected);
        let output = self.testbed.run(hook, &frame)?;
        if output != expected.1 {
            bail!(self.report(index, hook, &frame, &expected, &output));
        }
        Ok(())
    }

    fn report(&self, index: u64, hook: Hook, frame: &[u8], expected: &(Verdict, Output), output: &Output) -> String {
        let counted = self.testbed.verdicts().unwrap_or_default();
        let base = self.counted.iter().zip(&self.counts).map(|(before, count)| before + count);
        let differences: Vec<_> = (Verdict::all().zip(counted.iter().zip(base)))
            .filter(|(_, (counted, expected))| **counted != *expected)
            .map(|(verdict, (counted, expected))| format!("{}: {counted}, expected {expected}", verdict.name()))
            .collect();
        format!(
            "KPLB_SEED={} packet {index} at {hook:?}, expected {:?}, counters {differences:?}\n\
             in       {}\nexpected {} {}\nactual   {} {}",
            self.seed,
            expected.0,
            hex(frame),
            expected.1.action,
            hex(&expected.1.frame),
            output.action,
            hex(&output.frame),
        )
    }

    fn counters(&self) -> Result<()> {
        let counted = self.testbed.verdicts()?;
        for (i, verdict) in Verdict::all().enumerate() {
            let (actual, expected) = (counted[i] - self.counted[i], self.counts[i]);
            ensure!(
                actual == expected,
                "KPLB_SEED={}: {} is {actual} instead of {expected} after packet {}, and was right {WINDOW} packets before",
                self.seed,
                verdict.name(),
                self.index
            );
        }
        Ok(())
    }

    fn traffic(&self) -> Result<()> {
        for &id in self.original.backends.keys() {
            let (actual, expected) = (self.testbed.backend_stats(id)?, self.reference.traffic(id));
            ensure!(actual == expected, "KPLB_SEED={}: backend {id}: {actual:?} instead of {expected:?}", self.seed);
        }
        Ok(())
    }

    /// A backend is taken away, loses or changes its MAC address, or is as it was.
    fn change_backend(&mut self) -> Result<()> {
        let rng = self.generator.rng();
        let (&id, &original) = self.original.backends.iter().choose(rng).context("there are backends")?;
        let mac = match rng.random_range(0..7) {
            0 => {
                self.reference.forget(id);
                return self.testbed.apply(&Operation::RemoveBackend { id });
            }
            1 => Mac::UNRESOLVED,
            2 => Mac::new(rng.random()),
            3 => {
                let backend = Backend { state: BackendState::Down as u8, ..original };
                return self.testbed.apply(&Operation::SetBackend { id, backend });
            }
            _ => original.mac,
        };
        self.testbed.apply(&Operation::SetBackend { id, backend: Backend { mac, ..original } })
    }

    /// A VIP is fenced or not, and a lease is given, or over as of now.
    fn change_fence(&mut self) -> Result<()> {
        let rng = self.generator.rng();
        let (&address, _) = self.original.vips.iter().choose(rng).context("there are VIPs")?;
        // Mostly fenced.
        let fencing = if rng.random_ratio(3, 4) { Fencing::Fenced } else { Fencing::Open };
        let family = *[Family::V4, Family::V6].choose(rng).context("there are families")?;
        let lease = if rng.random() { Lease::Fresh } else { Lease::Over };
        self.testbed.apply(&Operation::SetVip { address, vip: Vip::new(fencing) })?;
        self.reference.set_lease(family, lease);
        let expires_ns = match lease {
            Lease::Fresh => boottime_now_ns() + LEASE_NS,
            Lease::Over => boottime_now_ns(),
        };
        self.testbed.leases().renew(family, expires_ns)
    }

    /// Compares the flow tables; returns how many flows there are.
    fn flow_tables(&mut self) -> Result<usize> {
        for flow in self.reference.flows().iter() {
            for (direction, tuple) in
                [(Direction::ToBackend, flow.from_client), (Direction::ToClient, flow.from_backend)]
            {
                let entry = match (tuple.source.ip(), tuple.destination.ip()) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        let key = tuple.key(Ip4::from(source), Ip4::from(destination));
                        self.testbed.flow(&key).map(|(entry, table)| (common(&entry), table))
                    }
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        let key = tuple.key(Ip6::from(source), Ip6::from(destination));
                        self.testbed.flow(&key).map(|(entry, table)| (common(&entry), table))
                    }
                    _ => bail!("{tuple:?} is of two families"),
                };
                let table = if flow.proof == Proof::Given { Table::Flows } else { Table::HalfOpen };
                let expected = (expected_common(flow, direction), table);
                ensure!(
                    entry == Some(expected),
                    "KPLB_SEED={}: the entry of {flow:?} {direction:?} is {entry:?} instead of {expected:?}",
                    self.seed
                );
            }
        }
        let n_flows = self.reference.flows().iter().count();
        let n_entries = self.testbed.n_entries();
        ensure!(n_entries == 2 * n_flows, "KPLB_SEED={}: {n_entries} entries of {n_flows} flows", self.seed);
        Ok(n_flows)
    }
}

/// What model and programs both know of an entry: direction, state, backend, client's MAC address, acknowledgement.
type Common = (u8, u8, u16, [u8; 6], u32);

fn common<A: Address>(entry: &Flow<A>) -> Common {
    (entry.direction, entry.state, entry.backend, entry.client_mac.octets(), entry.acknowledged)
}

fn expected_common(flow: &ModelFlow, direction: Direction) -> Common {
    (direction as u8, flow.state as u8, flow.backend, flow.client_mac, flow.acknowledged[direction as usize])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
