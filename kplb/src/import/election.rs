//! Which of keepalived's virtual routers kplb's table `[vrrp]` stands for: one of a family, and one of the other that
//! goes with it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{
    draft::VrrpNotes,
    error::ImportError,
    finding::{Findings, NOTHING_TO_DO, Written, brief, shown},
    fit,
    keepalived::{Instance, Transport},
};
use crate::{
    config::{DELAY_RANGE, REPEAT_RANGE, VrrpConfig, value::unusable},
    vrrp::{
        announcements::Schedule,
        settings::{MAX_ADDRESSES, Preemption, Version},
    },
};

/// Virtual routers that become one table.
pub(super) struct Election {
    /// Its values are those of the table.
    first: Instance,
    /// Of the other family.
    second: Option<Instance>,
}

/// Chooses. `named`: VIPs that something listens at by address. None if there is none on the interface.
pub(super) fn choose(
    instances: Vec<Instance>,
    named: &BTreeSet<IpAddr>,
    interface: Option<&str>,
    findings: &mut Findings,
) -> Result<Option<Election>, ImportError> {
    let (mut candidates, others): (Vec<_>, Vec<_>) = instances
        .into_iter()
        .partition(|instance| interface.is_none_or(|interface| instance.interface.as_deref() == Some(interface)));
    for other in others {
        findings.left_out(&other.written, "it is on another interface", "import it by itself (--interface)");
    }
    let is_named = |instance: &Instance| instance.vips.iter().any(|vip| named.contains(&vip.address));
    let place = candidates.iter().position(is_named).unwrap_or(0);
    if candidates.is_empty() {
        return Ok(None);
    }
    for Instance { vips, written, .. } in &candidates {
        if vips.len() > MAX_ADDRESSES {
            return Err(ImportError::too_much(&written.place, "too many VIPs in an advert", MAX_ADDRESSES));
        }
    }
    let mut first = candidates.remove(place);
    let mut second: Option<Instance> = None;
    for other in candidates {
        match refusal(&first, &other) {
            None if second.is_none() => second = Some(other),
            refused => {
                let why = refused.unwrap_or_else(|| "there is another one of its family".to_owned());
                let advice = "its VIPs are not served: give them to the one that is imported, on all nodes";
                findings.left_out(&other.written, why, advice);
            }
        }
    }
    findings.append(std::mem::take(&mut first.findings));
    if let Some(second) = &mut second {
        findings.append(std::mem::take(&mut second.findings));
        differences(&first, second, findings);
    }
    let election = Election { first, second };
    election.report_vips(findings);
    Ok(Some(election))
}

/// Why one cannot go with the first.
fn refusal(first: &Instance, other: &Instance) -> Option<String> {
    if other.interface != first.interface {
        let interface = first.interface.as_deref().unwrap_or_default();
        return Some(format!("kplb serves one interface, here {}", brief(interface)));
    }
    if other.is_ipv4() == first.is_ipv4() {
        return Some(format!(
            "kplb has one virtual router for an address family, here {} (line {})",
            brief(&first.written.text),
            first.written.place.line()
        ));
    }
    if other.router_id != first.router_id {
        return Some(format!(
            "kplb has one router id for both address families, here {} (line {})",
            first.router_id,
            first.written.place.line()
        ));
    }
    let is_multicast = |instance: &Instance| instance.transport == Transport::Multicast;
    if is_multicast(first) != is_multicast(other) {
        return Some(format!(
            "kplb lists peers of both address families or of none, unlike {}",
            brief(&first.written.text)
        ));
    }
    None
}

/// What of the second one is now as it is in the first.
fn differences(first: &Instance, second: &Instance, findings: &mut Findings) {
    let mut differ = |what: &str, is_so: bool| {
        if is_so {
            let why = format!("kplb has one {what} for both address families: that of {}", brief(&first.written.text));
            findings.changed(&second.written, why, "set the same on the nodes that keep keepalived");
        }
    };
    differ("priority", first.priority != second.priority);
    differ("interval", first.interval != second.interval);
    differ("way to preempt", first.preemption != second.preemption);
    differ("way to announce VIPs", first.announcements != second.announcements);
}

impl Election {
    fn instances(&self) -> impl Iterator<Item = &Instance> {
        [&self.first].into_iter().chain(&self.second)
    }

    /// The VIPs that services can have.
    pub(super) fn vips(&self) -> Vec<IpAddr> {
        let usable = self.instances().flat_map(|instance| &instance.vips).filter(|vip| vip.device.is_none());
        usable.map(|vip| vip.address).filter(|address| unusable(*address).is_none()).collect()
    }

    /// Reports those that they cannot.
    fn report_vips(&self, findings: &mut Findings) {
        const ADVICE: &str = "take it away on all nodes first: nodes with other VIPs than kplb's take no notice of it";

        for instance in self.instances() {
            for vip in &instance.vips {
                if let Some(device) = &vip.device {
                    let why = format!("kplb serves one interface, and not {}", shown(device));
                    findings.left_out(&vip.written, why, ADVICE);
                } else if let Some((what, _)) = unusable(vip.address) {
                    findings.left_out(&vip.written, format!("it {what}"), ADVICE);
                }
            }
            for excluded in &instance.excluded {
                let why = "kplb's adverts name every VIP, and keepalived's nodes would take no notice of such adverts";
                let advice = "when all nodes run kplb, add a [[service]] for it";
                findings.left_out(&excluded.written, why, advice);
            }
        }
    }

