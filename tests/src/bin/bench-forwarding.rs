//! `cargo xtask bench forwarding`: packets a second that one processor forwards, next to a program that swaps MAC addresses,
//! and to nftables; interleaved.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use kplb_tests::{
    bench::{
        Traffic,
        forwarding::{Case, ESTABLISHED, Fed, Forwarder, Sample, Stage, goal, overview, table},
    },
    goal::{self, Goal},
};

/// For caches to fill, at least.
const WARM_UP: u32 = 10_000;

const CASES: [Case; 5] = [
    case("established, to backend, 1 flow", Traffic::ToBackend, 1, Some(0.75)),
    case("established, to client, 1 flow", Traffic::ToClient, 1, Some(0.75)),
    case("established, to backend, 1,024 flows", Traffic::ToBackend, 1024, Some(0.75)),
    case("established, to backend, 32k flows", Traffic::ToBackend, ESTABLISHED, None),
    // Once only: a port is new no second time.
    Case { at_most: Some(ESTABLISHED), ..case("new flows", Traffic::Opening, ESTABLISHED, None) },
];

const fn case(name: &'static str, traffic: Traffic, n_flows: u32, reach: Option<f64>) -> Case {
    Case { name, traffic, n_flows, at_most: None, reach }
}

/// Measures how many packets a second one processor forwards.
#[derive(Parser)]
struct Arguments {
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Packets of each measurement.
    #[arg(long, default_value_t = 500_000)]
    packets: u32,
    /// Which processor does all of it.
    #[arg(long, default_value_t = 0)]
    processor: usize,
    /// Only these; may be given several times. The MAC swap is always there.
    #[arg(long = "forwarder", default_values_t = Forwarder::ALL, value_enum)]
    forwarders: Vec<Forwarder>,
    /// Only the cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write every round's figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    ensure!(arguments.packets > 0 && arguments.rounds > 0, "nothing is to be measured");
    arguments.forwarders.push(Forwarder::Swap);
    arguments.forwarders.sort_unstable();
    arguments.forwarders.dedup();
    let cases: Vec<Case> = CASES.into_iter().filter(|case| case.name.contains(&arguments.only)).collect();
    let mut rounds: BTreeMap<&str, Vec<Vec<Sample>>> = BTreeMap::new();
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        let mut stages = Vec::new();
        for forwarder in &arguments.forwarders {
            let stage = Stage::new(*forwarder, arguments.processor).with_context(|| forwarder.to_string())?;
            stages.push((*forwarder, stage));
        }
        for case in &cases {
            let samples = stages.iter_mut().map(|(forwarder, stage)| {
                let what = || format!("{forwarder}: {}, round {round}", case.name);
                Ok(Sample::new(*forwarder, measure(stage, case, arguments.packets).with_context(what)?))
            });
            rounds.entry(case.name).or_default().push(samples.collect::<Result<_>>()?);
        }
    }
    println!("medians of {} rounds of {} packets, interleaved", arguments.rounds, arguments.packets);
    for case in &cases {
        println!("\n{}", table(case, rounds.get(case.name).map_or(&[], Vec::as_slice)));
    }
    let cases: Vec<(&Case, &[Vec<Sample>])> =
        cases.iter().map(|case| (case, rounds.get(case.name).map_or(&[][..], Vec::as_slice))).collect();
    println!("\nns a packet, share of the MAC swap's rate\n\n{}", overview(&cases));
    let goals: Vec<Goal> = cases.iter().filter_map(|(case, rounds)| goal(case, rounds)).collect();
    println!("\nGoals\n\n{}", goal::table(&goals));
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&rounds)?).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn measure(stage: &mut Stage, case: &Case, n_packets: u32) -> Result<Fed> {
    if case.at_most.is_none() {
        stage.feed(case.traffic, case.n_flows, case.n_flows.max(WARM_UP))?;
    }
    stage.feed(case.traffic, case.n_flows, case.at_most.map_or(n_packets, |at_most| n_packets.min(at_most)))
}
