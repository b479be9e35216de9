//! The maps, and safe access to their values.
//!
//! Values are handed out as references that live as long as the program runs: the kernel frees no element before it
//! ends. An entry of an LRU table may be given to another key meanwhile; what is then read or written is one packet's
//! worth of wrong rewrite or of a lost update, which its end host discards or the next packet mends. Nothing that is
//! copied from an entry is trusted for memory safety.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use kplb_common::{
    abi,
    backend::Backend,
    client::{Client, Whereabouts},
    endpoint::Endpoint,
    fence::{Lease, Vip},
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, Fragments},
    gate::Gate,
    local::{Diversion, LocalPeer},
    maglev::{NO_BACKEND, Ring},
    net::{Ip4, Ip6},
    node::Node,
    report::Symptom,
    service::Service,
    stats::BackendStats,
    sweep::{FlowCount, Orphan, Sweep},
    trace::{Hook, SNAPSHOT_WORDS, TraceAddresses, TraceCounts, TraceEvent, TraceRequest},
    verdict::Verdict,
};

use crate::{
    layout::{Quoted, Walked},
    parse::Parsed,
};

#[map]
static NODE: Array<Node> = Array::with_max_entries(1, 0);
#[map]
static GATE: Array<Gate> = Array::with_max_entries(1, 0);

#[map]
pub static VIPS4: HashMap<Ip4, Vip> = HashMap::with_max_entries(abi::MAX_SERVICES, BPF_F_NO_PREALLOC);
#[map]
pub static VIPS6: HashMap<Ip6, Vip> = HashMap::with_max_entries(abi::MAX_SERVICES, BPF_F_NO_PREALLOC);

#[map]
static LEASES: Array<Lease> = Array::with_max_entries(abi::N_LEASES, 0);

#[map]
pub static SERVICES4: HashMap<Endpoint<Ip4>, Service> = HashMap::with_max_entries(abi::MAX_SERVICES, BPF_F_NO_PREALLOC);
#[map]
pub static SERVICES6: HashMap<Endpoint<Ip6>, Service> = HashMap::with_max_entries(abi::MAX_SERVICES, BPF_F_NO_PREALLOC);

#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(abi::MAX_BACKENDS, 0);

/// One inner array per service, whose one value is the ring.
///
/// # Minimum kernel version
/// 5.10, for inner maps of a size that is not fixed by the first one.
#[btf_map]
static RINGS: btf_maps::ArrayOfMaps<btf_maps::Array<Ring, 1>, { abi::MAX_SERVICES as usize }> =
    btf_maps::ArrayOfMaps::new();

#[map]
pub static FLOWS4: LruHashMap<FlowKey<Ip4>, Flow<Ip4>> = LruHashMap::with_max_entries(abi::DEFAULT_FLOW_ENTRIES, 0);
#[map]
pub static FLOWS6: LruHashMap<FlowKey<Ip6>, Flow<Ip6>> = LruHashMap::with_max_entries(abi::DEFAULT_FLOW_ENTRIES, 0);
#[map]
pub static HALF_OPEN4: LruHashMap<FlowKey<Ip4>, Flow<Ip4>> =
    LruHashMap::with_max_entries(abi::DEFAULT_HALF_OPEN_ENTRIES, 0);
#[map]
pub static HALF_OPEN6: LruHashMap<FlowKey<Ip6>, Flow<Ip6>> =
    LruHashMap::with_max_entries(abi::DEFAULT_HALF_OPEN_ENTRIES, 0);

#[map]
pub static FRAGMENTS4: LruHashMap<FragmentKey<Ip4>, Fragments> = LruHashMap::with_max_entries(abi::MAX_FRAGMENTED, 0);
#[map]
pub static FRAGMENTS6: LruHashMap<FragmentKey<Ip6>, Fragments> = LruHashMap::with_max_entries(abi::MAX_FRAGMENTED, 0);
/// For an entry of the above in the making; its bits are always clear.
#[map]
static FRAGMENTS_DRAFT: PerCpuArray<Fragments> = PerCpuArray::with_max_entries(1, 0);

/// The packet that is being walked. In maps, as they take no room on the stack, and the verifier knows nothing of their
/// values: what it knows of each way by which a number came about, it would follow through all that comes after.
#[map]
pub static WALKED4: PerCpuArray<Parsed<Ip4, Walked>> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static WALKED6: PerCpuArray<Parsed<Ip6, Walked>> = PerCpuArray::with_max_entries(1, 0);
/// Of the packet that is quoted in it.
#[map]
static QUOTED: PerCpuArray<Quoted> = PerCpuArray::with_max_entries(1, 0);

