//! A program that only rewrites: what any balancer at TC costs at least.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, Pod,
    maps::Array,
    programs::{SchedClassifier, TcAttachType},
};
use kplb::dataplane::FLOOR_OBJECT;
use kplb_common::checksum;

use crate::lab::{Host, Lab};

/// As the BPF object has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Way {
    source: u32,
    destination: u32,
    new_source: u32,
    new_destination: u32,
    macs: [[u8; 6]; 2],
    delta: u32,
}

// SAFETY: `repr(C)` of integers without padding, valid for every bit pattern.
unsafe impl Pod for Way {}

/// Attaches it to the first node, between the client and the server on the second one. It goes when this is dropped.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn attach(lab: &Lab, vip: SocketAddr) -> Result<Ebpf> {
    let word = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
    let (node, server, client) = (lab.node(1), lab.node(2), lab.client(1));
    let IpAddr::V4(vip) = vip.ip() else { bail!("{vip} is not of IPv4") };
    let way = |from: [Ipv4Addr; 2], to: [Ipv4Addr; 2], next: &Host| {
        let sum = |[source, destination]: [Ipv4Addr; 2]| u64::from(word(source)) + u64::from(word(destination));
        Way {
            source: word(from[0]),
            destination: word(from[1]),
            new_source: word(to[0]),
            new_destination: word(to[1]),
            macs: [next.mac(), node.mac()],
            delta: checksum::delta(sum(from), sum(to)).into(),
        }
    };
    let ways = [
        way([client.ipv4(), vip], [node.ipv4(), server.ipv4()], server),
        way([server.ipv4(), node.ipv4()], [vip, client.ipv4()], client),
    ];
    let mut ebpf = Ebpf::load(FLOOR_OBJECT)?;
    let mut map: Array<_, Way> = ebpf.map_mut("WAYS").context("no WAYS")?.try_into()?;
    for (place, way) in (0..).zip(&ways) {
        map.set(place, way, 0)?;
    }
    let program: &mut SchedClassifier = ebpf.program_mut("floor_nat").context("no floor_nat")?.try_into()?;
    program.load()?;
    node.namespace().run(|| program.attach("eth0", TcAttachType::Ingress))?;
    Ok(ebpf)
}
