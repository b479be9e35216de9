//! One machine of the lab: a namespace with one interface.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Result, ensure};
use kplb_common::net::Mac;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use crate::netns::Namespace;

/// Hosts are numbered from 1 to here, by role: both decimal digits fit the last byte of a MAC address that is to be
/// read as a decimal number, and no node has a client's address.
pub(super) const MAX_HOSTS: usize = 30;

/// How many additional addresses of each family a host can have.
const MAX_ADDITIONAL: usize = 1000;

/// What a host is there for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A load balancer that is a backend as well.
    Node,
    /// A client.
    Client,
}

/// Whether an interface is to be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkState {
    /// In use.
    Up,
    /// Not in use.
    Down,
}

/// Addresses added to a host.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// The IPv4 addresses.
    pub ipv4: Vec<Ipv4Addr>,
    /// The IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
}

impl Addresses {
    /// Those of the same family as `other`.
    pub fn like(&self, other: IpAddr) -> Vec<IpAddr> {
        match other {
            IpAddr::V4(_) => self.ipv4.iter().copied().map(Into::into).collect(),
            IpAddr::V6(_) => self.ipv6.iter().copied().map(Into::into).collect(),
        }
    }
}

/// A machine with one interface, `eth0`, and an address of each family.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    role: Role,
    number: u8,
}

impl Host {
    pub(super) fn new(role: Role, number: usize) -> Result<Self> {
        let prefix = match role {
            Role::Node => "node",
            Role::Client => "client",
        };
        Ok(Self { namespace: Namespace::new(&format!("{prefix}{number}"))?, role, number: u8::try_from(number)? })
    }

    /// `node1`, `client1`…
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Where it runs programs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its IPv4 address: 198.18.0.11 is the first node's, 198.18.0.101 the first client's.
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, self.first() + self.number)
    }

    /// Its IPv6 address, with the IPv4 address's last number in decimal digits: 2001:2::11, 2001:2::101.
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, decimal_digits(self.first() + self.number))
    }

    /// Both addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4().into(), self.ipv6().into()]
    }

    /// The MAC address of `eth0`: 02:00:00:00:01:11 is the first node's, 02:00:00:00:02:01 the first client's.
    pub fn mac(&self) -> [u8; 6] {
        let (role, number) = match self.role {
            Role::Node => (1, self.first() + self.number),
            Role::Client => (2, self.number),
        };
        // Numbers here are below 100, so that their decimal digits fit one byte.
        [2, 0, 0, 0, role, decimal_digits(number).to_be_bytes()[1]]
    }

    /// The MAC address as text.
    pub fn mac_text(&self) -> String {
        Mac::new(self.mac()).to_string()
    }

    /// Whether `eth0` has this address.
    pub fn has_address(&self, address: IpAddr) -> Result<bool> {
        let entries = self.namespace.run(|| getifaddrs().map(Iterator::collect::<Vec<_>>))?;
        let of_eth0 = entries.iter().filter(|entry| entry.interface_name == "eth0");
        Ok(of_eth0.filter_map(|entry| entry.address.as_ref()).any(|other| ip_address(other) == Some(address)))
    }

    /// Takes `eth0` up or down. It keeps its addresses.
    pub fn set_link(&self, state: LinkState) -> Result<()> {
        self.namespace.ip(&format!("link set eth0 {}", state.as_str()))
    }

    /// Adds `n` addresses of each family, all on-link: a crowd of clients in one namespace.
    ///
    /// The kernel keeps about a thousand neighbours of each family for all namespaces together
    /// (`net.ipv4.neigh.default.gc_thresh3`), so let no more addresses than a few hundred talk within a lab.
    pub fn add_addresses(&self, n: usize) -> Result<Addresses> {
        ensure!(n <= MAX_ADDITIONAL, "{n} addresses are too many");
        // Bits 10 and up tell hosts apart: nodes have even numbers there, clients odd ones, none has the 0 of the
        // primary addresses.
        let group = u16::from(self.number) << 1 | u16::from(self.role == Role::Client);
        let mut added = Addresses::default();
        let mut batch = String::new();
        for index in (group << 10..).skip(1).take(n) {
            let [high, low] = index.to_be_bytes();
            let ipv4 = Ipv4Addr::new(198, 18, high, low);
            let ipv6 = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 1, index);
            writeln!(batch, "address add {ipv4}/16 dev eth0\naddress add {ipv6}/64 dev eth0 nodad")?;
            added.ipv4.push(ipv4);
            added.ipv6.push(ipv6);
        }
        self.namespace.ip(&batch)?;
        Ok(added)
    }

    /// Gives `eth0` its addresses and takes it up.
    pub(super) fn bring_up(&self) -> Result<()> {
        let [ipv4, ipv6] = self.addresses();
        self.namespace
            .ip(&format!("link set eth0 up\naddress add {ipv4}/16 dev eth0\naddress add {ipv6}/64 dev eth0 nodad\n"))
    }

    fn first(&self) -> u8 {
        match self.role {
            Role::Node => 10,
            Role::Client => 100,
        }
    }
}

impl LinkState {
    /// As iproute2 calls it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

fn ip_address(address: &SockaddrStorage) -> Option<IpAddr> {
    let ipv4 = address.as_sockaddr_in().map(|address| address.ip().into());
    ipv4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

/// A number whose hexadecimal digits are the decimal digits of `number`.
fn decimal_digits(number: u8) -> u16 {
    let number = u16::from(number);
    (number / 100) << 8 | (number / 10 % 10) << 4 | (number % 10)
}
