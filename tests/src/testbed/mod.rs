//! kplb's programs with maps as a configuration makes them, run on made-up packets.

mod hook;
mod maps;

use std::{fs, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Pod, TestRun, TestRunOptions, TestRunResult,
    maps::{HashMap, MapData, MapInfo, PerCpuArray, RingBuf},
    programs::ProgramError,
};
use kplb::{
    config,
    dataplane::{Dataplane, FlowTableSizes, Leases, LoadOptions, NativeXdp, Sighting},
    ids::Ids,
    maglev::Rings,
    model::{self, Conditions, Desired, NodeFacts},
    plan::{self, Operation},
};
use kplb_common::{
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, Fragments},
    net::{Address, Ip4, Ip6, Mac},
    stats::BackendStats,
    sweep::{FlowCount, Orphan, SweepMode},
    verdict::Verdict,
};
use nix::net::if_::if_nametoindex;

pub use self::hook::{Hook, Ingress};
use self::{
    hook::TC_ACT_REDIRECT,
    maps::{FlowTables, FragmentTable, FragmentTables, Opened},
};
use crate::{
    netns::Namespace,
    tap::{Packet, Tap},
};

/// Room for a frame as it comes out.
const ROOM: usize = 16 * 1024;

/// Bytes of the largest made-up frame at TC: a page, without room in front of it and behind it.
const LARGEST_AT_TC: usize = 3500;

/// The interface of the program of TC at ingress.
const TAP: &str = "tap0";

/// Where the maps are pinned, in the testbed's own mount namespace.
const PINS: &str = "/sys/fs/bpf/testbed";

/// What became of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// The program's return value: an `XDP_*` or `TC_ACT_*` code.
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

/// The loaded programs. Dropped, it leaves nothing.
pub struct Testbed {
    ingress: Ingress,
    /// Of the program of TC at ingress, which is attached to it.
    tap: Option<Tap>,
    dataplane: Dataplane,
    leases: Leases,
    desired: Desired,
    verdicts: PerCpuArray<MapData, u64>,
    backend_stats: PerCpuArray<MapData, BackendStats>,
    reports: RingBuf<MapData>,
    flows: FlowTables,
    half_open: FlowTables,
    fragments: FragmentTables,
    /// Last: the pins are in it.
    namespace: Namespace,
}

/// A table of flows.
pub type FlowTable<A> = HashMap<MapData, FlowKey<A>, Flow<A>>;

/// An address family with its tables in a testbed.
pub trait TestFamily: Address + Pod {
    /// `FLOWS4` or `FLOWS6`.
    fn flows(testbed: &mut Testbed) -> &mut FlowTable<Self>;

    /// `HALF_OPEN4` or `HALF_OPEN6`.
    fn half_open(testbed: &mut Testbed) -> &mut FlowTable<Self>;
}

impl TestFamily for Ip4 {
    fn flows(testbed: &mut Testbed) -> &mut FlowTable<Self> {
        &mut testbed.flows.v4
    }

    fn half_open(testbed: &mut Testbed) -> &mut FlowTable<Self> {
        &mut testbed.half_open.v4
    }
}

impl TestFamily for Ip6 {
    fn flows(testbed: &mut Testbed) -> &mut FlowTable<Self> {
        &mut testbed.flows.v6
    }

    fn half_open(testbed: &mut Testbed) -> &mut FlowTable<Self> {
        &mut testbed.half_open.v6
    }
}

impl Testbed {
    /// Loads the programs and fills their maps with what this `kplb.toml` means on a node like this.
    ///
    /// # Errors
    /// If the configuration is wrong, or the kernel refuses.
    pub fn new(ingress: Ingress, configuration: &str, facts: &NodeFacts, flows: FlowTableSizes) -> Result<Self> {
        Self::with_pins(ingress, configuration, facts, flows, |_| Ok(()))
    }

