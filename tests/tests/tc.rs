//! The program at TC ingress: packets of many segments stay whole, and it comes before other programs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType},
};
use kplb::dataplane::{FLOOR_OBJECT, Side};
use kplb_tests::{
    agent::Agent,
    client::{Connection, UdpFlow},
    cluster::{self, Persistence},
    hooks,
    lab::{Lab, LabOptions, Wire},
    machine::Machine,
    pattern::pattern_sha256,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// More than any segment on the wire.
const LARGE: u64 = 4000;

/// Packets and bytes of all backends, towards them and back.
fn traffic(status: &Value) -> [(u64, u64); 2] {
    let services = status["services"].as_array().into_iter().flatten();
    let backends: Vec<&Value> =
        services.flat_map(|service| service["backends"].as_array().into_iter().flatten()).collect();
    ["to_backend", "to_client"].map(|direction| {
        let sum = |what: &str| {
            let of = |backend: &&Value| backend["traffic"][format!("{what}_{direction}")].as_u64().unwrap_or_default();
            backends.iter().map(of).sum()
        };
        (sum("packets"), sum("bytes"))
    })
}

/// With all that interfaces leave to hardware, 100 MiB each way, to a backend here and to one behind the wire, in both
/// families: the bytes are right, and packets are as large as they came.
#[test]
fn segments_stay_together() -> Result<()> {
    let size = if Machine::this() == Machine::Emulated { 32 } else { 100 } * MIB;
    let lab = Lab::with_wire(LabOptions { nodes: 2, clients: 1 }, Wire::Offloading)?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let expected = pattern_sha256(size);
    for backend in lab.nodes() {
        let configuration = cluster::configuration([backend], Persistence::Client);
        let agent = cluster::start_agent_in(lab.node(1), &configuration, "tc")?;
        lab.client(1).namespace().block_on(async {
            for vip in cluster::https() {
                let mut connection = Connection::open(vip).await?;
                ensure!(connection.download(size).await?.sha256 == expected, "{vip}: another download");
                ensure!(connection.upload(size).await?.sha256 == expected, "{vip}: another upload");
            }
            for vip in cluster::udp() {
                let flow = UdpFlow::open(vip, None).await?;
                ensure!(flow.exchange(b"one").await?.payload == b"one", "{vip}: another datagram");
            }
            Ok(())
        })?;
        let status = agent.status()?;
        for (packets, bytes) in traffic(&status[0]) {
            ensure!(bytes > 2 * size && bytes / packets > LARGE, "{packets} packets of {bytes} bytes: {status}");
        }
        agent.stop()?;
    }
    Ok(())
}

/// By default an interface without native XDP that is worth having gets it, and the status says so.
#[test]
fn is_what_a_veth_gets() -> Result<()> {
    let lab = Lab::with_wire(LabOptions { nodes: 2, clients: 1 }, Wire::Offloading)?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let configuration = cluster::configuration(lab.nodes(), Persistence::Client);
    let agent = cluster::start_agent_in(lab.node(1), &configuration, "auto")?;
    let status = &agent.status()?[0];
    assert_eq!(status["mode"], "tc");
    assert_eq!(status["mode_reason"], "a veth copies each packet for a native XDP program");
    assert!(status["mode_cost"].as_str().is_some_and(|cost| cost.contains("GRO")), "{status}");
    lab.client(1).namespace().block_on(async {
        for vip in cluster::https() {
            Connection::open(vip).await?.get("/version").await?;
        }
        anyhow::Ok(())
    })?;
    agent.stop()
}

/// Whoever drops all that comes in does not meet what kplb sends on, though he was there before.
#[test]
fn comes_before_other_programs() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let node = lab.node(1);
    let mut other = Ebpf::load(FLOOR_OBJECT)?;
    let program: &mut SchedClassifier = other.program_mut("floor_drop").context("no floor_drop")?.try_into()?;
    program.load()?;
    hooks::attach_other(node, program, TcAttachType::Ingress, 0)?;
    let dropper = program.info()?.id();
    let programs = || hooks::tc_programs(node, Side::Ingress);
    assert_eq!(programs()?, [dropper]);

    let vip = cluster::https()[0];
    let get = || {
        lab.client(1).namespace().block_on(async {
            let connected = tokio::time::timeout(Duration::from_secs(5), Connection::open(vip));
            connected.await.context("no connection")??.get("/version").await
        })
    };
    // The answers to its own checks are dropped.
    let configuration = cluster::unchecked(&cluster::configuration([lab.node(2)], Persistence::Client));
    let start = || -> Result<Agent<'_>> {
        let agent = cluster::start_agent_in(node, &configuration, "tc")?;
        let programs = programs()?;
        assert_eq!((programs.len(), programs[1]), (2, dropper));
        assert_eq!(get()?.node, "node2");
        Ok(agent)
    };
    // Another agent takes its place and not that behind the other program.
    start()?.leave()?;
    start()?.stop()?;
    assert_eq!(programs()?, [dropper]);
    Ok(())
}
