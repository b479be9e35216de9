//! What the kernel says of the loaded object is what the agent's types say, and what the verifier had to do.

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapType;
use kplb::{config::FlowsConfig, dataplane::FlowTableSizes, model::NodeFacts};
use kplb_common::{
    abi::{
        CLOCK_PROGRAM, DEFAULT_FLOW_ENTRIES, DEFAULT_HALF_OPEN_ENTRIES, MAX_BACKENDS, MAX_CLIENTS, MAX_FRAGMENTED,
        MAX_LOCAL_PEERS, MAX_LOCAL_SOCKETS, MAX_SERVICES, N_LEASES, ORPHANS_BYTES, RELEASE_PROGRAM, REPORTS_BYTES,
        SOCKET_PROGRAMS, SWEEP_PROGRAM, TC_INGRESS_PROGRAM, TC_PROGRAM, TRACES_BYTES, XDP_PROGRAM, map,
    },
    backend::Backend,
    client::{Client, Whereabouts},
    endpoint::Endpoint,
    fence::{Lease, Vip},
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, Fragments},
    gate::Gate,
    local::{Diversion, LocalPeer},
    net::{Ip4, Ip6, Mac},
    node::Node,
    report::Symptom,
    service::Service,
    stats::BackendStats,
    sweep::{FlowCount, Sweep},
    trace::{TraceCounts, TraceRequest},
    verdict::Verdict,
};
use kplb_tests::testbed::{Ingress, Testbed};

/// As long as the kernel shows a name.
const LONGEST_NAME: usize = 15;

/// What the verifier may go through at most, in instructions. The kernel's limit is a million; older kernels' verifiers
/// prune less, so there has to be room.
const VERIFIED_AT_MOST: u32 = 100_000;

const SIZES: FlowTableSizes = FlowTableSizes { max_flows: 3000, max_half_open: 2000 };

fn testbed(ingress: Ingress) -> Result<Testbed> {
    let text = "[[service]]\nvip = \"198.18.0.100:6443\"\nbackend = [{ address = \"198.18.0.12:6443\" }]\n";
    let facts = NodeFacts {
        mac: Mac::new([2, 0, 0, 0, 0, 1]),
        ipv4: Some([198, 18, 0, 11].into()),
        ipv6: None,
        local: [].into(),
        macs: [].into(),
    };
    Testbed::new(ingress, text, &facts, SIZES)
}

