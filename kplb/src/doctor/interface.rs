//! The interface: its link, its driver, who is attached to it, its VLAN, and whether the node can serve from it.

use std::net::IpAddr;

use kplb_common::node::Vlan;

use super::{
    Facts, Finding,
    facts::{Configuration, Host, Interface},
};
use crate::{
    config::Config,
    daemon::{obstacle::Obstacle, preflight},
    dataplane::{Mode, NativeXdp},
    driver::Driver,
    ids::Ids,
    maglev::Rings,
    model::{self, Conditions},
    netlink::message::{Link, Suitability},
};

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
    let vlan_of_node = facts.configuration.config().map_or(Vlan::NONE, |config| config.node.vlan);
    findings.extend(programs(&facts.host, interface, device, vlan_of_node));
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
fn programs(host: &Host, interface: &Interface, device: &Link, vlan: Vlan) -> Vec<Finding> {
    const TOPIC: &str = "programs";
    if let Some(agent) = &interface.agent {
        let mode = Mode::from_name(&agent.mode);
        let title = mode.map_or("of an unknown mode", Mode::title);
        let text = format!("kplb (pid {}) is attached, {title}: {}", agent.pid, agent.mode_reason);
        return vec![match mode {
            Some(mode @ (Mode::Native | Mode::Tc)) => Finding::ok(TOPIC, format!("{text}; it costs {}", mode.cost())),
            Some(Mode::Generic) => Finding::warning(
                TOPIC,
                format!("{text}; it costs {}", Mode::Generic.cost()),
                "`--mode auto` takes native XDP or TC",
            ),
            None => Finding::note(TOPIC, text),
        }];
    }
    let mut findings = Vec::new();
    if let Some(mode) = interface.left {
        findings.push(Finding::warning(
            TOPIC,
            format!("an agent was killed, and its programs go on forwarding ({})", mode.title()),
            format!("`kplb attach {0}` replaces them, `kplb detach {0}` takes them away", device.name),
        ));
    } else if let Some(program) = &device.xdp {
        let what =
            format!("{program} of somebody else is on {}: kplb leaves it there, and does without XDP", device.name);
        findings.push(Finding::note(TOPIC, what));
    }
    if interface.has_no_place_for_filters {
        findings.push(error(TOPIC, preflight::no_place_for_filters(&device.name)));
    }
    findings.push(mode(host, interface, device, vlan));
    findings
}

/// The mode that an agent would get: nothing is attached to try it.
fn mode(host: &Host, interface: &Interface, device: &Link, vlan: Vlan) -> Finding {
    const TOPIC: &str = "mode";
    let tc = |why: &str| format!("{}, as {why}; it costs {}", Mode::Tc.title(), Mode::Tc.cost());
    if device.xdp.is_some() && interface.left.is_none() {
        return Finding::ok(TOPIC, tc("there is another XDP program"));
    }
    if let (false, Ok(active)) = (vlan.is_none(), &interface.active_features)
        && let Err(Obstacle { what, .. }) = preflight::leaves_tags(&device.name, active)
    {
        return Finding::ok(TOPIC, tc(&what));
    }
    let Driver { name, features } = &interface.driver;
    let driver = name.as_ref().map_or_else(String::new, |driver| format!(" {driver}"));
    match (interface.driver.native_xdp(device), features) {
        (NativeXdp::Unfit(reason), _) => Finding::ok(TOPIC, tc(&reason)),
        (NativeXdp::Promised, Ok(Some(features))) => Finding::ok(
            TOPIC,
            format!("native XDP: the driver{driver} says it can ({features}); the attach is the proof"),
        ),
        (_, Err(error)) => Finding::note(TOPIC, format!("not known: {error}; native XDP, or else TC ingress")),
        _ if interface.driver.is_known_to_have_xdp() => Finding::ok(
            TOPIC,
            format!("native XDP, most likely: the driver{driver} is known to have it (kernels from 6.3 on say it)"),
        ),
        _ => Finding::note(
            TOPIC,
            format!(
                "not known: kernel {} does not say whether the driver{driver} has native XDP; without, it is TC ingress",
                host.release
            ),
        ),
    }
}

fn vlan(interface: &Interface, device: &Link, config: &Config) -> Option<Finding> {
    const TOPIC: &str = "vlan";
    let vlan = config.node.vlan;
    if vlan.is_none() {
        return None;
    }
    Some(match preflight::find_vlan(&interface.links, device, vlan) {
        Err(obstacle) => error(TOPIC, obstacle),
        Ok(link) => Finding::ok(TOPIC, format!("VLAN {vlan} has its addresses on {}", link.name)),
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
