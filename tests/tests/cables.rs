//! What is sent through kplb arrives, whatever the cables do to it.
//!
//! They are good ones, unless the lab is told otherwise (`lab/cable.rs`): `cargo xtask vm` has these tests run over cables
//! that lose, reorder, repeat and delay packets.

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    client::{Connection, Load, UdpFlow},
    cluster::{self, Persistence},
    lab::{Lab, LabOptions},
    pattern::pattern_sha256,
};

/// Bytes of a transfer: thousands of packets.
const SIZE: u64 = 2 << 20;

/// How often a datagram is sent before it is taken for unanswered: nobody else repeats it.
const N_ATTEMPTS: usize = 5;

fn everything_arrives(mode: &str) -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let configuration = cluster::configuration(lab.nodes(), Persistence::Connection);
    let agent = cluster::start_agent_in(lab.node(1), &configuration, mode)?;
    let client = lab.client(1).namespace();
    for (vip, udp) in cluster::https().into_iter().zip(cluster::udp()) {
        client
            .block_on(async {
                for _ in 0..4 {
                    let mut connection = Connection::open(vip).await?;
                    ensure!(connection.download(SIZE).await?.sha256 == pattern_sha256(SIZE), "another content");
                    ensure!(connection.upload(SIZE).await?.sha256 == pattern_sha256(SIZE), "another content");
                }
                let report = Load::new(vip, 30).run().await;
                ensure!(report.n_failed() == 0, "{report} {:?}", report.failures);
                // On both nodes: as good as certain.
                for number in 0..12 {
                    let (flow, payload) = (UdpFlow::open(udp, None).await?, format!("datagram {number}"));
                    let mut answer = Err(anyhow::anyhow!("nothing was sent"));
                    for _ in 0..N_ATTEMPTS {
                        answer = flow.exchange(payload.as_bytes()).await;
                        if answer.is_ok() {
                            break;
                        }
                    }
                    ensure!(answer?.payload == payload.as_bytes(), "another datagram");
                }
                Ok(())
            })
            .with_context(|| format!("by {vip}"))?;
    }
    agent.stop()
}

#[test]
fn everything_arrives_native() -> Result<()> {
    everything_arrives("native")
}

#[test]
fn everything_arrives_at_tc() -> Result<()> {
    everything_arrives("tc")
}

#[test]
fn everything_arrives_generic() -> Result<()> {
    everything_arrives("generic")
}
