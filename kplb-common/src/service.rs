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
    /// Always zero.
    pub _pad: [u8; 3],
}

const _: () = assert!(size_of::<Service>() == 16);

impl Service {
    /// Whether a new flow waits while the ring names no backend.
    #[inline(always)]
    pub fn waits_when_empty(&self) -> bool {
        self.when_empty == WhenEmpty::Wait as u8
    }

    /// Whether all flows of one client address keep to one backend.
    #[inline(always)]
    pub fn keeps_client(&self) -> bool {
        self.persistence == Persistence::Client as u8
    }
}
