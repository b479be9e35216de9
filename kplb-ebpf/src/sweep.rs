//! Going through the flow tables: counting, ending the flows of backends that no longer serve, and leading those of
//! clients that were found elsewhere.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use kplb_common::{
    client::Client,
    flow::{Direction, Flow, FlowKey},
    flow_state::FlowState,
    net::{Address, TCP},
    node::Node,
    sweep::{FlowCount, Orphan, Sweep, SweepMode},
};

use crate::{
    clock::now_ns,
    family::{Family, V4, V6},
    maps::{self, FlowTable},
};

/// A walk through one table.
struct Walk {
    node: &'static Node,
    sweep: &'static mut Sweep,
    now_ns: u64,
    table: Table,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Table {
    Flows,
    HalfOpen,
}

/// Does what `SWEEP` asks for.
#[inline(always)]
pub fn run() {
    let (Some(node), Some(sweep)) = (maps::node(), maps::sweep()) else { return };
    sweep.is_cut_short = 0;
    let mut walk = Walk { node, sweep, now_ns: now_ns(node), table: Table::Flows };
    through::<V4>(V4::flows(), &mut walk);
    through::<V6>(V6::flows(), &mut walk);
    walk.table = Table::HalfOpen;
    through::<V4>(V4::half_open(), &mut walk);
    through::<V6>(V6::half_open(), &mut walk);
}

#[inline(always)]
fn through<F: Family>(table: &'static FlowTable<F::Address>, walk: &mut Walk) {
    let (table, visit) = (ptr::from_ref(table).cast_mut().cast(), visit::<F> as *mut c_void);
    // SAFETY: the callback takes what the kernel and this function give it, and is called only while this runs.
    unsafe { bpf_for_each_map_elem(table, visit, ptr::from_mut(walk).cast(), 0) };
}

/// Looks at one entry; 1 ends the walk.
unsafe extern "C" fn visit<F: Family>(
    _map: *mut c_void,
    key: *const FlowKey<F::Address>,
    flow: *mut Flow<F::Address>,
    walk: *mut Walk,
) -> i64 {
    // SAFETY: the kernel passes an entry of the table, which lives until the callback returns, and `through` a `Walk`.
    let (key, flow, walk) = unsafe { (&*key, &mut *flow, &mut *walk) };
    // The other entry says the same.
    if flow.direction != Direction::ToBackend as u8 || flow.is_expired(walk.now_ns, walk.node.lifetime_ns(flow.state)) {
        return 0;
    }
    let is_closing = flow.state == FlowState::Closing as u8;
    if let Some(count) = maps::flow_count(flow.backend) {
        if count.round != walk.sweep.round {
            *count = FlowCount { round: walk.sweep.round, ..FlowCount::default() };
        }
        match walk.table {
            _ if is_closing => count.closing += 1,
            Table::Flows => count.established += 1,
            Table::HalfOpen => count.half_open += 1,
        }
    }
    if walk.table == Table::Flows && walk.sweep.mode == SweepMode::LeadClients as u8 {
        lead::<F>(key, flow);
        return 0;
    }
    let is_established = walk.table == Table::Flows && key.protocol == u32::from(TCP) && !is_closing;
    if is_established && ends::<F>(walk.sweep.mode, flow) && !end::<F>(key, flow) {
        walk.sweep.is_cut_short = 1;
        return 1;
    }
    0
}

/// Leads a flow to where its client was found, unless the client has said something since.
#[inline(always)]
fn lead<F: Family>(key: &FlowKey<F::Address>, flow: &mut Flow<F::Address>) {
    let Some(found) = maps::whereabouts(&Client::new(&key.source)) else { return };
    if !found.is_newer_than(flow.last_seen_ns) {
        return;
    }
    flow.client_mac = found.mac;
    if let Some(opposite) = maps::flow(F::flows(), &flow.opposite(key.protocol)) {
        opposite.client_mac = found.mac;
    }
}

/// Whether an established flow ends by this sweep.
#[inline(always)]
fn ends<F: Family>(mode: u8, flow: &Flow<F::Address>) -> bool {
    const END_ORPHANS: u8 = SweepMode::EndOrphans as u8;
    const END_IPV4: u8 = SweepMode::EndIpv4 as u8;
    const END_IPV6: u8 = SweepMode::EndIpv6 as u8;
    match (mode, F::Address::VERSION) {
        (END_ORPHANS, _) => !maps::backend(flow.backend).is_some_and(|backend| backend.is_serving()),
        (END_IPV4, 4) | (END_IPV6, 6) => true,
        _ => false,
    }
}

/// Hands an established flow out as an orphan, and ends it; says whether there was room.
#[inline(always)]
fn end<F: Family>(key: &FlowKey<F::Address>, flow: &mut Flow<F::Address>) -> bool {
    let opposite = maps::flow(F::flows(), &flow.opposite(key.protocol));
    let backend_acknowledged = opposite.as_ref().map_or(0, |opposite| opposite.acknowledged);
    let has_room = maps::push_orphan(|orphan: &mut MaybeUninit<Orphan>| {
        orphan.write(Orphan {
            client: key.source.widen(),
            vip: key.destination.widen(),
            peer: flow.source.widen(),
            backend: flow.destination.widen(),
            client_acknowledged: flow.acknowledged,
            backend_acknowledged,
            client_port: key.source_port,
            vip_port: key.destination_port,
            peer_port: flow.source_port,
            backend_port: flow.destination_port,
            client_mac: flow.client_mac,
            backend_id: flow.backend,
            version: F::Address::VERSION,
            location: flow.location,
            _pad: 0,
        });
    });
    if !has_room {
        return false;
    }
    flow.state = FlowState::Closing as u8;
    if let Some(opposite) = opposite {
        opposite.state = FlowState::Closing as u8;
    }
    true
}
