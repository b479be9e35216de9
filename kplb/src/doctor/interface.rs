//! The interface: its link, its driver, who is attached to it, its VLAN, and whether the node can serve from it.

use std::net::IpAddr;

use super::{
    Facts, Finding,
    facts::{Configuration, Host, Interface},
};
use crate::{
    config::Config,
    daemon::{obstacle::Obstacle, preflight},
    ids::Ids,
    maglev::Rings,
    model::{self, Conditions},
    netlink::message::{Link, Suitability},
};

/// Drivers with native XDP in the oldest kernel that kplb runs on, for those that do not say it themselves.
///
/// Source: `ndo_bpf` with `XDP_SETUP_PROG` in the kernel's drivers/net, version 5.18.
const NATIVE_DRIVERS: [&str; 26] = [
    "bnxt_en",
    "cpsw",
    "dpaa2-eth",
    "ena",
    "fsl_enetc",
    "fsl_dpa",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "qede",
    "sfc",
    "st_gmac",
    "thunder-nic",
    "tsnep",
    "veth",
    "virtio_net",
];

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![configuration(&facts.configuration)];
    let Some(interface) = &facts.interface else {
        findings
            .push(Finding::note("interface", "none was named, and none has addresses of the VIPs' network: say which"));
        return findings;
    };
    let device = match preflight::find(&interface.links, &interface.name) {
        Ok(device) => device,
        Err(obstacle) => {
            findings.push(error("interface", obstacle));
            return findings;
        }
    };
    findings.push(link(device));
    findings.extend(xdp(&facts.host, interface, device));
    if let Some(config) = facts.configuration.config() {
        findings.extend(vlan(interface, device, config));
        findings.extend(addresses(interface, config));
        findings.extend(vips(interface, config));
    }
    findings
}

fn error(topic: &'static str, Obstacle { what, advice }: Obstacle) -> Finding {
    Finding::error(topic, what, advice)
}

