//! Events made of whole frames, as etherparse builds them.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{IcmpEchoHeader, Icmpv4Type, PacketBuilder, icmpv4::DestUnreachableHeader};
use kplb_common::{
    backend::Backend,
    net::{Address as _, Be16, Ip4},
    service::Service,
    verdict::{DropReason, PassReason, ResetReason},
};

use super::*;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];

const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 18, 0, 101), 40_000);
const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 18, 0, 100), 6443);
const NAT: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 18, 0, 11), 12_753);
const BACKEND: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 18, 0, 12), 8443);

fn at((address, port): (Ipv4Addr, u16)) -> SocketAddr {
    SocketAddrV4::new(address, port).into()
}

fn directory() -> Directory {
    let endpoint = |protocol| Endpoint { address: at(VIP), protocol };
    let services = [
        (endpoint(Protocol::Tcp), Service { id: 0, ..Service::default() }),
        (endpoint(Protocol::Udp), Service { id: 1, ..Service::default() }),
    ];
    let backend = Backend {
        address: Ip4::from(BACKEND.0).widen(),
        port: Be16::from_host(BACKEND.1),
        service: 0,
        ..Backend::default()
    };
    Directory::new(&services, &[(0, backend)])
}

/// A TCP segment with a SYN.
fn syn(macs: [[u8; 6]; 2], from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), ttl: u8) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs[0], macs[1]).ipv4(from.0.octets(), to.0.octets(), ttl);
    let mut frame = Vec::new();
    builder.tcp(from.1, to.1, 1234, 5678).syn().write(&mut frame, &[]).expect("a vector takes every write");
    frame
}

fn words(frame: &[u8]) -> [u64; SNAPSHOT_WORDS] {
    let mut bytes = [0; SNAPSHOT_BYTES];
    let kept = frame.len().min(SNAPSHOT_BYTES);
    bytes[..kept].copy_from_slice(&frame[..kept]);
    std::array::from_fn(|i| u64::from_ne_bytes(std::array::from_fn(|j| bytes[8 * i + j])))
}

fn event(verdict: Verdict, before: &[u8], after: &[u8]) -> TraceEvent {
    TraceEvent {
        time_ns: 5_000_000_000,
        length: before.len() as u32,
        verdict: verdict.index() as u8,
        hook: Hook::Ingress as u8,
        kept: before.len().min(SNAPSHOT_BYTES) as u8,
        _pad: 0,
        before: words(before),
        after: words(after),
    }
}

fn report(event: &TraceEvent) -> Option<TraceReport> {
    let clocks = Clocks { monotonic_ns: 7_000_000_000, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(86_402) };
    super::report(event, "eth0", &clocks, &directory(), &Wanted::default())
}

const TO_BACKEND: Verdict = Verdict::Forward(ForwardReason::ToBackend);

fn rewritten_syn() -> TraceEvent {
    let before = syn([CLIENT_MAC, NODE_MAC], CLIENT, VIP, 64);
    event(TO_BACKEND, &before, &syn([NODE_MAC, BACKEND_MAC], NAT, BACKEND, 63))
}

#[test]
fn a_rewritten_packet() {
    let report = report(&rewritten_syn()).expect("a report");
    let expected = "00:00:00.000000 in  to-backend tcp SYN 54 B  198.18.0.101:40000 > 198.18.0.100:6443  =>  \
                    198.18.0.11:12753 > 198.18.0.12:8443  (198.18.0.12:8443)\n";
    assert_eq!(text(&report, Detail::Line), expected);
    let details = "  came  02:00:00:00:02:01 > 02:00:00:00:01:01  ttl 64  seq 1234  ack 0  win 5678\n  \
                   went  02:00:00:00:01:01 > 02:00:00:00:01:02  ttl 63  seq 1234  ack 0  win 5678\n";
    assert_eq!(text(&report, Detail::All), format!("{expected}{details}"));
    assert_eq!(report.time, "1970-01-02T00:00:00.000000Z");
    assert_eq!(report.service.as_deref(), Some("198.18.0.100:6443/tcp"));
    let after = report.after.as_ref().expect("it was rewritten");
    assert_eq!((after.source, after.destination), (Some(at(NAT)), Some(at(BACKEND))));
    let json = serde_json::to_value(&report).expect("encodable");
    assert_eq!(json["before"]["source"], "198.18.0.101:40000");
    assert_eq!(json["before"]["flags"], "SYN");
    assert_eq!(json["direction"], "to-backend");
    assert_eq!(serde_json::from_value::<TraceReport>(json).expect("decodable"), report);
}

