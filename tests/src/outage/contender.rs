//! Who balances: on each node the same, as it usually is.

use std::{
    fmt,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;

use crate::{
    agent::Agent,
    apiserver::HTTPS_PORT,
    cluster,
    haproxy::Haproxy,
    keepalived::{Keepalived, Options},
    lab::Lab,
    poll,
};

/// Where HAProxy listens: the apiserver of its own node has the usual port of every address.
const HAPROXY_PORT: u16 = 8443;
/// How long the first election may take.
const ELECTION: Duration = Duration::from_secs(20);
/// Of the node that is to have the VIP; the others have less.
const PRIORITY: u8 = 101;

/// Who balances, and who holds the VIP.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Contender {
    /// HAProxy, as kubeadm's guide has it (kubernetes/kubeadm, `docs/ha-considerations.md`: redispatch, one retry, 5 s for a
    /// connection, 35 s of silence, checks of `/readyz` by HAProxy's defaults, every 2 s and three to fail), and keepalived with
    /// an advert a second, which is its default.
    Haproxy,
    /// kplb, with nothing set but who the nodes are.
    Kplb,
}

/// A balancer on each node. Dropped, they end.
pub(super) enum Balancers<'l> {
    Haproxy { _proxies: Vec<Haproxy>, _routers: Vec<Keepalived<'l>> },
    Kplb { _agents: Vec<Agent<'l>> },
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Haproxy => "HAProxy and keepalived",
            Self::Kplb => "kplb",
        })
    }
}

impl Contender {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Haproxy, Self::Kplb];

    /// A short name, for files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Kplb => "kplb",
        }
    }

    /// Where clients find the apiservers.
    pub fn address(self) -> SocketAddr {
        let port = match self {
            Self::Haproxy => HAPROXY_PORT,
            Self::Kplb => HTTPS_PORT,
        };
        (vip(), port).into()
    }

    /// Starts it on every node.
    pub(super) fn start(self, lab: &Lab) -> Result<Balancers<'_>> {
        match self {
            Self::Haproxy => {
                let configuration = haproxy(lab);
                let start = |node| Haproxy::start(node, &configuration, HAPROXY_PORT);
                let proxies = lab.nodes().iter().map(start).collect::<Result<_>>()?;
                let start = |(node, below)| Keepalived::start(node, &Options::new(PRIORITY - below, [vip()]));
                let routers = lab.nodes().iter().zip(0..).map(start).collect::<Result<_>>()?;
                Ok(Balancers::Haproxy { _proxies: proxies, _routers: routers })
            }
            Self::Kplb => {
                let configuration = cluster::elected(lab.nodes(), "");
                let start = |node| cluster::start_agent_in(node, &configuration, "auto");
                Ok(Balancers::Kplb { _agents: lab.nodes().iter().map(start).collect::<Result<_>>()? })
            }
        }
    }
}

impl Balancers<'_> {
    /// Waits until one node alone has the VIP, and returns its place.
    pub(super) fn wait_for_holder(&self, lab: &Lab) -> Result<usize> {
        poll::until_some("one node with the VIP", ELECTION, || {
            let holds = |node: &crate::lab::Host| node.has_address(vip()).unwrap_or(false);
            let holders: Vec<usize> = (0..).zip(lab.nodes()).filter(|(_, node)| holds(node)).map(|(n, _)| n).collect();
            (holders.len() == 1).then(|| holders[0])
        })
    }
}

fn vip() -> IpAddr {
    cluster::VIPS[0]
}

fn haproxy(lab: &Lab) -> String {
    let mut text = format!(
        "global
    maxconn 4000
defaults
    mode tcp
    option redispatch
    retries 1
    timeout queue 20s
    timeout connect 5s
    timeout client 35s
    timeout server 35s
    timeout check 10s
frontend apiserver
    bind *:{HAPROXY_PORT}
    default_backend apiservers
backend apiservers
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
"
    );
    for node in lab.nodes() {
        let address = SocketAddr::from((node.ipv4(), HTTPS_PORT));
        let _ = writeln!(text, "    server {} {address} check check-ssl verify none", node.name());
    }
    text
}