/// A new flow's entry in the making, with the key of its replies: too large for the stack, of which a program and all
/// it calls have 512 bytes. Each processor has its own, and finishes a packet before it takes the next.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Draft<A> {
    pub reply: FlowKey<A>,
    pub flow: Flow<A>,
}

#[map]
pub static DRAFT4: PerCpuArray<Draft<Ip4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static DRAFT6: PerCpuArray<Draft<Ip6>> = PerCpuArray::with_max_entries(1, 0);

#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNT, 0);
#[map]
static BACKEND_STATS: PerCpuArray<BackendStats> = PerCpuArray::with_max_entries(abi::MAX_BACKENDS, 0);

#[map]
static REPORTS: RingBuf = RingBuf::with_byte_size(abi::REPORTS_BYTES, 0);
#[map]
static REPORTED: Array<u64> = Array::with_max_entries(abi::MAX_BACKENDS * Symptom::COUNT, 0);
#[map]
static CLIENTS: HashMap<Client, Whereabouts> = HashMap::with_max_entries(abi::MAX_CLIENTS, BPF_F_NO_PREALLOC);

#[map]
static SWEEP: Array<Sweep> = Array::with_max_entries(1, 0);
#[map]
static FLOW_COUNTS: Array<FlowCount> = Array::with_max_entries(abi::MAX_BACKENDS, 0);
#[map]
static ORPHANS: RingBuf = RingBuf::with_byte_size(abi::ORPHANS_BYTES, 0);

/// Filled by all processors at once, and read by the agent.
#[map]
pub static LOCAL_SOCKETS: LruHashMap<u64, Diversion> = LruHashMap::with_max_entries(abi::MAX_LOCAL_SOCKETS, 0);
#[map]
pub static LOCAL_PEERS: LruHashMap<LocalPeer, Diversion> = LruHashMap::with_max_entries(abi::MAX_LOCAL_PEERS, 0);

#[map]
static TRACE: Array<TraceRequest> = Array::with_max_entries(1, 0);
#[map]
static TRACES: RingBuf = RingBuf::with_byte_size(abi::TRACES_BYTES, 0);
#[map]
static TRACE_COUNTS: PerCpuArray<TraceCounts> = PerCpuArray::with_max_entries(1, 0);

/// A packet that may be told of: how it came, and what is needed to decide.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Traced {
    /// Its beginning as it came.
    pub before: [u64; SNAPSHOT_WORDS],
    /// Its addresses as it came.
    pub came: TraceAddresses,
    /// Its addresses as it went.
    pub went: TraceAddresses,
    /// Bytes of its beginning that are kept; zero: no packet.
    pub kept: u32,
    /// Index of its verdict.
    pub verdict: u32,
    /// Packets that are passed over before the next one is told of.
    pub n_to_skip: u32,
    pub _pad: u32,
}

#[map]
static TRACED: PerCpuArray<Traced> = PerCpuArray::with_max_entries(Hook::COUNT, 0);

/// How many were told of in a second. Of two processors that write at once one is right: the bound is a rough one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TraceSecond {
    /// Which second, of the monotonic clock.
    pub number: u64,
    /// How many.
    pub n_told: u64,
}

#[map]
static TRACE_SECOND: Array<TraceSecond> = Array::with_max_entries(1, 0);

/// A table of flows.
pub type FlowTable<A> = LruHashMap<FlowKey<A>, Flow<A>>;

/// The node; never absent, but the verifier cannot know.
#[inline(always)]
pub fn node() -> Option<&'static Node> {
    NODE.get(0)
}

/// The gate; never absent, but the verifier cannot know.
#[inline(always)]
pub fn gate() -> Option<&'static Gate> {
    GATE.get(0)
}

/// A lease; never absent, but the verifier cannot know.
#[inline(always)]
pub fn lease(index: u32) -> Option<&'static Lease> {
    LEASES.get(index)
}

/// The backend with this id.
#[inline(always)]
pub fn backend(id: u16) -> Option<&'static Backend> {
    BACKENDS.get(u32::from(id))
}

