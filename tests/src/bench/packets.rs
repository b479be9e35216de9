//! The frames that benchmarks send.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use etherparse::PacketBuilder;

/// TCP flags of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flags {
    Syn,
    SynAck { acknowledges: u32 },
    Ack { acknowledges: u32 },
}

/// Sequence number of every first segment.
pub(super) const SEQUENCE: u32 = 1000;

/// A TCP frame.
pub(super) fn tcp(macs: [[u8; 6]; 2], from: SocketAddr, to: SocketAddr, flags: Flags) -> Result<Vec<u8>> {
    let [source, destination] = macs;
    let ethernet = PacketBuilder::ethernet2(source, destination);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => bail!("{from} and {to} are of different families"),
    };
    let tcp = ip.tcp(from.port(), to.port(), SEQUENCE, 65_535);
    let tcp = match flags {
        Flags::Syn => tcp.syn(),
        Flags::SynAck { acknowledges } => tcp.syn().ack(acknowledges),
        Flags::Ack { acknowledges } => tcp.ack(acknowledges),
    };
    // The size of a small segment with data.
    let payload = [0x5a_u8; 32];
    let mut frame = Vec::with_capacity(tcp.size(payload.len()));
    tcp.write(&mut frame, &payload)?;
    Ok(frame)
}

/// Source of a frame that was rewritten.
pub(super) fn source(frame: &[u8]) -> Result<SocketAddr> {
    let (source, _) = endpoints(frame)?;
    Ok(source)
}

/// Source and destination of a TCP frame.
pub(super) fn endpoints(frame: &[u8]) -> Result<(SocketAddr, SocketAddr)> {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    let sliced = SlicedPacket::from_ethernet(frame)?;
    let (source, destination): (IpAddr, IpAddr) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => bail!("no IP packet"),
    };
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            Ok(((source, tcp.source_port()).into(), (destination, tcp.destination_port()).into()))
        }
        _ => bail!("no TCP packet"),
    }
}
