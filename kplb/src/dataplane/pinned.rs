//! The pinned maps of an interface, read by who is not its agent: whether one runs or not.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use aya::{
    Pod,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData},
};
use kplb_common::{
    abi::{LAYOUT_VERSION, map},
    backend::{Backend, BackendState},
    clock::Clock,
    endpoint,
    fence::Vip,
    flow::{Flow, FlowKey},
    gate::Gate,
    maglev::Ring,
    net::{Address, Ip4, Ip6},
    node::Node,
    service::Service,
    stats::BackendStats,
    verdict::Verdict,
};

use super::{FlowTableSizes, batch, counters, pins};
use crate::{
    config::Protocol,
    model::{Desired, Endpoint},
};

/// The interfaces with pins below the pin root, sorted.
///
/// # Errors
/// If the directory cannot be read.
pub fn pinned_interfaces(pin_root: &Path) -> anyhow::Result<Vec<String>> {
    let directory = pins::version_directory(pin_root);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", directory.display())),
    };
    let mut interfaces = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("list {}", directory.display()))?.file_name();
        interfaces.extend(name.to_str().map(pins::interface_of));
    }
    interfaces.sort();
    Ok(interfaces)
}

/// The maps of one interface.
#[derive(Debug)]
pub struct PinnedMaps {
    directory: PathBuf,
}

impl PinnedMaps {
    /// Finds the maps of an interface.
    ///
    /// # Errors
    /// If there are none, or only those of another version of kplb.
    pub fn find(pin_root: &Path, interface: &str) -> anyhow::Result<Self> {
        let directory = pins::maps(&pins::pin_directory(pin_root, interface));
        match fs::metadata(&directory) {
            Ok(_) => Ok(Self { directory }),
            Err(error) if error.kind() == ErrorKind::NotFound => match other_version(pin_root, interface) {
                Some(version) => bail!(
                    "the data path of {interface} is of another version of kplb (its maps are {version}, and not \
                     v{LAYOUT_VERSION}): use the `kplb` that attached it"
                ),
                None => bail!(
                    "kplb is not attached to {interface} (there is no {}); start it with `kplb attach {interface}`",
                    directory.display()
                ),
            },
            Err(error) => Err(error).with_context(|| format!("look for {}", directory.display())),
        }
    }

    /// Those in a directory of pins.
    pub(super) fn at(pin_directory: &Path) -> Self {
        Self { directory: pins::maps(pin_directory) }
    }

