//! The model's flows. Time stands still: none expires, and there is room for all.

use std::{collections::HashMap, net::SocketAddr};

use kplb_common::{
    flow::{Direction, FlowKey},
    flow_state::FlowState,
    net::{Address, Be16},
};

/// A packet's 5-tuple.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Tuple {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// The 5-tuple of the answers.
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, protocol: self.protocol }
    }

    /// As a key of a map, given the addresses as the map has them.
    pub fn key<A: Address>(&self, source: A, destination: A) -> FlowKey<A> {
        FlowKey {
            source,
            destination,
            source_port: Be16::from_host(self.source.port()),
            destination_port: Be16::from_host(self.destination.port()),
            protocol: u32::from(self.protocol),
        }
    }
}

/// Where a flow's backend is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Behind the wire.
    Remote,
    /// On this node.
    Local,
}

/// Which table a flow is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// Half open: the client has proved nothing yet.
    Missing,
    /// Established: the client receives what is sent to it.
    Given,
}

/// A flow: both of its directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    /// The client's packets as they come in.
    pub from_client: Tuple,
    /// The backend's packets as they come in, or as they leave a backend on this node.
    pub from_backend: Tuple,
    /// Backend id.
    pub backend: u16,
    /// Where the backend is.
    pub place: Place,
    /// Where the client's frames come from.
    pub client_mac: [u8; 6],
    /// Where in its life it is.
    pub state: FlowState,
    /// By direction. Half open: what the client's acknowledgement must reach, twice. Established: the last
    /// acknowledgement number.
    pub acknowledged: [u32; 2],
    /// Which table it is in.
    pub proof: Proof,
}

impl Flow {
    /// The 5-tuple that a packet of this direction gets.
    pub fn rewritten(&self, direction: Direction) -> Tuple {
        match direction {
            Direction::ToBackend => self.from_backend.reversed(),
            Direction::ToClient => self.from_client.reversed(),
        }
    }
}

/// All flows. Each is known by the 5-tuples of both directions.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    flows: HashMap<usize, Flow>,
    by_tuple: HashMap<Tuple, (usize, Direction)>,
    tuples: Vec<Tuple>,
    next: usize,
}

impl Flows {
    /// Whether packets with this 5-tuple belong to a flow.
    pub fn contains(&self, tuple: &Tuple) -> bool {
        self.by_tuple.contains_key(tuple)
    }

    /// The flow of packets with this 5-tuple, and which way they go.
    pub fn find(&self, tuple: &Tuple) -> Option<(Flow, Direction)> {
        let (id, direction) = self.by_tuple.get(tuple)?;
        Some((self.flows[id], *direction))
    }

    /// Adds a flow.
    pub fn insert(&mut self, flow: Flow) {
        let id = self.next;
        self.next += 1;
        self.by_tuple.insert(flow.from_client, (id, Direction::ToBackend));
        self.by_tuple.insert(flow.from_backend, (id, Direction::ToClient));
        self.tuples.push(flow.from_client);
        self.flows.insert(id, flow);
    }

    /// Replaces a flow by its later self.
    pub fn update(&mut self, flow: Flow) {
        let (id, _) = self.by_tuple[&flow.from_client];
        self.flows.insert(id, flow);
    }

    /// Forgets a flow.
    pub fn remove(&mut self, flow: &Flow) {
        if let Some((id, _)) = self.by_tuple.remove(&flow.from_client) {
            self.flows.remove(&id);
        }
        self.by_tuple.remove(&flow.from_backend);
    }

    /// Every flow.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    /// Some flow, the same for the same number; the later ones more often, and none if the chosen one is gone.
    pub fn pick(&self, number: usize) -> Option<Flow> {
        let window = if number.is_multiple_of(4) { self.tuples.len() } else { self.tuples.len().min(12) };
        if window == 0 {
            return None;
        }
        let tuple = self.tuples[self.tuples.len() - 1 - number / 4 % window];
        Some(self.find(&tuple)?.0)
    }
}
