//! A `vrrp_instance`: what it is once everything in it is read, whatever the order.

use std::{net::IpAddr, time::Duration};

use super::{
    addresses::{self, Vip},
    authentication,
    globals::{self, Globals, set},
    scripts::Scripts,
    tree::Directive,
    value,
};
use crate::{
    import::finding::{At, Findings, NOTHING_TO_DO, Written, shown},
    vrrp::{
        announcements::Schedule,
        settings::{Coverage, PRIORITY_DEFAULT, Password, Preemption, Version},
    },
};

/// A virtual router of keepalived.
pub(in crate::import) struct Instance {
    /// `vrrp_instance` and its name.
    pub(in crate::import) written: Written,
    pub(in crate::import) interface: Option<String>,
    pub(in crate::import) router_id: u8,
    /// Of the protocol, over the family of the VIPs.
    pub(in crate::import) version: Version,
    pub(in crate::import) priority: u8,
    /// The version can express it.
    pub(in crate::import) interval: Duration,
    pub(in crate::import) preemption: Preemption,
    pub(in crate::import) startup_delay: Duration,
    pub(in crate::import) transport: Transport,
    pub(in crate::import) password: Option<Password>,
    pub(in crate::import) coverage: Coverage,
    pub(in crate::import) announcements: Schedule,
    /// Those that adverts name: at least one, all of one family.
    pub(in crate::import) vips: Vec<Vip>,
    /// Those that come with them, and that no advert names.
    pub(in crate::import) excluded: Vec<At<IpAddr>>,
    /// Commands that are run when its state changes.
    pub(in crate::import) hooks: Vec<Written>,
    /// What is to be said if it is imported.
    pub(in crate::import) findings: Findings,
}

/// How its nodes speak to each other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::import) enum Transport {
    Multicast,
    /// The other nodes, and this one as far as it is said.
    Unicast {
        own: Option<IpAddr>,
        peers: Vec<IpAddr>,
    },
}

impl Instance {
    pub(in crate::import) fn is_ipv4(&self) -> bool {
        self.vips.first().is_some_and(|vip| vip.address.is_ipv4())
    }
}

/// What is read of it, before it is put together.
struct Parts<'d> {
    interface: Option<String>,
    router_id: Option<u8>,
    version: Option<u8>,
    priority: u8,
    interval: Option<At<Duration>>,
    /// `state MASTER`.
    master: Option<&'d Written>,
    /// The last of `preempt` and `nopreempt`, if it is this one.
    nopreempt: Option<&'d Written>,
    preempt_delay: Option<At<Duration>>,
    own: Option<IpAddr>,
    peers: Option<&'d Directive>,
    unicast_ttl: Option<&'d Directive>,
    authentication: Option<&'d Directive>,
    coverage: Coverage,
    garp: globals::Garp,
    vips: Vec<&'d Directive>,
    excluded: Vec<&'d Directive>,
    hooks: Vec<Written>,
    track: Vec<&'d Directive>,
}

/// Reads one; none if keepalived itself would have none, which is said in `findings`.
pub(super) fn read(
    block: &Directive,
    globals: &Globals,
    scripts: &Scripts,
    findings: &mut Findings,
) -> Option<Instance> {
    let mut own_findings = Findings::default();
    let mut parts = Parts::new(globals);
    block.block.iter().for_each(|directive| parts.take(directive, &mut own_findings));
    let Some(router_id) = parts.router_id else {
        let why = "it has no `virtual_router_id`, so keepalived does not have it either";
        findings.left_out(&block.written, why, "give it one, from 1 to 255");
        return None;
    };
    let vips = addresses::vips(&parts.vips, parts.interface.as_deref(), &mut own_findings);
    if vips.is_empty() {
        findings.left_out(&block.written, "it has no VIP", "give it one in `virtual_ipaddress`");
        return None;
    }
    scripts.tracked(&parts.track, parts.interface.as_deref(), parts.nopreempt, &mut own_findings);
    Some(parts.put_together(block, router_id, vips, globals, own_findings))
}