    /// As [`Testbed::new`], with maps in place of the programs' own: `pin` is called with the directory where each
    /// map is looked for by its name before it is created.
    ///
    /// # Errors
    /// If the configuration is wrong, or the kernel refuses.
    pub fn with_pins(
        ingress: Ingress,
        configuration: &str,
        facts: &NodeFacts,
        flows: FlowTableSizes,
        pin: impl FnOnce(&Path) -> Result<()> + Send,
    ) -> Result<Self> {
        let config = config::parse(configuration, "testbed").map_err(|problems| anyhow!("{problems}"))?;
        let desired = model::desired(
            &config,
            &Ids::in_order(&config),
            facts,
            &Conditions::all_active(&config),
            &mut Rings::default(),
        )?;
        let namespace = Namespace::new("testbed")?;
        let tap = match ingress {
            Ingress::Xdp => None,
            Ingress::Tc => Some(Tap::new(&namespace, TAP)?),
        };
        let load = || {
            let maps = Path::new(PINS).join("maps");
            fs::create_dir_all(&maps)?;
            pin(&maps)?;
            let mut dataplane = Dataplane::load(LoadOptions {
                predecessor: None,
                native: NativeXdp::Unknown,
                interface: TAP,
                interface_index: if ingress == Ingress::Tc { if_nametoindex(TAP)? } else { 0 },
                mode: ingress.mode(),
                pin_directory: Path::new(PINS),
                flows,
                log_level: tracing::Level::INFO,
            })?;
            dataplane.apply(&plan::plan(&desired, None))?;
            if ingress == Ingress::Tc {
                dataplane.attach()?;
            }
            let leases = dataplane.leases()?;
            anyhow::Ok((dataplane, leases, Opened::open()?))
        };
        let (dataplane, leases, opened) = namespace.run(load)?;
        let Opened { verdicts, backend_stats, reports, flows, half_open, fragments } = opened;
        Ok(Self {
            ingress,
            tap,
            dataplane,
            leases,
            desired,
            verdicts,
            backend_stats,
            reports,
            flows,
            half_open,
            fragments,
            namespace,
        })
    }

    /// What the maps were filled with.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Which program is at ingress.
    pub fn ingress(&self) -> Ingress {
        self.ingress
    }

