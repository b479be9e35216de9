//! Table `[vrrp]`: how the nodes agree on who holds the VIPs.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive, time::Duration};

use super::{
    Problems, ServiceConfig,
    draft::At,
    value::{Wrong, shown},
};
use crate::vrrp::{
    announcements::Schedule,
    settings::{
        Coverage, INTERVAL_DEFAULT, MAX_ADDRESSES, PRIORITY_DEFAULT, PRIORITY_OWNER, Password, Preemption, Settings,
        Transport, Version,
    },
};

/// Table `[vrrp]`. There is a virtual router for each address family that VIPs are of, all with the same values.
#[derive(Clone, Debug, PartialEq)]
pub struct VrrpConfig {
    /// The virtual routers' id on the segment, 1 to 255.
    pub router_id: u8,
    /// The version spoken over IPv4; over IPv6 it is always version 3.
    pub version: Version,
    /// 1 to 255; the highest becomes master. Unless given, by the place of this node among the peers; see
    /// [`Self::settings`].
    pub priority: Option<u8>,
    /// Time between adverts; the version can express it.
    pub interval: Duration,
    /// Whether a node of higher priority takes over from a living master.
    pub preemption: Preemption,
    /// How long after the start nothing is concluded from silence.
    pub startup_delay: Duration,
    /// The nodes, this one included or not; none: adverts go to the multicast group.
    pub peers: Vec<IpAddr>,
    /// Version 2 only.
    pub password: Option<Password>,
    /// What checksums of version 3 over IPv4 cover.
    pub coverage: Coverage,
    /// When a master announces its VIPs.
    pub announcements: Schedule,
    /// What to run when the role of this node changes.
    pub notify: Option<NotifyConfig>,
}

/// A command that is run when the role of this node changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotifyConfig {
    /// The program, an absolute path, and its first arguments.
    pub command: Vec<String>,
    /// The name of the user it runs as.
    pub user: String,
    /// How long it may take before it is killed, within [`NOTIFY_TIMEOUT_RANGE`].
    pub timeout: Duration,
}

/// Intervals between adverts that the protocol can express.
pub const ADVERT_RANGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(255);
/// Delays of the election and of announcements that make sense; zero is none.
pub const DELAY_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);
/// Announcements in a burst that make sense; zero is none.
pub const REPEAT_RANGE: RangeInclusive<u32> = 0..=100;
/// Times for a command that make sense.
pub const NOTIFY_TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60 * 60);

/// Between the default priorities of two nodes, 29 ms of skew time at the default interval: enough that the first of them
/// has claimed the VIPs, and the other has heard it, before that one's turn, though a busy board wakes it late.
const PRIORITY_STEP: u8 = 30;

impl VrrpConfig {
    /// The virtual router of the family of `address`, which is the source of this node's adverts, for those of the VIPs
    /// that are of this family. `is_own` tells which of the peers is this node.
    ///
    /// Where no priority is given, the peers have distinct ones in the order in which they are listed, so that all nodes
    /// can have the same configuration: between equal ones each failover would be a race, which the greater address wins
    /// after both have announced the VIPs.
    pub fn settings(&self, address: IpAddr, vips: &BTreeSet<IpAddr>, is_own: impl Fn(&IpAddr) -> bool) -> Settings {
        let is_like = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
        let addresses = vips.iter().filter(is_like).copied().collect();
        let peers: Vec<IpAddr> = self.peers.iter().filter(is_like).copied().collect();
        let transport = match self.peers.is_empty() {
            true => Transport::Multicast,
            false => Transport::Unicast(peers.iter().filter(|peer| !is_own(peer)).copied().collect()),
        };
        let place = peers.iter().rev().position(&is_own).unwrap_or(0);
        let place = u8::try_from(place).unwrap_or(u8::MAX).saturating_mul(PRIORITY_STEP);
        let default_priority = PRIORITY_DEFAULT.saturating_add(place).min(PRIORITY_OWNER - 1);
        Settings {
            version: if address.is_ipv4() { self.version } else { Version::V3 },
            priority: self.priority.unwrap_or(default_priority),
            interval: self.interval,
            preemption: self.preemption,
            startup_delay: self.startup_delay,
            transport,
            password: if address.is_ipv4() { self.password } else { None },
            coverage: self.coverage,
            announcements: self.announcements,
            ..Settings::new(self.router_id, address, addresses)
        }
    }
}