    /// The interface, the table, and what is said of it. `served`: the VIPs that services have.
    pub(super) fn settle(
        self,
        served: &BTreeSet<IpAddr>,
        findings: &mut Findings,
    ) -> (Option<String>, Option<VrrpConfig>, VrrpNotes) {
        for vip in self.instances().flat_map(|instance| &instance.vips) {
            if !served.contains(&vip.address) && vip.device.is_none() && unusable(vip.address).is_none() {
                let why = "nothing is behind it, so kplb's adverts do not name it";
                let advice = "take it away on all nodes first: nodes with other VIPs than kplb's take no notice of it";
                findings.left_out(&vip.written, why, advice);
            }
        }
        // An election is about VIPs that there are.
        let Self { first, second } = self;
        let second = second.filter(|second| second.vips.iter().any(|vip| served.contains(&vip.address)));
        let peers = peers(&first, second.as_ref(), served, findings);
        let ipv4 = [Some(&first), second.as_ref()].into_iter().flatten().find(|instance| instance.is_ipv4());
        let notes = notes(&first, second.as_ref());
        let written = &first.written;
        let preemption = match first.preemption {
            Preemption::After(delay) => Preemption::After(fit::duration(delay, &DELAY_RANGE, written, findings)),
            Preemption::Never => Preemption::Never,
        };
        let version = ipv4.map_or(Version::V3, |instance| instance.version);
        let vrrp = VrrpConfig {
            router_id: first.router_id,
            version,
            priority: Some(first.priority),
            interval: interval(&first, version, findings),
            preemption,
            startup_delay: fit::duration(first.startup_delay, &DELAY_RANGE, written, findings),
            peers,
            password: ipv4.and_then(|instance| instance.password),
            coverage: ipv4.map(|instance| instance.coverage).unwrap_or_default(),
            announcements: schedule(&first.announcements, written, findings),
            notify: None,
        };
        (first.interface, Some(vrrp), notes)
    }
}

/// An interval that the version of IPv4 can express, too.
fn interval(first: &Instance, version: Version, findings: &mut Findings) -> Duration {
    if version.units(first.interval).is_some() {
        return first.interval;
    }
    // That of IPv6 was taken, and version 2 knows whole seconds only.
    let seconds = first.interval.as_millis().div_ceil(1000).clamp(1, 255);
    let interval = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    let why = format!(
        "version {version} over IPv4 cannot express its interval; it is {}",
        humantime::format_duration(interval)
    );
    findings.changed(&first.written, why, "set `version 3` on all nodes, or the same interval");
    interval
}

/// The nodes of both families that are no VIPs.
fn peers(
    first: &Instance,
    second: Option<&Instance>,
    served: &BTreeSet<IpAddr>,
    findings: &mut Findings,
) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for instance in [Some(first), second].into_iter().flatten() {
        let Transport::Unicast { peers, .. } = &instance.transport else { continue };
        let (vips, peers): (Vec<_>, Vec<_>) = peers.iter().copied().partition(|peer| served.contains(peer));
        if !vips.is_empty() {
            findings.left_out(&instance.written, "a VIP is among its peers", "list the nodes' own addresses");
        }
        if peers.is_empty() {
            let why = "no peer is left, so the adverts go to the group";
            findings.changed(&instance.written, why, "list the nodes as `peers`");
            return Vec::new();
        }
        all.extend(peers);
    }
    all
}

/// Bursts that kplb can have.
fn schedule(schedule: &Schedule, written: &Written, findings: &mut Findings) -> Schedule {
    let mut duration = |value| fit::duration(value, &DELAY_RANGE, written, findings);
    let (delay, gap, refresh) = (duration(schedule.delay), duration(schedule.gap), duration(schedule.refresh));
    let lower_priority_delay = duration(schedule.lower_priority_delay);
    let mut repeat = |value: u32| {
        let fitted = value.clamp(*REPEAT_RANGE.start(), *REPEAT_RANGE.end());
        if fitted != value {
            let why = format!("a burst of kplb's has {fitted} announcements at most, and not {value}");
            findings.changed(written, why, NOTHING_TO_DO);
        }
        fitted
    };
    Schedule {
        repeat: repeat(schedule.repeat),
        refresh_repeat: repeat(schedule.refresh_repeat),
        lower_priority_repeat: repeat(schedule.lower_priority_repeat),
        delay,
        gap,
        refresh,
        lower_priority_delay,
    }
}

fn notes(first: &Instance, second: Option<&Instance>) -> VrrpNotes {
    let names = match second {
        Some(second) => format!("{} and {}", brief(&first.written.text), brief(&second.written.text)),
        None => brief(&first.written.text),
    };
    let interval = humantime::format_duration(first.interval);
    let alike = match first.password {
        Some(_) => format!("virtual_router_id, version, interval ({interval}), password, VIPs"),
        None => format!("virtual_router_id, version, interval ({interval}), VIPs"),
    };
    let heading = vec![
        format!("{names} ({}).", first.written.place),
        format!("The same on all nodes, those that keep keepalived included: {alike}."),
    ];
    let own = match &first.transport {
        Transport::Unicast { own: Some(_), .. } => "All nodes, this one included: the same list everywhere.",
        _ => "Add this node's own address: the same list everywhere.",
    };
    let mut ending = Vec::new();
    // Each once, whichever of the two has it.
    let hooks = [Some(first), second].into_iter().flatten().flat_map(|instance| &instance.hooks);
    let hooks: BTreeSet<String> = hooks.map(|hook| brief(&hook.text)).collect();
    if !hooks.is_empty() {
        let hooks: Vec<_> = hooks.into_iter().collect();
        ending.push(format!("keepalived ran commands: {}. One that gets kplb's arguments would be:", hooks.join("; ")));
        ending.push("notify = [\"/usr/local/bin/vip-moved\"]".to_owned());
    }
    VrrpNotes { heading, peers: Some(own.to_owned()), ending }
}
