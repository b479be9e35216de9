//! The flow table: 5-tuples and what to make of their packets.
//!
//! A flow has two entries, one for each direction, and either is all that a packet of its direction needs. The key of
//! the opposite entry is the rewritten 5-tuple the other way round: [`Flow::opposite`].

use crate::{
    checksum,
    flow_state::FlowState,
    net::{Address, Be16, Mac},
};

/// Which way a packet goes.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    /// From the client to the backend.
    ToBackend = 0,
    /// From the backend to the client.
    ToClient = 1,
}

/// A 5-tuple, as it is on the wire before the rewrite; key of the flow tables.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct FlowKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// IP protocol number; as wide as a word so that the key has no padding.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FlowKey<crate::net::Ip4>>() == 16);
const _: () = assert!(size_of::<FlowKey<crate::net::Ip6>>() == 40);

/// One direction of a flow; value of the flow tables.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flow<A> {
    /// Time of the last packet: nanoseconds of the data path's clock ([`crate::clock`]).
    pub last_seen_ns: u64,
    /// Source address after the rewrite.
    pub source: A,
    /// Destination address after the rewrite.
    pub destination: A,
    /// Source port after the rewrite.
    pub source_port: Be16,
    /// Destination port after the rewrite.
    pub destination_port: Be16,
    /// Delta of the changed addresses, for [`checksum::update`]: IPv4 header and pseudo-header.
    pub address_delta: u16,
    /// Delta of the changed ports, for [`checksum::update`].
    pub port_delta: u16,
    /// TCP, host order. While the flow is half open: the acknowledgement number that proves that the client has seen the
    /// SYN-ACK. From then on: the last one of this direction, where a reset of the packets' sender must stand to be
    /// taken (RFC 5961, section 3.2).
    pub acknowledged: u32,
    /// TCP, host order: the sequence number of this direction's last segment with data, as far as the fast path can tell.
    pub sequence: u32,
    /// Backend id.
    pub backend: u16,
    /// MAC address that the client's frames come from.
    pub client_mac: Mac,
    /// A [`FlowState`].
    pub state: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// A [`crate::backend::Location`]: that of the backend.
    pub location: u8,
    /// Always zero.
    pub _pad: [u8; 5],
}

const _: () = assert!(size_of::<Flow<crate::net::Ip4>>() == 48);
const _: () = assert!(size_of::<Flow<crate::net::Ip6>>() == 72);

/// What both entries of a flow have in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shared {
    /// See [`Flow::last_seen_ns`].
    pub last_seen_ns: u64,
    /// See [`Flow::acknowledged`].
    pub acknowledged: u32,
    /// See [`Flow::backend`].
    pub backend: u16,
    /// See [`Flow::client_mac`].
    pub client_mac: Mac,
    /// See [`Flow::state`].
    pub state: u8,
    /// See [`Flow::location`].
    pub location: u8,
}

/// What an entry's rewrite does to checksums, for [`checksum::update`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Deltas {
    /// See [`Flow::address_delta`].
    pub addresses: u16,
    /// See [`Flow::port_delta`].
    pub ports: u16,
}

impl Deltas {
    /// The deltas of the entry with this key whose opposite has the key `opposite`.
    #[inline(always)]
    pub fn between<A: Address>(key: &FlowKey<A>, opposite: &FlowKey<A>) -> Self {
        let addresses = |key: &FlowKey<A>| key.source.sum() + key.destination.sum();
        let ports = |key: &FlowKey<A>| u64::from(key.source_port.to_wire()) + u64::from(key.destination_port.to_wire());
        Self {
            addresses: checksum::delta(addresses(key), addresses(opposite)),
            ports: checksum::delta(ports(key), ports(opposite)),
        }
    }

    /// The deltas of the opposite entry, which undoes what this one does: in one's complement, the negative.
    #[inline(always)]
    pub const fn opposite(self) -> Self {
        Self { addresses: !self.addresses, ports: !self.ports }
    }
}

impl<A: Address> Flow<A> {
    /// The entry whose opposite has the key `opposite`; `deltas` are those [`Deltas::between`] its key and that one.
    #[inline(always)]
    pub fn new(opposite: &FlowKey<A>, direction: Direction, shared: &Shared, deltas: Deltas) -> Self {
        Self {
            last_seen_ns: shared.last_seen_ns,
            source: opposite.destination,
            destination: opposite.source,
            source_port: opposite.destination_port,
            destination_port: opposite.source_port,
            address_delta: deltas.addresses,
            port_delta: deltas.ports,
            acknowledged: shared.acknowledged,
            sequence: 0,
            backend: shared.backend,
            client_mac: shared.client_mac,
            state: shared.state,
            direction: direction as u8,
            location: shared.location,
            _pad: [0; 5],
        }
    }

