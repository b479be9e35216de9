//! `cargo xtask soak`: mixed load and faults at random, for as long as is asked for.

use std::{
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use kplb_tests::soak::{self, Options, fault::Kind};
use tokio::signal::unix::{SignalKind, signal};

/// How a shell sees who was ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// Puts mixed load on three nodes, has faults happen to them at random, and tells whether every invariant held.
#[derive(Parser)]
struct Arguments {
    /// Minutes of load.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Repeats the faults of a run, and their times since the start. Without it, another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of faults, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::ALL, value_enum)]
    faults: Vec<Kind>,
    /// Where agents attach, as for `kplb attach`.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Auto,
    Native,
    Tc,
    Generic,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Tc => "tc",
            Self::Generic => "generic",
        }
    }
}

fn main() -> Result<ExitCode> {
    let Arguments { minutes, seed, faults, mode } = Arguments::parse();
    let load = Duration::try_from_secs_f64(minutes * 60.0).context("minutes are no time")?;
    let options = Options {
        // Short enough to be typed.
        seed: seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        load,
        kinds: faults,
        mode: mode.name().to_owned(),
    };
    println!("seed {}: `--seed {}` repeats these faults", options.seed, options.seed);
    let report = soak::run(&options, &*end_by_signal()?)?;
    println!("\n{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the first signal sets; a second one ends this process, and so everything that it has started, at once.
fn end_by_signal() -> Result<Arc<AtomicBool>> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn({
        let is_interrupted = Arc::clone(&is_interrupted);
        move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if is_interrupted.swap(true, Ordering::Relaxed) {
                        process::exit(INTERRUPTED);
                    }
                    eprintln!("ending; once more to end at once");
                }
            });
        }
    });
    Ok(is_interrupted)
}
