//! The maps that tests look into.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData, PerCpuArray, RingBuf};
use kplb_common::{
    abi::map,
    fragment::{FragmentKey, Fragments},
    net::{Ip4, Ip6},
    stats::BackendStats,
};

use super::{FlowTable, PINS};

pub(super) struct FlowTables {
    pub(super) v4: FlowTable<Ip4>,
    pub(super) v6: FlowTable<Ip6>,
}

pub(super) struct FragmentTables {
    pub(super) v4: FragmentTable<Ip4>,
    pub(super) v6: FragmentTable<Ip6>,
}

/// A table of datagrams in fragments.
pub(super) type FragmentTable<A> = HashMap<MapData, FragmentKey<A>, Fragments>;

/// The maps that tests look into.
pub(super) struct Opened {
    pub(super) verdicts: PerCpuArray<MapData, u64>,
    pub(super) backend_stats: PerCpuArray<MapData, BackendStats>,
    pub(super) reports: RingBuf<MapData>,
    pub(super) flows: FlowTables,
    pub(super) half_open: FlowTables,
    pub(super) fragments: FragmentTables,
}

impl Opened {
    pub(super) fn open() -> Result<Self> {
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
