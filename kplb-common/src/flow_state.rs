//! The life of a flow, decided from its packets alone.
//!
//! Both entries of a flow hold its state. A flow is *half open* until its client has proved that it receives what is
//! sent to its address: a TCP client by acknowledging the SYN-ACK, a UDP client by sending again after a reply. Only
//! then may it take room among the established flows, so that spoofed packets can never evict those.
//!
//! ```text
//! TCP  SynSent -SYN-ACK-> SynAcked -ACK-> Established -FIN-> FinFromClient  -FIN-> Closing
//!                                                      \--> FinFromBackend -/        ^
//!                                                  RST from any state ---------------/
//! UDP  UdpUnreplied -reply-> UdpReplied -client again-> UdpAssured
//! ```

use crate::{flow::Direction, net::TCP};

/// TCP header flag: no more data from the sender.
pub const FIN: u8 = 0x01;
/// TCP header flag: synchronize sequence numbers.
pub const SYN: u8 = 0x02;
/// TCP header flag: reset the connection.
pub const RST: u8 = 0x04;
/// TCP header flag: what was sent so far is to reach the application.
pub const PSH: u8 = 0x08;
/// TCP header flag: the acknowledgement field is valid.
pub const ACK: u8 = 0x10;

/// Where a flow is in its life.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FlowState {
    /// The client's SYN was seen.
    SynSent = 0,
    /// The backend's SYN-ACK was seen.
    SynAcked = 1,
    /// The client acknowledged the SYN-ACK.
    Established = 2,
    /// The client will send no more.
    FinFromClient = 3,
    /// The backend will send no more.
    FinFromBackend = 4,
    /// Both sides have ended, or one has reset.
    Closing = 5,
    /// The client's datagram was seen.
    UdpUnreplied = 6,
    /// The backend's reply was seen.
    UdpReplied = 7,
    /// The client went on after a reply.
    UdpAssured = 8,
}

impl FlowState {
    /// Every state, by number.
    pub const ALL: [Self; 9] = [
        Self::SynSent,
        Self::SynAcked,
        Self::Established,
        Self::FinFromClient,
        Self::FinFromBackend,
        Self::Closing,
        Self::UdpUnreplied,
        Self::UdpReplied,
        Self::UdpAssured,
    ];

    /// The state of a flow that its first packet opens.
    #[inline(always)]
    pub const fn opening(protocol: u8) -> Self {
        if protocol == TCP { Self::SynSent } else { Self::UdpUnreplied }
    }

    /// The state with this number; the numbers of no state, which the programs never write, read as the shortest-lived.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::SynSent,
            1 => Self::SynAcked,
            2 => Self::Established,
            3 => Self::FinFromClient,
            4 => Self::FinFromBackend,
            6 => Self::UdpUnreplied,
            7 => Self::UdpReplied,
            8 => Self::UdpAssured,
            _ => Self::Closing,
        }
    }
}

/// Whether these TCP flags ask for a new connection.
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (SYN | ACK | RST | FIN) == SYN
}

/// Whether a packet with these flags can leave an established flow's state as it is: the fast path.
#[inline(always)]
pub const fn is_plain(flags: u8) -> bool {
    flags & (SYN | RST | FIN) == 0
}

/// The state after a TCP packet in `direction`.
///
/// `acknowledges`: whether the packet acknowledges the SYN-ACK that was seen; only asked of a client.
#[inline(always)]
pub const fn next_tcp(state: FlowState, direction: Direction, flags: u8, acknowledges: bool) -> FlowState {
    use FlowState::{Closing, Established, FinFromBackend, FinFromClient, SynAcked, SynSent};

    if flags & RST != 0 {
        return Closing;
    }
    let fin = flags & FIN != 0;
    match (state, direction) {
        (SynSent, Direction::ToClient) if flags & (SYN | ACK) == SYN | ACK => SynAcked,
        (SynAcked, Direction::ToBackend) if flags & (SYN | ACK) == ACK && acknowledges => {
            if fin {
                FinFromClient
            } else {
                Established
            }
        }
        (Established, Direction::ToBackend) if fin => FinFromClient,
        (Established, Direction::ToClient) if fin => FinFromBackend,
        (FinFromClient, Direction::ToClient) | (FinFromBackend, Direction::ToBackend) if fin => Closing,
        _ => state,
    }
}

