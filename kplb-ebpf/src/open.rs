//! Opening a flow: which backend, which source port, and room in the half-open table.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_loop,
};
use aya_log_ebpf::debug;
use kplb_common::{
    abi::MAX_NAT_PROBES,
    flow::{Deltas, Direction, Flow, FlowKey, Shared},
    flow_state::{self, FlowState},
    hash, maglev,
    net::{Address, Be16},
    node::Node,
    service::Service,
    verdict::{DropReason, ResetReason, Verdict},
};

use crate::{
    emit::Outcome,
    family::Family,
    layout::Walked,
    lookup::find,
    maps::{self, Draft},
    packet::{Ethernet, Packet},
    parse::Parsed,
    reset, rewrite,
};

/// `include/uapi/asm-generic/errno-base.h`: there is such an entry.
const EEXIST: i32 = 17;

/// Opens a flow for the first packet of a client and sends the packet on its way, or answers it.
#[inline(always)]
pub fn open<F: Family, P: Packet>(
    packet: &P,
    parsed: &Parsed<F::Address, Walked>,
    node: &Node,
    service: &Service,
    now_ns: u64,
) -> Outcome {
    match try_open::<F, P>(packet, parsed, node, service, now_ns) {
        Ok(verdict) => verdict.into(),
        Err(verdict) => reset::carry_out::<F, P>(packet, parsed, verdict),
    }
}

#[inline(always)]
fn try_open<F: Family, P: Packet>(
    packet: &P,
    parsed: &Parsed<F::Address, Walked>,
    node: &Node,
    service: &Service,
    now_ns: u64,
) -> Result<Verdict, Verdict> {
    let key = &parsed.key;
    if parsed.is_tcp() && !flow_state::opens(parsed.shape.flags) {
        return Err(Verdict::Reset(ResetReason::UnknownFlow));
    }
    let hash = if service.keeps_client() {
        hash::hash_client(service.seed, &key.source)
    } else {
        hash::hash_flow(service.seed, key)
    };
    let id = maps::slot(service.id, maglev::slot(hash));
    let Some(backend) = maps::backend(id).filter(|backend| backend.is_serving()) else {
        return Err(if service.waits_when_empty() {
            Verdict::Drop(DropReason::FirstChecks)
        } else {
            Verdict::Reset(ResetReason::NoBackend)
        });
    };
    let way = rewrite::way_to_backend::<F, P>(packet, &parsed.layout, backend, backend.is_local())?;
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return Err(Verdict::Drop(DropReason::Malformed)) };

    let Some(draft) = F::draft() else { return Err(Verdict::Drop(DropReason::FlowTableFull)) };
    draft.reply = FlowKey {
        source: F::Address::from_wide(&backend.address),
        destination: if backend.is_local() { key.source } else { F::node_address(node) },
        source_port: backend.port,
        destination_port: key.source_port,
        protocol: key.protocol,
    };
    let shared = Shared {
        last_seen_ns: now_ns,
        acknowledged: 0,
        backend: id,
        client_mac: ethernet.source,
        state: FlowState::opening(parsed.shape.protocol) as u8,
        location: backend.location,
    };
    draft.flow = Flow::new(key, Direction::ToClient, &shared, Deltas::default());
    // The client's own port is kept where it can be: always towards this node, whose sockets see the client's address
    // too; behind the wire only if it is one of those that nothing else on this node uses.
    let keep = backend.is_local() || node.is_nat_port(key.source_port.to_host());
    let mut claim = Claim { draft, key, node, port_hash: hash::hash_nat_port(service.seed, key), port: Port::Taken };
    claim_port::<F>(&mut claim, if keep { Keep::IfFree } else { Keep::No });
    let Claim { draft, port, .. } = claim;
    match port {
        Port::Claimed => {}
        Port::Taken => {
            log_no_port(packet, id);
            return Err(Verdict::Drop(DropReason::NoNatPort));
        }
        Port::NoRoom => return Err(Verdict::Drop(DropReason::FlowTableFull)),
    }
    draft.flow.turn(&draft.reply);
    if maps::store(F::half_open(), key, &draft.flow, BPF_ANY) != 0 {
        maps::remove(F::half_open(), &draft.reply);
        return Err(Verdict::Drop(DropReason::FlowTableFull));
    }
    if let Some(stats) = maps::backend_stats(id) {
        stats.flows += 1;
    }
    log_opened(packet, id, key.source_port, draft.reply.destination_port);
    // Not by the stored entry: looking it up would mark it as used, and the entries of a flood must not look used.
    Ok(rewrite::send::<F, P>(packet, parsed, node, &draft.flow, way))
}

