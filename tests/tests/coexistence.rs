//! Other users of a node's network: a firewall, connection tracking, strict source checks, address translation for
//! services of others, somebody who looks at all packets.

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    capture::Capture,
    client::{self, Load},
    cluster::{self, Persistence, VIPS},
    lab::{Host, Lab, LabOptions},
};

const N_CONNECTIONS: usize = 60;

/// A firewall as hardened nodes have it: what is not known is dropped, nothing is forwarded, and another service's address
/// is translated, as kube-proxy does it.
const RULES: &str = "\
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
        ct state invalid drop
        meta l4proto { icmp, icmpv6 } accept
        tcp dport 6443 accept
        udp dport 5353 accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
}
table inet nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        ip daddr 198.18.99.1 tcp dport 443 dnat ip to 198.18.0.12:6443
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip daddr 198.18.0.12 tcp dport 6443 ct status dnat masquerade fully-random
    }
}
";

fn set_up(node: &Host) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), RULES)?;
    let mut nft = Command::new("nft");
    nft.arg("--file").arg(file.path());
    node.namespace().check_output(nft)?;
    node.namespace().run(|| {
        // Strict reverse path filtering (RFC 3704), on all interfaces and on this one.
        for interface in ["all", "eth0"] {
            let path = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
            std::fs::write(&path, "1").with_context(|| format!("write {path}"))?;
        }
        Ok(())
    })
}

/// Nothing of kplb's breaks, and nothing of theirs.
#[test]
fn a_hardened_node_balances_as_any_other() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 3, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, host) = (lab.node(1), lab.client(1));
    set_up(node)?;
    let _onlooker = Capture::start(node.namespace(), "eth0", &VIPS)?;
    let agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Connection))?;
    for vip in cluster::https() {
        let report =
            host.namespace().block_on(async { Ok::<_, anyhow::Error>(Load::new(vip, N_CONNECTIONS).run().await) })?;
        ensure!(report.n_failed() == 0, "{vip}: {report}");
        let nodes: std::collections::BTreeSet<_> = report.nodes_by_source.values().flatten().collect();
        ensure!(nodes.len() == 3, "{vip}: only {nodes:?} have answered");
    }

    // The other service, which this node translates and forwards; its own rule lets it.
    node.namespace().run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    let mut accept = Command::new("nft");
    accept.arg("add rule inet filter forward ct status dnat accept");
    node.namespace().check_output(accept)?;
    let mut reply = Command::new("nft");
    reply.arg("add rule inet filter forward ct state established,related accept");
    node.namespace().check_output(reply)?;
    host.namespace().ip(&format!("route add 198.18.99.1/32 via {}", node.ipv4()))?;
    let other = SocketAddr::from(([198, 18, 99, 1], 443));
    for _ in 0..20 {
        let answer = host.namespace().block_on(async {
            tokio::time::timeout(Duration::from_secs(5), client::get(other, "/version")).await.context("no answer")?
        })?;
        ensure!(answer.node == "node2", "answered by {}", answer.node);
    }
    agent.stop()
}
