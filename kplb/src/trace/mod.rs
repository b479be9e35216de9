//! Packets as the data path tells of them: what `kplb trace` shows, and its stable JSON form.
//!
//! Fields are only ever added.

mod ask;
mod headers;
mod text;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

pub use ask::{VerdictSet, Wanted, request};
pub use headers::{Headers, Tcp, Tuple};
use kplb_common::{
    trace::{Hook, SNAPSHOT_BYTES, SNAPSHOT_WORDS, TraceEvent},
    verdict::{ForwardReason, Verdict},
};
use serde::{Deserialize, Serialize};
pub use text::{Detail, text};

use crate::{config::Protocol, directory::Directory, model::Endpoint};

/// A packet and what became of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TraceReport {
    /// When, as RFC 3339 has it.
    pub time: String,
    /// The interface.
    pub interface: String,
    /// Where it was seen: `in`, as it came in, or `out`, as it was about to leave.
    pub hook: String,
    /// What was decided, as `kplb status` counts it.
    pub verdict: String,
    /// `to-backend` or `to-client`; `null`: neither.
    pub direction: Option<String>,
    /// Bytes of the frame.
    pub length: u32,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, or the number of another IP protocol; `null`: not known.
    pub protocol: Option<String>,
    /// Name of the service; `null`: it is of none.
    pub service: Option<String>,
    /// Name of the backend; `null`: it is to and from none.
    pub backend: Option<String>,
    /// As it came.
    pub before: PacketReport,
    /// As it went; `null`: not changed, or dropped.
    pub after: Option<PacketReport>,
}

/// The headers of a packet. What it does not have is `null`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PacketReport {
    /// Address and port it is from; the port is zero where there is none.
    pub source: Option<SocketAddr>,
    /// Address and port it is for.
    pub destination: Option<SocketAddr>,
    /// MAC address it is from.
    pub source_mac: Option<String>,
    /// MAC address it is for.
    pub destination_mac: Option<String>,
    /// Hops that are left.
    pub ttl: Option<u8>,
    /// TCP flags: `SYN`, `FIN`, `RST`, `PSH`, `ACK`, `URG`, with spaces between.
    pub flags: Option<String>,
    /// TCP sequence number.
    pub sequence: Option<u32>,
    /// TCP acknowledgement number.
    pub acknowledgement: Option<u32>,
    /// TCP window.
    pub window: Option<u16>,
    /// Of ICMP its type and code, of ARP what it asks or says.
    pub note: Option<String>,
    /// Of an ICMP error: source of the packet that it is about.
    pub about_source: Option<SocketAddr>,
    /// Its destination.
    pub about_destination: Option<SocketAddr>,
}

/// The two clocks at one moment: events have the one, people the other.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Nanoseconds of the monotonic clock.
    pub monotonic_ns: u64,
    /// The time of day.
    pub wall: SystemTime,
}

impl Clocks {
    /// The time of day when the monotonic clock showed this.
    fn wall_at(&self, monotonic_ns: u64) -> SystemTime {
        if monotonic_ns < self.monotonic_ns {
            let earlier = Duration::from_nanos(self.monotonic_ns - monotonic_ns);
            return self.wall.checked_sub(earlier).unwrap_or(self.wall);
        }
        let later = Duration::from_nanos(monotonic_ns - self.monotonic_ns);
        self.wall.checked_add(later).unwrap_or(self.wall)
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    ToBackend,
    ToClient,
}

impl Direction {
    const fn name(self) -> &'static str {
        match self {
            Self::ToBackend => "to-backend",
            Self::ToClient => "to-client",
        }
    }
}

/// The report on an event, if it is wanted; none, too, for one that says nothing.
pub fn report(
    event: &TraceEvent,
    interface: &str,
    clocks: &Clocks,
    directory: &Directory,
    wanted: &Wanted,
) -> Option<TraceReport> {
    let verdict = Verdict::all().find(|verdict| verdict.index() == u32::from(event.verdict))?;
    let hook = Hook::from_u8(event.hook)?;
    let kept = usize::from(event.kept).min(SNAPSHOT_BYTES);
    let (before_bytes, after_bytes) = (bytes(&event.before), bytes(&event.after));
    let (before_bytes, after_bytes) = (&before_bytes[..kept], &after_bytes[..kept]);
    let (before, after) = (Headers::of(before_bytes), Headers::of(after_bytes));
    let service = service(directory, &before, &after);
    let direction = direction(verdict, service.as_ref(), &before);
    if !wanted.takes(service.as_ref(), &clients(direction, &before, &after)) {
        return None;
    }
    Some(TraceReport {
        time: humantime::format_rfc3339_micros(clocks.wall_at(event.time_ns)).to_string(),
        interface: interface.to_owned(),
        hook: match hook {
            Hook::Ingress => "in",
            Hook::Egress => "out",
        }
        .to_owned(),
        verdict: verdict.name().to_owned(),
        direction: direction.map(|direction| direction.name().to_owned()),
        length: event.length,
        protocol: before.protocol.clone(),
        service: service.as_ref().map(|service| directory.service(service)),
        backend: service.as_ref().and_then(|service| backend(directory, service, &before, &after)),
        after: (before_bytes != after_bytes).then(|| PacketReport::new(&after)),
        before: PacketReport::new(&before),
    })
}

