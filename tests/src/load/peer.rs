//! The balancers that are compared: each on one node, in front of one backend on another.

use std::{fmt, fs, io::Write as _, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use clap::ValueEnum;
use tempfile::TempDir;

use super::bare;
use crate::{
    agent::Agent,
    cluster,
    haproxy::{Haproxy, listens},
    kernel_maps,
    lab::{Host, Lab},
    netns::Namespace,
    poll,
    process::{Process, children, resident_kib},
};

/// How long a proxy may take to listen.
const SOON: Duration = Duration::from_secs(10);

/// Port of the VIP, and of the backend.
pub const PORT: u16 = 6443;

/// What stands between client and server.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum Peer {
    /// Nothing: the client asks the server itself.
    None,
    /// The kernel: DNAT and masquerading by nftables.
    Nft,
    /// HAProxy, as a proxy of TCP.
    Haproxy,
    /// nginx, the same.
    Nginx,
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
            Self::Nginx => "nginx",
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
    what: What<'a>,
}

/// What runs, if anything has to.
enum What<'a> {
    Nothing,
    Bare { _ebpf: Ebpf },
    Haproxy(Haproxy),
    Nginx { process: Process, _directory: TempDir },
    Kplb(Box<Agent<'a>>),
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::None, Self::Bare, Self::Nft, Self::Haproxy, Self::Nginx, Self::Native, Self::Tc, Self::Generic];

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
        let (address, what) = match self {
            Self::None => (backend, What::Nothing),
            Self::Nft => {
                hold(node, vip)?;
                masquerade(node.namespace(), vip, backend)?;
                (vip, What::Nothing)
            }
            Self::Bare => {
                hold(node, vip)?;
                (vip, What::Bare { _ebpf: bare::attach(lab, vip)? })
            }
            Self::Haproxy => {
                hold(node, vip)?;
                (vip, What::Haproxy(Haproxy::start(node, &haproxy(vip, backend), PORT)?))
            }
            Self::Nginx => {
                hold(node, vip)?;
                (vip, nginx(node, vip, backend)?)
            }
            Self::Native => (vip, kplb(node, vip, backend, "native")?),
            Self::Tc => (vip, kplb(node, vip, backend, "tc")?),
            Self::Generic => (vip, kplb(node, vip, backend, "generic")?),
        };
        Ok(Running { address, lab, what })
    }
}

impl Running<'_> {
    /// Where clients are.
    pub fn client(&self) -> &Host {
        self.lab.client(1)
    }

    /// Resident memory of its processes, in KiB; zero, if it has none.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn resident_kib(&mut self) -> Result<u64> {
        match &mut self.what {
            What::Nothing | What::Bare { .. } => Ok(0),
            What::Haproxy(haproxy) => resident(haproxy.pid()),
            What::Nginx { process, .. } => resident(process.pid()),
            What::Kplb(agent) => resident(agent.process().pid()),
        }
    }

    /// Memory that the kernel has for the BPF maps of its processes, in MiB; zero, if there are none.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn maps_mib(&mut self) -> Result<f64> {
        match &mut self.what {
            What::Kplb(agent) => Ok(kernel_maps::mebibytes(&kernel_maps::of_process(agent.process().pid())?)),
            _ => Ok(0.0),
        }
    }

    /// Ends it, if that is not a matter of course.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(self) -> Result<()> {
        match self.what {
            What::Kplb(agent) => agent.stop(),
            _ => Ok(()),
        }
    }
}

/// Resident memory of a process and its children, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let own = resident_kib(pid).with_context(|| format!("process {pid} has ended"))?;
    children(pid)?.into_iter().try_fold(own, |total, child| Ok(total + resident(child)?))
}

fn kplb<'a>(node: &'a Host, vip: SocketAddr, backend: SocketAddr, mode: &str) -> Result<What<'a>> {
    let configuration =
        format!("[[service]]\nvip = '{vip}'\ncheck = {{ type = 'tcp' }}\nbackend = [{{ address = '{backend}' }}]\n");
    Ok(What::Kplb(Box::new(cluster::start_agent_in(node, &configuration, mode)?)))
}

/// With as many workers as there are processors.
fn nginx<'a>(node: &'a Host, vip: SocketAddr, backend: SocketAddr) -> Result<What<'a>> {
    let directory = tempfile::Builder::new().prefix("kplb-nginx").tempdir()?;
    let path = directory.path().join("nginx.conf");
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes auto;
pid {}/pid;
error_log stderr;
events {{ worker_connections 4096; }}
stream {{
    upstream apiservers {{ server {backend}; }}
    server {{ listen {vip}; proxy_pass apiservers; }}
}}
",
        directory.path().display()
    );
    fs::File::create(&path)?.write_all(text.as_bytes())?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory.path()).arg("-c").arg(&path);
    let process = Process::spawn(node.namespace(), "nginx", command)
        .context("start nginx (`cargo xtask bench peers` installs it)")?;
    poll::until("nginx to listen", SOON, || listens(process.pid(), PORT))
        .with_context(|| format!("it wrote:\n{}", process.output()))?;
    Ok(What::Nginx { process, _directory: directory })
}

fn hold(node: &Host, vip: SocketAddr) -> Result<()> {
    node.namespace().ip(&format!("address add {}/32 dev eth0", vip.ip()))
}

/// Has the kernel of a node lead connections to a VIP that it has to a backend, and back.
pub(crate) fn masquerade(node: &Namespace, vip: SocketAddr, backend: SocketAddr) -> Result<()> {
    node.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    let rules = format!(
        "add table ip balancer
         add chain ip balancer prerouting {{ type nat hook prerouting priority dstnat; }}
         add chain ip balancer postrouting {{ type nat hook postrouting priority srcnat; }}
         add rule ip balancer prerouting ip daddr {} tcp dport {} dnat to {backend}
         add rule ip balancer postrouting ip daddr {} masquerade",
        vip.ip(),
        vip.port(),
        backend.ip()
    );
    let mut command = Command::new("nft");
    command.arg(rules);
    node.check_output(command).map(drop)
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