    /// What the rewrite does to checksums.
    #[inline(always)]
    pub fn deltas(&self) -> Deltas {
        Deltas { addresses: self.address_delta, ports: self.port_delta }
    }

    /// Sets what the rewrite does to checksums.
    #[inline(always)]
    pub fn set_deltas(&mut self, deltas: Deltas) {
        self.address_delta = deltas.addresses;
        self.port_delta = deltas.ports;
    }

    /// Makes this entry its opposite, given its own key.
    ///
    /// In place, field by field: two entries of IPv6 at once take a quarter of a BPF program's stack.
    #[inline(always)]
    pub fn turn(&mut self, key: &FlowKey<A>) {
        self.source = key.destination;
        self.destination = key.source;
        self.source_port = key.destination_port;
        self.destination_port = key.source_port;
        self.set_deltas(self.deltas().opposite());
        self.direction = if self.direction == Direction::ToClient as u8 {
            Direction::ToBackend as u8
        } else {
            Direction::ToClient as u8
        };
    }

    /// What this entry has in common with its opposite.
    #[inline(always)]
    pub fn shared(&self) -> Shared {
        Shared {
            last_seen_ns: self.last_seen_ns,
            acknowledged: self.acknowledged,
            backend: self.backend,
            client_mac: self.client_mac,
            state: self.state,
            location: self.location,
        }
    }

    /// The key of the entry of the other direction.
    #[inline(always)]
    pub fn opposite(&self, protocol: u32) -> FlowKey<A> {
        FlowKey {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol,
        }
    }

    /// The flow's state.
    #[inline(always)]
    pub fn state(&self) -> FlowState {
        FlowState::from_u8(self.state)
    }

    /// Whether no packet was seen for longer than `lifetime_ns`, which is at most `i64::MAX`.
    ///
    /// The clock may have been read before another processor wrote the entry: that is fresh, not old.
    #[inline(always)]
    pub fn is_expired(&self, now_ns: u64, lifetime_ns: u64) -> bool {
        now_ns.wrapping_sub(self.last_seen_ns).cast_signed() > lifetime_ns.cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::net::{Ip4, TCP};

    fn key(source: [u8; 4], source_port: u16, destination: [u8; 4], destination_port: u16) -> FlowKey<Ip4> {
        FlowKey {
            source: Ip4::from(Ipv4Addr::from(source)),
            destination: Ip4::from(Ipv4Addr::from(destination)),
            source_port: Be16::from_host(source_port),
            destination_port: Be16::from_host(destination_port),
            protocol: u32::from(TCP),
        }
    }

    #[test]
    fn the_two_entries_lead_to_each_other() {
        let from_client = key([198, 18, 0, 101], 40_000, [198, 18, 0, 100], 6443);
        let from_backend = key([198, 18, 0, 12], 6443, [198, 18, 0, 11], 10_000);
        let shared = Flow::<Ip4> { backend: 7, ..Flow::default() }.shared();
        let deltas = Deltas::between(&from_client, &from_backend);
        let forward = Flow::new(&from_backend, Direction::ToBackend, &shared, deltas);
        let backward = Flow::new(&from_client, Direction::ToClient, &shared, deltas.opposite());
        assert_eq!(backward.deltas(), Deltas::between(&from_backend, &from_client));
        assert_eq!((forward.shared(), backward.shared()), (shared, shared));
        assert_eq!(forward.opposite(from_client.protocol), from_backend);
        assert_eq!(backward.opposite(from_client.protocol), from_client);
        assert_eq!((forward.source, forward.source_port), (from_backend.destination, from_backend.destination_port));
        assert_eq!((backward.source, backward.source_port), (from_client.destination, from_client.destination_port));
    }

    #[test]
    fn lifetime_ends_after_its_last_nanosecond() {
        let flow = Flow::<Ip4> { last_seen_ns: 100, ..Flow::default() };
        assert!(!flow.is_expired(110, 10));
        assert!(flow.is_expired(111, 10));
        assert!(!flow.is_expired(50, 10), "another processor may have read the clock later");
        assert!(!flow.is_expired(100 + (1 << 62), i64::MAX as u64));
    }
}
