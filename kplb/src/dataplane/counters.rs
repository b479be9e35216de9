//! Reading what the data path counted.

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, Map, PerCpuArray},
};
use kplb_common::{
    abi::map,
    stats::BackendStats,
    sweep::{FlowCount, Sweep},
    verdict::Verdict,
};

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
    let verdicts: PerCpuArray<_, u64> = open(ebpf, map::VERDICTS)?;
    let verdicts = Verdict::all()
        .map(|verdict| {
            let values = verdicts.get(&verdict.index(), 0).with_context(|| format!("read {}", map::VERDICTS))?;
            Ok((verdict, values.iter().sum()))
        })
        .collect::<anyhow::Result<_>>()?;
    let ids = || 0..u32::try_from(n_backends).unwrap_or(u32::MAX);
    let stats: PerCpuArray<_, BackendStats> = open(ebpf, map::BACKEND_STATS)?;
    let backends = ids()
        .map(|id| {
            let values = stats.get(&id, 0).with_context(|| format!("read {}", map::BACKEND_STATS))?;
            let mut total = BackendStats::default();
            values.iter().for_each(|value| total.add(value));
            Ok(total)
        })
        .collect::<anyhow::Result<_>>()?;
    let counts: Array<_, FlowCount> = open(ebpf, map::FLOW_COUNTS)?;
    let flows = ids()
        .map(|id| {
            let count = counts.get(&id, 0).with_context(|| format!("read {}", map::FLOW_COUNTS))?;
            // That of another sweep: this one has seen no flow of the backend.
            Ok(if count.round == sweep.round { count } else { FlowCount::default() })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Counters { verdicts, backends, flows })
}

/// A map of the object as the type that it has.
fn open<'a, T>(ebpf: &'a Ebpf, name: &str) -> anyhow::Result<T>
where
    T: TryFrom<&'a Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
    T::try_from(map).with_context(|| format!("the map {name} is of another type"))
}