/// A draft of the table: what was written, each value for itself.
pub(super) struct DraftVrrp {
    pub(super) place: super::Place,
    pub(super) router_id: Option<At<u8>>,
    pub(super) version: Option<At<Version>>,
    pub(super) priority: Option<At<u8>>,
    pub(super) interval: Option<At<Duration>>,
    pub(super) preempt: Option<At<bool>>,
    pub(super) preempt_delay: Option<At<Duration>>,
    pub(super) startup_delay: Option<At<Duration>>,
    pub(super) peers: Vec<At<IpAddr>>,
    pub(super) password: Option<At<Password>>,
    pub(super) checksum: Option<At<Coverage>>,
    pub(super) announcements: Schedule,
    pub(super) notify: Option<At<Vec<String>>>,
    pub(super) notify_user: Option<At<String>>,
    pub(super) notify_timeout: Option<At<Duration>>,
}

impl DraftVrrp {
    pub(super) fn new(place: super::Place) -> Self {
        Self {
            place,
            router_id: None,
            version: None,
            priority: None,
            interval: None,
            preempt: None,
            preempt_delay: None,
            startup_delay: None,
            peers: Vec::new(),
            password: None,
            checksum: None,
            announcements: Schedule::default(),
            notify: None,
            notify_user: None,
            notify_timeout: None,
        }
    }

    /// The table, with defaults for what nobody says.
    pub(super) fn check(self, services: &[ServiceConfig], problems: &mut Problems) -> VrrpConfig {
        self.refuse_contradictions(services, problems);
        let version = self.version.map_or_else(Version::default, |at| at.value);
        let default_interval = match version {
            Version::V2 => version.interval_unit(),
            Version::V3 => INTERVAL_DEFAULT,
        };
        let preemption = match (self.preempt, self.preempt_delay) {
            (Some(At { value: true, .. }), delay) => Preemption::After(delay.map_or(Duration::ZERO, |at| at.value)),
            _ => Preemption::Never,
        };
        let timeout = self.notify_timeout.map_or(Duration::from_secs(10), |at| at.value);
        let user = self.notify_user.map_or_else(|| "nobody".to_owned(), |at| at.value);
        VrrpConfig {
            router_id: self.router_id.map_or_else(|| default_router_id(services), |at| at.value),
            version,
            priority: self.priority.map(|at| at.value),
            interval: self.interval.map_or(default_interval, |at| at.value),
            preemption,
            startup_delay: self.startup_delay.map_or(Duration::ZERO, |at| at.value),
            peers: self.peers.into_iter().map(|at| at.value).collect(),
            password: self.password.map(|at| at.value),
            coverage: self.checksum.map_or_else(Coverage::default, |at| at.value),
            announcements: self.announcements,
            notify: self.notify.map(|command| NotifyConfig { command: command.value, user, timeout }),
        }
    }

