//! Packets at TC as the kernel has them: with checksums that are still to be finished, of many segments, not all in linear
//! memory.

use anyhow::{Context as _, Result, ensure};
use kplb_common::net::{TCP, UDP};
use kplb_tests::{
    frames::{ACK, Frame, PSH, check_checksums, cut_padding, sum},
    tap::{self, Packet, SegmentKind, Segments},
    testbed::{Hook, Ingress, Testbed},
};

use crate::{
    case::take,
    scene::{AMPLE, Family, Flow, Kind, NAT_PORTS},
};

/// Bytes of data of a segment.
const SEGMENT: u16 = 1400;
/// Bytes of data of as many segments as a packet may be of.
const MUCH: usize = 62_000;

fn testbed(ingress: Ingress, family: Family) -> Result<Testbed> {
    Testbed::new(ingress, &family.configuration(NAT_PORTS), &family.facts(), AMPLE)
}

/// Where the checksum lies in a header of TCP or UDP.
const fn checksum_at(protocol: u8) -> u16 {
    if protocol == TCP { 16 } else { 6 }
}

/// The frame as the kernel has it while its checksum is still to be finished.
fn unfinished(frame: &Frame, l4: usize, protocol: u8) -> Packet {
    let mut bytes = frame.build();
    let at = l4 + usize::from(checksum_at(protocol));
    // The checksum is the complement of the sum over pseudo-header and segment; what is left of it without the segment is
    // what the segment with a zero there lacks.
    let whole = u64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    bytes[at..at + 2].copy_from_slice(&[0, 0]);
    let of_segment = sum(&[&bytes[l4..]]);
    let pseudo = kplb_common::checksum::fold(0xffff - whole + u64::from(!of_segment));
    bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    let start = u16::try_from(l4).expect("a header's place");
    Packet { bytes, unfinished: Some((start, checksum_at(protocol))), ..Packet::default() }
}

fn segments(family: Family, protocol: u8) -> Segments {
    let kind = match (family, protocol) {
        (_, UDP) => SegmentKind::Udp,
        (Family::V4, _) => SegmentKind::TcpV4,
        (Family::V6, _) => SegmentKind::TcpV6,
    };
    Segments { kind, size: SEGMENT }
}

/// What is sent on of `sent` is `expected`, with the same left to be done.
fn goes_on(testbed: &Testbed, sent: &Packet, expected: &Frame) -> Result<()> {
    check_checksums(&sent.finished()).context("what is sent")?;
    let came = testbed.exchange(sent)?.context("nothing was sent on")?;
    ensure!(came.finished() == expected.build(), "{:x?}, not {:x?}", &came.finished()[..80], &expected.build()[..80]);
    ensure!((came.unfinished, came.segments) == (sent.unfinished, sent.segments), "{sent:?} has become {came:?}");
    Ok(())
}

/// Both directions of a flow, with data that is long or not.
fn forwards(family: Family, protocol: u8) -> Result<()> {
    let mut testbed = testbed(Ingress::Tc, family)?;
    let flow = Flow::new(family, protocol, Kind::Remote);
    let l4 = family.l4_offset();
    for step in flow.established() {
        take(&mut testbed, &step)?;
    }
    let headers = u16::try_from(l4)? + if protocol == TCP { 20 } else { 8 };
    let stays_together = protocol == TCP || tap::takes_segments_of_datagrams()?;
    for (length, n_linear) in [(1, 0), (1001, 0), (MUCH, headers), (MUCH, 14), (MUCH, 0)] {
        if length == MUCH && !stays_together {
            continue;
        }
        let data = vec![0x5a; length];
        let (request, answer) = (flow.data().carrying(data.clone()), flow.reply_data().carrying(data));
        for (sent, expected) in [(&request, flow.backend_gets(&request)), (&answer, flow.client_gets(&answer))] {
            let mut packet = unfinished(sent, l4, protocol);
            if length == MUCH {
                packet.segments = Some(segments(family, protocol));
            }
            goes_on(&testbed, &Packet { n_linear, ..packet }, &expected)
                .with_context(|| format!("{length} bytes, {n_linear} in linear memory"))?;
        }
    }
    Ok(())
}

#[test]
fn segments_stay_together_v4() -> Result<()> {
    forwards(Family::V4, TCP)
}

#[test]
fn segments_stay_together_v6() -> Result<()> {
    forwards(Family::V6, TCP)
}

#[test]
fn datagrams_stay_together_v4() -> Result<()> {
    forwards(Family::V4, UDP)
}

#[test]
fn datagrams_stay_together_v6() -> Result<()> {
    forwards(Family::V6, UDP)
}

