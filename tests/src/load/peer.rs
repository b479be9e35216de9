//! The balancers that are compared: each on one node, in front of one backend on another.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::Array,
    programs::{SchedClassifier, TcAttachType},
};
use clap::ValueEnum;
use kplb::dataplane::FLOOR_OBJECT;
use kplb_common::checksum;

use crate::{
    agent::Agent,
    cluster,
    haproxy::Haproxy,
    lab::{Host, Lab},
};

/// Port of the VIP, and of the backend.
const PORT: u16 = 6443;

/// What stands between client and server.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum Peer {
    /// Nothing: the client asks the server itself.
    None,
    /// The kernel: DNAT and masquerading by nftables.
    Nft,
    /// HAProxy, as a proxy of TCP.
    Haproxy,
    /// A program at TC ingress that sends packets on with other addresses, and does nothing else: no balancer can be faster.
    Bare,
    /// kplb with native XDP.
    Native,
    /// kplb at TC ingress.
    Tc,
    /// kplb with generic XDP.
    Generic,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Nft => "nftables",
            Self::Haproxy => "HAProxy",
            Self::Bare => "bare rewriting at TC",
            Self::Native => "kplb, native XDP",
            Self::Tc => "kplb, TC",
            Self::Generic => "kplb, generic XDP",
        })
    }
}

/// A balancer that runs until it is dropped.
pub struct Running<'a> {
    /// Where clients find the service.
    pub address: SocketAddr,
    lab: &'a Lab,
    _haproxy: Option<Haproxy>,
    _bare: Option<Ebpf>,
    agent: Option<Agent<'a>>,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Bare, Self::Nft, Self::Haproxy, Self::Native, Self::Tc, Self::Generic];

    /// Whether packets must have their checksums when they come to it. XDP is not told of those that are still to be finished,
    /// so what it sends on of them is broken.
    pub fn needs_checksums(self) -> bool {
        matches!(self, Self::Native | Self::Generic)
    }

    /// Starts it on the first node, for the server on the second one.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(self, lab: &mut Lab) -> Result<Running<'_>> {
        if self == Self::Native {
            lab.poll_for_xdp()?;
        }
        let lab = &*lab;
        let (node, backend) = (lab.node(1), SocketAddr::from((lab.node(2).ipv4(), PORT)));
        let vip = SocketAddr::from((cluster::VIPS[0], PORT));
        let mut running = Running { address: vip, lab, _haproxy: None, _bare: None, agent: None };
        match self {
            Self::None => running.address = backend,
            Self::Nft => masquerade(node, vip, backend)?,
            Self::Haproxy => {
                hold(node, vip)?;
                running._haproxy = Some(Haproxy::start(node, &haproxy(vip, backend), PORT)?);
            }
            Self::Bare => {
                hold(node, vip)?;
                running._bare = Some(bare(lab, vip)?);
            }
            Self::Native | Self::Tc | Self::Generic => {
                let configuration = format!(
                    "[[service]]\nvip = '{vip}'\ncheck = {{ type = 'tcp' }}\nbackend = [{{ address = '{backend}' }}]\n"
                );
                let mode = if self == Self::Native {
                    "native"
                } else if self == Self::Tc {
                    "tc"
                } else {
                    "generic"
                };
                running.agent = Some(cluster::start_agent_in(node, &configuration, mode)?);
            }
        }
        Ok(running)
    }
}

impl Running<'_> {
    /// Where clients are.
    pub fn client(&self) -> &Host {
        self.lab.client(1)
    }

    /// Ends it, if that is not a matter of course.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(self) -> Result<()> {
        self.agent.map_or(Ok(()), Agent::stop)
    }
}

/// As the BPF object has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Way {
    source: u32,
    destination: u32,
    new_source: u32,
    new_destination: u32,
    macs: [[u8; 6]; 2],
    delta: u32,
}

// SAFETY: `repr(C)` of integers without padding, valid for every bit pattern.
unsafe impl Pod for Way {}

fn bare(lab: &Lab, vip: SocketAddr) -> Result<Ebpf> {
    let word = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
    let (node, server, client) = (lab.node(1), lab.node(2), lab.client(1));
    let IpAddr::V4(vip) = vip.ip() else { anyhow::bail!("{vip} is not of IPv4") };
    let way = |from: [Ipv4Addr; 2], to: [Ipv4Addr; 2], next: &Host| {
        let sum = |[source, destination]: [Ipv4Addr; 2]| u64::from(word(source)) + u64::from(word(destination));
        Way {
            source: word(from[0]),
            destination: word(from[1]),
            new_source: word(to[0]),
            new_destination: word(to[1]),
            macs: [next.mac(), node.mac()],
            delta: checksum::delta(sum(from), sum(to)).into(),
        }
    };
    let ways = [
        way([client.ipv4(), vip], [node.ipv4(), server.ipv4()], server),
        way([server.ipv4(), node.ipv4()], [vip, client.ipv4()], client),
    ];
    let mut ebpf = Ebpf::load(FLOOR_OBJECT)?;
    let mut map: Array<_, Way> = ebpf.map_mut("WAYS").context("no WAYS")?.try_into()?;
    for (place, way) in (0..).zip(&ways) {
        map.set(place, way, 0)?;
    }
    let program: &mut SchedClassifier = ebpf.program_mut("floor_nat").context("no floor_nat")?.try_into()?;
    program.load()?;
    node.namespace().run(|| program.attach("eth0", TcAttachType::Ingress))?;
    Ok(ebpf)
}

fn hold(node: &Host, vip: SocketAddr) -> Result<()> {
    node.namespace().ip(&format!("address add {}/32 dev eth0", vip.ip()))
}

fn masquerade(node: &Host, vip: SocketAddr, backend: SocketAddr) -> Result<()> {
    hold(node, vip)?;
    node.namespace().run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    let rules = format!(
        "add table ip balancer
         add chain ip balancer prerouting {{ type nat hook prerouting priority dstnat; }}
         add chain ip balancer postrouting {{ type nat hook postrouting priority srcnat; }}
         add rule ip balancer prerouting ip daddr {} tcp dport {PORT} dnat to {backend}
         add rule ip balancer postrouting ip daddr {} masquerade",
        vip.ip(),
        backend.ip()
    );
    let mut command = Command::new("nft");
    command.arg(rules);
    node.namespace().check_output(command).map(drop)
}

/// What its users have.
fn haproxy(vip: SocketAddr, backend: SocketAddr) -> String {
    format!(
        "global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend apiserver
    bind {vip}
    default_backend apiservers
backend apiservers
    balance source
    server one {backend} check
"
    )
}
