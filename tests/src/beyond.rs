//! A second segment, behind routers, with a host of the lab on it.
//!
//! ```text
//! segment (br0) --- near | router 1 | far --- second segment (br1) --- eth0 of a host that was moved there
//!               \-- near | router 2 | far --/
//! ```

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    lab::{Host, Lab},
    netns::Namespace,
};

/// The last parts of the addresses of routers and of the host behind them.
const ROUTERS: u8 = 200;
const HOST: u8 = 2;

/// A router between the two segments.
#[derive(Debug)]
pub struct Router {
    namespace: Namespace,
}

/// A host that was moved behind routers.
#[derive(Debug)]
pub struct Beyond<'a> {
    lab: &'a Lab,
    host: &'a Host,
    routers: Vec<Router>,
}

/// An address of a segment, in both families: the lab's own is the 0th.
fn addresses(segment: u8, last: u8) -> [IpAddr; 2] {
    let ipv4 = Ipv4Addr::new(198, 18 + segment, 0, last);
    let ipv6 = Ipv6Addr::new(0x2001, 2, 0, segment.into(), 0, 0, 0, last.into());
    [ipv4.into(), ipv6.into()]
}

/// The second segment, in both families.
const PREFIXES: [&str; 2] = ["198.19.0.0/24", "2001:2:0:1::/64"];

impl<'a> Beyond<'a> {
    /// Moves a host behind `n_routers` routers, of which it and all nodes use the first. What the host runs must not
    /// depend on the addresses that it had.
    ///
    /// # Errors
    /// If the network cannot be built.
    pub fn new(lab: &'a Lab, host: &'a Host, n_routers: u8) -> Result<Self> {
        let switch = lab.switch();
        switch.ip(&format!(
            "link add br1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set br1 addrgenmode none up\nlink set {} master br1\n",
            host.name()
        ))?;
        let routers = (1..=n_routers).map(|number| Router::new(lab, number)).collect::<Result<Vec<_>>>()?;
        let [ipv4, ipv6] = addresses(1, HOST);
        host.namespace().ip(&format!(
            "address flush dev eth0 scope global\naddress add {ipv4}/24 dev eth0\naddress add {ipv6}/64 dev eth0 nodad\n"
        ))?;
        let beyond = Self { lab, host, routers };
        beyond.leave_by(1)?;
        beyond.reach_by(1)?;
        Ok(beyond)
    }

    /// The host's addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        addresses(1, HOST)
    }

    /// The host that was moved.
    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// A router, counted from 1.
    pub fn router(&self, number: u8) -> &Router {
        &self.routers[usize::from(number) - 1]
    }

    /// Has the host send by this router.
    pub fn leave_by(&self, router: u8) -> Result<()> {
        let [ipv4, ipv6] = addresses(1, ROUTERS + router);
        self.host.namespace().ip(&format!("route replace default via {ipv4}\nroute replace default via {ipv6}\n"))
    }

    /// Has the nodes send to the host by this router.
    pub fn reach_by(&self, router: u8) -> Result<()> {
        let commands: Vec<String> = PREFIXES
            .iter()
            .zip(addresses(0, ROUTERS + router))
            .map(|(prefix, address)| format!("route replace {prefix} via {address}\n"))
            .collect();
        self.lab
            .nodes()
            .iter()
            .filter(|node| node.name() != self.host.name())
            .try_for_each(|node| node.namespace().ip(&commands.concat()))
    }
}

impl Router {
    fn new(lab: &Lab, number: u8) -> Result<Self> {
        let namespace = Namespace::new(&format!("router{number}"))?;
        let path = namespace.network_path();
        for (segment, interface) in [(0, "near"), (1, "far")] {
            lab.switch().ip(&format!(
                "link add {interface}{number} type veth peer name {interface} address 02:00:00:00:03:{segment}{number} \
                 netns {}\nlink set {interface}{number} master br{segment} addrgenmode none up\n",
                path.display()
            ))?;
            let [ipv4, ipv6] = addresses(segment, ROUTERS + number);
            let lengths = if segment == 0 { [16, 64] } else { [24, 64] };
            namespace.ip(&format!(
                "link set {interface} up\naddress add {ipv4}/{} dev {interface}\n\
                 address add {ipv6}/{} dev {interface} nodad\n",
                lengths[0], lengths[1]
            ))?;
            // No hardware is there to finish checksums, or to cut up what is longer than the MTU.
            for (end, name) in [(lab.switch(), format!("{interface}{number}")), (&namespace, interface.to_owned())] {
                let mut command = Command::new("ethtool");
                command.args(["-K", &name, "tx", "off"]);
                end.check_output(command)?;
            }
        }
        namespace.run(|| {
            for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
                fs::write(path, "1").with_context(|| format!("write {path}"))?;
            }
            anyhow::Ok(())
        })?;
        Ok(Self { namespace })
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}
