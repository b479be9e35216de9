//! What keepalived is told: from options to the text of its configuration.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use crate::lab::Host;

/// The version of VRRP over IPv4. Over IPv6 there is only version 3.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// RFC 3768.
    V2,
    /// RFC 9568.
    V3,
}

/// Where adverts go to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Transport {
    /// To the group.
    Multicast,
    /// To each of these routers.
    Unicast(Vec<IpAddr>),
}

/// What a router does that hears a master of lower priority.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Preemption {
    /// It takes over.
    Immediate,
    /// It waits until that one is gone.
    Never,
}

/// A virtual router for each family that has a VIP.
#[derive(Clone, Debug)]
pub struct Options {
    /// The virtual routers' id, in both families.
    pub router_id: u8,
    /// The priority.
    pub priority: u8,
    /// The time between adverts: whole seconds in version 2, hundredths of a second in version 3.
    pub interval: Duration,
    /// The version.
    pub version: Version,
    /// Where adverts go to.
    pub transport: Transport,
    /// What it does about a master of lower priority.
    pub preemption: Preemption,
    /// The password of version 2, if it is to have one.
    pub password: Option<String>,
    /// The VIPs. keepalived wants the first one of IPv6 to be a link-local address (RFC 9568, section 5.2.9), and
    /// says so where it is not.
    pub vips: Vec<IpAddr>,
    /// Further lines of every virtual router, such as `unicast_ttl 255`.
    pub settings: String,
}

impl Options {
    /// Version 3 by multicast, once a second, with preemption.
    pub fn new(priority: u8, vips: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            router_id: 51,
            priority,
            interval: Duration::from_secs(1),
            version: Version::V3,
            transport: Transport::Multicast,
            preemption: Preemption::Immediate,
            password: None,
            vips: vips.into_iter().collect(),
            settings: String::new(),
        }
    }

    /// Names of the virtual routers, as the log has them.
    pub(super) fn instances(&self) -> Vec<&'static str> {
        self.by_family().map(|(family, _)| family.instance()).collect()
    }

    /// `keepalived.conf` on this host.
    pub(super) fn configuration(&self, host: &Host) -> String {
        let mut text = format!("global_defs {{\n  router_id {}\n}}\n", host.name());
        for (family, vips) in self.by_family() {
            text += &self.instance(host, family, &vips);
        }
        text
    }

    fn instance(&self, host: &Host, family: Family, vips: &[IpAddr]) -> String {
        let [ipv4, ipv6] = host.addresses();
        let (version, source) = match (family, self.version) {
            (Family::V4, Version::V2) => (2, ipv4),
            (Family::V4, Version::V3) => (3, ipv4),
            (Family::V6, _) => (3, ipv6),
        };
        let mut lines = format!(
            "  state BACKUP\n  interface eth0\n  version {version}\n  virtual_router_id {}\n  priority {}\n  advert_int {}\n",
            self.router_id,
            self.priority,
            self.interval.as_secs_f64(),
        );
        if self.preemption == Preemption::Never {
            lines += "  nopreempt\n";
        }
        if let Transport::Unicast(peers) = &self.transport {
            let _ = writeln!(lines, "  unicast_src_ip {source}\n  unicast_peer {{");
            for peer in peers.iter().filter(|peer| Family::of(**peer) == family) {
                let _ = writeln!(lines, "    {peer}");
            }
            lines += "  }\n";
        }
        if let (2, Some(password)) = (version, &self.password) {
            let _ = writeln!(lines, "  authentication {{\n    auth_type PASS\n    auth_pass {password}\n  }}");
        }
        lines += "  virtual_ipaddress {\n";
        for vip in vips {
            let length = if vip.is_ipv4() { 32 } else { 128 };
            let _ = writeln!(lines, "    {vip}/{length} dev eth0");
        }
        lines += "  }\n";
        for setting in self.settings.lines() {
            let _ = writeln!(lines, "  {setting}");
        }
        format!("vrrp_instance {} {{\n{lines}}}\n", family.instance())
    }

    /// The families that have VIPs, with them.
    fn by_family(&self) -> impl Iterator<Item = (Family, Vec<IpAddr>)> {
        let with_vips = |family| {
            let vips = self.vips.iter().copied().filter(|vip| Family::of(*vip) == family);
            (family, vips.collect::<Vec<_>>())
        };
        [Family::V4, Family::V6].map(with_vips).into_iter().filter(|(_, vips)| !vips.is_empty())
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn instance(self) -> &'static str {
        match self {
            Self::V4 => "VI_4",
            Self::V6 => "VI_6",
        }
    }
}
