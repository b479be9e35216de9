//! Looking at the nodes while all goes on: who has the VIPs, and what the agents take.

use std::{
    collections::BTreeMap,
    fs,
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    busy::{LATE, Pause},
    fault::N_NODES,
    growth::Sample,
    inject::other_mac,
    ledger::Ledger,
    masters::{Answered, Holders, NOBODY},
    stage::Pids,
};
use crate::{cluster::VIPS, lab::Lab, poll, process::resident_kib, who_has::Answers};

/// Time between two looks at who has the VIPs.
const CADENCE: Duration = Duration::from_millis(100);

/// Time between two looks at the clock.
const PULSE: Duration = Duration::from_millis(20);

/// Looks from one sample of memory and descriptors to the next.
const LOOKS_PER_SAMPLE: usize = 10;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Changes of who has the VIPs, for each family.
    pub holders: [Vec<Holders>; 2],
    /// What agents took, by node and process id.
    pub samples: BTreeMap<(usize, u32), Vec<Sample>>,
}

/// Looks until the ledger is closed.
///
/// # Errors
/// If something cannot be seen.
pub fn look(lab: &Lab, pids: &Pids, ledger: &Ledger) -> Result<Seen> {
    let mut seen = Seen::default();
    for number in 0.. {
        let begun = Instant::now();
        if ledger.is_over() {
            break;
        }
        for (family, vip) in VIPS.iter().enumerate() {
            let at = ledger.now();
            let mut nodes = Vec::new();
            for node in 1..=N_NODES {
                if lab.node(node).has_address(*vip).context("look at the addresses of a node")? {
                    nodes.push(node);
                }
            }
            let changes = &mut seen.holders[family];
            if changes.last().is_none_or(|last| last.nodes != nodes) {
                changes.push(Holders { at, family, nodes });
            }
        }
        if number % LOOKS_PER_SAMPLE == 0 {
            let pids = *pids.lock().unwrap_or_else(PoisonError::into_inner);
            for (node, pid) in (1..).zip(pids).filter_map(|(node, pid)| Some((node, pid?))) {
                // It may have ended since.
                if let Some(sample) = sample(pid, ledger.now()) {
                    seen.samples.entry((node, pid)).or_default().push(sample);
                }
            }
        }
        poll::pass(CADENCE.saturating_sub(begun.elapsed()), || ledger.is_over());
    }
    Ok(seen)
}

/// Looks at the clock all the time, and notes when it was late: an agent stands still then, too.
pub fn feel_pulse(ledger: &Ledger) {
    while !ledger.is_over() {
        let before = ledger.now();
        poll::pass(PULSE, || false);
        let late = ledger.now().saturating_sub(before + PULSE);
        if late >= LATE {
            ledger.paused(Pause { at: before, late });
        }
    }
}

/// Answers for a VIP, with the nodes that they name.
pub fn answered(answers: &Answers, lab: &Lab, ledger: &Ledger) -> Vec<Answered> {
    let is_at = |mac: [u8; 6]| {
        let hosts = (1..).zip(lab.nodes());
        hosts.filter(|(_, host)| mac == host.mac() || mac == other_mac(host)).map(|(node, _)| node).next()
    };
    let answered = |answer: &crate::who_has::Answer| Answered {
        at: ledger.moment(answer.at),
        question: answer.question,
        node: is_at(answer.mac).unwrap_or(NOBODY),
    };
    answers.iter().map(answered).collect()
}

fn sample(pid: u32, at: Duration) -> Option<Sample> {
    let memory = resident_kib(pid)?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some(Sample { at, memory, descriptors: u64::try_from(descriptors).ok()? })
}
