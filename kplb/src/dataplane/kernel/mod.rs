//! Loading the object, attaching its programs, and what the agent asks of them.

mod sweep;
mod write;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{ProgramInfo, SchedClassifier, Xdp},
};
use aya_log::EbpfLogger;
use kplb_common::{
    abi::{self, map},
    local::Diversion,
    sweep::Sweep,
};
use tracing::Level;

use super::{
    attach::{self, Attached, ClassicFilter, ModeChoice, Site, TcLink, XdpMode},
    leases::Leases,
    local,
    object::{self, OBJECT},
    pinned::PinnedMaps,
    pins,
    predecessor::{Layout, Predecessor},
    records::{self, Orphans, Reports},
};
use crate::model::Desired;

/// How many flows the tables hold, for each address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowTableSizes {
    /// Flows whose client has proved that it is there.
    pub max_flows: u32,
    /// Flows whose client has not.
    pub max_half_open: u32,
}

/// What to load, and where.
#[derive(Debug)]
pub struct LoadOptions<'a> {
    /// Name of the interface.
    pub interface: &'a str,
    /// Index of the interface.
    pub interface_index: u32,
    /// Which XDP mode to attach in.
    pub mode: ModeChoice,
    /// Where to pin maps and links; on bpffs.
    pub pin_directory: &'a Path,
    /// Whose place to take.
    pub predecessor: Option<Predecessor>,
    /// The mode that its XDP program runs in.
    pub current: Option<XdpMode>,
    /// Its TC program, where that could not be pinned.
    pub classic: Option<ClassicFilter>,
    /// How large the flow tables are.
    pub flows: FlowTableSizes,
    /// What the programs log; what is off is removed by the verifier.
    pub log_level: Level,
}

/// The loaded programs and their maps. What was pinned is unpinned on drop, unless it was attached, by this or by an
/// earlier agent: then it serves on.
pub struct Dataplane {
    ebpf: Ebpf,
    interface: String,
    interface_index: u32,
    mode: ModeChoice,
    pin_directory: PathBuf,
    predecessor: Option<Predecessor>,
    /// The mode of the predecessor's XDP program.
    current: Option<XdpMode>,
    classic: Option<ClassicFilter>,
    keeps_sockets: bool,
    orphans: Orphans,
    /// As it was last asked for.
    sweep: Sweep,
    /// One more than the highest backend id ever written.
    n_backends: usize,
    state: State,
}

/// How far the data path has come.
enum State {
    /// Loaded; nothing of it sees a packet.
    Loaded,
    /// The programs are a predecessor's, and attached.
    Kept(Attached, TcLink),
    /// Attached, and pinned as a whole.
    Attached(TcLink),
    /// Detached; nothing is left.
    Detached,
}

impl Dataplane {
    /// Loads the programs, and creates and pins their maps, or goes on with those of a predecessor of the same layout.
    ///
    /// # Errors
    /// If the kernel refuses a program or map; all is as it was then.
    pub fn load(options: LoadOptions<'_>) -> anyhow::Result<Self> {
        let LoadOptions { interface, interface_index, mode, pin_directory, predecessor, flows, log_level, .. } =
            options;
        let goes_on = goes_on(predecessor.as_ref());
        pins::create(pin_directory)?;
        let mut ebpf = load(pin_directory, flows, log_level).inspect_err(|_| {
            if !goes_on {
                // The error that matters is the one of loading.
                let _ = pins::remove_pins(pin_directory);
            }
        })?;
        let mut dataplane = Self {
            orphans: Orphans::new(records::take(&mut ebpf, map::ORPHANS)?),
            sweep: Sweep::default(),
            ebpf,
            interface: interface.to_owned(),
            interface_index,
            mode,
            pin_directory: pin_directory.to_owned(),
            current: options.current,
            classic: options.classic,
            keeps_sockets: false,
            predecessor,
            n_backends: 0,
            state: State::Loaded,
        };
        dataplane.load_program(abi::SWEEP_PROGRAM)?;
        if !dataplane.keeps_programs(object::build(log_level)) {
            dataplane.load_program(abi::XDP_PROGRAM)?;
            dataplane.load_program(abi::TC_PROGRAM)?;
        }
        Ok(dataplane)
    }

    /// Goes on with the programs of a predecessor, if they are the same; whether it does. A kernel takes its time to verify
    /// new ones, and nobody is master meanwhile.
    fn keeps_programs(&mut self, build: u64) -> bool {
        let Some(current) = self.current.filter(|current| self.mode.allows(*current)) else { return false };
        if !self.predecessor.as_ref().is_some_and(|predecessor| predecessor.is_of(build)) {
            return false;
        }
        let site = Site {
            interface: &self.interface,
            index: self.interface_index,
            directory: &self.pin_directory,
            before: Some(&self.pin_directory),
        };
        let Some((attached, tc)) = attach::kept(&site, current, self.classic) else { return false };
        self.keeps_sockets = local::are_attached(&self.pin_directory);
        self.state = State::Kept(attached, tc);
        true
    }