fn bytes(words: &[u64; SNAPSHOT_WORDS]) -> [u8; SNAPSHOT_BYTES] {
    let mut bytes = [0; SNAPSHOT_BYTES];
    for (bytes, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// The service whose VIP and port are in the headers.
fn service(directory: &Directory, before: &Headers, after: &Headers) -> Option<Endpoint> {
    // An ICMP error is of the service of the packet that it is about, whose protocol is not looked at.
    let is_of = |protocol: &Protocol| match before.protocol.as_deref() {
        Some("tcp") => *protocol == Protocol::Tcp,
        Some("udp") => *protocol == Protocol::Udp,
        _ => true,
    };
    let candidates = || before.endpoints().chain(after.endpoints());
    directory.services().find(|service| is_of(&service.protocol) && candidates().any(|own| own == service.address))
}

/// Name of the service's backend whose address and port are in the headers.
fn backend(directory: &Directory, service: &Endpoint, before: &Headers, after: &Headers) -> Option<String> {
    let is_there = |address: &SocketAddr| before.endpoints().chain(after.endpoints()).any(|own| own == *address);
    let backend = directory.backends().find(|(of, address)| of == service && is_there(address));
    backend.map(|(_, address)| directory.backend(service, address))
}

fn direction(verdict: Verdict, service: Option<&Endpoint>, before: &Headers) -> Option<Direction> {
    match verdict {
        Verdict::Forward(
            ForwardReason::ToBackend
            | ForwardReason::ToLocalBackend
            | ForwardReason::IcmpToBackend
            | ForwardReason::IcmpToLocalBackend,
        ) => Some(Direction::ToBackend),
        Verdict::Forward(
            ForwardReason::ToClient
            | ForwardReason::ToClientLocal
            | ForwardReason::IcmpToClient
            | ForwardReason::IcmpToClientLocal,
        ) => Some(Direction::ToClient),
        // What is refused is refused to a client, if it was for a VIP.
        Verdict::Reset(_) | Verdict::Drop(_) | Verdict::Pass(_) => {
            let (tuple, service) = (before.tuple?, service?);
            (tuple.destination == service.address).then_some(Direction::ToBackend)
        }
    }
}

/// The addresses of which one is the client's: of an ICMP error to a backend, it is whom the backend spoke to.
fn clients(direction: Option<Direction>, before: &Headers, after: &Headers) -> Vec<SocketAddr> {
    let (source, destination) =
        (|headers: &Headers| headers.tuple.map(|t| t.source), |headers: &Headers| headers.tuple.map(|t| t.destination));
    let clients = match direction {
        Some(Direction::ToBackend) => [source(before), before.about.map(|about| about.destination)],
        Some(Direction::ToClient) => [destination(after), None],
        None => [source(before), destination(before)],
    };
    clients.into_iter().flatten().collect()
}

impl PacketReport {
    fn new(headers: &Headers) -> Self {
        let Headers { source_mac, destination_mac, tuple, ttl, tcp, note, about, .. } = headers;
        Self {
            source: tuple.map(|tuple| tuple.source),
            destination: tuple.map(|tuple| tuple.destination),
            source_mac: source_mac.map(|mac| mac.to_string()),
            destination_mac: destination_mac.map(|mac| mac.to_string()),
            ttl: *ttl,
            flags: tcp.as_ref().map(|tcp| tcp.flags.clone()),
            sequence: tcp.as_ref().map(|tcp| tcp.sequence),
            acknowledgement: tcp.as_ref().map(|tcp| tcp.acknowledgement),
            window: tcp.as_ref().map(|tcp| tcp.window),
            note: note.clone(),
            about_source: about.map(|about| about.source),
            about_destination: about.map(|about| about.destination),
        }
    }
}

#[cfg(test)]
mod tests;
