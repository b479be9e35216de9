//! `cargo xtask bench peers`: kplb in each of its modes against what people use today, in one lab, interleaved.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use kplb_tests::{
    goal::{self, Goal},
    lab::{Lab, LabOptions, Wire},
    load::{self, Client, Comparison, Figures, Measure, PORT, Peer, Server, Task, distribution, goals, percent_below},
    outage::{self, Contender, Event, Record},
    plot::{self, Axes, Line},
};
use serde_json::json;

/// Connections of each measurement.
const N_REQUESTS: usize = 32;
const N_CONNECTIONS: usize = 16;
const N_BULK: usize = 2;

/// For neighbours to be found, and caches to fill.
const WARM_UP: Duration = Duration::from_millis(200);

/// Measures rates, latencies and processor time with each balancer, and what clients notice when something dies.
#[derive(Parser)]
struct Arguments {
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these parts; may be given several times.
    #[arg(long = "part", default_values_t = [Part::Load, Part::Deaths], value_enum)]
    parts: Vec<Part>,
    /// Seconds of each measurement under load.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only these balancers under load; may be given several times.
    #[arg(long = "peer", default_values_t = Peer::ALL, value_enum)]
    peers: Vec<Peer>,
    /// Only these measurements under load; may be given several times.
    #[arg(long = "measure", default_values_t = Measure::ALL, value_enum)]
    measures: Vec<Measure>,
    /// Load only with these cables; may be given several times.
    #[arg(long = "cables", default_values_t = [Wire::Offloading, Wire::Real], value_enum)]
    cables: Vec<Wire>,
    /// Only these deaths; may be given several times.
    #[arg(long = "event", default_values_t = Event::ALL, value_enum)]
    events: Vec<Event>,
    /// Where to write every round's figures and the plots.
    #[arg(long, default_value = "target/peers")]
    directory: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// Rates, latencies, processor time, memory.
    Load,
    /// What clients notice when a backend or the balancer dies.
    Deaths,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let directory = &arguments.directory;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let (mut loads, mut deaths) = (Loads::default(), Deaths::default());
    let outcome = (1..=arguments.rounds).try_for_each(|round| {
        eprintln!("round {round} of {}", arguments.rounds);
        for part in &arguments.parts {
            let outcome = match part {
                Part::Load => loads.measure(&arguments),
                Part::Deaths => deaths.measure(&arguments),
            };
            // Whatever comes next, what was measured is not lost.
            write(directory, &arguments, &loads, &deaths)?;
            outcome.with_context(|| format!("round {round}"))?;
        }
        anyhow::Ok(())
    });
    loads.report(&arguments)?;
    deaths.report(directory)?;
    println!("\nevery round's figures, and plots: {}", directory.display());
    outcome
}

/// Writes down every round's figures so far.
fn write(directory: &Path, arguments: &Arguments, loads: &Loads, deaths: &Deaths) -> Result<()> {
    let all = json!({
        "load": loads.json(),
        "goals": loads.goals(arguments),
        "deaths": deaths.json(),
    });
    let path = directory.join("peers.json");
    // In one piece: a file that is half written would be worse than that of the round before.
    let part = directory.join("peers.json.part");
    fs::write(&part, serde_json::to_string(&all)?).with_context(|| format!("write {}", part.display()))?;
    fs::rename(&part, &path).with_context(|| format!("rename {}", part.display()))
}

/// Rounds of load, by cables and balancer.
#[derive(Default)]
struct Loads(BTreeMap<(Wire, Peer), Rounds>);

/// Of one balancer.
#[derive(Default)]
struct Rounds {
    figures: Vec<Figures>,
    /// Of the single connection, all rounds together.
    latencies: Vec<Duration>,
}

impl Loads {
    fn measure(&mut self, arguments: &Arguments) -> Result<()> {
        let time = Duration::try_from_secs_f64(arguments.seconds).context("the seconds are no time")?;
        for cables in &arguments.cables {
            for peer in &arguments.peers {
                eprintln!("  {cables}: {peer}");
                let rounds = self.0.entry((*cables, *peer)).or_default();
                measure(*cables, *peer, &arguments.measures, time, rounds)
                    .with_context(|| format!("{cables}: {peer}"))?;
            }
        }
        Ok(())
    }

    /// Those of the balancers with these cables that there are rounds of.
    fn of(&self, arguments: &Arguments, cables: Wire) -> Vec<(Peer, &Rounds)> {
        let of = |peer: &Peer| Some((*peer, self.0.get(&(cables, *peer))?));
        arguments.peers.iter().filter_map(of).filter(|(_, rounds)| !rounds.figures.is_empty()).collect()
    }