/// Functions of their own, as what a log statement needs of the stack must not add to the rest.
#[inline(never)]
fn log_opened<P: Packet>(packet: &P, backend: u16, client_port: Be16, port: Be16) {
    debug!(
        packet.context(),
        "new flow to backend {}: client port {}, port towards the backend {}",
        backend,
        client_port.to_host(),
        port.to_host()
    );
}

/// See [`log_opened`].
#[inline(never)]
fn log_no_port<P: Packet>(packet: &P, backend: u16) {
    debug!(packet.context(), "no free NAT port towards backend {}", backend);
}

/// Whether the port that a flow has now may stay.
#[derive(Clone, Copy)]
enum Keep {
    No,
    IfFree,
}

/// What became of an attempt to have a port.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Port {
    /// A live flow has it.
    Taken,
    /// The replies' entry is stored.
    Claimed,
    /// The entry could not be stored.
    NoRoom,
}

/// A search for a port.
struct Claim<'k, A: 'static> {
    draft: &'static mut Draft<A>,
    key: &'k FlowKey<A>,
    node: &'k Node,
    port_hash: u64,
    port: Port,
}

/// Stores the replies' entry at a port that no live flow has, trying a bounded number of ports.
///
/// By `bpf_loop`, whose body the verifier goes through once and not for each port.
///
/// # Minimum kernel version
/// 5.17
#[inline(always)]
fn claim_port<F: Family>(claim: &mut Claim<'_, F::Address>, keep: Keep) {
    if matches!(keep, Keep::IfFree) {
        try_claim::<F>(claim);
    }
    if claim.port == Port::Taken {
        // SAFETY: the callback takes what it is given here, and the helper calls it only while this function runs.
        unsafe { bpf_loop(MAX_NAT_PROBES, try_port::<F> as *mut c_void, ptr::from_mut(claim).cast(), 0) };
    }
}

/// Tries one port; 1 ends the search.
unsafe extern "C" fn try_port<F: Family>(probe: u32, claim: *mut c_void) -> i64 {
    // SAFETY: `claim_port` passes a `Claim`.
    let claim = unsafe { &mut *claim.cast::<Claim<'_, F::Address>>() };
    claim.draft.reply.destination_port = Be16::from_host(claim.node.nat_port(claim.port_hash, probe));
    try_claim::<F>(claim);
    i64::from(claim.port != Port::Taken)
}

/// Stores the replies' entry unless a live flow has its key. That there is no such entry among the half-open ones is
/// checked by the insertion itself: two processors that try one port at once cannot both have it.
#[inline(always)]
fn try_claim<F: Family>(claim: &mut Claim<'_, F::Address>) {
    let Claim { draft: Draft { reply, flow }, key, node, port, .. } = claim;
    if find(F::flows(), reply, node, flow.last_seen_ns).is_some() {
        return;
    }
    flow.set_deltas(Deltas::between(reply, key));
    let mut error = maps::store(F::half_open(), reply, flow, BPF_NOEXIST);
    if error == -EEXIST {
        if find(F::half_open(), reply, node, flow.last_seen_ns).is_some() {
            return;
        }
        error = maps::store(F::half_open(), reply, flow, BPF_ANY);
    }
    *port = if error == 0 { Port::Claimed } else { Port::NoRoom };
}