impl<'d> Parts<'d> {
    fn new(globals: &Globals) -> Self {
        Self {
            interface: None,
            router_id: None,
            version: None,
            priority: PRIORITY_DEFAULT,
            interval: None,
            master: None,
            nopreempt: None,
            preempt_delay: None,
            own: None,
            peers: None,
            unicast_ttl: None,
            authentication: None,
            coverage: globals.coverage,
            garp: globals.garp.clone(),
            vips: Vec::new(),
            excluded: Vec::new(),
            hooks: Vec::new(),
            track: Vec::new(),
        }
    }

    fn take(&mut self, directive: &'d Directive, findings: &mut Findings) {
        let written = &directive.written;
        let garp = &mut self.garp;
        match directive.keyword() {
            "state" => self.state(directive, findings),
            "interface" => self.interface = directive.argument().map(str::to_owned),
            "virtual_router_id" => self.router_id = value::number(directive, 1..=u8::MAX, findings),
            "priority" => set(&mut self.priority, value::number(directive, 1..=u8::MAX, findings)),
            "advert_int" => self.interval = value::seconds(directive, findings).map(|value| At::new(value, written)),
            "version" => self.version = value::number(directive, 2..=3, findings),
            "preempt" => self.nopreempt = None,
            "nopreempt" => self.nopreempt = Some(written),
            "preempt_delay" => {
                self.preempt_delay = value::seconds(directive, findings).map(|value| At::new(value, written));
            }
            "unicast_src_ip" => self.own = directive.argument().and_then(value::address),
            "mcast_src_ip" => {
                let why = "kplb's adverts to the group come from the interface's first address";
                findings.left_out(written, why, "list the nodes as `peers`, on all of them");
            }
            "mcast_dst_ip" => {
                let why = "kplb's adverts go to the group of the RFC, so keepalived's nodes do not hear them";
                findings.left_out(written, why, "take it away on all nodes first");
            }
            "unicast_peer" => self.peers = Some(directive),
            "unicast_ttl" => self.unicast_ttl = Some(directive),
            "authentication" => self.authentication = Some(directive),
            "auth_hmac" => authentication::no_hmac(directive, findings),
            "v3_checksum_as_v2" => set(&mut self.coverage, globals::coverage(directive, findings)),
            "virtual_ipaddress" => self.vips.extend(&directive.block),
            "virtual_ipaddress_excluded" => self.excluded.extend(&directive.block),
            "no_accept" | "strict_mode" => globals::no_accept(directive, findings),
            "down_timer_adverts" => globals::down_timer(directive, findings),
            "garp_master_delay" => set(&mut garp.delay, value::seconds(directive, findings)),
            "garp_master_repeat" => set(&mut garp.repeat, value::number(directive, 0..=u32::MAX, findings)),
            "garp_lower_prio_delay" => set(&mut garp.lower_delay, value::seconds(directive, findings)),
            "garp_lower_prio_repeat" => set(&mut garp.lower_repeat, value::number(directive, 0..=u32::MAX, findings)),
            "garp_master_refresh" => garp.refresh = value::seconds(directive, findings),
            "garp_master_refresh_repeat" => garp.refresh_repeat = value::number(directive, 0..=u32::MAX, findings),
            "track_interface" | "track_script" => self.track.push(directive),
            "notify" | "notify_master" | "notify_backup" | "notify_fault" | "notify_stop" => {
                let why = "kplb has one command, which gets the interface, the state in small letters, and the VIPs";
                findings.left_out(written, why, "adapt it, and set `notify` and `notify_user`");
                self.hooks.push(written.clone());
            }
            // These say what kplb does anyway, or what the VIPs themselves say.
            "accept" | "native_ipv6" | "no_virtual_ipaddress" => {}
            _ => globals::no_equivalent(directive, findings),
        }
    }

    fn state(&mut self, directive: &'d Directive, findings: &mut Findings) {
        self.master = None;
        match directive.argument() {
            Some("BACKUP") => {}
            Some("MASTER") => {
                self.master = Some(&directive.written);
                let why = "every node of kplb starts as a backup, and the priority decides";
                findings.left_out(&directive.written, why, NOTHING_TO_DO);
            }
            _ => findings.left_out(&directive.written, "it is no state of keepalived's", NOTHING_TO_DO),
        }
    }

