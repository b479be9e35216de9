//! What was heard on the segment: adverts, who has the VIPs, who of the peers answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kplb_common::net::Mac;

use super::{
    Facts, Finding,
    facts::{HeardAdvert, Interface, Segment},
};
use crate::{
    config::VrrpConfig,
    vrrp::{receive::Invalid, settings::PRIORITY_RELEASE},
};

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let (Some(config), Some(interface), Some(segment)) =
        (facts.configuration.config(), &facts.interface, &facts.segment)
    else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if let Some(vrrp) = &config.vrrp {
        findings.extend(adverts(segment, vrrp));
    }
    findings.extend(owners(segment, interface, config.vrrp.as_ref()));
    findings.extend(peers(segment));
    findings
}

fn adverts(segment: &Segment, vrrp: &VrrpConfig) -> Vec<Finding> {
    const TOPIC: &str = "router-id";
    let Some(listened) = segment.listened else {
        return vec![Finding::note(TOPIC, "nobody was listened to (`--listen SECONDS`)")];
    };
    let adverts = match &segment.adverts {
        Ok(adverts) => adverts,
        Err(error) => return vec![Finding::note(TOPIC, format!("adverts cannot be heard: {error}"))],
    };
    let own = vrrp.router_id;
    let mut findings: Vec<Finding> = adverts
        .iter()
        .filter(|advert| advert.router_id == own)
        .filter_map(|advert| of_our_id(advert, adverts))
        .collect();
    let others: BTreeSet<u8> = adverts.iter().map(|advert| advert.router_id).filter(|id| *id != own).collect();
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    let others = if others.is_empty() { String::new() } else { format!("; others here have {}", others.join(", ")) };
    if findings.iter().all(|finding| finding.topic != TOPIC) {
        let seconds = listened.as_secs_f64();
        findings.push(Finding::ok(
            TOPIC,
            format!("{own} is used by no stranger, as far as was heard in {seconds:.1}s{others}"),
        ));
    }
    findings
}

/// What an advert with this node's router id means, if it is worth a word.
fn of_our_id(advert: &HeardAdvert, adverts: &[HeardAdvert]) -> Option<Finding> {
    let HeardAdvert { source, router_id, priority, vips, judgement } = advert;
    let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
    let vips = vips.join(", ");
    match judgement {
        Ok(remarks) if remarks.is_empty() => {
            let does = if *priority == PRIORITY_RELEASE { "gives up mastership" } else { "is master" };
            Some(Finding::ok("election", format!("{source} {does} (priority {priority}), and is understood")))
        }
        Ok(remarks) => {
            let remarks: Vec<String> = remarks.iter().map(ToString::to_string).collect();
            let what = format!("adverts of {source} are odd: {}", remarks.join("; "));
            Some(Finding::warning("election", what, "make the configuration of all nodes the same"))
        }
        // As if this node had said it.
        Err(Invalid::OwnAddress) => Some(Finding::error(
            "election",
            format!("{source}, this node's own address, sends adverts from elsewhere, or the network loops them"),
            "find the host that has this node's address",
        )),
        Err(invalid) if invalid.is_foreign() => Some(Finding::error(
            "router-id",
            format!("{source} sends adverts with router id {router_id} for {vips} (priority {priority}): {invalid}"),
            format!(
                "set another `virtual_router_id` in table [vrrp] on all nodes, such as {}, or list it as a peer",
                free(adverts)
            ),
        )),
        Err(invalid) => Some(Finding::error(
            "election",
            format!("an advert of {source} does not count, so that both may hold the VIPs: {invalid}"),
            "make the configuration of all nodes the same",
        )),
    }
}

/// A router id that nobody was heard to use.
fn free(adverts: &[HeardAdvert]) -> u8 {
    let used: BTreeSet<u8> = adverts.iter().map(|advert| advert.router_id).collect();
    (1..=u8::MAX).rev().find(|id| !used.contains(id)).unwrap_or(u8::MAX)
}

/// Other hosts that answer for VIPs: one is the master, if there is one; two are one too many.
fn owners(segment: &Segment, interface: &Interface, vrrp: Option<&VrrpConfig>) -> Vec<Finding> {
    const TOPIC: &str = "vip-owners";
    let answers = match &segment.owners {
        Ok(answers) => answers,
        Err(error) => return vec![Finding::note(TOPIC, format!("not known: {error}"))],
    };
    let mut owners: BTreeMap<IpAddr, Vec<Mac>> = BTreeMap::new();
    answers.iter().for_each(|answer| owners.entry(answer.address).or_default().push(answer.mac));
    let held: BTreeSet<IpAddr> = match &interface.surroundings {
        Some((snapshot, _)) if interface.agent.is_some() => {
            snapshot.addresses.iter().map(|entry| entry.address).collect()
        }
        _ => BTreeSet::new(),
    };
    let one = |(vip, macs): (&IpAddr, &Vec<Mac>)| {
        let who: Vec<String> = macs.iter().map(ToString::to_string).collect();
        let who = who.join(" and ");
        if macs.len() > 1 || held.contains(vip) {
            let with = if held.contains(vip) { " beside this node" } else { "" };
            let advice = "find them by their MAC addresses; all but the master must give the address up";
            return Finding::error(TOPIC, format!("{who} answers for the VIP {vip}{with}"), advice);
        }
        match vrrp {
            Some(_) => Finding::ok(TOPIC, format!("the VIP {vip} is at {who}, which should be the master")),
            None => Finding::error(
                TOPIC,
                format!("{who} answers for the VIP {vip}, which this node is to hold alone"),
                "choose an address that no host has, or add a table [vrrp] for several nodes",
            ),
        }
    };
    let findings: Vec<Finding> = owners.iter().map(one).collect();
    if findings.is_empty() { vec![Finding::ok(TOPIC, "no other host answers for a VIP")] } else { findings }
}

fn peers(segment: &Segment) -> Vec<Finding> {
    const TOPIC: &str = "peers";
    if segment.peers.is_empty() {
        return Vec::new();
    }
    let answers = match &segment.answers {
        Ok(answers) => answers,
        Err(error) => return vec![Finding::note(TOPIC, format!("not known: {error}"))],
    };
    let (here, gone): (Vec<_>, Vec<_>) =
        segment.peers.iter().partition(|peer| answers.iter().any(|answer| answer.address == **peer));
    let listed = |peers: &[&IpAddr]| peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut findings = Vec::new();
    if !here.is_empty() {
        findings.push(Finding::ok(TOPIC, format!("on the segment: {}", listed(&here))));
    }
    if !gone.is_empty() {
        let advice = "they may be off; else see that all nodes are on one segment, and that the addresses are right";
        findings.push(Finding::warning(TOPIC, format!("no answer on the segment from {}", listed(&gone)), advice));
    }
    findings
}
