//! What else on the node wants the same ports, addresses or connections.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Facts, Finding,
    facts::{Known, NodeIps, Process},
};
use crate::{
    config::Config,
    daemon::{ipvs, preflight::OwnPorts},
};

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Some(config) = facts.configuration.config() else { return Vec::new() };
    let mut findings = vec![nat_ports(&facts.own_ports, config)];
    findings.push(ipvs(&facts.ipvs, config));
    findings.extend(kubelet(&facts.node_ips, &config.vips()));
    findings.extend(facts.processes.iter().filter_map(|process| balancer(process, config)));
    findings
}

fn nat_ports(own: &Known<Option<OwnPorts>>, config: &Config) -> Finding {
    const TOPIC: &str = "nat-ports";
    let nat = &config.node.nat_ports;
    match own {
        Ok(Some(own)) => match own.are_apart_from(nat) {
            Ok(()) => Finding::ok(
                TOPIC,
                format!(
                    "{}-{}, apart from those of the node's own connections ({}-{})",
                    nat.start(),
                    nat.end(),
                    own.range.start(),
                    own.range.end()
                ),
            ),
            Err(obstacle) => Finding::error(TOPIC, obstacle.what, obstacle.advice),
        },
        Ok(None) => Finding::ok(TOPIC, format!("{}-{}", nat.start(), nat.end())),
        Err(error) => Finding::note(TOPIC, format!("not known: {error}")),
    }
}

fn ipvs(list: &Known<String>, config: &Config) -> Finding {
    const TOPIC: &str = "ipvs";
    match list {
        Ok(list) => match ipvs::none_in(list, config) {
            Ok(()) => Finding::ok(TOPIC, "has no service of the same address and port"),
            Err(obstacle) => Finding::error(TOPIC, obstacle.what, obstacle.advice),
        },
        Err(error) => Finding::note(TOPIC, format!("not known: {error}")),
    }
}

/// A node that has a VIP for its name is another one whenever the VIP moves.
fn kubelet(node_ips: &[NodeIps], vips: &BTreeSet<IpAddr>) -> Vec<Finding> {
    const TOPIC: &str = "kubelet";
    let wrong = node_ips.iter().flat_map(|NodeIps { place, addresses }| {
        addresses.iter().filter(|address| vips.contains(address)).map(move |vip| (place, vip))
    });
    let wrong: Vec<Finding> = wrong
        .map(|(place, vip)| {
            let what = format!("{place}: `--node-ip` is the VIP {vip}, which moves between nodes");
            Finding::error(TOPIC, what, "set it to an address that only this node has, and restart kubelet")
        })
        .collect();
    if !wrong.is_empty() {
        return wrong;
    }
    let known: Vec<String> = node_ips
        .iter()
        .filter(|node_ips| !node_ips.addresses.is_empty())
        .map(|NodeIps { place, addresses }| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{place} has --node-ip={}", addresses.join(","))
        })
        .collect();
    match (known.is_empty(), node_ips.is_empty()) {
        (false, _) => vec![Finding::ok(TOPIC, known.join("; "))],
        (true, false) => {
            vec![Finding::ok(
                TOPIC,
                "has no `--node-ip`: it takes an address that is no VIP, as those are for themselves alone",
            )]
        }
        (true, true) => Vec::new(),
    }
}

/// keepalived or haproxy beside kplb.
fn balancer(process: &Process, config: &Config) -> Option<Finding> {
    let Process { pid, name, file } = process;
    let (topic, is_same): (_, fn(&str, &Config) -> Option<String>) = match name.as_str() {
        "keepalived" => ("keepalived", shares_a_router),
        "haproxy" => ("haproxy", shares_a_vip),
        _ => return None,
    };
    let stop = format!("stop it before kplb starts here, as with `systemctl disable --now {name}`");
    Some(match file {
        Some((path, text)) => match is_same(text, config) {
            Some(what) => Finding::error(
                topic,
                format!("{name} (pid {pid}) runs here, and {} has {what}, too", path.display()),
                stop,
            ),
            None => Finding::note(
                topic,
                format!("{name} (pid {pid}) runs here; {} names no VIP of the configuration", path.display()),
            ),
        },
        None => {
            Finding::warning(topic, format!("{name} (pid {pid}) runs here, and its configuration cannot be read"), stop)
        }
    })
}

/// The virtual router or VIP that keepalived has as well.
fn shares_a_router(text: &str, config: &Config) -> Option<String> {
    let words = || words(text);
    let router_id = config.vrrp.as_ref().map(|vrrp| vrrp.router_id.to_string());
    let has_id = words()
        .zip(words().skip(1))
        .any(|(key, value)| key == "virtual_router_id" && Some(value) == router_id.as_deref());
    match router_id {
        Some(id) if has_id => Some(format!("virtual_router_id {id}")),
        _ => shares_a_vip(text, config),
    }
}

/// The VIP that is in a text.
fn shares_a_vip(text: &str, config: &Config) -> Option<String> {
    let vips = config.vips();
    words(text)
        .find_map(|word| vip_in(word).filter(|address| vips.contains(address)))
        .map(|vip| format!("the VIP {vip}"))
}

/// The words of a configuration file, without comments.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split(['#', '!']).next().unwrap_or_default().split_whitespace())
}

/// The address in `198.18.0.100/32`, `198.18.0.100:6443` or `[2001:2::100]:6443`.
fn vip_in(word: &str) -> Option<IpAddr> {
    let word = word.strip_prefix("ipv4@").or(word.strip_prefix("ipv6@")).unwrap_or(word);
    let address = word.split('/').next()?;
    let bare = || address.rsplit_once(':').map_or(address, |(address, _)| address).trim_matches(['[', ']']);
    address.parse().ok().or_else(|| bare().parse().ok())
}