    fn put_together(
        self,
        block: &Directive,
        router_id: u8,
        vips: Vec<Vip>,
        globals: &Globals,
        mut findings: Findings,
    ) -> Instance {
        let is_ipv4 = vips.first().is_some_and(|vip| vip.address.is_ipv4());
        let version = match self.version.unwrap_or(globals.version) {
            2 if is_ipv4 => Version::V2,
            _ => Version::V3,
        };
        let password = self.authentication.and_then(|block| authentication::read(block, version, &mut findings));
        let transport = match (self.peers, vips.first()) {
            (Some(peers), Some(vip)) => {
                addresses::unicast(self.own, peers, vip.address, self.unicast_ttl, &mut findings)
            }
            _ => Transport::Multicast,
        };
        let preemption = self.preemption(&mut findings);
        let gap = self.interface.as_ref().and_then(|interface| globals.gaps.get(interface).copied());
        Instance {
            written: block.written.clone(),
            router_id,
            version,
            priority: self.priority,
            interval: interval(self.interval, version, &mut findings),
            preemption,
            startup_delay: globals.startup_delay,
            transport,
            password,
            coverage: if version == Version::V3 && is_ipv4 { self.coverage } else { Coverage::PseudoHeader },
            announcements: schedule(&self.garp, gap),
            vips,
            excluded: addresses::excluded(&self.excluded),
            hooks: self.hooks,
            interface: self.interface,
            findings,
        }
    }

    /// keepalived itself takes back what does not go with the state `MASTER`.
    fn preemption(&self, findings: &mut Findings) -> Preemption {
        let master = self.master.map(|master| master.place.line());
        if let (Some(written), Some(line)) = (self.nopreempt, master) {
            let why = format!("with `state MASTER` (line {line}) keepalived takes no notice of it, and preempts");
            let advice = "to have it as it was meant, take `preempt` out of what was printed, on all nodes";
            findings.changed(written, why, advice);
        }
        if let (Some(delay), Some(line)) = (&self.preempt_delay, master) {
            let why = format!("with `state MASTER` (line {line}) keepalived takes no notice of it");
            findings.left_out(&delay.written, why, "to have it as it was meant, add it to the table [vrrp]");
        }
        match (master, self.nopreempt, &self.preempt_delay) {
            (Some(_), ..) | (None, None, None) => Preemption::After(Duration::ZERO),
            (None, None, Some(delay)) => Preemption::After(delay.value),
            (None, Some(_), None) => Preemption::Never,
            (None, Some(_), Some(delay)) => {
                findings.left_out(&delay.written, "with `nopreempt` there is nothing to delay", NOTHING_TO_DO);
                Preemption::Never
            }
        }
    }
}

/// The interval between adverts, rounded as keepalived rounds it.
fn interval(given: Option<At<Duration>>, version: Version, findings: &mut Findings) -> Duration {
    const USUAL: Duration = Duration::from_secs(1);

    let Some(At { value, written }) = given else { return USUAL };
    if !(Duration::from_millis(10)..=Duration::from_secs(255)).contains(&value) {
        let why = format!("{} is out of range, so keepalived takes no notice of it", shown(&written.text));
        findings.left_out(&written, why, "it is one second; write another time on all nodes");
        return USUAL;
    }
    let unit = version.interval_unit();
    let units = (value + unit / 2).as_micros() / unit.as_micros();
    let units = u32::try_from(units).unwrap_or(u32::MAX).clamp(1, version.max_interval_units().into());
    let interval = unit * units;
    if interval != value {
        let text = humantime::format_duration(interval);
        let why = format!("version {version} cannot express it, and keepalived makes {text} of it");
        findings.changed(&written, why, "nothing to do, unless another node has another version");
    }
    interval
}

/// When a master announces its VIPs. What keepalived does only when told, kplb does by itself.
fn schedule(garp: &globals::Garp, gap: Option<Duration>) -> Schedule {
    let usual = Schedule::default();
    Schedule {
        repeat: garp.repeat,
        delay: garp.delay,
        gap: gap.or(garp.gap).unwrap_or(usual.gap),
        refresh: garp.refresh.unwrap_or(usual.refresh),
        refresh_repeat: garp.refresh_repeat.unwrap_or(usual.refresh_repeat),
        lower_priority_repeat: garp.lower_repeat,
        lower_priority_delay: garp.lower_delay,
    }
}
