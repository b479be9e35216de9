//! Metrics: what the agent serves, and that dashboards and alert rules go by it.

mod endpoint;
mod rules;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use kplb_tests::{agent::Agent, cluster, lab::Lab};

/// Where the agents of these tests serve metrics.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9643);

/// An agent on the lab's first node that elects and serves metrics.
fn start_agent(lab: &Lab) -> Result<Agent<'_>> {
    let configuration = format!("[metrics]\nlisten = \"{ADDRESS}\"\n{}", cluster::elected(lab.nodes(), ""));
    cluster::start_agent(lab.node(1), &configuration)
}
