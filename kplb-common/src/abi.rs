//! Names, sizes and the version of everything that the agent finds in the kernel.
//!
//! Invariant: a change of any `#[repr(C)]` type of this crate, or of a name or size here, changes [`LAYOUT_VERSION`],
//! which is part of the pin path: an agent never opens maps of another layout.

/// Version of the layout of all maps; part of the pin path.
pub const LAYOUT_VERSION: u32 = 14;

/// Name of the XDP program on the interface's ingress.
///
/// # Minimum kernel version
/// 5.18, for `xdp.frags`.
pub const XDP_PROGRAM: &str = "kplb_xdp";
/// Name of the TC program on the interface's ingress, which is there in place of the XDP program where the driver has no
/// native XDP.
///
/// # Minimum kernel version
/// 5.17, for `bpf_loop`.
pub const TC_INGRESS_PROGRAM: &str = "kplb_tc_ingress";
/// Name of the TC program on the interface's egress, which reverses replies of a local backend, and fences what this node
/// says of VIPs.
pub const TC_PROGRAM: &str = "kplb_tc";

/// Name of the program that goes through the flow tables: run by the agent, attached to nothing.
///
/// # Minimum kernel version
/// 5.13, for `bpf_for_each_map_elem`.
pub const SWEEP_PROGRAM: &str = "kplb_sweep";
/// Name of the program that tells what time it is by the kernel's clocks: run by the agent, attached to nothing.
///
/// # Minimum kernel version
/// 5.11, for `bpf_ktime_get_coarse_ns`.
pub const CLOCK_PROGRAM: &str = "kplb_clock";

/// Programs at the sockets of this node's clients, in the order in which they are attached: answers are turned back
/// before a socket is led anywhere.
///
/// # Minimum kernel version
/// 5.8, for `getpeername`; with an error of its own for what is refused: 6.1.
pub const SOCKET_PROGRAMS: [&str; 8] = [
    "kplb_getpeer4",
    "kplb_getpeer6",
    "kplb_recvmsg4",
    "kplb_recvmsg6",
    "kplb_connect4",
    "kplb_connect6",
    "kplb_sendmsg4",
    "kplb_sendmsg6",
];
/// Name of the program that forgets a socket when it is closed.
///
/// # Minimum kernel version
/// 5.9
pub const RELEASE_PROGRAM: &str = "kplb_release";

/// Name of the constant that says whether the kernel lets a program choose the error of a system call.
pub const CHOOSES_ERRORS: &str = "CHOOSES_ERRORS";

/// Services that can exist at once; service ids are below it.
pub const MAX_SERVICES: u32 = 1024;
/// Backends that can exist at once, over all services; backend ids are below it.
pub const MAX_BACKENDS: u32 = 4096;

/// Leases: one for each address family.
pub const N_LEASES: u32 = 2;

/// Flow entries per address family unless the agent sizes the table at load: two for each flow.
pub const DEFAULT_FLOW_ENTRIES: u32 = 2 * 65_536;
/// Half-open flow entries per address family unless the agent sizes the table at load: two for each flow.
pub const DEFAULT_HALF_OPEN_ENTRIES: u32 = 2 * 8_192;

/// NAT ports tried for a new flow before it is dropped.
pub const MAX_NAT_PROBES: u32 = 128;

/// Datagrams in fragments that are known at once, per address family: a megabyte.
pub const MAX_FRAGMENTED: u32 = 1_024;

/// Sockets that are led to a backend at once, and known to be.
pub const MAX_LOCAL_SOCKETS: u32 = 16_384;
/// Backends that unconnected sockets have sent to of late.
pub const MAX_LOCAL_PEERS: u32 = 8_192;

/// Clients that can be led elsewhere by one sweep.
pub const MAX_CLIENTS: u32 = 4096;

/// Bytes of the ring of reports: a thousand of them, where one is enough to make the agent look.
pub const REPORTS_BYTES: u32 = 32 * 1024;
/// Bytes of the ring of orphans: ten thousand flows end in one sweep.
pub const ORPHANS_BYTES: u32 = 1024 * 1024;

/// Bytes of the ring of traces: hundreds of packets between two looks of the reader.
pub const TRACES_BYTES: u32 = 256 * 1024;