    fn goals(&self, arguments: &Arguments) -> BTreeMap<String, Vec<Goal>> {
        let of = |cables: &Wire| (cables.to_string(), goals(&compared(&self.of(arguments, *cables))));
        arguments.cables.iter().map(of).collect()
    }

    fn report(&self, arguments: &Arguments) -> Result<()> {
        for cables in &arguments.cables {
            let peers = self.of(arguments, *cables);
            if peers.is_empty() {
                continue;
            }
            let comparison = compared(&peers);
            let n_rounds = peers[0].1.figures.len();
            println!("\nLoad; cables: {cables}; medians of {n_rounds} rounds of {} s", arguments.seconds);
            println!("\n{}\n\n{}", load::rates(&comparison), load::costs(&comparison));
            println!("\nGoals; cables: {cables}\n\n{}", goal::table(&goals(&comparison)));
            let distributions: Vec<_> =
                peers.iter().map(|(peer, rounds)| (peer.to_string(), distribution(&rounds.latencies))).collect();
            let lines: Vec<_> = distributions.iter().map(|(name, points)| Line { name, points }).collect();
            if lines.iter().any(|line| !line.points.is_empty()) {
                let axes = Axes { x: ("requests that are faster", percent_below), y: "us from request to answer" };
                let path = arguments.directory.join(format!("latency-{cables}.svg"));
                plot::curves(&path, &format!("One connection, cables: {cables}"), &axes, &lines)?;
            }
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        self.0.iter().map(|((cables, peer), rounds)| (format!("{cables}: {peer}"), json!(rounds.figures))).collect()
    }
}

fn compared<'a>(peers: &[(Peer, &'a Rounds)]) -> Comparison<'a> {
    Comparison::new(peers.iter().map(|(peer, rounds)| (*peer, rounds.figures.as_slice())).collect())
}

/// One round with one balancer.
fn measure(cables: Wire, peer: Peer, measures: &[Measure], time: Duration, rounds: &mut Rounds) -> Result<()> {
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
        let outcome = client.run(task, n_connections, time)?;
        figures.note(*measure, &outcome);
        if *measure == Measure::Single {
            rounds.latencies.extend(outcome.latencies);
        }
    }
    figures.resident_mib = running.resident_kib()? as f64 / 1024.0;
    figures.maps_mib = running.maps_mib()?;
    running.stop()?;
    drop(server);
    rounds.figures.push(figures);
    Ok(())
}

/// Rounds of each death, by event and contender.
#[derive(Default)]
struct Deaths(BTreeMap<(Event, Contender), Vec<Record>>);

impl Deaths {
    fn measure(&mut self, arguments: &Arguments) -> Result<()> {
        for event in &arguments.events {
            for contender in Contender::ALL {
                eprintln!("  {event}: {contender}");
                let record = outage::measure(contender, *event).with_context(|| format!("{event}: {contender}"))?;
                self.0.entry((*event, contender)).or_default().push(record);
            }
        }
        Ok(())
    }

    fn report(&self, directory: &Path) -> Result<()> {
        for event in Event::ALL {
            let of = |contender| Some((contender, self.0.get(&(event, contender))?));
            let contenders: Vec<(Contender, &Vec<Record>)> = Contender::ALL.into_iter().filter_map(of).collect();
            if contenders.is_empty() {
                continue;
            }
            let figures = |records: &[Record]| records.iter().map(Record::figures).collect();
            let columns: Vec<(Contender, Vec<outage::Figures>)> =
                contenders.iter().map(|(contender, records)| (*contender, figures(records))).collect();
            println!("\n{event}; {} rounds\n\n{}", contenders[0].1.len(), outage::table(&columns));
            let timelines: Vec<_> = contenders
                .iter()
                .map(|(contender, records)| (contender.to_string(), Record::median(records).points()))
                .collect();
            plot::timeline(&directory.join(format!("{}.svg", event.name())), &event.to_string(), &timelines)?;
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let rounds = |records: &[Record]| -> Vec<_> {
            records
                .iter()
                .map(|record| {
                    json!({ "figures": record.figures(), "connections": record.points(), "kept": record.accounts() })
                })
                .collect()
        };
        let name = |event: &Event, contender: &Contender| format!("{}: {}", event.name(), contender.name());
        self.0.iter().map(|((event, contender), records)| (name(event, contender), json!(rounds(records)))).collect()
    }
}
