//! From an entry of a flow table to a flow.

use std::net::SocketAddr;

use kplb_common::{
    backend::Location,
    flow::{Direction, Flow, FlowKey},
    flow_state::FlowState,
    net::{Address, Be16},
    node::Node,
};

use crate::{
    config::Protocol,
    dataplane::{from_ip, protocol, to_ip},
    model::Endpoint,
};

/// A live flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowRecord {
    /// VIP and port.
    pub vip: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// Where it is in its life.
    pub phase: Phase,
    /// The backend.
    pub backend: SocketAddr,
    /// Address and port of this node that the backend talks to; none if the backend is on this node.
    pub nat: Option<SocketAddr>,
    /// State.
    pub state: FlowState,
    /// How long ago the client's last packet came, in nanoseconds.
    pub idle_ns: u64,
}

/// What states come to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// The client has proved that it is there.
    Established,
    /// It has not.
    HalfOpen,
    /// The flow has ended, and is remembered for a while.
    Closing,
}

impl Phase {
    /// That of a state.
    pub const fn of(state: FlowState) -> Self {
        match state {
            FlowState::SynSent | FlowState::SynAcked | FlowState::UdpUnreplied | FlowState::UdpReplied => {
                Self::HalfOpen
            }
            FlowState::Established | FlowState::FinFromClient | FlowState::FinFromBackend | FlowState::UdpAssured => {
                Self::Established
            }
            FlowState::Closing => Self::Closing,
        }
    }
}

/// A state as users see it.
pub const fn state_name(state: FlowState) -> &'static str {
    match state {
        FlowState::SynSent => "syn-sent",
        FlowState::SynAcked => "syn-acked",
        FlowState::Established => "established",
        FlowState::FinFromClient => "fin-from-client",
        FlowState::FinFromBackend => "fin-from-backend",
        FlowState::Closing => "closing",
        FlowState::UdpUnreplied => "udp-unreplied",
        FlowState::UdpReplied => "udp-replied",
        FlowState::UdpAssured => "udp-assured",
    }
}

impl FlowRecord {
    /// What tells flows apart, in the order in which they are shown.
    pub const fn identity(&self) -> (SocketAddr, Protocol, SocketAddr) {
        (self.vip, self.protocol, self.client)
    }

    /// The service that the flow is of.
    pub const fn service(&self) -> Endpoint {
        Endpoint { address: self.vip, protocol: self.protocol }
    }
}

/// The flow of an entry: none if the entry is that of the replies, which says the same, or older than the lifetime of
/// its state, which the data path asks at each lookup.
pub fn decode<A: Address>(key: &FlowKey<A>, flow: &Flow<A>, node: &Node, now_ns: u64) -> Option<FlowRecord> {
    if flow.direction != Direction::ToBackend as u8 || flow.is_expired(now_ns, node.lifetime_ns(flow.state)) {
        return None;
    }
    let at = |address: &A, port: Be16| SocketAddr::new(to_ip(address), port.to_host());
    let state = flow.state();
    Some(FlowRecord {
        vip: at(&key.destination, key.destination_port),
        protocol: u8::try_from(key.protocol).ok().and_then(protocol)?,
        client: at(&key.source, key.source_port),
        phase: Phase::of(state),
        backend: at(&flow.destination, flow.destination_port),
        nat: (flow.location != Location::Local as u8).then(|| at(&flow.source, flow.source_port)),
        state,
        idle_ns: idle_ns(flow, now_ns),
    })
}

/// How long ago an entry's last packet came; one that came since the clock was read, just now.
pub fn idle_ns<A>(flow: &Flow<A>, now_ns: u64) -> u64 {
    now_ns.saturating_sub(flow.last_seen_ns)
}

/// The key of a flow's entry for packets of its client.
pub fn client_key<A: Address>(record: &FlowRecord) -> FlowKey<A> {
    key(record.client, record.vip, record.protocol)
}

/// The key of a flow's entry for its replies.
pub fn reply_key<A: Address>(record: &FlowRecord) -> FlowKey<A> {
    key(record.backend, record.nat.unwrap_or(record.client), record.protocol)
}

