//! Answering a TCP segment with a reset, in its own frame.
//!
//! The answer is shorter than most questions. At XDP the frame keeps its length all the same: what follows the IP packet is
//! Ethernet padding.

use kplb_common::{
    checksum,
    flow_state::{ACK, FIN, RST, SYN},
    net::{Address, Be16, Be32, TCP},
    verdict::{DropReason, ResetReason, Verdict},
};

use crate::{
    emit::Outcome,
    family::Family,
    layout::{Layout, Part, Walked},
    packet::{Ethernet, Packet, Tcp},
    parse::Parsed,
};

/// Carries out a verdict of a reset; others are returned as they are. What must not be answered is dropped for the same
/// reason: a reset (RFC 9293, 3.5.2), and UDP, which has none.
#[inline(always)]
pub fn carry_out<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F::Address, Walked>, verdict: Verdict) -> Outcome {
    let Verdict::Reset(reason) = verdict else { return verdict.into() };
    if parsed.is_tcp() && parsed.shape.flags & RST == 0 && can_be_answered(parsed) {
        return answer::<F, P>(packet, parsed, reason);
    }
    Verdict::Drop(instead(reason)).into()
}

/// Without an acknowledgement, the answer acknowledges what has come: of a fragment it is not known how much that is.
#[inline(always)]
fn can_be_answered<A>(parsed: &Parsed<A, Walked>) -> bool {
    parsed.shape.flags & ACK != 0 || parsed.layout.part() == Part::WHOLE
}

/// Why a packet is dropped that would be answered if that were possible.
#[inline(always)]
pub fn instead(reason: ResetReason) -> DropReason {
    match reason {
        ResetReason::UnknownFlow => DropReason::UnknownFlow,
        ResetReason::NoBackend => DropReason::NoBackend,
        ResetReason::BackendGone => DropReason::BackendGone,
        ResetReason::BackendDown => DropReason::BackendDown,
    }
}

/// Turns the frame into a reset for its sender (RFC 9293, 3.10.7.1).
#[inline(never)]
fn answer<F: Family, P: Packet>(packet: &P, parsed: &Parsed<F::Address, Walked>, reason: ResetReason) -> Outcome {
    let layout = &parsed.layout;
    let not_answered = Verdict::Drop(instead(reason)).into();
    // The answer has neither options nor extension headers, so its TCP may begin earlier. Then whoever is to finish the
    // checksum of the question writes it into what comes after the answer.
    let l4 = layout.l3() + size_of::<F::Header>();
    let is_finished = l4 != layout.l4::<F>() || !packet.awaits_checksum(l4 + core::mem::offset_of!(Tcp, checksum));
    let Some(question) = packet.header::<Tcp>(layout.l4::<F>()) else { return not_answered };
    let (sequence, acknowledgement, flags) = if parsed.shape.flags & ACK != 0 {
        (question.acknowledgement, Be32::default(), RST)
    } else {
        let headers = (layout.l4::<F>() - layout.l3()) as u32 + u32::from(question.data_offset >> 4) * 4;
        let length = u32::from(parsed.shape.ip_length).wrapping_sub(headers)
            + u32::from(parsed.shape.flags & SYN != 0)
            + u32::from(parsed.shape.flags & FIN != 0);
        (Be32::default(), Be32::from_host(question.sequence.to_host().wrapping_add(length)), RST | ACK)
    };
    let (Some(ethernet), Some(ip), Some(tcp)) =
        (packet.header::<Ethernet>(0), packet.header::<F::Header>(layout.l3()), packet.header::<Tcp>(l4))
    else {
        return not_answered;
    };
    core::mem::swap(&mut ethernet.destination, &mut ethernet.source);
    F::answer(ip, size_of::<Tcp>() as u16);
    *tcp = Tcp {
        source: parsed.key.destination_port,
        destination: parsed.key.source_port,
        sequence,
        acknowledgement,
        data_offset: ((size_of::<Tcp>() / 4) as u8) << 4,
        flags,
        window: Be16::default(),
        checksum: 0,
        urgent: Be16::default(),
    };
    let of_pseudo_header = parsed.key.source.sum()
        + parsed.key.destination.sum()
        + u64::from(Be16::from_host(u16::from(TCP)).to_wire())
        + u64::from(Be16::from_host(size_of::<Tcp>() as u16).to_wire());
    let of_header = u64::from(tcp.source.to_wire())
        + u64::from(tcp.destination.to_wire())
        + u64::from(sequence.to_wire())
        + u64::from(acknowledgement.to_wire())
        + u64::from(u16::from_ne_bytes([tcp.data_offset, tcp.flags]));
    tcp.checksum =
        if is_finished { !checksum::fold(of_pseudo_header + of_header) } else { checksum::fold(of_pseudo_header) };
    // A checksum that is still to be finished cannot be cut off, be it in what comes after the answer.
    if packet.cut(l4 + size_of::<Tcp>()) || packet.cut(layout.l4::<F>() + size_of::<Tcp>()) {
        Verdict::Reset(reason).into()
    } else {
        not_answered
    }
}
