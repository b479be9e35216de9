//! The soak, for long enough that two slots of faults have their turn. `cargo xtask soak` runs it for as long as one likes.

use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::{Result, ensure};
use kplb_tests::soak::{self, Options, fault::Kind};

#[test]
fn mixed_load_and_faults() -> Result<()> {
    let kinds = vec![Kind::BackendKill, Kind::AgentKill, Kind::AgentStop];
    let options = Options { seed: 8, load: Duration::from_secs(40), kinds, mode: "auto".to_owned() };
    let report = soak::run(&options, &AtomicBool::new(false))?;
    println!("{report}");
    ensure!(report.faults.values().sum::<usize>() >= 2, "there were no faults");
    ensure!(report.counts.values().all(|count| count.done > 100), "there was no load");
    ensure!(report.is_clean(), "an invariant was broken");
    Ok(())
}
