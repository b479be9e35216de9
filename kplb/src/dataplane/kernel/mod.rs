//! Loading the object, attaching its programs, and what the agent asks of them.

mod clock;
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
    clock::Clock,
    local::Diversion,
    sweep::Sweep,
};
use tracing::Level;

use super::{
    attach::{self, Attached, Site},
    leases::Leases,
    local,
    mode::{ModeChoice, NativeXdp},
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
    /// Which mode to attach in.
    pub mode: ModeChoice,
    /// What is known of native XDP there.
    pub native: NativeXdp,
    /// Where to pin maps and links; on bpffs.
    pub pin_directory: &'a Path,
    /// Whose place to take.
    pub predecessor: Option<Predecessor>,
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
    native: NativeXdp,
    predecessor: Option<Predecessor>,
    keeps_sockets: bool,
    /// That of the programs.
    clock: Clock,
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
    Kept(Attached),
    /// The programs are attached, and pinned where they can be.
    Attached(Attached),
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
            native: options.native,
            pin_directory: pin_directory.to_owned(),
            keeps_sockets: false,
            clock: Clock::default(),
            predecessor,
            n_backends: 0,
            state: State::Loaded,
        };
        dataplane.load_program(abi::SWEEP_PROGRAM)?;
        dataplane.clock = clock::read(&mut dataplane.ebpf)?;
        if !dataplane.keeps_programs(object::build(log_level)) {
            let ingress = if dataplane.mode.first(&dataplane.native).is_xdp() {
                abi::XDP_PROGRAM
            } else {
                abi::TC_INGRESS_PROGRAM
            };
            dataplane.load_program(ingress)?;
            dataplane.load_program(abi::TC_PROGRAM)?;
        }
        Ok(dataplane)
    }

    /// Goes on with the programs of a predecessor, if they are the same; whether it does. A kernel takes its time to verify
    /// new ones, and nobody is master meanwhile.
    fn keeps_programs(&mut self, build: u64) -> bool {
        let is_like = |before: &&Predecessor| before.is_like(build, self.mode) && attach::is_whole(before);
        let Some(before) = self.predecessor.as_ref().filter(is_like) else { return false };
        self.state = State::Kept(before.attached());
        self.keeps_sockets = local::are_attached(&self.pin_directory);
        true
    }

    fn load_program(&mut self, name: &str) -> anyhow::Result<()> {
        object::load_program(&mut self.ebpf, name)
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

    /// Attaches the programs to the ingress of the interface, and to its egress; in the place of a predecessor's, if there
    /// are some, so that no packet passes between the two.
    ///
    /// # Errors
    /// If the kernel refuses; nothing of its own is attached then.
    pub fn attach(&mut self) -> anyhow::Result<Attached> {
        match std::mem::replace(&mut self.state, State::Loaded) {
            State::Kept(attached) => {
                self.state = State::Attached(attached.clone());
                return Ok(attached);
            }
            state => self.state = state,
        }
        let site = Site {
            interface: &self.interface,
            index: self.interface_index,
            directory: &self.pin_directory,
            before: self.predecessor.as_ref(),
        };
        let attached = attach::attach(&mut self.ebpf, &site, self.mode, &self.native);
        match (&attached, &self.predecessor) {
            (Ok(attached), before) => {
                self.state = State::Attached(attached.clone());
                if let Some(before) = before.as_ref().filter(|before| before.directory() != self.pin_directory) {
                    pins::remove_links(before.directory())?;
                }
            }
            // Whatever is attached stays, also after a failure: forwarding must survive a mistake.
            (Err(_), Some(before)) => self.state = State::Attached(before.attached()),
            (Err(_), None) => {}
        }
        attached
    }

    /// Id of the program at ingress, if it is attached.
    pub const fn program(&self) -> Option<u32> {
        match &self.state {
            State::Attached(attached) | State::Kept(attached) => Some(attached.program),
            State::Loaded | State::Detached => None,
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
            Some(before) if before.directory() != self.pin_directory => pins::remove_pins(before.directory()).map(drop),
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

    /// The TC program at ingress, to be run on made-up packets.
    ///
    /// # Errors
    /// None that a loaded data path could have.
    pub fn tc_ingress(&self) -> anyhow::Result<&SchedClassifier> {
        let program = self.ebpf.program(abi::TC_INGRESS_PROGRAM).context("the object has no TC program for ingress")?;
        Ok(program.try_into()?)
    }

    /// The TC program at egress, to be run on made-up packets.
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

    /// The program that tells what time it is.
    ///
    /// # Errors
    /// None that a loaded data path could have.
    pub fn clock_program(&self) -> anyhow::Result<&Xdp> {
        clock::program(&self.ebpf)
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
        let attached = match std::mem::replace(&mut self.state, State::Detached) {
            State::Attached(attached) | State::Kept(attached) => Some(attached),
            State::Loaded | State::Detached => None,
        };
        let detached = attached.map_or(Ok(()), |Attached { classic, .. }| {
            // Nobody else is led to a backend; who was stays with it.
            let sockets = local::detach(&self.pin_directory);
            sockets.and(attach::detach(&self.pin_directory, &self.interface, classic))
        });
        let pins = pins::remove_pins(&self.pin_directory).map(drop);
        detached.and(pins)
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
