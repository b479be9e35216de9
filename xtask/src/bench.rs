//! `cargo xtask bench`: measurements.

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    built::{self, Profile},
    command::Command,
    root, setup,
};

/// What can be measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Subject {
    /// Nanoseconds per packet, next to two floors.
    Datapath,
    /// What clients notice of backends that fail.
    Failover,
    /// Rates, latencies and processor time next to what people use today.
    Peers,
    /// How long clients are without a VIP whose holder stops, dies or is cut off.
    Vip,
}

/// Sets up, builds, and becomes the benchmark.
pub fn run(subject: Subject, arguments: &[String]) -> Result<()> {
    setup::run()?;
    let name = match subject {
        Subject::Datapath => "bench-datapath",
        Subject::Failover => "bench-failover",
        Subject::Peers => "bench-peers",
        Subject::Vip => "bench-vip",
    };
    let benchmark = built::program(name, Profile::Release)?;
    root::exec(Command::of(&benchmark).args(arguments))
}