/// The backend id in a slot of a service's ring, or [`NO_BACKEND`].
#[inline(always)]
pub fn slot(service: u16, slot: usize) -> u16 {
    let Some(ring) = RINGS.get_value(u32::from(service), &0) else { return NO_BACKEND };
    // Volatile, or LLVM merges the slot's last shift with the index's scaling into `(product >> 31) & !1`, of whose
    // lowest bit the verifier learns too late: "invalid access to map value".
    // SAFETY: a local variable.
    let slot = unsafe { (&raw const slot).read_volatile() };
    ring.get(slot).copied().unwrap_or(NO_BACKEND)
}

/// The value of a key.
#[inline(always)]
pub fn get<K, V>(table: &'static HashMap<K, V>, key: &K) -> Option<&'static V> {
    // SAFETY: valid until the program ends; these tables change only when the agent changes the configuration.
    unsafe { table.get(key) }
}

/// The entry of a flow, if there is one, whatever its age.
#[inline(always)]
pub fn flow<A>(table: &FlowTable<A>, key: &FlowKey<A>) -> Option<&'static mut Flow<A>> {
    // SAFETY: the pointer is valid until the program ends. Other processors may write the entry at the same time: its
    // fields are plain integers, and the module's documentation says what a lost race costs.
    table.get_ptr_mut(key).map(|flow| unsafe { &mut *flow })
}

/// The draft of this processor; never absent, but the verifier cannot know.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map is not the owner of its values")]
pub fn draft<A>(drafts: &'static PerCpuArray<Draft<A>>) -> Option<&'static mut Draft<A>> {
    // SAFETY: this processor's own copy, valid until the program ends, and used in one place only.
    drafts.get_ptr_mut(0).map(|draft| unsafe { &mut *draft })
}

/// Stores an entry, `BPF_ANY`: in place of any other, `BPF_NOEXIST`: where there is none; returns zero or a negative
/// error number.
#[inline(always)]
pub fn store<A>(table: &FlowTable<A>, key: &FlowKey<A>, flow: &Flow<A>, flags: u32) -> i32 {
    table.insert(key, flow, u64::from(flags)).err().unwrap_or(0)
}

/// Removes an entry, if it is there: it may have been evicted.
#[inline(always)]
pub fn remove<A>(table: &FlowTable<A>, key: &FlowKey<A>) {
    let _ = table.remove(key);
}

/// What is remembered of a datagram, if anything, whatever its age.
#[inline(always)]
pub fn fragments<A>(
    table: &LruHashMap<FragmentKey<A>, Fragments>,
    key: &FragmentKey<A>,
) -> Option<&'static mut Fragments> {
    // SAFETY: as for `flow`.
    table.get_ptr_mut(key).map(|fragments| unsafe { &mut *fragments })
}

/// Remembers a datagram, in place of any other with the same key; returns zero or a negative error number.
#[inline(always)]
pub fn store_fragments<A>(
    table: &LruHashMap<FragmentKey<A>, Fragments>,
    key: &FragmentKey<A>,
    fragments: &Fragments,
) -> i32 {
    table.insert(key, fragments, 0).err().unwrap_or(0)
}

/// Forgets a datagram, if it is remembered.
#[inline(always)]
pub fn forget_fragments<A>(table: &LruHashMap<FragmentKey<A>, Fragments>, key: &FragmentKey<A>) {
    let _ = table.remove(key);
}

/// The draft of this processor; never absent, but the verifier cannot know.
#[inline(always)]
pub fn fragments_draft() -> Option<&'static mut Fragments> {
    // SAFETY: as for `draft`.
    FRAGMENTS_DRAFT.get_ptr_mut(0).map(|fragments| unsafe { &mut *fragments })
}

/// Where this processor notes what it finds in a packet; never absent, but the verifier cannot know.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map is not the owner of its values")]
pub fn walked<A>(walked: &'static PerCpuArray<Parsed<A, Walked>>) -> Option<&'static mut Parsed<A, Walked>> {
    // SAFETY: as for `draft`.
    walked.get_ptr_mut(0).map(|walked| unsafe { &mut *walked })
}

/// Where this processor notes the layout of a quoted packet; never absent, but the verifier cannot know.
#[inline(always)]
pub fn quoted() -> Option<&'static mut Quoted> {
    // SAFETY: as for `draft`.
    QUOTED.get_ptr_mut(0).map(|quoted| unsafe { &mut *quoted })
}

