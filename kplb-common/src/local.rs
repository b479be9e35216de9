//! Clients on this node: what is remembered of a socket that was led to a backend, and where on the ring it falls.
//!
//! Invariant: addresses here are as IPv6 sockets show them, IPv4 ones mapped (RFC 4291, section 2.5.5.2), so that a
//! socket of either family has one form.

use crate::{
    backend::Backend,
    hash,
    net::{Address, Be16, Ip6},
    service::Service,
};

/// What a socket was led away from, and where to; value of `LOCAL_SOCKETS`, by socket cookie, and of `LOCAL_PEERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Diversion {
    /// The VIP that the client named.
    pub vip: Ip6,
    /// The backend's address.
    pub backend: Ip6,
    /// The port that the client named.
    pub vip_port: Be16,
    /// The backend's port.
    pub backend_port: Be16,
    /// The backend's id at that time.
    pub backend_id: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub _pad: u8,
}

const _: () = assert!(size_of::<Diversion>() == 40);

impl Diversion {
    /// Whether the socket was led to this peer.
    #[inline(always)]
    pub fn is_to(&self, address: &Ip6, port: Be16) -> bool {
        self.backend == *address && self.backend_port == port
    }

    /// Whether the socket was led to this backend.
    pub fn is_to_backend(&self, backend: &Backend) -> bool {
        let address = match self.backend.to_ip4() {
            Some(v4) => v4.widen(),
            None => self.backend,
        };
        backend.address == address && backend.port == self.backend_port
    }
}

/// A backend to which an unconnected socket has sent; key of `LOCAL_PEERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LocalPeer {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend's address.
    pub address: Ip6,
    /// The backend's port.
    pub port: Be16,
    /// Always zero.
    pub _pad: [u16; 3],
}

const _: () = assert!(size_of::<LocalPeer>() == 32);

impl LocalPeer {
    /// A key.
    #[inline(always)]
    pub const fn new(cookie: u64, address: Ip6, port: Be16) -> Self {
        Self { cookie, address, port, _pad: [0; 3] }
    }
}

/// Where a client on this node falls on the ring: all of them together where the service keeps to client addresses, as
/// they would if they came over the wire from the node's own address; else each socket for itself.
#[inline(always)]
pub fn hash_local<A: Address>(service: &Service, node: &A, cookie: u64) -> u32 {
    if service.keeps_client() {
        hash::hash_client(service.seed, node)
    } else {
        (hash::hash_words(service.seed, &[cookie as u32, (cookie >> 32) as u32]) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::Ipv4Addr;
    use std::collections::HashSet;

    use super::*;
    use crate::{maglev, net::Ip4, service::Persistence};

    fn service(persistence: Persistence) -> Service {
        Service { seed: 7, persistence: persistence as u8, ..Service::default() }
    }

    #[test]
    fn the_node_is_one_client_as_seen_from_outside() {
        let node = Ip4::from(Ipv4Addr::new(198, 18, 0, 11));
        let service = service(Persistence::Client);
        for cookie in 0..100 {
            assert_eq!(hash_local(&service, &node, cookie), hash::hash_client(7, &node));
        }
    }

    #[test]
    fn each_socket_is_a_client_of_its_own() {
        let node = Ip4::from(Ipv4Addr::new(198, 18, 0, 11));
        let service = service(Persistence::Connection);
        let slots: HashSet<usize> = (0..1000).map(|n| maglev::slot(hash_local(&service, &node, n))).collect();
        assert!(slots.len() > 900, "a thousand sockets fall on {} slots", slots.len());
        assert_ne!(hash_local(&service, &node, 1), hash_local(&service, &node, 1 << 32));
    }

    #[test]
    fn a_diversion_is_to_its_backend_alone() {
        let address = |last| Ip4::from(Ipv4Addr::new(198, 18, 0, last)).mapped();
        let port = Be16::from_host(6443);
        let diversion = Diversion { backend: address(12), backend_port: port, ..Diversion::default() };
        assert!(diversion.is_to(&address(12), port));
        assert!(!diversion.is_to(&address(13), port));
        assert!(!diversion.is_to(&address(12), Be16::from_host(443)));
        let backend =
            |last| Backend { address: Ip4::from(Ipv4Addr::new(198, 18, 0, last)).widen(), port, ..Backend::default() };
        assert!(diversion.is_to_backend(&backend(12)));
        assert!(!diversion.is_to_backend(&backend(13)));
    }
}