    /// The programs and maps.
    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// Loads the programs at sockets, too; they are attached nowhere.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn load_socket_programs(&mut self) -> Result<()> {
        self.dataplane.load_socket_programs()
    }

    /// The leases of the fenced VIPs.
    pub fn leases(&mut self) -> &mut Leases {
        &mut self.leases
    }

    /// What the kernel says of a map.
    ///
    /// # Errors
    /// If there is no map of this name.
    pub fn map_info(&self, name: &str) -> Result<MapInfo> {
        let path = Path::new(PINS).join("maps").join(name);
        self.namespace.run(|| MapInfo::from_pin(&path)).with_context(|| format!("open {}", path.display()))
    }

    /// Another handle of a map.
    ///
    /// # Errors
    /// If there is no map of this name.
    pub fn open_map(&self, name: &str) -> Result<MapData> {
        let path = Path::new(PINS).join("maps").join(name);
        self.namespace.run(|| MapData::from_pin(&path)).with_context(|| format!("open {}", path.display()))
    }

    /// Changes maps.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn apply(&mut self, operation: &Operation) -> Result<()> {
        self.dataplane.apply(std::slice::from_ref(operation))?;
        operation.apply(&mut self.desired);
        Ok(())
    }

    /// Changes maps, by operations that go together.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn apply_all(&mut self, operations: &[Operation]) -> Result<()> {
        self.dataplane.apply(operations)?;
        operations.iter().for_each(|operation| operation.apply(&mut self.desired));
        Ok(())
    }

    /// Whether the kernel runs the program at a hook on a made-up frame like this: one of TC neither on what ends before its
    /// IP header does, nor on what does not fit a page (`bpf_prog_test_run_skb` in net/bpf/test_run.c).
    pub fn takes(&self, hook: Hook, frame: &[u8]) -> bool {
        const ETHERNET: usize = 14;
        let header = match frame.get(12..ETHERNET) {
            Some([8, 0]) => 20,
            Some([0x86, 0xdd]) => 40,
            _ => 1,
        };
        let is_tc = hook == Hook::Egress || self.ingress == Ingress::Tc;
        !is_tc || (ETHERNET + header..=LARGEST_AT_TC).contains(&frame.len())
    }

    /// Runs a program on a frame.
    ///
    /// # Errors
    /// If the kernel refuses the frame: it takes none shorter than an Ethernet header.
    pub fn run(&self, hook: Hook, frame: &[u8]) -> Result<Output> {
        let mut out = vec![0xa5; ROOM.max(frame.len() + 256)];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = match (hook, self.ingress) {
            (Hook::Ingress, Ingress::Xdp) => run(self.dataplane.xdp()?, options),
            (Hook::Ingress, Ingress::Tc) => run(self.dataplane.tc_ingress()?, options),
            (Hook::Egress, _) => run(self.dataplane.tc()?, options),
        }
        .with_context(|| format!("run {hook:?} on {} bytes", frame.len()))?;
        out.truncate(result.data_size_out as usize);
        Ok(Output { action: result.return_value, frame: out })
    }

    /// Runs a program on a frame, and says which verdict it counted.
    ///
    /// # Errors
    /// If the kernel refuses, or the program has not counted exactly one verdict.
    pub fn judge(&self, hook: Hook, frame: &[u8]) -> Result<(Verdict, Output)> {
        let before = self.verdicts()?;
        let output = match &self.tap {
            Some(tap) if hook == Hook::Ingress && !self.takes(hook, frame) => {
                Err(exchange(tap, &Packet::whole(frame.to_vec()))?)
            }
            _ => Ok(self.run(hook, frame)?),
        };
        let counted = self.verdicts_since(&before)?;
        ensure!(matches!(counted[..], [(_, 1)]), "not one verdict, but {counted:?}");
        let verdict = counted[0].0;
        let output = output.or_else(|sent: Option<Packet>| {
            let action = self.ingress.action(hook, verdict);
            ensure!(sent.is_some() == (action == TC_ACT_REDIRECT), "{} has sent {sent:?}", verdict.name());
            // What is not sent nobody has changed, as far as this is used.
            anyhow::Ok(Output { action, frame: sent.map_or_else(|| frame.to_vec(), |packet| packet.bytes) })
        })?;
        Ok((verdict, output))
    }

    /// How many packets came to which verdict since these were [`Self::verdicts`]; only those that were any's.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn verdicts_since(&self, before: &[u64]) -> Result<Vec<(Verdict, u64)>> {
        let n_each = self.verdicts()?.into_iter().zip(before).map(|(after, before)| after - before);
        Ok(Verdict::all().zip(n_each).filter(|(_, n)| *n > 0).collect())
    }

    /// Lets a packet come in that is as the kernel has it, and returns the one that is sent back, if one is.
    ///
    /// # Errors
    /// If the program at ingress is not of TC, or the kernel refuses.
    pub fn exchange(&self, packet: &Packet) -> Result<Option<Packet>> {
        exchange(self.tap.as_ref().context("only a packet of TC is one of the kernel's")?, packet)
    }

    /// Another packet that was sent back, if there is one.
    ///
    /// # Errors
    /// If the program at ingress is not of TC, or the kernel refuses.
    pub fn next_sent(&self) -> Result<Option<Packet>> {
        self.tap.as_ref().context("only a packet of TC is one of the kernel's")?.receive()
    }

    /// Packets by verdict, in the order of [`Verdict::all`].
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn verdicts(&self) -> Result<Vec<u64>> {
        Verdict::all().map(|verdict| Ok(self.verdicts.get(&verdict.index(), 0)?.iter().sum())).collect()
    }

    /// Traffic of a backend.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn backend_stats(&self, id: u16) -> Result<BackendStats> {
        let mut total = BackendStats::default();
        self.backend_stats.get(&u32::from(id), 0)?.iter().for_each(|stats| total.add(stats));
        Ok(total)
    }

    /// Ends the established flows that the mode names.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn end_flows(&mut self, mode: SweepMode) -> Result<Vec<Orphan>> {
        self.dataplane.end_flows(mode)
    }

    /// Live flows by backend id.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn flow_counts(&mut self) -> Result<Vec<FlowCount>> {
        Ok(self.dataplane.counters()?.flows)
    }

    /// What the data path has reported since this was last asked.
    ///
    /// # Errors
    /// If a report is none.
    pub fn reports(&mut self) -> Result<Vec<Sighting>> {
        let mut reports = Vec::new();
        while let Some(record) = self.reports.next() {
            reports.push(Sighting::decode(&record).context("a report that says nothing")?);
        }
        Ok(reports)
    }

    /// Leads the established flows of clients to where they were found just now.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn lead_clients(&mut self, clients: &[IpAddr], mac: Mac) -> Result<()> {
        self.dataplane.lead_clients(clients, mac)
    }

    /// Forgets all flows, and all datagrams in fragments.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn clear_flows(&mut self) -> Result<()> {
        clear::<Ip4>(self)?;
        clear::<Ip6>(self)?;
        clear_fragments(&mut self.fragments.v4)?;
        clear_fragments(&mut self.fragments.v6)
    }

    /// The first fragments of all datagrams came so much earlier.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn age_fragments(&mut self, age: Duration) -> Result<()> {
        age_fragments(&mut self.fragments.v4, age)?;
        age_fragments(&mut self.fragments.v6, age)
    }

    /// The entry of a flow and whether it is among the half-open ones, whatever its age.
    pub fn flow<A: TestFamily>(&mut self, key: &FlowKey<A>) -> Option<(Flow<A>, Table)> {
        if let Ok(flow) = A::flows(self).get(key, 0) {
            return Some((flow, Table::Flows));
        }
        A::half_open(self).get(key, 0).ok().map(|flow| (flow, Table::HalfOpen))
    }

    /// How many entries there are in all tables, whatever their age.
    pub fn n_entries(&self) -> usize {
        fn count<A: Address>(tables: [&FlowTable<A>; 2]) -> usize
        where
            FlowKey<A>: Pod,
            Flow<A>: Pod,
        {
            tables.iter().map(|table| table.keys().count()).sum()
        }
        count([&self.flows.v4, &self.half_open.v4]) + count([&self.flows.v6, &self.half_open.v6])
    }

    /// Changes the entry of a flow.
    ///
    /// # Errors
    /// If there is none.
    pub fn change_flow<A: TestFamily>(&mut self, key: &FlowKey<A>, change: impl FnOnce(&mut Flow<A>)) -> Result<()> {
        let (mut flow, table) = self.flow(key).context("there is no such flow")?;
        change(&mut flow);
        let table = match table {
            Table::Flows => A::flows(self),
            Table::HalfOpen => A::half_open(self),
        };
        Ok(table.insert(key, flow, 0)?)
    }
}