/// What is remembered of a socket.
#[inline(always)]
pub fn diversion<K>(table: &'static LruHashMap<K, Diversion>, key: &K) -> Option<&'static Diversion> {
    // SAFETY: valid until the program ends; an entry that is given to another socket meanwhile no longer fits the peer
    // that the caller compares it with.
    unsafe { table.get(key) }
}

/// Remembers, if there is room: without, the client sees the backend's address, and nothing else is wrong.
#[inline(always)]
pub fn divert<K>(table: &'static LruHashMap<K, Diversion>, key: &K, diversion: &Diversion) {
    let _ = table.insert(key, diversion, 0);
}

/// Forgets, if there is anything: an entry may have been evicted.
#[inline(always)]
pub fn forget<K>(table: &'static LruHashMap<K, Diversion>, key: &K) {
    let _ = table.remove(key);
}

/// Counts a verdict.
#[inline(always)]
pub fn count_verdict(index: u32) {
    if let Some(counter) = VERDICTS.get_ptr_mut(index) {
        // SAFETY: this processor's own copy, valid until the program ends, and programs are not interrupted by others
        // of the same hook.
        unsafe { *counter += 1 };
    }
}

/// When this symptom of the backend was last reported.
#[inline(always)]
pub fn reported(id: u16, symptom: Symptom) -> Option<&'static mut u64> {
    // SAFETY: valid until the program ends. Of two processors that write at once one is right.
    REPORTED.get_ptr_mut(symptom.index(id)).map(|reported| unsafe { &mut *reported })
}

/// Where a client was found, if it was looked for.
#[inline(always)]
pub fn whereabouts(client: &Client) -> Option<&'static Whereabouts> {
    get(&CLIENTS, client)
}

/// Hands out a report of either kind, if there is room.
#[inline(always)]
pub fn push_report<T: 'static>(report: T) {
    if let Some(mut entry) = REPORTS.reserve::<T>(0) {
        entry.write(report);
        entry.submit(0);
    }
}

/// The sweep that is asked for; never absent, but the verifier cannot know.
#[inline(always)]
pub fn sweep() -> Option<&'static mut Sweep> {
    // SAFETY: valid until the program ends; the agent runs one sweep at a time.
    SWEEP.get_ptr_mut(0).map(|sweep| unsafe { &mut *sweep })
}

/// The count of a backend's flows.
#[inline(always)]
pub fn flow_count(id: u16) -> Option<&'static mut FlowCount> {
    // SAFETY: as for `sweep`.
    FLOW_COUNTS.get_ptr_mut(u32::from(id)).map(|count| unsafe { &mut *count })
}

/// Hands out an orphan that `fill` writes; says whether there was room.
#[inline(always)]
pub fn push_orphan(fill: impl FnOnce(&mut MaybeUninit<Orphan>)) -> bool {
    let Some(mut entry) = ORPHANS.reserve::<Orphan>(0) else { return false };
    fill(&mut entry);
    entry.submit(0);
    true
}

/// The counters of a backend on this processor.
#[inline(always)]
pub fn backend_stats(id: u16) -> Option<&'static mut BackendStats> {
    // SAFETY: as for `count_verdict`.
    BACKEND_STATS.get_ptr_mut(u32::from(id)).map(|stats| unsafe { &mut *stats })
}

/// Which packets are asked for; never absent, but the verifier cannot know. Its reader and all processors write it.
#[inline(always)]
pub fn trace_request() -> Option<*mut TraceRequest> {
    TRACE.get_ptr_mut(0)
}

/// Where this processor notes a packet of a hook; never absent, but the verifier cannot know.
#[inline(always)]
pub fn traced(hook: Hook) -> Option<&'static mut Traced> {
    // SAFETY: as for `draft`.
    TRACED.get_ptr_mut(hook as u32).map(|traced| unsafe { &mut *traced })
}

/// How many were told of in this second; never absent, but the verifier cannot know.
#[inline(always)]
pub fn trace_second() -> Option<&'static mut TraceSecond> {
    // SAFETY: valid until the program ends; see `TraceSecond` for what a lost race costs.
    TRACE_SECOND.get_ptr_mut(0).map(|second| unsafe { &mut *second })
}

/// What became of the packets that were asked for, on this processor.
#[inline(always)]
pub fn trace_counts() -> Option<&'static mut TraceCounts> {
    // SAFETY: as for `count_verdict`.
    TRACE_COUNTS.get_ptr_mut(0).map(|counts| unsafe { &mut *counts })
}

/// Hands out an event that `fill` writes; says whether there was room.
#[inline(always)]
pub fn push_event(fill: impl FnOnce(*mut TraceEvent)) -> bool {
    let Some(mut entry) = TRACES.reserve::<TraceEvent>(0) else { return false };
    fill(entry.as_mut_ptr());
    entry.submit(0);
    true
}
