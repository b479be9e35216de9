//! What the data path sees of backends and clients, and tells the agent: never a decision, only a reason to
//! look at once.

use crate::{
    client::Client,
    flow::Direction,
    flow_state::{self, FlowState, RST},
    net::Mac,
};

/// How often a symptom of one backend is reported at most, in nanoseconds.
pub const REPORT_INTERVAL_NS: u64 = 20_000_000;

/// What was seen.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Symptom {
    /// The backend answered a SYN with a reset.
    Refused = 0,
    /// A client repeated its SYN: none of them was answered.
    Unanswered = 1,
    /// A client speaks to it in vain ([`crate::silence`]).
    Silent = 2,
    /// It speaks to a client in vain.
    SilentClient = 3,
}

impl Symptom {
    /// How many there are.
    pub const COUNT: u32 = 4;

    /// Index in `REPORTED` of when this one was last reported of a backend.
    #[inline(always)]
    pub const fn index(self, backend: u16) -> u32 {
        backend as u32 * Self::COUNT + self as u32
    }

    /// What a TCP packet with these flags says of the backend of its flow, which was in `state` before it.
    #[inline(always)]
    pub const fn of(state: FlowState, direction: Direction, flags: u8) -> Option<Self> {
        match (state, direction) {
            (FlowState::SynSent, Direction::ToClient) if flags & RST != 0 => Some(Self::Refused),
            (FlowState::SynSent, Direction::ToBackend) if flow_state::opens(flags) => Some(Self::Unanswered),
            _ => None,
        }
    }

    /// The symptom with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Refused),
            1 => Some(Self::Unanswered),
            2 => Some(Self::Silent),
            3 => Some(Self::SilentClient),
            _ => None,
        }
    }
}

/// A record of the ring `REPORTS`: a symptom of a backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    /// Backend id.
    pub backend: u16,
    /// A [`Symptom`].
    pub symptom: u8,
    /// Always zero.
    pub _pad: u8,
}

const _: () = assert!(size_of::<Report>() == 4);

/// Another record of the ring, which its length tells apart: a client to which a backend speaks in vain.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientReport {
    /// The client.
    pub client: Client,
    /// Where its frames came from.
    pub mac: Mac,
    /// Always zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<ClientReport>() == 28);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_state::{ACK, SYN};

    #[test]
    fn symptoms() {
        use Direction::{ToBackend, ToClient};
        use FlowState::{Established, SynAcked, SynSent};
        for (state, direction, flags, expected) in [
            (SynSent, ToClient, RST | ACK, Some(Symptom::Refused)),
            (SynSent, ToClient, SYN | ACK, None),
            (SynSent, ToBackend, SYN, Some(Symptom::Unanswered)),
            (SynSent, ToBackend, RST, None),
            (SynAcked, ToBackend, SYN, None),
            (SynAcked, ToClient, RST, None),
            (Established, ToClient, RST | ACK, None),
            (Established, ToBackend, SYN, None),
        ] {
            assert_eq!(Symptom::of(state, direction, flags), expected, "{state:?} {direction:?} {flags:#04x}");
        }
        for symptom in [Symptom::Refused, Symptom::Unanswered, Symptom::Silent, Symptom::SilentClient] {
            assert_eq!(Symptom::from_u8(symptom as u8), Some(symptom));
        }
        assert_eq!(Symptom::from_u8(Symptom::COUNT as u8), None);
    }
}
