//! Going through the flow tables, which a program does in the kernel when the agent runs it: a hundred thousand entries
//! there cost what a few thousand cost by system calls.

use crate::net::{Be16, Ip6, Mac};

/// What a sweep does besides counting.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SweepMode {
    /// Nothing.
    Count = 0,
    /// Ends the established TCP flows whose backend is not serving, and hands them out as [`Orphan`]s.
    EndOrphans = 1,
    /// The same with all of IPv4: this node no longer has its VIPs.
    EndIpv4 = 2,
    /// The same with all of IPv6.
    EndIpv6 = 3,
    /// Leads the established flows of silent clients to where these were found: [`crate::client`].
    LeadClients = 4,
}

/// What the agent asks of a sweep, and how it went; the one value of `SWEEP`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sweep {
    /// Number of this sweep: [`FlowCount`]s of another one are old.
    pub round: u32,
    /// A [`SweepMode`].
    pub mode: u8,
    /// Set when the ring of orphans was full: another sweep finds the others.
    pub is_cut_short: u8,
    /// Always zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<Sweep>() == 8);

/// Live flows of a backend, those with two entries counted once; value of `FLOW_COUNTS`, indexed by backend id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlowCount {
    /// Number of the sweep that counted.
    pub round: u32,
    /// Flows whose client has not proved that it is there.
    pub half_open: u32,
    /// Flows whose client has.
    pub established: u32,
    /// Flows that have ended and are remembered for a while.
    pub closing: u32,
}

const _: () = assert!(size_of::<FlowCount>() == 16);

/// An established TCP flow that has lost its backend or its VIP: both ends are to be told. A record of the ring `ORPHANS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Orphan {
    /// The client's address; as those that follow, an IPv4 address fills the first four bytes, the rest is zero.
    pub client: Ip6,
    /// The address that the client talks to.
    pub vip: Ip6,
    /// The address that the backend talks to: this node's or, if the backend is on it, the client's.
    pub peer: Ip6,
    /// The backend's address.
    pub backend: Ip6,
    /// The last acknowledgement number of the client, host order.
    pub client_acknowledged: u32,
    /// The last acknowledgement number of the backend, host order.
    pub backend_acknowledged: u32,
    /// The client's port.
    pub client_port: Be16,
    /// The service's port.
    pub vip_port: Be16,
    /// The port that the backend talks to.
    pub peer_port: Be16,
    /// The backend's port.
    pub backend_port: Be16,
    /// Where the client's frames come from.
    pub client_mac: Mac,
    /// Backend id.
    pub backend_id: u16,
    /// IP version: 4 or 6.
    pub version: u8,
    /// A [`crate::backend::Location`]: that of the backend.
    pub location: u8,
    /// Always zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<Orphan>() == 92);
