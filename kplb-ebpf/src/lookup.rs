//! Whether a packet may be of a flow, and finding one that is alive.

use kplb_common::{
    flow::{Flow, FlowKey},
    gate::{self, Gate},
    net::Address,
    node::Node,
};

use crate::{
    family::Family,
    maps::{self, FlowTable},
};

/// Whether a packet that came in may be ours: to an endpoint of a service, or from one of a backend to this node.
#[inline(always)]
pub fn may_be_ours<F: Family>(gate: &Gate, node: &Node, key: &FlowKey<F::Address>, protocol: u8) -> bool {
    gate::may_pass(gate, &key.destination, key.destination_port, protocol)
        || (node.is_nat_port(key.destination_port.to_host())
            && key.destination == F::node_address(node)
            && gate::may_pass(gate, &key.source, key.source_port, protocol))
}

/// The flow of a packet, unless it is older than its state's lifetime: then it does not exist, though no sweep has
/// come by yet.
#[inline(always)]
pub fn find<A: Address>(
    table: &FlowTable<A>,
    key: &FlowKey<A>,
    node: &Node,
    now_ns: u64,
) -> Option<&'static mut Flow<A>> {
    maps::flow(table, key).filter(|flow| !flow.is_expired(now_ns, node.lifetime_ns(flow.state)))
}
