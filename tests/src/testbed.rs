//! kplb's programs with maps as a configuration makes them, run on made-up packets.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Pod, TestRun, TestRunOptions, TestRunResult,
    maps::{HashMap, Map, MapData, MapInfo, PerCpuArray, RingBuf},
    programs::ProgramError,
};
use kplb::{
    config,
    dataplane::{Dataplane, FlowTableSizes, Leases, LoadOptions, ModeChoice, Sighting},
    ids::Ids,
    maglev::Rings,
    model::{self, Conditions, Desired, NodeFacts},
    plan::{self, Operation},
};
use kplb_common::{
    abi::map,
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, Fragments},
    net::{Address, Ip4, Ip6, Mac},
    stats::BackendStats,
    sweep::{FlowCount, Orphan, SweepMode},
    verdict::{ForwardReason, Verdict},
};

use crate::netns::Namespace;

/// Room for a frame as it comes out.
const ROOM: usize = 16 * 1024;

/// Where the maps are pinned, in the testbed's own mount namespace.
const PINS: &str = "/sys/fs/bpf/testbed";

/// Which program.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hook {
    /// `kplb_xdp`.
    Xdp,
    /// `kplb_tc`.
    Tc,
}

impl Hook {
    /// The action that a verdict comes to here: an `XDP_*` or `TC_ACT_*` code of `include/uapi/linux`.
    pub fn action(self, verdict: Verdict) -> u32 {
        const XDP_DROP: u32 = 1;
        const XDP_PASS: u32 = 2;
        const XDP_TX: u32 = 3;
        const TC_ACT_UNSPEC: u32 = (-1_i32).cast_unsigned();
        const TC_ACT_SHOT: u32 = 2;
        match (self, verdict) {
            (Self::Tc, Verdict::Drop(_)) => TC_ACT_SHOT,
            (Self::Tc, _) => TC_ACT_UNSPEC,
            (
                Self::Xdp,
                Verdict::Pass(_) | Verdict::Forward(ForwardReason::ToLocalBackend | ForwardReason::IcmpToLocalBackend),
            ) => XDP_PASS,
            (Self::Xdp, Verdict::Forward(_) | Verdict::Reset(_)) => XDP_TX,
            (Self::Xdp, Verdict::Drop(_)) => XDP_DROP,
        }
    }
}

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

struct FlowTables {
    v4: FlowTable<Ip4>,
    v6: FlowTable<Ip6>,
}

struct FragmentTables {
    v4: FragmentTable<Ip4>,
    v6: FragmentTable<Ip6>,
}

/// A table of datagrams in fragments.
type FragmentTable<A> = HashMap<MapData, FragmentKey<A>, Fragments>;

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
    pub fn new(configuration: &str, facts: &NodeFacts, flows: FlowTableSizes) -> Result<Self> {
        Self::with_pins(configuration, facts, flows, |_| Ok(()))
    }

    /// As [`Testbed::new`], with maps in place of the programs' own: `pin` is called with the directory where each
    /// map is looked for by its name before it is created.
    ///
    /// # Errors
    /// If the configuration is wrong, or the kernel refuses.
    pub fn with_pins(
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
        let load = || {
            let maps = Path::new(PINS).join("maps");
            fs::create_dir_all(&maps)?;
            pin(&maps)?;
            let mut dataplane = Dataplane::load(LoadOptions {
                predecessor: None,
                classic: None,
                current: None,
                interface: "none",
                interface_index: 0,
                mode: ModeChoice::Auto,
                pin_directory: Path::new(PINS),
                flows,
                log_level: tracing::Level::INFO,
            })?;
            dataplane.apply(&plan::plan(&desired, None))?;
            let leases = dataplane.leases()?;
            anyhow::Ok((dataplane, leases, Opened::open()?))
        };
        let (dataplane, leases, opened) = namespace.run(load)?;
        let Opened { verdicts, backend_stats, reports, flows, half_open, fragments } = opened;
        Ok(Self {
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

    /// Runs a program on a frame.
    ///
    /// # Errors
    /// If the kernel refuses the frame: it takes none shorter than an Ethernet header.
    pub fn run(&self, hook: Hook, frame: &[u8]) -> Result<Output> {
        let mut out = vec![0xa5; ROOM.max(frame.len() + 256)];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = match hook {
            Hook::Xdp => run(self.dataplane.xdp()?, options),
            Hook::Tc => run(self.dataplane.tc()?, options),
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
        let output = self.run(hook, frame)?;
        let counted: Vec<(Verdict, u64)> = Verdict::all()
            .zip(self.verdicts()?.into_iter().zip(before).map(|(after, before)| after - before))
            .filter(|(_, n)| *n > 0)
            .collect();
        ensure!(matches!(counted[..], [(_, 1)]), "not one verdict, but {counted:?}");
        Ok((counted[0].0, output))
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

/// The maps that tests look into.
struct Opened {
    verdicts: PerCpuArray<MapData, u64>,
    backend_stats: PerCpuArray<MapData, BackendStats>,
    reports: RingBuf<MapData>,
    flows: FlowTables,
    half_open: FlowTables,
    fragments: FragmentTables,
}

impl Opened {
    fn open() -> Result<Self> {
        Ok(Self {
            verdicts: pinned(map::VERDICTS, Map::PerCpuArray)?,
            backend_stats: pinned(map::BACKEND_STATS, Map::PerCpuArray)?,
            reports: pinned(map::REPORTS, Map::RingBuf)?,
            flows: FlowTables { v4: pinned(map::FLOWS4, Map::LruHashMap)?, v6: pinned(map::FLOWS6, Map::LruHashMap)? },
            half_open: FlowTables {
                v4: pinned(map::HALF_OPEN4, Map::LruHashMap)?,
                v6: pinned(map::HALF_OPEN6, Map::LruHashMap)?,
            },
            fragments: FragmentTables {
                v4: pinned(map::FRAGMENTS4, Map::LruHashMap)?,
                v6: pinned(map::FRAGMENTS6, Map::LruHashMap)?,
            },
        })
    }
}

fn pinned<T>(name: &str, kind: impl FnOnce(MapData) -> Map) -> Result<T>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let path = Path::new(PINS).join("maps").join(name);
    let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    T::try_from(kind(data)).with_context(|| format!("{name} is of another type"))
}
