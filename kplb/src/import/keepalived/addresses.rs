//! The addresses of a `vrrp_instance`: its VIPs, and its peers.

use std::{collections::BTreeSet, net::IpAddr};

use super::{instance::Transport, tree::Directive, value};
use crate::{
    config::value::unusable,
    import::finding::{At, Findings, NOTHING_TO_DO, Written},
};

/// A VIP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::import) struct Vip {
    pub(in crate::import) address: IpAddr,
    pub(in crate::import) written: Written,
    /// The interface it is on, unless it is that of the adverts.
    pub(in crate::import) device: Option<String>,
}

/// The VIPs that adverts name. The first one decides of which family they are, as in keepalived.
pub(super) fn vips(lines: &[&Directive], interface: Option<&str>, findings: &mut Findings) -> Vec<Vip> {
    let mut vips: Vec<Vip> = Vec::new();
    let mut seen = BTreeSet::new();
    for line in lines {
        let Some(address) = value::address(line.keyword()) else {
            findings.left_out(&line.written, "it is no address", "write one, as in 198.18.0.100");
            continue;
        };
        if !seen.insert(address) {
            findings.left_out(&line.written, "it is listed already", NOTHING_TO_DO);
            continue;
        }
        if vips.first().is_some_and(|vip| vip.address.is_ipv4() != address.is_ipv4()) {
            let why = "it is not of the family of the first VIP, so keepalived takes no notice of it";
            findings.left_out(&line.written, why, "give it a vrrp_instance of its own");
            continue;
        }
        let device = line.arguments().windows(2).find(|pair| pair[0] == "dev").map(|pair| pair[1].clone());
        let device = device.filter(|device| Some(device.as_str()) != interface);
        if is_special(line) {
            let why = "kplb adds a VIP with the length of a single address, and without anything else";
            findings.changed(&line.written, why, NOTHING_TO_DO);
        }
        vips.push(Vip { address, written: line.written.clone(), device });
    }
    vips
}

/// Whether a VIP is anything else than an address of full length.
fn is_special(line: &Directive) -> bool {
    let is_full = line.keyword().split_once('/').is_none_or(|(_, length)| matches!(length, "32" | "128"));
    // A device is either the same or a finding of its own, and kplb's VIPs of IPv6 are deprecated and without DAD.
    let mut options = line.arguments().iter();
    let mut has_others = false;
    while let Some(option) = options.next() {
        match option.as_str() {
            "dev" => drop(options.next()),
            "-nodad" => {}
            _ => has_others = true,
        }
    }
    !is_full || has_others
}

/// The VIPs that no advert names.
pub(super) fn excluded(lines: &[&Directive]) -> Vec<At<IpAddr>> {
    let read = |line: &&Directive| Some(At::new(value::address(line.keyword())?, &line.written));
    lines.iter().filter_map(read).collect()
}

/// The nodes of `unicast_peer`, as far as they are of the VIP's family. Without any, keepalived falls back to multicast.
pub(super) fn unicast(
    own: Option<IpAddr>,
    block: &Directive,
    vip: IpAddr,
    ttl: Option<&Directive>,
    findings: &mut Findings,
) -> Transport {
    if block.block.is_empty() {
        return Transport::Multicast;
    }
    hop_limit(block, vip, ttl, findings);
    let is_ipv4 = vip.is_ipv4();
    let own = own.filter(|own| own.is_ipv4() == is_ipv4 && unusable(*own).is_none());
    let mut peers = BTreeSet::new();
    for line in &block.block {
        let Some(address) = value::address(line.keyword()).filter(|address| address.is_ipv4() == is_ipv4) else {
            let why = "it is no address of the VIPs' family, so keepalived takes no notice of it";
            findings.left_out(&line.written, why, NOTHING_TO_DO);
            continue;
        };
        if let Some((what, _)) = unusable(address) {
            findings.left_out(&line.written, format!("it {what}, which kplb takes for no node's"), "list another");
            continue;
        }
        if !line.arguments().is_empty() {
            findings.changed(&line.written, HOP_LIMIT, "set `unicast_ttl 255` on the nodes that keep keepalived");
        }
        peers.insert(address);
    }
    if own.is_none() {
        let why = "the list of kplb is for all nodes, and this one's own address is not in the file (unicast_src_ip)";
        findings.changed(&block.written, why, "add it to `peers`, so that the list is the same everywhere");
    }
    peers.extend(own);
    Transport::Unicast { own, peers: peers.into_iter().collect() }
}

const HOP_LIMIT: &str = "kplb's adverts have a TTL of 255, and over IPv6 it takes no others";

/// What adverts have on their way.
fn hop_limit(block: &Directive, vip: IpAddr, ttl: Option<&Directive>, findings: &mut Findings) {
    const ADVICE: &str = "set `unicast_ttl 255` on the nodes that keep keepalived";

    match ttl {
        Some(ttl) if ttl.argument() != Some("255") => findings.changed(&ttl.written, HOP_LIMIT, ADVICE),
        // keepalived's own value is 255 over IPv4 alone.
        None if vip.is_ipv6() => findings.changed(&block.written, HOP_LIMIT, ADVICE),
        _ => {}
    }
}
