//! A lab to look around in: nodes with the stand-in on each, and clients, until standard input ends.

use std::io::{Read as _, stdin};

use anyhow::Result;
use clap::Parser;
use kplb_tests::{
    apiserver::Apiserver,
    lab::{Lab, LabOptions},
};

/// Builds a lab, says how to enter each host, and takes it down at the end of standard input.
#[derive(Parser)]
struct Arguments {
    /// How many nodes.
    #[arg(long, default_value_t = LabOptions::default().nodes)]
    nodes: usize,
    /// How many clients.
    #[arg(long, default_value_t = LabOptions::default().clients)]
    clients: usize,
}

fn main() -> Result<()> {
    let Arguments { nodes, clients } = Arguments::parse();
    let lab = Lab::new(LabOptions { nodes, clients })?;
    let mut apiservers = lab.nodes().iter().map(Apiserver::start).collect::<Result<Vec<_>>>()?;
    for namespace in lab.namespaces() {
        let (network, mounts) = (namespace.network_path(), namespace.mounts_path());
        println!("{}: nsenter --net={} --mount={}", namespace.name(), network.display(), mounts.display());
        println!("  namespaces {}", namespace.ids()?.join(" "));
    }
    for apiserver in &mut apiservers {
        println!("  process {}", apiserver.process().pid());
    }
    println!("ready: end standard input to take it down");
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
