//! Clients that are nodes themselves, and reach the VIP over the wire: whatever backend they are given, their own included.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    apiserver::HTTPS_PORT,
    client::Connection,
    cluster,
    lab::{Host, Lab, LabOptions},
};

/// A service in both families whose one backend is on this host; sockets are left alone.
fn configuration(backend: &Host) -> Result<String> {
    let mut text = String::new();
    for vip in cluster::https() {
        let address: IpAddr = backend
            .addresses()
            .into_iter()
            .find(|address| address.is_ipv4() == vip.is_ipv4())
            .context("a host has addresses of both families")?;
        let backend = SocketAddr::from((address, HTTPS_PORT));
        text += &format!(
            "[[service]]\nvip = \"{vip}\"\nlocal_clients = \"off\"\n[[service.backend]]\naddress = \"{backend}\"\n"
        );
    }
    Ok(text)
}

/// One node holds the VIP; the client is on another one, and the backend on any of the three: behind the wire, on the
/// VIP's node, or on the client's own, which so talks to itself by way of another.
#[test]
fn every_node_reaches_every_backend_by_way_of_another() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 3, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let holder = lab.node(1);
    for backend in lab.nodes() {
        let agent = cluster::start_agent(holder, &configuration(backend)?)?;
        for client in [lab.node(2), lab.node(3)] {
            for vip in cluster::https() {
                let what = format!("{} by way of {} to {}, {vip}", client.name(), holder.name(), backend.name());
                client.namespace().block_on(async {
                    let mut connection = Connection::open(vip).await.with_context(|| what.clone())?;
                    let answer = connection.get("/version").await.with_context(|| what.clone())?;
                    ensure!(answer.node == backend.name(), "{what}: answered by {}", answer.node);
                    // More than fits into a packet or a window, both ways.
                    let n = 1 << 20;
                    let sent = connection.upload(n).await.with_context(|| what.clone())?;
                    let received = connection.download(n).await.with_context(|| what.clone())?;
                    ensure!(sent.sha256 == received.sha256, "{what}: damaged");
                    Ok(())
                })?;
            }
        }
        agent.stop()?;
    }
    Ok(())
}