/// Names of the maps, as the kernel shows them.
pub mod map {
    /// One [`crate::node::Node`].
    pub const NODE: &str = "NODE";
    /// One [`crate::gate::Gate`].
    pub const GATE: &str = "GATE";
    /// IPv4 VIP to [`crate::fence::Vip`].
    pub const VIPS4: &str = "VIPS4";
    /// IPv6 VIP to [`crate::fence::Vip`].
    pub const VIPS6: &str = "VIPS6";
    /// Address family to [`crate::fence::Lease`].
    pub const LEASES: &str = "LEASES";
    /// IPv4 VIP endpoint to [`crate::service::Service`].
    pub const SERVICES4: &str = "SERVICES4";
    /// IPv6 VIP endpoint to [`crate::service::Service`].
    pub const SERVICES6: &str = "SERVICES6";
    /// Backend id to [`crate::backend::Backend`].
    pub const BACKENDS: &str = "BACKENDS";
    /// Service id to [`crate::maglev::Ring`].
    pub const RINGS: &str = "RINGS";
    /// IPv4 flows whose client has proved that it is there.
    pub const FLOWS4: &str = "FLOWS4";
    /// IPv6 flows whose client has proved that it is there.
    pub const FLOWS6: &str = "FLOWS6";
    /// IPv4 flows whose client has not.
    pub const HALF_OPEN4: &str = "HALF_OPEN4";
    /// IPv6 flows whose client has not.
    pub const HALF_OPEN6: &str = "HALF_OPEN6";
    /// [`crate::fragment::FragmentKey`] of IPv4 to [`crate::fragment::Fragments`].
    pub const FRAGMENTS4: &str = "FRAGMENTS4";
    /// [`crate::fragment::FragmentKey`] of IPv6 to [`crate::fragment::Fragments`].
    pub const FRAGMENTS6: &str = "FRAGMENTS6";
    /// Packets per [`crate::verdict::Verdict`], per CPU.
    pub const VERDICTS: &str = "VERDICTS";
    /// Backend id to [`crate::stats::BackendStats`], per CPU.
    pub const BACKEND_STATS: &str = "BACKEND_STATS";
    /// Ring of [`crate::report::Report`]s.
    pub const REPORTS: &str = "REPORTS";
    /// [`crate::report::Symptom::index`] to when it was last reported, in nanoseconds of the monotonic clock.
    pub const REPORTED: &str = "REPORTED";
    /// [`crate::client::Client`] to its [`crate::client::Whereabouts`], for a sweep.
    pub const CLIENTS: &str = "CLIENTS";
    /// One [`crate::sweep::Sweep`].
    pub const SWEEP: &str = "SWEEP";
    /// Backend id to [`crate::sweep::FlowCount`].
    pub const FLOW_COUNTS: &str = "FLOW_COUNTS";
    /// Ring of [`crate::sweep::Orphan`]s.
    pub const ORPHANS: &str = "ORPHANS";
    /// Socket cookie to the [`crate::local::Diversion`] of a connected socket.
    pub const LOCAL_SOCKETS: &str = "LOCAL_SOCKETS";
    /// [`crate::local::LocalPeer`] to the [`crate::local::Diversion`] of what was sent to it.
    pub const LOCAL_PEERS: &str = "LOCAL_PEERS";

    /// One [`crate::trace::TraceRequest`].
    pub const TRACE: &str = "TRACE";
    /// Ring of [`crate::trace::TraceEvent`]s.
    pub const TRACES: &str = "TRACES";
    /// One [`crate::trace::TraceCounts`], per CPU.
    pub const TRACE_COUNTS: &str = "TRACE_COUNTS";

    /// Every map above, in the order in which they are pinned.
    pub const ALL: [&str; 28] = [
        NODE,
        GATE,
        VIPS4,
        VIPS6,
        LEASES,
        SERVICES4,
        SERVICES6,
        BACKENDS,
        RINGS,
        FLOWS4,
        FLOWS6,
        HALF_OPEN4,
        HALF_OPEN6,
        FRAGMENTS4,
        FRAGMENTS6,
        VERDICTS,
        BACKEND_STATS,
        REPORTS,
        REPORTED,
        CLIENTS,
        SWEEP,
        FLOW_COUNTS,
        ORPHANS,
        LOCAL_SOCKETS,
        LOCAL_PEERS,
        TRACE,
        TRACES,
        TRACE_COUNTS,
    ];
}
