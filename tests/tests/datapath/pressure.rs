//! Floods: what they may push out, and what not.

use anyhow::{Result, ensure};
use kplb::dataplane::FlowTableSizes;
use kplb_common::{
    net::{TCP, UDP},
    verdict::{DropReason, Verdict},
};
use kplb_tests::{
    frames::{ACK, SYN, icmp::IcmpError},
    testbed::{Hook, Ingress, Testbed},
};

use crate::{
    case::{Case, check, entry, take},
    scene::{CLIENT_MAC, Family, Flow, Kind, NODE_MAC},
};

const TABLES: FlowTableSizes = FlowTableSizes { max_flows: 1024, max_half_open: 1024 };
/// Several times what the half-open table holds.
const N_PACKETS: u32 = 8 * TABLES.max_half_open;

/// The flow of the n-th of the flood's clients.
fn spoofed(family: Family, flow: &Flow, n: u32) -> Flow {
    let n = n as u16;
    flow.of_client(family.at(0x1000 + n, 10_000 + n), 10_000 + n)
}

fn survives(ingress: Ingress, family: Family, kind: Kind) -> Result<()> {
    let mut testbed = Testbed::new(ingress, &family.configuration(10_000..=32_767), &family.facts(), TABLES)?;
    let established: Vec<Flow> = [TCP, UDP]
        .into_iter()
        .flat_map(|protocol| {
            let flow = Flow::new(family, protocol, kind);
            (0..50).map(move |n| flow.of_client(family.at(200, 11_000 + n), 11_000 + n))
        })
        .collect();
    for flow in &established {
        flow.established().iter().try_for_each(|step| take(&mut testbed, step))?;
    }
    for protocol in [TCP, UDP] {
        let flow = Flow::new(family, protocol, kind);
        for n in 0..N_PACKETS {
            testbed.run(Hook::Ingress, &spoofed(family, &flow, n).client_sends(SYN).build())?;
        }
        let flooded =
            (0..N_PACKETS).filter(|n| entry(&mut testbed, &spoofed(family, &flow, *n).forward()).is_some()).count();
        ensure!(flooded > 100, "the flood has opened only {flooded} flows");
        ensure!(flooded < N_PACKETS as usize, "no half-open flow was pushed out: it was no flood");
    }
    // Both directions, without the check's own clean-up in between.
    for flow in &established {
        for step in [flow.client_sent(&flow.data()), flow.backend_sent(&flow.reply_data())] {
            take(&mut testbed, &step)?;
        }
    }
    // And new flows still open.
    let late = Flow::new(family, TCP, kind);
    check(&mut testbed, &Case::forward("a new flow after the flood", &late, &late.data()).after(late.established()))
}

#[test]
fn established_flows_survive_a_flood_v4() -> Result<()> {
    Ingress::each(|ingress| survives(ingress, Family::V4, Kind::Remote))
}

#[test]
fn established_flows_survive_a_flood_v6() -> Result<()> {
    Ingress::each(|ingress| survives(ingress, Family::V6, Kind::Remote))
}

#[test]
fn established_flows_of_the_node_survive_a_flood() -> Result<()> {
    Ingress::each(|ingress| survives(ingress, Family::V4, Kind::Local))
}

/// Errors about packets that nobody has sent: each is dropped and counted, and leaves nothing behind.
fn a_flood_of_errors_leaves_nothing(ingress: Ingress, family: Family) -> Result<()> {
    let mut testbed = Testbed::new(ingress, &family.configuration(10_000..=32_767), &family.facts(), TABLES)?;
    let flow = Flow::new(family, TCP, Kind::Remote);
    flow.established().iter().try_for_each(|step| take(&mut testbed, step))?;
    let n_entries = testbed.n_entries();
    for protocol in [TCP, UDP] {
        for n in 0..N_PACKETS {
            let other = spoofed(family, &Flow::new(family, protocol, Kind::Remote), n);
            let unsent = other.client_gets(&other.backend_sends(ACK)).build();
            let macs = [CLIENT_MAC, NODE_MAC];
            let error = IcmpError::too_big(macs, other.client.ip(), other.vip.ip(), unsent[14..].to_vec()).build();
            let (verdict, output) = testbed.judge(Hook::Ingress, &error)?;
            ensure!(verdict == Verdict::Drop(DropReason::IcmpUnknownFlow), "packet {n}: {}", verdict.name());
            ensure!(output.frame == error, "packet {n} was changed");
        }
    }
    ensure!(testbed.n_entries() == n_entries, "the flood has left entries");
    ensure!(testbed.reports()?.is_empty(), "the flood was reported");
    for step in [flow.client_sent(&flow.data()), flow.backend_sent(&flow.reply_data())] {
        take(&mut testbed, &step)?;
    }
    Ok(())
}

#[test]
fn a_flood_of_errors_leaves_nothing_v4() -> Result<()> {
    Ingress::each(|ingress| a_flood_of_errors_leaves_nothing(ingress, Family::V4))
}

#[test]
fn a_flood_of_errors_leaves_nothing_v6() -> Result<()> {
    Ingress::each(|ingress| a_flood_of_errors_leaves_nothing(ingress, Family::V6))
}