fn key<A: Address>(source: SocketAddr, destination: SocketAddr, protocol: Protocol) -> FlowKey<A> {
    FlowKey {
        source: from_ip(source.ip()),
        destination: from_ip(destination.ip()),
        source_port: Be16::from_host(source.port()),
        destination_port: Be16::from_host(destination.port()),
        protocol: u32::from(protocol.number()),
    }
}

#[cfg(test)]
mod tests {
    use kplb_common::{
        clock::Clock,
        flow::{Deltas, Shared},
        net::{Ip4, Ip6, Mac},
        node::{LIFETIMES, Vlan},
    };

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn node() -> Node {
        let mut lifetimes_ns = [0; LIFETIMES];
        lifetimes_ns[FlowState::Established as usize] = 10 * SECOND;
        Node {
            lifetimes_ns,
            clock: Clock::default(),
            ipv6: Ip6::default(),
            ipv4: Ip4::default(),
            nat_port_first: 10_000,
            nat_port_last: 20_000,
            mac: Mac::default(),
            vlan: Vlan::NONE,
            _pad: [0; 3],
        }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address and port")
    }

    /// A flow's two entries, seen last at this time.
    fn entries<A: Address>(record: &FlowRecord, seen_ns: u64) -> [(FlowKey<A>, Flow<A>); 2] {
        let location = if record.nat.is_some() { Location::Remote } else { Location::Local };
        let shared = Shared {
            last_seen_ns: seen_ns,
            acknowledged: 0,
            backend: 3,
            client_mac: Mac::default(),
            state: record.state as u8,
            location: location as u8,
        };
        let (client, reply) = (client_key::<A>(record), reply_key::<A>(record));
        let forward = Flow::new(&reply, Direction::ToBackend, &shared, Deltas::default());
        let backward = Flow::new(&client, Direction::ToClient, &shared, Deltas::default());
        [(client, forward), (reply, backward)]
    }

    fn record(client: &str, vip: &str, backend: &str, nat: Option<&str>) -> FlowRecord {
        FlowRecord {
            vip: at(vip),
            protocol: Protocol::Tcp,
            client: at(client),
            phase: Phase::Established,
            backend: at(backend),
            nat: nat.map(at),
            state: FlowState::Established,
            idle_ns: 4 * SECOND,
        }
    }

    #[test]
    fn entries_become_flows() {
        let nated = record("198.18.0.101:40000", "198.18.0.100:6443", "198.18.0.12:8443", Some("198.18.0.11:10001"));
        let [(key, flow), (reply, backward)] = entries::<Ip4>(&nated, 100 * SECOND);
        assert_eq!(decode(&key, &flow, &node(), 104 * SECOND), Some(nated));
        assert_eq!(decode(&reply, &backward, &node(), 104 * SECOND), None, "the other entry says the same");

        let local = record("[2001:2::101]:40000", "[2001:2::100]:6443", "[2001:2::11]:6443", None);
        let [(key, flow), _] = entries::<Ip6>(&local, 100 * SECOND);
        assert_eq!(decode(&key, &flow, &node(), 104 * SECOND), Some(local));
    }

    #[test]
    fn what_has_expired_is_no_flow() {
        let flow = record("198.18.0.101:1", "198.18.0.100:2", "198.18.0.12:3", Some("198.18.0.11:4"));
        let [(key, entry), _] = entries::<Ip4>(&flow, 100 * SECOND);
        let decode = |now_ns| decode(&key, &entry, &node(), now_ns);
        assert!(decode(110 * SECOND).is_some());
        assert_eq!(decode(110 * SECOND + 1), None);
        // Another processor's packet, since the clock was read.
        assert_eq!(decode(99 * SECOND).map(|flow| flow.idle_ns), Some(0));
    }

    #[test]
    fn any_bytes_are_a_flow_or_none() {
        let key = FlowKey::<Ip4> { protocol: 0xa5a5_a5a5, ..FlowKey::default() };
        let flow = Flow::<Ip4> { state: 0xa5, location: 0xa5, ..Flow::default() };
        assert_eq!(decode(&key, &flow, &node(), 0), None);
        let key = FlowKey::<Ip4> { protocol: 6, ..FlowKey::default() };
        assert_eq!(decode(&key, &flow, &node(), 0).map(|flow| flow.state), Some(FlowState::Closing));
    }

    #[test]
    fn states_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = FlowState::ALL.into_iter().map(state_name).collect();
        assert_eq!(names.len(), FlowState::ALL.len());
    }
}