    /// Path of a map's pin.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn open(&self, name: &str) -> anyhow::Result<MapData> {
        batch::open_pinned(&self.path(name))
    }

    /// The node as the data path sees it.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn node(&self) -> anyhow::Result<Node> {
        let array: Array<_, Node> = Map::Array(self.open(map::NODE)?).try_into().context("open the node")?;
        array.get(&0, 0).context("read the node")
    }

    /// The services.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn services(&self) -> anyhow::Result<Vec<(Endpoint, Service)>> {
        let mut services = Vec::new();
        self.services_of::<Ip4>(map::SERVICES4, &mut services)?;
        self.services_of::<Ip6>(map::SERVICES6, &mut services)?;
        Ok(services)
    }

    fn services_of<A: Address>(&self, name: &str, services: &mut Vec<(Endpoint, Service)>) -> anyhow::Result<()> {
        let mut unknown = None;
        batch::for_each(&self.open(name)?, |key: &endpoint::Endpoint<A>, service: &Service| {
            let address = SocketAddr::new(to_ip(&key.address), key.port.to_host());
            match protocol(key.protocol) {
                Some(protocol) => services.push((Endpoint { address, protocol }, *service)),
                None => unknown = Some(key.protocol),
            }
        })
        .with_context(|| format!("read {name}"))?;
        unknown.map_or(Ok(()), |number| Err(anyhow!("a service of protocol {number} is in {name}")))
    }

    /// The VIPs.
    fn vips(&self) -> anyhow::Result<BTreeMap<IpAddr, Vip>> {
        let mut vips = BTreeMap::new();
        self.vips_of::<Ip4>(map::VIPS4, &mut vips)?;
        self.vips_of::<Ip6>(map::VIPS6, &mut vips)?;
        Ok(vips)
    }

    fn vips_of<A: Address + Pod>(&self, name: &str, vips: &mut BTreeMap<IpAddr, Vip>) -> anyhow::Result<()> {
        batch::for_each(&self.open(name)?, |address: &A, vip: &Vip| {
            vips.insert(to_ip(address), *vip);
        })
        .with_context(|| format!("read {name}"))
    }

    fn gate(&self) -> anyhow::Result<Gate> {
        let array: Array<_, Gate> = Map::Array(self.open(map::GATE)?).try_into().context("open the gate")?;
        array.get(&0, 0).context("read the gate")
    }

    /// All that an agent writes, for another one that takes over.
    pub(super) fn held(&self) -> anyhow::Result<Desired> {
        let services: BTreeMap<_, _> = self.services()?.into_iter().collect();
        let ring = |service: &Service| anyhow::Ok((service.id, Arc::new(self.ring(service.id)?)));
        Ok(Desired {
            // Of the clock the model knows nothing: it stays as it is until something else of the node is written.
            node: Node { clock: Clock::default(), ..self.node()? },
            gate: Arc::new(self.gate()?),
            vips: self.vips()?,
            rings: services.values().map(ring).collect::<Result<_, _>>()?,
            backends: self.backends()?.into_iter().collect(),
            services,
        })
    }

    /// The backends by id, without the absent ones.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn backends(&self) -> anyhow::Result<Vec<(u16, Backend)>> {
        let mut backends = Vec::new();
        batch::for_each(&self.open(map::BACKENDS)?, |id: &u32, backend: &Backend| {
            if backend.state != BackendState::Absent as u8 {
                backends.extend(u16::try_from(*id).map(|id| (id, *backend)));
            }
        })
        .with_context(|| format!("read {}", map::BACKENDS))?;
        Ok(backends)
    }

    /// How many flows the tables hold.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn flow_table_sizes(&self) -> anyhow::Result<FlowTableSizes> {
        let flows = |name: &str| {
            anyhow::Ok(self.open(name)?.info().with_context(|| format!("ask how large {name} is"))?.max_entries() / 2)
        };
        Ok(FlowTableSizes { max_flows: flows(map::FLOWS4)?, max_half_open: flows(map::HALF_OPEN4)? })
    }

    /// The ring of a service.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn ring(&self, service: u16) -> anyhow::Result<Ring> {
        let rings: ArrayOfMaps<_, Array<MapData, Ring>> = Map::ArrayOfMaps(self.open(map::RINGS)?).try_into()?;
        let read = || rings.get(&service.into(), 0)?.get(&0, 0);
        read().with_context(|| format!("read the ring of service {service}"))
    }

    /// Packets by verdict, all processors together.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn verdicts(&self) -> anyhow::Result<Vec<(Verdict, u64)>> {
        counters::verdicts(&Map::PerCpuArray(self.open(map::VERDICTS)?).try_into()?)
    }

    /// Traffic of a backend, all processors together.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn traffic(&self, backend: u16) -> anyhow::Result<BackendStats> {
        counters::traffic(&Map::PerCpuArray(self.open(map::BACKEND_STATS)?).try_into()?, backend)
    }

    /// Calls `visit` with the entries of a family's flows, those of both directions, whatever their age; half-open flows
    /// first, so that one that moves on meanwhile is seen twice rather than never.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn for_each_entry<A: FlowFamily>(&self, mut visit: impl FnMut(&FlowKey<A>, &Flow<A>)) -> anyhow::Result<()> {
        for name in [A::HALF_OPEN, A::FLOWS] {
            batch::for_each(&self.open(name)?, &mut visit).with_context(|| format!("read {name}"))?;
        }
        Ok(())
    }

    /// The tables of a family's flows, to look single entries up.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn tables<A: FlowFamily>(&self) -> anyhow::Result<FlowTables<A>> {
        let open = |name| {
            HashMap::try_from(Map::LruHashMap(self.open(name)?)).with_context(|| format!("{name} is of another type"))
        };
        Ok(FlowTables([open(A::FLOWS)?, open(A::HALF_OPEN)?]))
    }
}

/// A version of the layout that has pins of the interface.
fn other_version(pin_root: &Path, interface: &str) -> Option<String> {
    let own = pins::pin_directory(pin_root, interface);
    let name = own.file_name()?;
    let versions = fs::read_dir(pin_root).ok()?.flatten();
    let with_pins = versions.filter(|version| version.path().join(name).is_dir());
    with_pins.filter_map(|version| version.file_name().into_string().ok()).next()
}

/// An address family with tables of flows.
pub trait FlowFamily: Address {
    /// Name of the table of flows whose client has proved that it is there.
    const FLOWS: &str;
    /// Name of the table of the others.
    const HALF_OPEN: &str;
}

impl FlowFamily for Ip4 {
    const FLOWS: &str = map::FLOWS4;
    const HALF_OPEN: &str = map::HALF_OPEN4;
}

impl FlowFamily for Ip6 {
    const FLOWS: &str = map::FLOWS6;
    const HALF_OPEN: &str = map::HALF_OPEN6;
}

/// Both tables of a family's flows.
pub struct FlowTables<A: FlowFamily>([HashMap<MapData, FlowKey<A>, Flow<A>>; 2]);

impl<A: FlowFamily> FlowTables<A> {
    /// The entry with this key, whatever its age.
    pub fn get(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        // What is gone meanwhile, and what cannot be read, is not known.
        self.0.iter().find_map(|table| table.get(key, 0).ok())
    }
}

/// An address of the data path, as everybody else knows it.
pub fn to_ip<A: Address>(address: &A) -> IpAddr {
    let wide = address.widen();
    match A::VERSION {
        4 => Ipv4Addr::from(Ip4::from_wide(&wide)).into(),
        _ => Ipv6Addr::from(wide).into(),
    }
}

/// An address as the data path of its family has it.
pub fn from_ip<A: Address>(address: IpAddr) -> A {
    match address {
        IpAddr::V4(v4) => A::from_wide(&Ip4::from(v4).widen()),
        IpAddr::V6(v6) => A::from_wide(&Ip6::from(v6)),
    }
}

/// The protocol with this number.
pub fn protocol(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
}
