//! What holds for all virtual routers: `global_defs` and `garp_group`.

use std::{collections::HashMap, time::Duration};

use super::{reason::reason, tree::Directive, value};
use crate::{
    import::finding::{Findings, NOTHING_TO_DO},
    vrrp::settings::Coverage,
};

/// When a master announces its VIPs; none: as keepalived does it unless told otherwise, which kplb does better.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Garp {
    pub(super) repeat: u32,
    pub(super) delay: Duration,
    pub(super) lower_repeat: u32,
    pub(super) lower_delay: Duration,
    pub(super) refresh: Option<Duration>,
    pub(super) refresh_repeat: Option<u32>,
    pub(super) gap: Option<Duration>,
}

/// What virtual routers have unless they say otherwise.
#[derive(Clone, Debug)]
pub(super) struct Globals {
    pub(super) version: u8,
    pub(super) garp: Garp,
    pub(super) startup_delay: Duration,
    pub(super) coverage: Coverage,
    /// Between announcements, by interface.
    pub(super) gaps: HashMap<String, Duration>,
}

impl Default for Garp {
    fn default() -> Self {
        Self {
            repeat: 5,
            delay: Duration::from_secs(5),
            lower_repeat: 5,
            lower_delay: Duration::from_secs(5),
            refresh: None,
            refresh_repeat: None,
            gap: None,
        }
    }
}

/// Reads them from all blocks of the file.
pub(super) fn read(file: &[Directive], findings: &mut Findings) -> Globals {
    let mut globals = Globals {
        version: 2,
        garp: Garp::default(),
        startup_delay: Duration::ZERO,
        coverage: Coverage::PseudoHeader,
        gaps: gaps(file, findings),
    };
    // The lower ones follow the others unless they are given.
    let (mut lower_repeat, mut lower_delay) = (None, None);
    for directive in file.iter().filter(|directive| directive.keyword() == "global_defs").flat_map(|block| &block.block)
    {
        let garp = &mut globals.garp;
        match directive.keyword() {
            "vrrp_version" => set(&mut globals.version, value::number(directive, 2..=3, findings)),
            "vrrp_startup_delay" => set(&mut globals.startup_delay, value::seconds(directive, findings)),
            "v3_checksum_as_v2" => set(&mut globals.coverage, coverage(directive, findings)),
            "vrrp_garp_master_delay" => set(&mut garp.delay, value::seconds(directive, findings)),
            "vrrp_garp_master_repeat" => set(&mut garp.repeat, value::number(directive, 0..=u32::MAX, findings)),
            "vrrp_garp_lower_prio_delay" => lower_delay = value::seconds(directive, findings),
            "vrrp_garp_lower_prio_repeat" => lower_repeat = value::number(directive, 0..=u32::MAX, findings),
            "vrrp_garp_master_refresh" => garp.refresh = value::seconds(directive, findings),
            "vrrp_garp_master_refresh_repeat" => {
                garp.refresh_repeat = value::number(directive, 0..=u32::MAX, findings);
            }
            "vrrp_garp_interval" => garp.gap = value::seconds(directive, findings),
            "vrrp_gna_interval" => {
                let gap = value::seconds(directive, findings);
                garp.gap = garp.gap.or(gap);
            }
            "vrrp_min_garp" => {
                if value::switch(directive, findings) == Some(true) {
                    (garp.repeat, garp.delay) = (1, Duration::ZERO);
                }
            }
            keyword => other(keyword, directive, findings),
        }
    }
    globals.garp.lower_repeat = lower_repeat.unwrap_or(globals.garp.repeat);
    globals.garp.lower_delay = lower_delay.unwrap_or(globals.garp.delay);
    globals
}

fn other(keyword: &str, directive: &Directive, findings: &mut Findings) {
    let groups = [("vrrp_mcast_group4", "224.0.0.18"), ("vrrp_mcast_group6", "ff02::12")];
    if let Some((_, usual)) = groups.iter().find(|(name, _)| *name == keyword) {
        if directive.argument() != Some(usual) {
            let why = format!("kplb's adverts go to the group of the RFC, {usual}");
            findings.left_out(&directive.written, why, "list the nodes as `peers`, on all of them");
        }
        return;
    }
    match keyword {
        "vrrp_strict" => no_accept(directive, findings),
        "vrrp_down_timer_adverts" => down_timer(directive, findings),
        _ => no_equivalent(directive, findings),
    }
}

/// What checksums of version 3 over IPv4 cover.
pub(super) fn coverage(directive: &Directive, findings: &mut Findings) -> Option<Coverage> {
    let is_message = value::switch(directive, findings)?;
    Some(if is_message { Coverage::Message } else { Coverage::PseudoHeader })
}

/// `no_accept`, and what implies it.
pub(super) fn no_accept(directive: &Directive, findings: &mut Findings) {
    if value::switch(directive, findings) == Some(true) {
        let why = "with it keepalived drops what comes for a VIP; kplb forwards it";
        findings.changed(&directive.written, why, NOTHING_TO_DO);
    }
}

/// How many adverts may be missed.
pub(super) fn down_timer(directive: &Directive, findings: &mut Findings) {
    if directive.argument() != Some("3") {
        let why = "kplb takes a master for dead after three missed adverts, as the RFC says";
        findings.left_out(&directive.written, why, "take it away on all nodes");
    }
}

/// Reports a directive that kplb has nothing for.
pub(super) fn no_equivalent(directive: &Directive, findings: &mut Findings) {
    let unknown = ("`kplb import` does not know it", "look it up in keepalived.conf(5)");
    let (why, advice) = reason(directive.keyword()).unwrap_or(unknown);
    findings.left_out(&directive.written, why, advice);
}

/// The gaps between announcements that groups have for their interfaces.
fn gaps(file: &[Directive], findings: &mut Findings) -> HashMap<String, Duration> {
    let mut gaps = HashMap::new();
    for group in file.iter().filter(|directive| directive.keyword() == "garp_group") {
        let mut gap = None;
        for directive in &group.block {
            if matches!(directive.keyword(), "garp_interval" | "gna_interval") {
                gap = gap.or(value::seconds(directive, findings));
            }
        }
        let names = group.block.iter().flat_map(|directive| match directive.keyword() {
            "interface" => directive.arguments().iter().collect::<Vec<_>>(),
            "interfaces" => directive.block.iter().flat_map(Directive::words).collect(),
            _ => Vec::new(),
        });
        gaps.extend(names.filter_map(|name| Some((name.clone(), gap?))));
    }
    gaps
}

/// Takes a value unless there is none.
pub(super) fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