    fn refuse_contradictions(&self, services: &[ServiceConfig], problems: &mut Problems) {
        let version = self.version.as_ref().map_or_else(Version::default, |at| at.value);
        if let Some(interval) = &self.interval
            && version.units(interval.value).is_none()
        {
            let (what, hint) = match version {
                Version::V2 => ("whole seconds up to 255", "write whole seconds, or use version 3"),
                Version::V3 => ("hundredths of a second up to 40.95", "write a multiple of 10ms, at most 40950ms"),
            };
            let message = format!("version {version} can express only intervals of {what}");
            problems.add(&interval.place, message, hint);
        }
        if let (Version::V3, Some(password)) = (version, &self.password) {
            problems.add(&password.place, "version 3 knows no password", "leave it out, or use version = 2");
        }
        if let (Version::V2, Some(checksum)) = (version, &self.checksum) {
            problems.add(&checksum.place, "`checksum` is about version 3", "leave it out, or use version = 3");
        }
        if let (false, Some(delay)) = (self.preempt.as_ref().is_some_and(|preempt| preempt.value), &self.preempt_delay)
        {
            problems.add(&delay.place, "`preempt_delay` without `preempt`", "add preempt = true, or leave it out");
        }
        let idle = [
            self.notify_user.as_ref().map(|at| ("notify_user", &at.place)),
            self.notify_timeout.as_ref().map(|at| ("notify_timeout", &at.place)),
        ];
        for (key, place) in idle.into_iter().flatten().filter(|_| self.notify.is_none()) {
            problems.add(place, format!("`{key}` without `notify`"), "add the command, or leave it out");
        }
        self.refuse_peers(services, problems);
        for is_ipv4 in [true, false] {
            let vips = services.iter().map(|service| service.vip.ip()).filter(|vip| vip.is_ipv4() == is_ipv4);
            if vips.collect::<BTreeSet<_>>().len() > MAX_ADDRESSES {
                let hint = format!("an advert has room for {MAX_ADDRESSES} VIPs of a family");
                problems.add(&self.place, "too many VIPs for an advert", hint);
            }
        }
    }

    fn refuse_peers(&self, services: &[ServiceConfig], problems: &mut Problems) {
        let mut seen = BTreeSet::new();
        for peer in &self.peers {
            if services.iter().any(|service| service.vip.ip() == peer.value) {
                problems.add(&peer.place, format!("peer {} is a VIP", peer.value), "give the nodes' own addresses");
            }
            if !seen.insert(peer.value) {
                problems.add(&peer.place, format!("peer {} is listed twice", peer.value), "leave one out");
            }
        }
        if self.peers.is_empty() {
            return;
        }
        for (is_ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let has_vip = services.iter().any(|service| service.vip.is_ipv4() == is_ipv4);
            let has_peer = self.peers.iter().any(|peer| peer.value.is_ipv4() == is_ipv4);
            if has_vip && !has_peer {
                let message = format!("there are {family} VIPs, and no peer has an {family} address");
                problems.add(&self.peers[0].place, message, format!("list the nodes' {family} addresses as well"));
            }
        }
    }
}

/// Two clusters on one segment must not be taken for one, so the id is not the same for all: the last byte of the first
/// VIP, where it can be one.
fn default_router_id(services: &[ServiceConfig]) -> u8 {
    let last = services.iter().map(|service| service.vip.ip()).min().map(|vip| match vip {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    });
    last.filter(|byte| *byte != 0).unwrap_or(u8::MAX)
}

/// A password that fits in the packet.
pub(super) fn password(text: &str) -> Result<Password, Wrong> {
    if text.is_empty() || text.len() > Password::LENGTH || !text.is_ascii() {
        let rule = format!("use 1 to {} ASCII characters: no more are sent", Password::LENGTH);
        return Err(Wrong::new("the password cannot be sent", rule));
    }
    Ok(Password::from_text(text))
}

/// The address of a node.
pub(super) fn peer(text: &str) -> Result<IpAddr, Wrong> {
    let address: IpAddr = text.parse().map_err(|_| {
        let hint = "write a node's address without a port, as in 198.18.0.12 or 2001:2::12";
        Wrong::new(format!("{} is not an IP address", shown(text)), hint)
    })?;
    match super::value::unusable(address) {
        Some((what, hint)) => Err(Wrong::new(format!("{address} {what}"), hint)),
        None => Ok(address),
    }
}
