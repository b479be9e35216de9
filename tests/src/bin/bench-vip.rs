//! `cargo xtask bench vip`: how long a client is without a VIP whose holder stops, dies or is cut off.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use kplb_tests::{
    failover::{self, Event, Program},
    figure::{self, Figure},
};

/// Measures how long a client is without the VIP, with two routers of the same program.
#[derive(Parser)]
struct Arguments {
    /// Rounds; in each, every event happens once to each program at each interval.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Seconds between adverts; may be given several times.
    #[arg(long = "interval", default_values_t = [1.0, 0.1])]
    intervals: Vec<f64>,
    /// Only these programs; may be given several times.
    #[arg(long = "program", default_values_t = Program::ALL, value_enum)]
    programs: Vec<Program>,
    /// Only the events whose description contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<()> {
    let Arguments { rounds, intervals, programs, only } = Arguments::parse();
    let events: Vec<_> = Event::ALL.into_iter().filter(|event| event.to_string().contains(&only)).collect();
    let mut scenes = Vec::new();
    for event in events {
        for seconds in &intervals {
            let interval = Duration::try_from_secs_f64(*seconds).context("an interval is no time")?;
            scenes.push((event, interval, Rows::new()));
        }
    }
    for round in 1..=rounds {
        for (event, interval, rows) in &mut scenes {
            for program in &programs {
                eprintln!("round {round} of {rounds}: {event}: {}, adverts every {interval:?}", program.name());
                let figures = failover::measure(*program, *event, *interval)
                    .with_context(|| format!("{event}: {}, round {round}", program.name()))?;
                for (number, figure) in figures.into_iter().enumerate() {
                    rows.entry((number, program.name())).or_default().push(figure);
                }
            }
        }
    }
    println!("{rounds} rounds");
    for (event, interval, rows) in scenes.iter().filter(|(_, _, rows)| !rows.is_empty()) {
        let rows =
            rows.iter().map(|((_, program), rounds)| (format!("{program}: {}", rounds[0].name), rounds.as_slice()));
        println!("\n{event}, with adverts every {interval:?}\n{}", figure::table(rows));
    }
    Ok(())
}

/// Figures of all rounds, by their number and the program: what is to be compared stands together.
type Rows = BTreeMap<(usize, &'static str), Vec<Figure>>;
