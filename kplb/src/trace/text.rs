//! The form for people: one line a packet.
//!
//! ```text
//! 21:31:16.123456 in  to-backend tcp SYN 74 B  198.18.0.101:40000 > 198.18.0.100:6443  =>  198.18.0.11:12753 > 198.18.0.12:6443  (node2)
//! ```

use std::fmt::{self, Write as _};

use super::{PacketReport, TraceReport};

/// How much is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detail {
    /// A line.
    Line,
    /// MAC addresses, hops and TCP's numbers, too.
    All,
}

/// Where the time of day is in RFC 3339: the day is left out.
const TIME_OF_DAY: std::ops::Range<usize> = 11..26;

/// A packet as text, with a line feed at the end.
pub fn text(report: &TraceReport, detail: Detail) -> String {
    let mut out = String::new();
    write(&mut out, report, detail).expect("a string takes every write");
    out
}

fn write(out: &mut String, report: &TraceReport, detail: Detail) -> fmt::Result {
    let TraceReport { time, hook, verdict, length, protocol, backend, before, after, .. } = report;
    write!(out, "{} {hook:<3} {verdict}", time.get(TIME_OF_DAY).unwrap_or(time))?;
    for word in [protocol, &before.flags, &before.note].into_iter().flatten() {
        write!(out, " {word}")?;
    }
    write!(out, " {length} B")?;
    write_tuple(out, "  ", before)?;
    if let Some(after) = after {
        write_tuple(out, "  =>  ", after)?;
        // An answer has other flags than its question.
        if let Some(flags) = after.flags.as_ref().filter(|flags| Some(*flags) != before.flags.as_ref()) {
            write!(out, " {flags}")?;
        }
    }
    if let Some(backend) = backend {
        write!(out, "  ({backend})")?;
    }
    writeln!(out)?;
    if detail == Detail::All {
        write_detail(out, "came", before)?;
        after.iter().try_for_each(|after| write_detail(out, "went", after))?;
    }
    Ok(())
}

fn write_tuple(out: &mut String, arrow: &str, packet: &PacketReport) -> fmt::Result {
    let (Some(source), Some(destination)) = (packet.source, packet.destination) else { return Ok(()) };
    if source.port() == 0 && destination.port() == 0 {
        write!(out, "{arrow}{} > {}", source.ip(), destination.ip())?;
    } else {
        write!(out, "{arrow}{source} > {destination}")?;
    }
    if let (Some(source), Some(destination)) = (packet.about_source, packet.about_destination) {
        write!(out, " about {source} > {destination}")?;
    }
    Ok(())
}

fn write_detail(out: &mut String, how: &str, packet: &PacketReport) -> fmt::Result {
    let PacketReport { source_mac, destination_mac, ttl, sequence, acknowledgement, window, .. } = packet;
    write!(out, "  {how}")?;
    if let (Some(source), Some(destination)) = (source_mac, destination_mac) {
        write!(out, "  {source} > {destination}")?;
    }
    if let Some(ttl) = ttl {
        write!(out, "  ttl {ttl}")?;
    }
    if let (Some(sequence), Some(acknowledgement), Some(window)) = (sequence, acknowledgement, window) {
        write!(out, "  seq {sequence}  ack {acknowledgement}  win {window}")?;
    }
    writeln!(out)
}
