//! Reading the flow tables of the nodes, from their pins.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kplb::{
    bpffs,
    dataplane::{PinnedMaps, monotonic_now_ns},
};
use kplb_common::net::{Ip4, Ip6};

use super::{
    fault::N_NODES,
    ledger::Ledger,
    tables::{self, Suspect, Tables},
};
use crate::{
    lab::{Host, Lab},
    poll,
};

/// Between two looks, at least: short enough that every entry is seen while it is young.
const CADENCE: Duration = Duration::from_secs(1);

/// Looking takes one in so many seconds at most, however large the tables have become.
const PART: u32 = 10;

/// How often something must be wrong in a row, and the time between: a flow opens, moves on and ends in microseconds.
const LOOKS: usize = 4;
const AGAIN: Duration = Duration::from_millis(100);

/// What looking at the tables of the nodes has come to.
#[derive(Clone, Debug, Default)]
pub struct Peeks {
    /// How often the tables of each node were read.
    pub done: [usize; N_NODES],
    /// How often they could not be: an agent that stops takes them away.
    pub failed: [usize; N_NODES],
    /// The most entries that a node had, of whatever age.
    pub most_entries: u64,
}

/// Reads the tables of a node.
///
/// # Errors
/// If there are none, or they cannot be read.
pub fn read(node: &Host) -> Result<Tables> {
    let read = || {
        let maps = PinnedMaps::find(&bpffs::pin_root(), "eth0")?;
        let mut tables = Tables::default();
        let now_ns = monotonic_now_ns();
        maps.for_each_entry::<Ip4>(|key, flow| tables.add(key, flow, now_ns))?;
        maps.for_each_entry::<Ip6>(|key, flow| tables.add(key, flow, now_ns))?;
        maps.backends()?.into_iter().for_each(|(id, _)| tables.add_backend(id));
        anyhow::Ok(tables)
    };
    node.namespace().run(read).with_context(|| format!("read the flow tables of {}", node.name()))
}

/// What was wrong with the tables of a node, and is so each time that they are read again.
///
/// # Errors
/// If they cannot be read.
pub fn confirm(node: &Host, mut suspects: BTreeSet<Suspect>) -> Result<BTreeSet<Suspect>> {
    for _ in 1..LOOKS {
        if suspects.is_empty() {
            break;
        }
        poll::pass(AGAIN, || false);
        let again = read(node)?.suspects();
        suspects.retain(|suspect| again.contains(suspect));
    }
    Ok(suspects)
}

/// Looks at the tables of all nodes until the ledger is closed, and says what is wrong with them.
pub fn look(lab: &Lab, ledger: &Ledger) -> Peeks {
    let mut peeks = Peeks::default();
    // What is wrong once is wrong for as long as it is young.
    let mut known = BTreeSet::new();
    while !ledger.is_over() {
        let mut reading = Duration::ZERO;
        for node in 1..=N_NODES {
            let (begun, host) = (Instant::now(), lab.node(node));
            let tables = read(host);
            // Without the time in which it only waits to look again: the next entries must be seen in time, too.
            reading += begun.elapsed();
            let judged = tables.and_then(|tables| Ok((confirm(host, tables.suspects())?, tables)));
            let Ok((suspects, tables)) = judged else {
                peeks.failed[node - 1] += 1;
                continue;
            };
            peeks.done[node - 1] += 1;
            peeks.most_entries = peeks.most_entries.max(tables.n_entries());
            for suspect in suspects {
                if known.insert((node, suspect)) {
                    ledger.broken(format!("node{node}: {suspect}"));
                }
            }
            if let Some(words) = tables::too_many(tables.n_entries(), ledger.census().attempts()) {
                ledger.broken(format!("node{node}: {words}"));
            }
        }
        poll::pass(CADENCE.max(PART * reading), || ledger.is_over());
    }
    peeks
}

impl Peeks {
    /// Nodes, from 1 on, whose tables were read too rarely to tell.
    pub fn unseen(&self) -> Vec<usize> {
        let counts = (1..).zip(self.done.iter().zip(&self.failed));
        counts.filter(|(_, (done, failed))| **done == 0 || done < failed).map(|(node, _)| node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_nobody_reads_are_not_in_order() {
        assert_eq!(Peeks::default().unseen(), [1, 2, 3]);
        let peeks = Peeks { done: [10, 10, 4], failed: [0, 3, 5], most_entries: 0 };
        assert_eq!(peeks.unseen(), [3]);
    }
}
