//! A VIP endpoint and how its flows are given to backends.

/// How a packet reaches its backend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ForwardingMode {
    /// Both addresses are rewritten; backends need nothing.
    Nat = 0,
}

/// Which flows keep to one backend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Persistence {
    /// All flows of one client address.
    Client = 0,
    /// Each flow for itself.
    Connection = 1,
}

/// What becomes of a new flow while the ring names no backend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhenEmpty {
    /// It is refused at once.
    Refuse = 0,
    /// It is dropped in silence, so that the client tries again: a backend may well be there in a moment.
    Wait = 1,
}

/// Where clients on this node are led when they connect to a service.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LocalClients {
    /// To the backend on this node while it takes new flows, else where the ring says.
    PreferLocal = 0,
    /// Where the ring says.
    Hash = 1,
    /// Nowhere: their packets go to the VIP's holder like anybody's.
    Off = 2,
}

/// A service; value of `SERVICES4` and `SERVICES6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Service {
    /// Key of the hash that chooses the slot; the same on every node.
    pub seed: u64,
    /// Service id: index of its ring in `RINGS`.
    pub id: u16,
    /// A [`Persistence`].
    pub persistence: u8,
    /// A [`ForwardingMode`].
    pub forwarding: u8,
    /// A [`WhenEmpty`].
    pub when_empty: u8,
    /// A [`LocalClients`].
    pub local_clients: u8,
    /// Id of the backend that clients on this node prefer, or [`crate::maglev::NO_BACKEND`].
    pub local_backend: u16,
}

const _: () = assert!(size_of::<Service>() == 16);

impl Service {
    /// Whether a new flow waits while the ring names no backend.
    #[inline(always)]
    pub fn waits_when_empty(&self) -> bool {
        self.when_empty == WhenEmpty::Wait as u8
    }

    /// Whether clients on this node are led to a backend at their sockets.
    #[inline(always)]
    pub fn leads_local_clients(&self) -> bool {
        self.local_clients != LocalClients::Off as u8
    }

    /// Whether all flows of one client address keep to one backend.
    #[inline(always)]
    pub fn keeps_client(&self) -> bool {
        self.persistence == Persistence::Client as u8
    }
}