    fn load_program(&mut self, name: &str) -> anyhow::Result<()> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
        let loaded = if name == abi::TC_PROGRAM {
            <&mut SchedClassifier>::try_from(program)?.load()
        } else {
            <&mut Xdp>::try_from(program)?.load()
        };
        loaded.with_context(|| format!("the kernel does not accept the program {name}"))
    }

    /// What the maps hold that a predecessor has left; nothing, if they are new.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn held(&mut self) -> anyhow::Result<Option<Desired>> {
        if !goes_on(self.predecessor.as_ref()) {
            return Ok(None);
        }
        let held = self.pinned().held().context("read the maps of an earlier agent")?;
        self.n_backends = held.backends.keys().last().map_or(0, |id| usize::from(*id) + 1);
        // Counts of its rounds must not be taken for those of the next one.
        let sweep: Array<_, Sweep> = self.open(map::SWEEP)?;
        self.sweep = sweep.get(&0, 0).with_context(|| format!("read {}", map::SWEEP))?;
        Ok(Some(held))
    }

    /// How many flows the tables hold, which a predecessor may have made for more or fewer.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn flow_table_sizes(&self) -> anyhow::Result<FlowTableSizes> {
        self.pinned().flow_table_sizes()
    }

    fn pinned(&self) -> PinnedMaps {
        PinnedMaps::at(&self.pin_directory)
    }

    /// Attaches the programs: XDP to the ingress of the interface, TC to its egress; in the place of a predecessor's, if
    /// there are some, so that no packet passes between the two.
    ///
    /// # Errors
    /// If the kernel refuses; nothing of its own is attached then.
    pub fn attach(&mut self) -> anyhow::Result<Attached> {
        match std::mem::replace(&mut self.state, State::Loaded) {
            State::Kept(attached, tc) => {
                self.state = State::Attached(tc);
                return Ok(attached);
            }
            state => self.state = state,
        }
        let before = self.predecessor.as_ref().map(|predecessor| predecessor.directory.clone());
        let site = Site {
            interface: &self.interface,
            index: self.interface_index,
            directory: &self.pin_directory,
            before: before.as_deref(),
        };
        // Replies first: a client's packet must not reach a backend on this node before its reply can be reversed.
        let tc = attach::attach_tc(&mut self.ebpf, &site, self.classic)?;
        let classic = tc.filter();
        let attached = attach::attach_xdp(&mut self.ebpf, &site, self.mode, self.current);
        match attached {
            Ok(mut attached) => {
                attached.classic = classic;
                self.state = State::Attached(tc);
                if let Some(before) = before.filter(|before| *before != self.pin_directory) {
                    pins::remove_links(&before)?;
                }
                Ok(attached)
            }
            Err(error) if self.predecessor.is_some() => {
                // Whatever is attached stays: forwarding must survive a mistake.
                self.state = State::Attached(tc);
                Err(error)
            }
            Err(error) => {
                // The error that matters is the one of attaching; the pins go on drop.
                let _ = self.detach_tc(tc);
                Err(error)
            }
        }
    }

    /// Whether the programs at sockets are attached already, and go on as they are.
    pub const fn keeps_sockets(&self) -> bool {
        self.keeps_sockets
    }

    /// Loads the programs at the sockets of this node.
    ///
    /// # Errors
    /// If the kernel lacks what one of them needs.
    pub fn load_socket_programs(&mut self) -> anyhow::Result<()> {
        local::load(&mut self.ebpf)
    }

    /// What the kernel knows of a program at sockets, once it is loaded.
    ///
    /// # Errors
    /// If there is no such program, or it is not loaded.
    pub fn socket_program(&self, name: &str) -> anyhow::Result<ProgramInfo> {
        let program = self.ebpf.program(name).with_context(|| format!("the object has no program {name}"))?;
        Ok(program.info()?)
    }

    /// Attaches the programs at sockets to a control group, and pins their links; all of them or none. Those of a
    /// predecessor are detached after that.
    ///
    /// # Errors
    /// If the kernel does not take one of them.
    pub fn attach_to_sockets(&mut self, cgroup: &Path) -> anyhow::Result<()> {
        local::attach(&mut self.ebpf, cgroup, &self.pin_directory)
    }

    /// Detaches programs at sockets that a predecessor has left.
    ///
    /// # Errors
    /// If they cannot be detached.
    pub fn detach_from_sockets(&mut self) -> anyhow::Result<()> {
        self.keeps_sockets = false;
        local::detach(&self.pin_directory)
    }

    /// Removes what is left of a predecessor of another layout: nothing uses its maps any more.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn forget_predecessor(&mut self) -> anyhow::Result<()> {
        match self.predecessor.take() {
            Some(Predecessor { directory, .. }) if directory != self.pin_directory => {
                pins::remove_pins(&directory).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// The sockets that were led to backends which serve no longer, as far as they are known.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn orphaned_sockets(&self, is_orphan: impl Fn(&Diversion) -> bool) -> anyhow::Result<Vec<(u64, Diversion)>> {
        local::orphans(&self.ebpf, is_orphan)
    }

    fn detach_tc(&self, link: TcLink) -> anyhow::Result<()> {
        match link {
            TcLink::Pinned => attach::detach_pinned(&pins::tc_link(&self.pin_directory)),
            TcLink::Classic(filter) => attach::detach_classic(&self.interface, filter),
        }
    }

    /// What the data path reports of backends. Once.
    ///
    /// # Errors
    /// If it was taken before, or cannot be watched. Must be called on a tokio runtime.
    pub fn reports(&mut self) -> anyhow::Result<Reports> {
        Reports::new(records::take(&mut self.ebpf, map::REPORTS)?)
    }

    /// The leases of the fenced VIPs, for an election to renew.
    ///
    /// # Errors
    /// If they cannot be opened.
    pub fn leases(&self) -> anyhow::Result<Leases> {
        Leases::open(&self.ebpf)
    }

    /// The XDP program, to be run on made-up packets.
    ///
    /// # Errors
    /// None that a loaded data path could have.
    pub fn xdp(&self) -> anyhow::Result<&Xdp> {
        let program = self.ebpf.program(abi::XDP_PROGRAM).context("the object has no XDP program")?;
        Ok(program.try_into()?)
    }

    /// The TC program, to be run on made-up packets.
    ///
    /// # Errors
    /// None that a loaded data path could have.
    pub fn tc(&self) -> anyhow::Result<&SchedClassifier> {
        let program = self.ebpf.program(abi::TC_PROGRAM).context("the object has no TC program")?;
        Ok(program.try_into()?)
    }

    /// The program that goes through the flow tables.
    ///
    /// # Errors
    /// None that a loaded data path could have.
    pub fn sweeper(&self) -> anyhow::Result<&Xdp> {
        let program = self.ebpf.program(abi::SWEEP_PROGRAM).context("the object has no sweep program")?;
        Ok(program.try_into()?)
    }

    /// The reader of what the programs log, or none where everything that they could log is off.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn logger(&mut self) -> anyhow::Result<EbpfLogger<&'static dyn log::Log>> {
        EbpfLogger::init(&mut self.ebpf).context("open the log of the BPF programs")
    }

    /// Detaches the programs and removes every pin.
    ///
    /// # Errors
    /// If something cannot be removed; what could be is gone then.
    pub fn detach(mut self) -> anyhow::Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        let tc = match std::mem::replace(&mut self.state, State::Detached) {
            State::Attached(tc) | State::Kept(_, tc) => {
                // Nobody else is led to a backend; who was stays with it.
                let sockets = local::detach(&self.pin_directory);
                // The client's side first, so that no packet is rewritten whose reply would not be.
                let xdp = attach::detach_pinned(&pins::xdp_link(&self.pin_directory));
                sockets.and(xdp).and(self.detach_tc(tc))
            }
            State::Loaded | State::Detached => Ok(()),
        };
        let pins = pins::remove_pins(&self.pin_directory).map(drop);
        tc.and(pins)
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        // Forwarding must survive the agent: what is attached stays, by its pins.
        if matches!(self.state, State::Loaded)
            && !goes_on(self.predecessor.as_ref())
            && let Err(error) = self.clear()
        {
            tracing::warn!("cannot remove the pins: {error:#}");
        }
    }
}