fn configuration(configuration: &Configuration) -> Finding {
    const TOPIC: &str = "configuration";
    match configuration {
        Configuration::None => {
            Finding::note(TOPIC, "there is none yet: what depends on it is not checked (`--config FILE` names one)")
        }
        Configuration::Wrong { path, problem } => {
            Finding::error(TOPIC, problem.clone(), format!("`kplb check {}` says it again", path.display()))
        }
        Configuration::Right { path, config } => {
            let n_backends: usize = config.services.iter().map(|service| service.backends.len()).sum();
            let (services, backends) = (count(config.services.len(), "service"), count(n_backends, "backend"));
            Finding::ok(TOPIC, format!("{}: {services}, {backends}", path.display()))
        }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn link(link: &Link) -> Finding {
    let Link { name, .. } = link;
    match link.has_carrier {
        true => Finding::ok("interface", format!("{name} is up")),
        false => Finding::warning("interface", format!("{name} is up, but its wire is not connected"), "plug it in"),
    }
}

/// Who is attached, and in which mode an agent would be.
fn xdp(host: &Host, interface: &Interface, device: &Link) -> Vec<Finding> {
    const TOPIC: &str = "xdp";
    if let Some(agent) = &interface.agent {
        let text = format!("kplb (pid {}) is attached, {} mode: {}", agent.pid, agent.mode, agent.mode_reason);
        return vec![match agent.mode.as_str() {
            "native" => Finding::ok(TOPIC, text),
            _ => Finding::note(TOPIC, text),
        }];
    }
    let mut findings = Vec::new();
    match &device.xdp {
        Some(_) if interface.has_pins => findings.push(Finding::warning(
            TOPIC,
            "an agent was killed, and its programs go on forwarding",
            format!("`kplb attach {0}` replaces them, `kplb detach {0}` takes them away", device.name),
        )),
        Some(program) => findings.push(error(TOPIC, preflight::foreign_program(&device.name, program))),
        None => {}
    }
    findings.push(mode(host, interface, device));
    findings
}

/// The mode that an agent would get: nothing is attached to try it.
fn mode(host: &Host, interface: &Interface, device: &Link) -> Finding {
    const TOPIC: &str = "xdp-mode";
    const GENERIC: &str = "kplb attaches in generic mode, which is slower";
    let driver = interface.driver.as_ref().map_or_else(String::new, |driver| format!(" {driver}"));
    if device.vlan.is_some() {
        let advice = "attach to the interface below it, with `vlan` in table [node]";
        return Finding::warning(TOPIC, format!("{} is the interface of a VLAN: {GENERIC}", device.name), advice);
    }
    match &interface.xdp_features {
        Ok(Some(features)) if features.are_enough() => {
            Finding::ok(TOPIC, format!("native: the driver{driver} says it can ({features}); the attach is the proof"))
        }
        Ok(Some(_)) => Finding::note(TOPIC, format!("the driver{driver} says it has no native XDP: {GENERIC}")),
        Ok(None) if interface.driver.as_deref().is_some_and(|driver| NATIVE_DRIVERS.contains(&driver)) => Finding::ok(
            TOPIC,
            format!("native, most likely: the driver{driver} is known to have it (kernels from 6.3 on say it)"),
        ),
        Ok(None) => {
            let release = &host.release;
            Finding::note(
                TOPIC,
                format!(
                    "not known: kernel {release} does not say whether the driver{driver} has native XDP; without, {GENERIC}"
                ),
            )
        }
        Err(error) => Finding::note(TOPIC, format!("not known: {error}; without native XDP, {GENERIC}")),
    }
}

fn vlan(interface: &Interface, device: &Link, config: &Config) -> Option<Finding> {
    const TOPIC: &str = "vlan";
    let vlan = config.node.vlan;
    if vlan.is_none() {
        return None;
    }
    Some(match (preflight::find_vlan(&interface.links, device, vlan), &interface.active_features) {
        (Err(obstacle), _) => error(TOPIC, obstacle),
        (Ok(_), Err(unknown)) => {
            Finding::note(TOPIC, format!("whether {} leaves VLAN tags on is not known: {unknown}", device.name))
        }
        (Ok(link), Ok(active)) => match preflight::leaves_tags(&device.name, active) {
            Ok(()) => Finding::ok(TOPIC, format!("VLAN {vlan} has its addresses on {}", link.name)),
            Err(obstacle) => error(TOPIC, obstacle),
        },
    })
}

/// Whether the node can serve the configuration, and take part in the election.
fn addresses(interface: &Interface, config: &Config) -> Vec<Finding> {
    let Some((_, survey)) = &interface.surroundings else { return Vec::new() };
    let conditions = Conditions::all_active(config);
    let desired = model::desired(config, &Ids::in_order(config), &survey.facts(), &conditions, &mut Rings::default());
    let source = [survey.ipv4.map(IpAddr::V4), survey.ipv6.map(IpAddr::V6)];
    let source: Vec<String> = source.into_iter().flatten().map(|address| address.to_string()).collect();
    let mut findings = vec![match desired {
        Ok(_) => Finding::ok("addresses", format!("packets to backends come from {}", source.join(" and "))),
        Err(problem) => {
            Finding::error("addresses", problem.to_string(), "`ip address add` on the interface, or another VIP")
        }
    }];
    if let Some(Err(problem)) = &interface.election {
        let advice = "list the nodes' addresses on this interface as `peers` in table [vrrp]";
        findings.push(Finding::error("election", problem.clone(), advice));
    }
    findings
}

/// VIPs that are on an interface as kplb would not put them there, or while no kplb runs.
fn vips(interface: &Interface, config: &Config) -> Vec<Finding> {
    const TOPIC: &str = "vips";
    let Some((snapshot, _)) = &interface.surroundings else { return Vec::new() };
    let vips = config.vips();
    let mut findings = Vec::new();
    for entry in snapshot.addresses.iter().filter(|entry| vips.contains(&entry.address)) {
        let (vip, length) = (entry.address, entry.prefix_length);
        let name = interface.links.iter().find(|link| link.index == entry.interface).map_or("?", |link| &link.name);
        let remove = format!("`ip address delete {vip}/{length} dev {name}`, wherever it comes from");
        let is_source = vip.is_ipv6() && entry.suitability != Suitability::Unsuitable;
        let finding = if !entry.is_host_only() {
            let what = format!(
                "the VIP {vip} is on {name} as an address of its network (/{length}), so that this node may take it for its own"
            );
            Finding::error(TOPIC, what, remove)
        } else if is_source {
            let what =
                format!("the VIP {vip} is on {name} and not deprecated, so that this node may speak in its name");
            Finding::error(TOPIC, what, remove)
        } else if entry.interface != snapshot.link.index {
            let what = format!("the VIP {vip} is on {name}, so that this node takes itself for its holder");
            Finding::error(TOPIC, what, remove)
        } else if interface.agent.is_none() && interface.has_pins {
            let what = format!("the VIP {vip} is on {name}, left by an agent that was killed");
            Finding::warning(TOPIC, what, format!("`kplb attach {0}` or `kplb detach {0}`", interface.name))
        } else if interface.agent.is_none() {
            Finding::error(TOPIC, format!("the VIP {vip} is on {name}, and no kplb runs"), remove)
        } else {
            continue;
        };
        findings.push(finding);
    }
    if findings.is_empty() {
        findings.push(Finding::ok(TOPIC, "on no interface where they should not be"));
    }
    findings
}
