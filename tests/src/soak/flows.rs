//! How many flows live: as agents count them, as the tables have them, and as the load makes of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{
    LIFETIME,
    fault::N_NODES,
    ledger::Ledger,
    peek,
    stage::Stage,
    tables::{self, Bounds},
};
use crate::poll;

/// How much longer than its connection a flow may have packets, while nothing goes wrong: the ends say goodbye, and a look
/// takes its time.
const GOODBYES: Duration = Duration::from_secs(3);

/// How much longer than their lifetime flows may take to be gone.
const DRAINED: Duration = Duration::from_secs(10);

/// How many flows live on each node.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// As agents count them.
    pub counted: Vec<u64>,
    /// As the tables have them.
    pub read: Vec<u64>,
}

/// What an agent counts.
///
/// # Errors
/// If it does not tell each of its numbers.
fn counted(status: &serde_json::Value) -> Result<u64> {
    let mut sum = 0;
    for table in ["flows_v4", "flows_v6"] {
        for kind in ["established", "half_open", "closing"] {
            let n = status[table][kind].as_u64();
            sum += n.with_context(|| format!("{table} has no number of {kind} flows: {status}"))?;
        }
    }
    Ok(sum)
}

/// Counts the flows of all nodes.
///
/// # Errors
/// If a number cannot be had.
pub fn count(stage: &Stage<'_>) -> Result<Counts> {
    let counted = stage.statuses()?.iter().map(counted).collect::<Result<_>>()?;
    let read = stage.lab().nodes().iter().map(|node| Ok(peek::read(node)?.n_live())).collect::<Result<_>>()?;
    Ok(Counts { counted, read })
}

/// Counts them while nothing goes wrong and there is load: what is wrong with the numbers, too.
///
/// # Errors
/// If a number cannot be had.
pub fn count_and_judge(stage: &Stage<'_>, ledger: &Ledger) -> Result<(Counts, Vec<String>)> {
    let (begun, answered) = (ledger.now(), ledger.census().answered());
    let counts = count(stage)?;
    let census = ledger.census();
    // Those that were there all the time.
    let held = answered.saturating_sub(census.ended_since(begun)) as u64;
    let at_most = census.existed_since(begun.saturating_sub(LIFETIME + GOODBYES)) as u64;
    let read = Bounds { at_least: held.max(1), at_most }.judge(&counts.read);
    // What agents count may be a little older.
    let counted = Bounds { at_least: 1, at_most }.judge(&counts.counted);
    let words = [("read from the tables", read), ("counted by agents", counted)];
    let wrong = words.into_iter().filter_map(|(how, wrong)| Some(format!("{how}: {}", wrong?)));
    Ok((counts, wrong.collect()))
}

/// How long it took until none was left.
///
/// # Errors
/// If one is left, or something that no flow has.
pub fn drain(stage: &Stage<'_>, ledger: &Ledger) -> Result<Duration> {
    let start = Instant::now();
    poll::until_ok("all flows to be gone", LIFETIME + DRAINED, || {
        let counts = count(stage)?;
        let n_left = counts.counted.iter().chain(&counts.read).sum::<u64>();
        if n_left > 0 {
            bail!("flows are left: {counts:?}");
        }
        for node in stage.lab().nodes() {
            let n_live = peek::read(node)?.n_live_entries();
            if n_live > 0 {
                bail!("{n_live} entries live on {}, and no flow is theirs", node.name());
            }
        }
        Ok(())
    })?;
    let drained = start.elapsed();
    for number in 1..=N_NODES {
        let node = stage.lab().node(number);
        let tables = peek::read(node)?;
        let suspects = peek::confirm(node, tables.suspects())?;
        let words = suspects.iter().map(ToString::to_string);
        let words = words.chain(tables::too_many(tables.n_entries(), ledger.census().attempts()));
        words.for_each(|words| ledger.broken(format!("at the end, node{number}: {words}")));
    }
    Ok(drained)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_that_is_not_told_is_not_zero() {
        let flows = json!({ "established": 1, "half_open": 2, "closing": 3 });
        let status = json!({ "flows_v4": flows, "flows_v6": flows });
        assert_eq!(counted(&status).ok(), Some(12));
        for pointer in ["/flows_v4", "/flows_v6", "/flows_v4/closing", "/flows_v6/half_open"] {
            let mut status = status.clone();
            *status.pointer_mut(pointer).expect("it is there") = json!(null);
            assert!(counted(&status).is_err(), "{pointer}");
        }
        assert!(counted(&json!({})).is_err());
    }
}
