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
    /// How many packets a second one processor forwards, next to a program that swaps MAC addresses.
    Forwarding,
    /// How costs grow with services, backends and flows.
    Growth,
    /// Rates, latencies and processor time next to what people use today.
    Peers,
    /// How long clients are without a VIP whose holder stops, dies or is cut off.
    Vip,
}

/// Sets up, builds, and becomes the benchmark.
pub fn run(subject: Subject, arguments: &[String]) -> Result<()> {
    match subject {
        Subject::Peers => setup::run_for_comparison()?,
        _ => setup::run()?,
    }
    let name = match subject {
        Subject::Datapath => "bench-datapath",
        Subject::Failover => "bench-failover",
        Subject::Forwarding => "bench-forwarding",
        Subject::Growth => "bench-growth",
        Subject::Peers => "bench-peers",
        Subject::Vip => "bench-vip",
    };
    let benchmark = built::program(name, Profile::Release)?;
    root::exec(Command::of(&benchmark).args(arguments))
}
