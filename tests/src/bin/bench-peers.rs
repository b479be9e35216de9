//! `cargo xtask bench peers`: kplb in each of its modes against what people use today, in one lab, interleaved.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use kplb_tests::{
    lab::{Lab, LabOptions, Wire},
    load::{Client, Figures, Measure, PORT, Peer, Server, Task, table},
};

/// Connections of each measurement.
const N_REQUESTS: usize = 32;
const N_CONNECTIONS: usize = 16;
const N_BULK: usize = 2;

/// For neighbours to be found, and caches to fill.
const WARM_UP: Duration = Duration::from_millis(200);

/// Measures rates, latencies and processor time with each balancer.
#[derive(Parser)]
struct Arguments {
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only these; may be given several times.
    #[arg(long = "peer", default_values_t = Peer::ALL, value_enum)]
    peers: Vec<Peer>,
    /// Only these measurements; may be given several times.
    #[arg(long = "measure", default_values_t = Measure::ALL, value_enum)]
    measures: Vec<Measure>,
    /// Only with these cables; may be given several times.
    #[arg(long = "cables", default_values_t = [Wire::Offloading, Wire::Real], value_enum)]
    cables: Vec<Wire>,
    /// Write every round's figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let time = Duration::try_from_secs_f64(arguments.seconds).context("the seconds are no time")?;
    let mut rounds: BTreeMap<(Wire, Peer), Vec<Figures>> = BTreeMap::new();
    for round in 1..=arguments.rounds {
        for cables in &arguments.cables {
            for peer in &arguments.peers {
                eprintln!("round {round} of {}: {cables}: {peer}", arguments.rounds);
                let figures = measure(*cables, *peer, &arguments.measures, time)
                    .with_context(|| format!("{cables}: {peer}, round {round}"))?;
                rounds.entry((*cables, *peer)).or_default().push(figures);
            }
        }
    }
    println!("medians of {} rounds, each measurement of {time:?}", arguments.rounds);
    for cables in &arguments.cables {
        let of = |peer: &Peer| Some((*peer, Figures::median(rounds.get(&(*cables, *peer))?)));
        let rows: Vec<_> = arguments.peers.iter().filter_map(of).collect();
        println!("\ncables: {cables}\n{}", table(&rows));
    }
    if let Some(path) = &arguments.json {
        let all: BTreeMap<String, _> =
            rounds.iter().map(|((cables, peer), rounds)| (format!("{cables}: {peer}"), rounds)).collect();
        fs::write(path, serde_json::to_string_pretty(&all)?).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn measure(cables: Wire, peer: Peer, measures: &[Measure], time: Duration) -> Result<Figures> {
    let wire = if peer.needs_checksums() { Wire::Real } else { cables };
    let mut lab = Lab::with_wire(LabOptions { nodes: 2, clients: 1 }, wire)?;
    for namespace in lab.namespaces() {
        // Sockets that wait for their time keep ports from the next measurement.
        namespace.run(|| fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0"))?;
    }
    let address = SocketAddr::from((lab.node(2).ipv4(), PORT));
    let server = Server::start(lab.node(2), address, 1)?;
    let mut running = peer.start(&mut lab)?;
    let client = Client { host: running.client(), address: running.address, processor: 0 };
    client.run(Task::Requests, N_REQUESTS, WARM_UP)?;
    let mut figures = Figures::default();
    for measure in measures {
        let (task, n_connections) = match measure {
            Measure::Single => (Task::Requests, 1),
            Measure::Requests => (Task::Requests, N_REQUESTS),
            Measure::Connections => (Task::Connections, N_CONNECTIONS),
            Measure::Bulk => (Task::Bulk, N_BULK),
        };
        figures.note(*measure, &client.run(task, n_connections, time)?);
    }
    figures.resident_mib = running.resident_kib()? as f64 / 1024.0;
    running.stop()?;
    drop(server);
    Ok(figures)
}