/// The state after a UDP packet in `direction`.
#[inline(always)]
pub const fn next_udp(state: FlowState, direction: Direction) -> FlowState {
    match (state, direction) {
        (FlowState::UdpUnreplied, Direction::ToClient) => FlowState::UdpReplied,
        (FlowState::UdpReplied, Direction::ToBackend) => FlowState::UdpAssured,
        _ => state,
    }
}

impl FlowState {
    /// Whether the client of a flow that has just reached this state has proved that it is there. A flow that closes
    /// without having been assured has proved nothing.
    #[inline(always)]
    pub const fn is_assured(self) -> bool {
        matches!(self, Self::Established | Self::FinFromClient | Self::FinFromBackend | Self::UdpAssured)
    }
}

#[cfg(test)]
mod tests {
    use super::{FlowState::*, *};

    #[test]
    fn numbers_are_indices() {
        for (number, state) in FlowState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(FlowState::from_u8(number as u8), state);
        }
        assert_eq!(FlowState::from_u8(9), Closing);
    }

    #[test]
    fn tcp_transitions() {
        use Direction::{ToBackend, ToClient};
        #[rustfmt::skip]
        let cases = [
            (SynSent,        ToBackend, SYN,       false, SynSent),
            (SynSent,        ToClient,  SYN | ACK, false, SynAcked),
            (SynSent,        ToClient,  ACK,       false, SynSent),
            (SynSent,        ToBackend, ACK,       true,  SynSent),
            (SynAcked,       ToBackend, ACK,       true,  Established),
            (SynAcked,       ToBackend, ACK,       false, SynAcked),
            (SynAcked,       ToBackend, SYN | ACK, true,  SynAcked),
            (SynAcked,       ToClient,  SYN | ACK, false, SynAcked),
            (SynAcked,       ToBackend, ACK | FIN, true,  FinFromClient),
            (SynAcked,       ToClient,  RST | ACK, false, Closing),
            (Established,    ToBackend, ACK,       false, Established),
            (Established,    ToBackend, SYN,       false, Established),
            (Established,    ToBackend, FIN | ACK, false, FinFromClient),
            (Established,    ToClient,  FIN | ACK, false, FinFromBackend),
            (FinFromClient,  ToBackend, FIN | ACK, false, FinFromClient),
            (FinFromClient,  ToClient,  ACK,       false, FinFromClient),
            (FinFromClient,  ToClient,  FIN | ACK, false, Closing),
            (FinFromBackend, ToBackend, FIN | ACK, false, Closing),
            (Established,    ToBackend, RST,       false, Closing),
            (Closing,        ToBackend, ACK,       true,  Closing),
        ];
        for (state, direction, flags, acknowledges, expected) in cases {
            let next = next_tcp(state, direction, flags, acknowledges);
            assert_eq!(next, expected, "{state:?} {direction:?} flags {flags:#04x} acknowledges {acknowledges}");
        }
    }

    #[test]
    fn udp_transitions() {
        use Direction::{ToBackend, ToClient};
        for (state, direction, expected) in [
            (UdpUnreplied, ToBackend, UdpUnreplied),
            (UdpUnreplied, ToClient, UdpReplied),
            (UdpReplied, ToClient, UdpReplied),
            (UdpReplied, ToBackend, UdpAssured),
            (UdpAssured, ToClient, UdpAssured),
        ] {
            assert_eq!(next_udp(state, direction), expected, "{state:?} {direction:?}");
        }
    }

    #[test]
    fn plain_packets_never_change_established_flows() {
        for state in [Established, FinFromClient, FinFromBackend, Closing] {
            for direction in [Direction::ToBackend, Direction::ToClient] {
                for flags in (0..=u8::MAX).filter(|&flags| is_plain(flags)) {
                    assert_eq!(next_tcp(state, direction, flags, true), state);
                }
            }
        }
    }
}
