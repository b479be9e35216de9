//! The summary of a run.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    busy::Pause,
    excuse::Cause,
    fault::Kind,
    growth::Growth,
    ledger::{Activity, Count},
    peek::Peeks,
};
use crate::cluster::VIPS;

/// What a run has come to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What repeats it.
    pub seed: u64,
    /// How long there was load.
    pub load: Duration,
    /// Of that, how long no failure at all was allowed.
    pub quiet: Duration,
    /// When this machine let nobody run, and for how long.
    pub pauses: Vec<Pause>,
    /// How much of the load does not count for that.
    pub busy: Duration,
    /// What clients did.
    pub counts: BTreeMap<Activity, Count>,
    /// Failures, by what explains them.
    pub explained: BTreeMap<(Cause, Activity), u64>,
    /// Faults that were done, by kind.
    pub faults: BTreeMap<Kind, usize>,
    /// Who answered for each VIP, from when on.
    pub masters: [Vec<(Duration, usize)>; 2],
    /// Questions for the VIPs, and how many were answered in the name of two nodes, while a fault explained it.
    pub questions: [usize; 2],
    /// See there.
    pub contested: usize,
    /// What agents took that lived long enough to tell.
    pub growths: Vec<Growth>,
    /// The node whose agent was never ended.
    pub spared: usize,
    /// How many agents there were in all.
    pub n_agents: usize,
    /// Connections and flows of datagrams that clients have begun.
    pub attempts: u64,
    /// The most flows that lived on all nodes together between faults.
    pub most_flows: u64,
    /// What reading the tables has come to.
    pub peeks: Peeks,
    /// How long it took until none was left.
    pub drained: Duration,
    /// What is pinned on each node, before and after.
    pub pins: [Vec<usize>; 2],
    /// Invariants that were broken.
    pub broken: Vec<String>,
}

impl Report {
    /// Whether every invariant held.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// Failures that this explains, in words.
    fn explained_by(&self, cause: Cause) -> String {
        let explained = self.explained.iter().filter(|((other, _), _)| *other == cause);
        let words: Vec<_> = explained.map(|((_, activity), n)| format!("{n} {}", activity.name())).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, load, quiet, .. } = self;
        let [load, quiet] = [load, quiet].map(Duration::as_secs_f64);
        writeln!(f, "seed {seed}, {load:.0} s of load, {quiet:.0} s of them quiet: no failure allowed")?;
        if let Some(Pause { at, late }) = self.pauses.iter().max_by_key(|pause| pause.late) {
            let [busy, at, late] = [self.busy, *at, *late].map(|time| time.as_secs_f64());
            writeln!(f, "{busy:.0} s do not count: the machine let nobody run, for up to {late:.1} s (at {at:.1} s)")?;
        }
        writeln!(f, "\nwhat clients did          done     failed        MiB checked")?;
        for (activity, Count { done, bytes, failed }) in &self.counts {
            let mib = *bytes as f64 / f64::from(1 << 20);
            writeln!(f, "  {:<18} {done:>9}  {failed:>9}  {mib:>17.1}", activity.name())?;
        }
        writeln!(f, "\nfaults               done  failures that they explain")?;
        for (kind, n) in &self.faults {
            writeln!(f, "  {kind:<17} {n:>5}  {}", self.explained_by(Cause::Fault(*kind)))?;
        }
        if !self.pauses.is_empty() {
            writeln!(f, "  (a busy machine)         {}", self.explained_by(Cause::Busy))?;
        }
        writeln!(f)?;
        for ((vip, masters), questions) in VIPS.iter().zip(&self.masters).zip(self.questions) {
            let words: Vec<_> =
                masters.iter().map(|(at, node)| format!("node{node} from {:.1} s", at.as_secs_f64())).collect();
            writeln!(f, "{vip}: {questions} answers; {}", words.join(", "))?;
        }
        writeln!(f, "{} questions were answered for two nodes, while the VIPs moved", self.contested)?;
        writeln!(f, "\n{} agents, and that of node{} was spared; first and last", self.n_agents, self.spared)?;
        writeln!(f, "quiet moments of those that lived long enough to tell:")?;
        for Growth { node, life, memory, descriptors } in &self.growths {
            let [before, after] = memory.map(|kib| kib as f64 / 1024.0);
            let [few, many] = descriptors;
            let life = life.as_secs();
            writeln!(f, "  node{node}, {life:>5} s: {before:.1} -> {after:.1} MiB, {few} -> {many} descriptors")?;
        }
        let Self { attempts, most_flows, drained, peeks: Peeks { done, most_entries, .. }, .. } = self;
        let drained = drained.as_secs_f64();
        write!(f, "\nflows: {attempts} were begun; at most {most_flows} lived between faults, ")?;
        writeln!(f, "and none {drained:.0} s after the load")?;
        writeln!(f, "flow tables: read {done:?} times, at most {most_entries} entries on a node")?;
        writeln!(f, "pins of each node: {:?} before, {:?} after", self.pins[0], self.pins[1])?;
        if self.is_clean() {
            return write!(f, "\nEvery invariant held.");
        }
        write!(f, "\n{} times an invariant was BROKEN:", self.broken.len())?;
        self.broken.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}
