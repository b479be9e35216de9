//! `cargo xtask bench datapath`: nanoseconds a packet through `BPF_PROG_TEST_RUN`, next to two floors in the same run.

use anyhow::Result;
use clap::Parser;
use kplb_tests::{
    bench::{Case, Family, Scene, Shape, Traffic, measure, table},
    testbed::Ingress,
};

/// Flows of the cases with many: every number that the varied bytes can have.
const MANY: u32 = 1 << 16;

/// Measures the data path packet by packet.
#[derive(Parser)]
struct Arguments {
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets of each case in a round.
    #[arg(long, default_value_t = 500_000)]
    packets: u32,
    /// At TC ingress in place of XDP.
    #[arg(long)]
    tc: bool,
    /// Only the cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let ingress = if arguments.tc { Ingress::Tc } else { Ingress::Xdp };
    let one = Scene::load(ingress, Family::V4, Shape::usual(65_536))?;
    one.establish(1)?;
    // A table of a million entries.
    let many = Scene::load(ingress, Family::V4, Shape::usual(1 << 19))?;
    many.establish(MANY)?;
    let opening = Scene::load(ingress, Family::V4, Shape::usual(65_536))?;
    let one_v6 = Scene::load(ingress, Family::V6, Shape::usual(65_536))?;
    one_v6.establish(1)?;
    let many_v6 = Scene::load(ingress, Family::V6, Shape::usual(1 << 19))?;
    many_v6.establish(MANY)?;
    let opening_v6 = Scene::load(ingress, Family::V6, Shape::usual(65_536))?;

    let case = |name, scene, traffic, n_flows, reach| Case { name, scene, traffic, n_flows, reach };
    let mut cases = vec![
        case("not ours", &one, Traffic::NotOurs, 1, Some(2.0)),
        case("established, to backend, 1 flow", &one, Traffic::ToBackend, 1, Some(4.5)),
        case("established, to client, 1 flow", &one, Traffic::ToClient, 1, Some(4.5)),
        case("established, to backend, 64k flows", &many, Traffic::ToBackend, MANY, Some(13.0)),
        case("new flow", &opening, Traffic::Opening, MANY, Some(35.0)),
        case("of no flow: reset", &opening, Traffic::Unknown, 1, None),
        case("ICMP error about no flow", &opening, Traffic::Error, 1, None),
        case("IPv6: not ours", &one_v6, Traffic::NotOurs, 1, None),
        case("IPv6: established, to backend, 1 flow", &one_v6, Traffic::ToBackend, 1, None),
        case("IPv6: established, to client, 1 flow", &one_v6, Traffic::ToClient, 1, None),
        case("IPv6: established, to backend, 64k flows", &many_v6, Traffic::ToBackend, MANY, None),
        case("IPv6: new flow", &opening_v6, Traffic::Opening, MANY, None),
        case("IPv6: ICMP error about no flow", &opening_v6, Traffic::Error, 1, None),
    ];
    cases.retain(|case| case.name.contains(&arguments.only));
    let measurements = measure(ingress, &cases, arguments.rounds, arguments.packets)?;
    println!("{ingress:?}: {} rounds of {} packets, interleaved; medians", arguments.rounds, arguments.packets);
    println!("{}", table(&measurements));
    Ok(())
}
