//! Reading what the data path counted.

use std::borrow::Borrow;

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use kplb_common::{
    abi::map,
    stats::BackendStats,
    sweep::{FlowCount, Sweep},
    verdict::Verdict,
};

use super::open;

/// What the data path has counted since it was loaded, all processors together.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Packets by verdict, in the order of [`Verdict::all`].
    pub verdicts: Vec<(Verdict, u64)>,
    /// Traffic by backend id.
    pub backends: Vec<BackendStats>,
    /// Live flows by backend id.
    pub flows: Vec<FlowCount>,
}

/// Reads all counters after a sweep; `n_backends`: how many backend ids are in use.
pub(super) fn read(ebpf: &Ebpf, n_backends: usize, sweep: Sweep) -> anyhow::Result<Counters> {
    let verdicts = verdicts(&open(ebpf, map::VERDICTS)?)?;
    let ids = || (0_u16..).take(n_backends);
    let stats: PerCpuArray<_, BackendStats> = open(ebpf, map::BACKEND_STATS)?;
    let backends = ids().map(|id| traffic(&stats, id)).collect::<anyhow::Result<_>>()?;
    Ok(Counters { verdicts, backends, flows: flows(ebpf, n_backends, sweep)? })
}

/// Live flows by backend id, as a sweep has counted them.
pub(super) fn flows(ebpf: &Ebpf, n_backends: usize, sweep: Sweep) -> anyhow::Result<Vec<FlowCount>> {
    let counts: Array<_, FlowCount> = open(ebpf, map::FLOW_COUNTS)?;
    let read = |id: u16| {
        let count = counts.get(&id.into(), 0).with_context(|| format!("read {}", map::FLOW_COUNTS))?;
        // That of another sweep: this one has seen no flow of the backend.
        Ok(if count.round == sweep.round { count } else { FlowCount::default() })
    };
    (0_u16..).take(n_backends).map(read).collect()
}

/// Packets by verdict, in the order of [`Verdict::all`].
pub(super) fn verdicts<M: Borrow<MapData>>(counters: &PerCpuArray<M, u64>) -> anyhow::Result<Vec<(Verdict, u64)>> {
    let read = |verdict: Verdict| {
        let values = counters.get(&verdict.index(), 0).with_context(|| format!("read {}", map::VERDICTS))?;
        Ok((verdict, values.iter().sum()))
    };
    Verdict::all().map(read).collect()
}

/// Traffic of a backend.
pub(super) fn traffic<M: Borrow<MapData>>(
    stats: &PerCpuArray<M, BackendStats>,
    backend: u16,
) -> anyhow::Result<BackendStats> {
    let values = stats.get(&backend.into(), 0).with_context(|| format!("read {}", map::BACKEND_STATS))?;
    let mut total = BackendStats::default();
    values.iter().for_each(|value| total.add(value));
    Ok(total)
}

/// Sets the traffic of a backend to zero.
pub(super) fn clear(ebpf: &mut Ebpf, backend: u16) -> anyhow::Result<()> {
    let name = map::BACKEND_STATS;
    let map = ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    let mut stats: PerCpuArray<_, BackendStats> = map.try_into()?;
    let n_cpus = nr_cpus().map_err(|(path, error)| anyhow::Error::new(error).context(format!("read {path}")))?;
    let zero = PerCpuValues::try_from(vec![BackendStats::default(); n_cpus])?;
    stats.set(backend.into(), zero, 0).with_context(|| format!("write {name}"))
}
