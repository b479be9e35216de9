//! `cargo xtask bench failover`: what clients notice of backends that fail, several rounds of each failure.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::Parser;
use kplb_tests::{
    failure::cases,
    figure::{self, Figure},
};

/// Measures failovers.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each failure.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Established flows on the backend that dies with a crowd.
    #[arg(long, default_value_t = 20_000)]
    flows: usize,
    /// Only the failures whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// A failure, by name.
type Case = (&'static str, Box<dyn Fn() -> Result<Vec<Figure>>>);

fn main() -> Result<()> {
    let Arguments { rounds, flows, only } = Arguments::parse();
    let cases: Vec<Case> = vec![
        ("(a) its process is killed", Box::new(cases::killed)),
        ("(b, c) its node is cut off", Box::new(cases::cut_off)),
        ("(d) it is not ready", Box::new(cases::not_ready)),
        ("(e) it hangs", Box::new(|| cases::hung(2))),
        ("(e) it hangs, on the balancer's node", Box::new(|| cases::hung(1))),
        ("(f) it flaps", Box::new(cases::flapping)),
        ("(g) all of them are killed", Box::new(cases::all_gone)),
        ("(h) it must not tell whether it is ready", Box::new(cases::unauthorized)),
        ("(i) its node is cut off, with a crowd on it", Box::new(move || cases::crowded(flows))),
    ];
    let cases: Vec<_> = cases.into_iter().filter(|(name, _)| name.contains(&only)).collect();
    let mut figures: Vec<BTreeMap<usize, Vec<Figure>>> = vec![BTreeMap::new(); cases.len()];
    for round in 1..=rounds {
        for ((name, case), figures) in cases.iter().zip(&mut figures) {
            eprintln!("round {round} of {rounds}: {name}");
            for (i, figure) in case().with_context(|| format!("{name}, round {round}"))?.into_iter().enumerate() {
                figures.entry(i).or_default().push(figure);
            }
        }
    }
    println!("{rounds} rounds");
    for ((name, _), figures) in cases.iter().zip(figures) {
        let rows = figures.values().map(|rounds| (rounds[0].name.to_owned(), rounds.as_slice()));
        println!("\nA backend fails: {name}\n{}", figure::table(rows));
    }
    Ok(())
}
