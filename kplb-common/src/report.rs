//! What the data path sees of a backend's health, and tells the agent: never a decision, only a reason to look at once.

use crate::{
    flow::Direction,
    flow_state::{self, FlowState, RST},
};

/// How often a backend is reported at most, in nanoseconds.
pub const REPORT_INTERVAL_NS: u64 = 20_000_000;

/// What was seen.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Symptom {
    /// The backend answered a SYN with a reset.
    Refused = 0,
    /// A client repeated its SYN: none of them was answered.
    Unanswered = 1,
}

impl Symptom {
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
            _ => None,
        }
    }
}

/// A record of the ring `REPORTS`.
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
        assert_eq!(Symptom::from_u8(Symptom::Unanswered as u8), Some(Symptom::Unanswered));
        assert_eq!(Symptom::from_u8(2), None);
    }
}