/// Whether the maps are those of a predecessor.
fn goes_on(predecessor: Option<&Predecessor>) -> bool {
    predecessor.is_some_and(|predecessor| predecessor.layout() == Layout::Same)
}

/// The ring that the programs log into, as `aya-log` names it: an agent that goes on with them reads on in it.
const LOG: &str = "AYA_LOGS";

fn load(pin_directory: &Path, flows: FlowTableSizes, log_level: Level) -> anyhow::Result<Ebpf> {
    let maps = pins::maps(pin_directory);
    let log_level = aya_level(log_level) as u8;
    // Two entries for each flow.
    let (flow_entries, half_open_entries) = (flows.max_flows * 2, flows.max_half_open * 2);
    let chooses_errors = u8::from(local::chooses_errors());
    let mut loader = EbpfLoader::new();
    loader
        .override_global(abi::CHOOSES_ERRORS, &chooses_errors, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries(map::FLOWS4, flow_entries)
        .map_max_entries(map::FLOWS6, flow_entries)
        .map_max_entries(map::HALF_OPEN4, half_open_entries)
        .map_max_entries(map::HALF_OPEN6, half_open_entries);
    for name in map::ALL.into_iter().chain([LOG]) {
        loader.map_pin_path(name, maps.join(name));
    }
    loader.load(OBJECT).context("load the BPF object")
}

/// The level of the programs' log that shows what the agent's shows.
fn aya_level(level: Level) -> aya_log::Level {
    use aya_log::Level as Aya;

    match level {
        Level::ERROR => Aya::Error,
        Level::WARN => Aya::Warn,
        Level::INFO => Aya::Info,
        Level::DEBUG => Aya::Debug,
        Level::TRACE => Aya::Trace,
    }
}