/// Packets of more bytes than their length can say, which then is zero: the kernel may put so many segments together if it is
/// told to (BIG TCP). The interface takes no such packet, so they leave as several.
fn huge(family: Family) -> Result<()> {
    // More than kernels before 6.6 take from a tap would be no test of theirs (`sock_alloc_send_pskb`: 17 pages).
    const HUGE: usize = 69_000;
    let mut testbed = testbed(Ingress::Tc, family)?;
    let flow = Flow::new(family, TCP, Kind::Remote);
    let l4 = family.l4_offset();
    for step in flow.established() {
        take(&mut testbed, &step)?;
    }
    let start = flow.data().carrying(vec![0x5a; 1000]).with_ip(|ip| ip.length = Some(0));
    let mut packet = unfinished(&start, l4, TCP);
    let more = HUGE - 1000;
    packet.bytes.extend(vec![0x5a; more]);
    packet.segments = Some(segments(family, TCP));
    // Its length is part of the pseudo-header, and was that of the start.
    let at = l4 + usize::from(checksum_at(TCP));
    let pseudo = u64::from(u16::from_be_bytes([packet.bytes[at], packet.bytes[at + 1]])) + more as u64;
    packet.bytes[at..at + 2].copy_from_slice(&kplb_common::checksum::fold(pseudo).to_be_bytes());

    let expected = flow.backend_gets(&flow.data()).build();
    let (mut n_bytes, mut next) = (0, testbed.exchange(&packet)?);
    while let Some(part) = next {
        let bytes = part.finished();
        check_checksums(&bytes)?;
        ensure!(bytes[..12] == expected[..12], "it went elsewhere: {:x?}", &bytes[..12]);
        ensure!(bytes[l4..l4 + 4] == expected[l4..l4 + 4], "it has other ports: {:x?}", &bytes[l4..l4 + 4]);
        n_bytes += bytes.len() - l4 - 20;
        next = testbed.next_sent()?;
    }
    ensure!(n_bytes == HUGE, "{n_bytes} bytes have come");
    Ok(())
}

#[test]
fn more_segments_than_a_length_can_say_v4() -> Result<()> {
    huge(Family::V4)
}

#[test]
fn more_segments_than_a_length_can_say_v6() -> Result<()> {
    huge(Family::V6)
}

/// A datagram without a checksum has none afterwards.
#[test]
fn no_checksum_stays_none() -> Result<()> {
    let mut testbed = testbed(Ingress::Tc, Family::V4)?;
    let flow = Flow::new(Family::V4, UDP, Kind::Remote);
    for step in flow.established() {
        take(&mut testbed, &step)?;
    }
    let data = flow.data().with_udp(|udp| udp.checksum = Some(0));
    goes_on(&testbed, &Packet::whole(data.build()), &flow.backend_gets(&data))
}

/// Whatever it was sent as, a reset is one frame of its own length, and right.
fn answers(family: Family) -> Result<()> {
    let (at_xdp, at_tc) = (testbed(Ingress::Xdp, family)?, testbed(Ingress::Tc, family)?);
    let flow = Flow::new(family, TCP, Kind::Remote);
    let l4 = family.l4_offset();
    for (flags, length) in [(ACK, 0), (ACK | PSH, 100), (ACK | PSH, 1400), (PSH, 1001), (ACK | PSH, 3000), (PSH, 3001)]
    {
        let question = flow.client_sends(flags).carrying(vec![7; length]);
        let (verdict, output) = at_xdp.judge(Hook::Ingress, &question.build())?;
        let mut expected = output.frame;
        cut_padding(&mut expected);
        check_checksums(&expected)?;
        for n_segments in [1, 2] {
            let mut sent = unfinished(&question, l4, TCP);
            if n_segments == 2 && length > usize::from(SEGMENT) {
                sent.segments = Some(segments(family, TCP));
            }
            let came = at_tc.exchange(&sent)?.with_context(|| format!("{} is not sent", verdict.name()))?;
            ensure!(came.segments.is_none(), "{length} bytes: {came:?}");
            ensure!(came.finished() == expected, "{length} bytes: {came:x?}, not {expected:x?}");
        }
    }
    // More than any frame: what it acknowledges is told from what is sent without an acknowledgement.
    let question = flow.client_sends(PSH).carrying(vec![7; MUCH]);
    let sent = Packet { segments: Some(segments(family, TCP)), ..unfinished(&question, l4, TCP) };
    let came = at_tc.exchange(&sent)?.context("nothing is sent")?;
    let bytes = came.finished();
    check_checksums(&bytes)?;
    ensure!((bytes.len(), came.segments) == (l4 + 20, None), "{came:x?}");
    let acknowledged = u32::from_be_bytes(bytes[l4 + 8..l4 + 12].try_into()?);
    let sequence = u32::from_be_bytes(sent.bytes[l4 + 4..l4 + 8].try_into()?);
    ensure!(acknowledged == sequence.wrapping_add(u32::try_from(MUCH)?), "it acknowledges {acknowledged}");
    Ok(())
}

#[test]
fn resets_are_frames_of_their_own_length_v4() -> Result<()> {
    answers(Family::V4)
}

#[test]
fn resets_are_frames_of_their_own_length_v6() -> Result<()> {
    answers(Family::V6)
}

/// Options make a header longer than that of the reset: what comes after the reset takes the checksum of the question.
#[test]
fn a_reset_of_a_packet_with_options_is_right() -> Result<()> {
    let at_tc = testbed(Ingress::Tc, Family::V4)?;
    let question = Flow::new(Family::V4, TCP, Kind::Remote)
        .client_sends(ACK)
        .with_ip(|ip| ip.options = vec![1; 12])
        .carrying(*b"data");
    let sent = unfinished(&question, Family::V4.l4_offset() + 12, TCP);
    check_checksums(&sent.finished())?;
    let came = at_tc.exchange(&sent)?.context("nothing is sent")?;
    check_checksums(&came.finished())
}