#[test]
fn a_dropped_packet_has_not_changed() {
    let before = syn([CLIENT_MAC, NODE_MAC], CLIENT, VIP, 1);
    let report = report(&event(Verdict::Drop(DropReason::TtlExpired), &before, &before)).expect("a report");
    assert_eq!((report.after.as_ref(), report.direction.as_deref()), (None, Some("to-backend")));
    let expected = "00:00:00.000000 in  drop-ttl-expired tcp SYN 54 B  198.18.0.101:40000 > 198.18.0.100:6443\n";
    assert_eq!(text(&report, Detail::Line), expected);
}

#[test]
fn a_reset_shows_its_own_flags() {
    let before = syn([CLIENT_MAC, NODE_MAC], CLIENT, VIP, 64);
    let mut after = Vec::new();
    let builder = PacketBuilder::ethernet2(NODE_MAC, CLIENT_MAC).ipv4(VIP.0.octets(), CLIENT.0.octets(), 64);
    builder.tcp(VIP.1, CLIENT.1, 0, 0).rst().ack(1235).write(&mut after, &[]).expect("a vector takes every write");
    let report = report(&event(Verdict::Reset(ResetReason::NoBackend), &before, &after)).expect("a report");
    let expected = "00:00:00.000000 in  reset-no-backend tcp SYN 54 B  198.18.0.101:40000 > 198.18.0.100:6443  =>  \
                    198.18.0.100:6443 > 198.18.0.101:40000 RST ACK\n";
    assert_eq!(text(&report, Detail::Line), expected);
}

#[test]
fn an_icmp_error_is_of_what_it_is_about() {
    let quoted = syn([NODE_MAC, BACKEND_MAC], CLIENT, VIP, 60)[14..].to_vec();
    let router = Ipv4Addr::new(198, 18, 0, 1);
    let mut frame = Vec::new();
    // As much of TCP as an error must quote: the ports, and four bytes more.
    PacketBuilder::ethernet2(NODE_MAC, CLIENT_MAC)
        .ipv4(router.octets(), CLIENT.0.octets(), 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host))
        .write(&mut frame, &quoted[..28])
        .expect("a vector takes every write");
    let report = report(&event(Verdict::Forward(ForwardReason::IcmpToClient), &frame, &frame)).expect("a report");
    assert_eq!(report.before.about_destination, Some(at(VIP)));
    assert_eq!(report.before.note.as_deref(), Some("type 3 code 1"));
    assert_eq!(report.service.as_deref(), Some("198.18.0.100:6443/tcp"));
    let expected = "00:00:00.000000 in  icmp-to-client icmp type 3 code 1 70 B  198.18.0.1 > 198.18.0.101 about \
                    198.18.0.101:40000 > 198.18.0.100:6443\n";
    assert_eq!(text(&report, Detail::Line), expected);
    // An echo quotes nothing.
    let mut echo = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, NODE_MAC)
        .ipv4(CLIENT.0.octets(), VIP.0.octets(), 64)
        .icmpv4(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 2 }))
        .write(&mut echo, &quoted)
        .expect("a vector takes every write");
    assert_eq!(Headers::of(&echo).about, None);
}

#[test]
fn only_what_is_wanted() {
    let clocks = Clocks { monotonic_ns: 0, wall: SystemTime::UNIX_EPOCH };
    let takes = |client: &str| {
        let wanted = Wanted { client: Some(client.parse().expect("a prefix")), ..Wanted::default() };
        super::report(&rewritten_syn(), "eth0", &clocks, &directory(), &wanted).is_some()
    };
    assert!(takes("198.18.0.101"));
    assert!(!takes("198.18.0.100"), "the VIP is no client");
    assert!(!takes("198.18.0.12"), "nor is a backend");
}

#[test]
fn any_bytes_are_an_event_or_none() {
    let frame = syn([CLIENT_MAC, NODE_MAC], CLIENT, VIP, 64);
    let pass = Verdict::Pass(PassReason::NotOurs);
    for length in 0..frame.len() {
        let report = report(&event(pass, &frame[..length], &frame[..length])).expect("a verdict and a hook");
        assert_eq!(report.before.source.is_some(), length >= 34, "the IP header is whole from byte 34 on: {length}");
    }
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..2000 {
        let mut event = event(pass, &frame, &frame);
        for word in event.before.iter_mut().chain(&mut event.after) {
            // Zeros let more of it look like headers.
            *word ^= random.u64(..) & random.u64(..) & random.u64(..);
        }
        (event.verdict, event.kept) = (random.u8(..), random.u8(..));
        let told = report(&event).is_some();
        assert_eq!(told, u32::from(event.verdict) < Verdict::COUNT);
    }
}