fn exchange(tap: &Tap, packet: &Packet) -> Result<Option<Packet>> {
    ensure!(tap.receive()?.is_none(), "something has been sent before");
    tap.send(packet)?;
    tap.receive()
}

/// Which table a flow is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Table {
    /// Its client has proved that it is there.
    Flows,
    /// Its client has not.
    HalfOpen,
}

fn clear<A: TestFamily>(testbed: &mut Testbed) -> Result<()> {
    for table in [A::flows, A::half_open] {
        let keys: Vec<FlowKey<A>> = table(testbed).keys().collect::<Result<_, _>>()?;
        keys.iter().try_for_each(|key| table(testbed).remove(key))?;
    }
    Ok(())
}

fn clear_fragments<A: Address>(table: &mut FragmentTable<A>) -> Result<()> {
    let keys: Vec<FragmentKey<A>> = table.keys().collect::<Result<_, _>>()?;
    Ok(keys.iter().try_for_each(|key| table.remove(key))?)
}

fn age_fragments<A: Address>(table: &mut FragmentTable<A>, age: Duration) -> Result<()> {
    let entries: Vec<(FragmentKey<A>, Fragments)> = table.iter().collect::<Result<_, _>>()?;
    let age_ns = u64::try_from(age.as_nanos())?;
    for (key, fragments) in entries {
        let first_seen_ns = fragments.first_seen_ns.wrapping_sub(age_ns);
        table.insert(key, Fragments { first_seen_ns, ..fragments }, 0)?;
    }
    Ok(())
}

fn run<'a, P>(program: &P, options: TestRunOptions<'a>) -> Result<TestRunResult, ProgramError>
where
    P: TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    program.test_run(options)
}