struct Expected {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

const fn table<K, V>(name: &'static str, kind: MapType, entries: u32) -> Expected {
    Expected { name, kind, key: size_of::<K>(), value: size_of::<V>(), entries }
}

/// A ring has no keys and values, and its entries are bytes.
const fn ring(name: &'static str, bytes: u32) -> Expected {
    Expected { name, kind: MapType::RingBuf, key: 0, value: 0, entries: bytes }
}

/// Two entries for each flow.
const FLOW_ENTRIES: u32 = 2 * SIZES.max_flows;
const HALF_OPEN_ENTRIES: u32 = 2 * SIZES.max_half_open;

/// The value of an array of maps is the id of an inner one.
type MapId = u32;

const EXPECTED: [Expected; map::ALL.len()] = [
    table::<u32, Node>(map::NODE, MapType::Array, 1),
    table::<u32, Gate>(map::GATE, MapType::Array, 1),
    table::<Ip4, Vip>(map::VIPS4, MapType::Hash, MAX_SERVICES),
    table::<Ip6, Vip>(map::VIPS6, MapType::Hash, MAX_SERVICES),
    table::<u32, Lease>(map::LEASES, MapType::Array, N_LEASES),
    table::<Endpoint<Ip4>, Service>(map::SERVICES4, MapType::Hash, MAX_SERVICES),
    table::<Endpoint<Ip6>, Service>(map::SERVICES6, MapType::Hash, MAX_SERVICES),
    table::<u32, Backend>(map::BACKENDS, MapType::Array, MAX_BACKENDS),
    table::<u32, MapId>(map::RINGS, MapType::ArrayOfMaps, MAX_SERVICES),
    table::<FlowKey<Ip4>, Flow<Ip4>>(map::FLOWS4, MapType::LruHash, FLOW_ENTRIES),
    table::<FlowKey<Ip6>, Flow<Ip6>>(map::FLOWS6, MapType::LruHash, FLOW_ENTRIES),
    table::<FlowKey<Ip4>, Flow<Ip4>>(map::HALF_OPEN4, MapType::LruHash, HALF_OPEN_ENTRIES),
    table::<FlowKey<Ip6>, Flow<Ip6>>(map::HALF_OPEN6, MapType::LruHash, HALF_OPEN_ENTRIES),
    table::<FragmentKey<Ip4>, Fragments>(map::FRAGMENTS4, MapType::LruHash, MAX_FRAGMENTED),
    table::<FragmentKey<Ip6>, Fragments>(map::FRAGMENTS6, MapType::LruHash, MAX_FRAGMENTED),
    table::<u32, u64>(map::VERDICTS, MapType::PerCpuArray, Verdict::COUNT),
    table::<u32, BackendStats>(map::BACKEND_STATS, MapType::PerCpuArray, MAX_BACKENDS),
    ring(map::REPORTS, REPORTS_BYTES),
    table::<u32, u64>(map::REPORTED, MapType::Array, MAX_BACKENDS * Symptom::COUNT),
    table::<Client, Whereabouts>(map::CLIENTS, MapType::Hash, MAX_CLIENTS),
    table::<u32, Sweep>(map::SWEEP, MapType::Array, 1),
    table::<u32, FlowCount>(map::FLOW_COUNTS, MapType::Array, MAX_BACKENDS),
    ring(map::ORPHANS, ORPHANS_BYTES),
    table::<u64, Diversion>(map::LOCAL_SOCKETS, MapType::LruHash, MAX_LOCAL_SOCKETS),
    table::<LocalPeer, Diversion>(map::LOCAL_PEERS, MapType::LruHash, MAX_LOCAL_PEERS),
    table::<u32, TraceRequest>(map::TRACE, MapType::Array, 1),
    ring(map::TRACES, TRACES_BYTES),
    table::<u32, TraceCounts>(map::TRACE_COUNTS, MapType::PerCpuArray, 1),
];

#[test]
fn maps_are_what_the_agent_takes_them_for() -> Result<()> {
    let testbed = testbed(Ingress::Xdp)?;
    for (Expected { name, kind, key, value, entries }, listed) in EXPECTED.iter().zip(map::ALL) {
        assert_eq!(*name, listed, "this table is in the order of the pins");
        let info = testbed.map_info(name)?;
        assert_eq!(info.name_as_str(), Some(*name));
        assert!(name.len() <= LONGEST_NAME, "{name} is cut off");
        assert_eq!(info.map_type()?, *kind, "type of {name}");
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        assert_eq!(sizes, (*key, *value), "sizes of keys and values of {name}");
        assert_eq!(info.max_entries(), *entries, "entries of {name}");
    }
    Ok(())
}

#[test]
fn programs_are_named_and_within_the_verifiers_means() -> Result<()> {
    let mut testbed = testbed(Ingress::Xdp)?;
    testbed.load_socket_programs()?;
    let dataplane = testbed.dataplane();
    let tc_ingress = self::testbed(Ingress::Tc)?.dataplane().tc_ingress()?.info()?;
    let mut programs = vec![
        (XDP_PROGRAM, dataplane.xdp()?.info()?),
        (TC_INGRESS_PROGRAM, tc_ingress),
        (TC_PROGRAM, dataplane.tc()?.info()?),
        (SWEEP_PROGRAM, dataplane.sweeper()?.info()?),
        (CLOCK_PROGRAM, dataplane.clock_program()?.info()?),
    ];
    for name in SOCKET_PROGRAMS.into_iter().chain([RELEASE_PROGRAM]) {
        programs.push((name, dataplane.socket_program(name)?));
    }
    for (name, info) in programs {
        assert!(name.len() <= LONGEST_NAME, "{name} is cut off");
        assert_eq!(info.name_as_str(), Some(name));
        let verified = info.verified_instruction_count().context("the kernel is older than 5.16")?;
        println!("{name}: {verified} instructions verified, of {VERIFIED_AT_MOST} allowed");
        ensure!(verified <= VERIFIED_AT_MOST, "{name}: {verified} instructions verified");
    }
    Ok(())
}

/// What the programs are loaded with unless someone says otherwise.
#[test]
fn default_sizes_are_those_of_the_configuration() {
    let flows = FlowsConfig::default();
    let entries = [DEFAULT_FLOW_ENTRIES, DEFAULT_HALF_OPEN_ENTRIES];
    assert_eq!([2 * flows.max, 2 * flows.max_half_open], entries);
}
