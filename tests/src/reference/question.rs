//! Random questions for the MAC address of an address, and claims to have one, and frames that nearly are some, written
//! byte by byte.

use std::net::IpAddr;

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::world::{NODE_MAC, ip4, ip6};

/// A question or a claim, nearly always about one of a few addresses.
pub fn question(rng: &mut StdRng, is_ipv6: bool) -> Vec<u8> {
    let ip = if is_ipv6 { ip6 } else { ip4 };
    let target = pick(rng, &[100, 100, 100, 110, 110, 99, 11]);
    let asker = rng.random_range(120..250);
    // Of itself, now and then: an announcement. Or in the name of an address that it may have.
    let sender = pick(rng, &[asker, asker, asker, target, 100, 110]);
    let mac = [2, 0, 0, 0, 0, asker];
    let group = [0x33, 0x33, 0xff, 0, 0, target];
    let to = pick(rng, &[[0xff; 6], group, NODE_MAC, NODE_MAC, [2, 0, 0, 0, 0, 12]]);
    let mut frame = [to, mac].concat();
    if is_ipv6 {
        discovery(rng, &mut frame, [ip(sender), ip(target)]);
    } else {
        arp(rng, &mut frame, [ip(sender), ip(target)]);
    }
    frame.resize(frame.len() + pick(rng, &[0, 0, 8, 18]), 0);
    frame
}

fn arp(rng: &mut StdRng, frame: &mut Vec<u8>, [sender, target]: [IpAddr; 2]) {
    let mac: [u8; 6] = frame[6..12].try_into().expect("six bytes");
    let hardware = pick(rng, &[1, 1, 1, 1, 1, 6, 2]);
    let operation = pick(rng, &[1, 1, 1, 1, 1, 2, 2, 3]);
    frame.extend([8, 6, 0, hardware, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    // A probe, now and then.
    frame.extend(if rng.random_ratio(1, 6) { vec![0; 4] } else { octets(sender) });
    frame.extend([0; 6]);
    frame.extend(octets(target));
}

fn discovery(rng: &mut StdRng, frame: &mut Vec<u8>, [source, target]: [IpAddr; 2]) {
    let next_header = pick(rng, &[58, 58, 58, 58, 58, 58, 58, 17]);
    let hops = pick(rng, &[255, 255, 255, 255, 255, 255, 254, 64]);
    let kind = pick(rng, &[135, 135, 135, 135, 135, 136, 136, 128]);
    let code = pick(rng, &[0, 0, 0, 0, 0, 0, 0, 1]);
    let length = pick(rng, &[24, 24, 32, 32, 23, 0]);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, next_header, hops]);
    // A node that looks for duplicates, now and then.
    frame.extend(if rng.random_ratio(1, 6) { vec![0; 16] } else { octets(source) });
    frame.extend(octets(if rng.random() { target } else { ip6(99) }));
    frame.extend([kind, code, rng.random(), rng.random(), 0, 0, 0, 0]);
    frame.extend(octets(target));
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

fn pick<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    *choices.choose(rng).expect("there are choices")
}
