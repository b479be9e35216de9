//! What is configured of one virtual router, with keepalived's names where it has one.

use std::{fmt, net::IpAddr, time::Duration};

use thiserror::Error;

use super::announcements::Schedule;

/// The priority of the router that owns the addresses (RFC 9568, section 5.2.4). A balancer owns none, so it is of use
/// only where others expect an owner.
pub const PRIORITY_OWNER: u8 = 255;
/// The priority in an advert that says that the master gives up (RFC 9568, section 5.2.4).
pub const PRIORITY_RELEASE: u8 = 0;
/// The RFCs' default (RFC 9568, section 6.1).
pub const PRIORITY_DEFAULT: u8 = 100;
/// With [`PRIORITY_DEFAULT`] a dead master is replaced in 0.9 s, and two lost adverts in a row are no reason to.
pub const INTERVAL_DEFAULT: Duration = Duration::from_millis(250);
/// What an advert can name without being fragmented, be it of IPv6 addresses and on a link of the smallest MTU, 1280
/// (RFC 8200, section 5).
pub const MAX_ADDRESSES: usize = 64;

/// No delay is longer: it would be a mistake of units.
pub const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The version of the protocol; keepalived's `version` (its default is 2 over IPv4).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Version {
    /// RFC 3768: IPv4 only, intervals of whole seconds, a password in the clear.
    V2,
    /// RFC 9568: IPv4 and IPv6, intervals of hundredths of a second.
    #[default]
    V3,
}

impl Version {
    /// The number in the packet.
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }

    /// What intervals are counted in.
    pub const fn interval_unit(self) -> Duration {
        match self {
            Self::V2 => Duration::from_secs(1),
            Self::V3 => Duration::from_millis(10),
        }
    }

    /// The longest interval, in units: all bits of the field (RFC 3768, section 5.3.7; RFC 9568, section 5.2.7).
    pub const fn max_interval_units(self) -> u16 {
        match self {
            Self::V2 => 0xff,
            Self::V3 => 0x0fff,
        }
    }

    /// The interval in units, if it can be said exactly.
    pub fn units(self, interval: Duration) -> Option<u16> {
        let unit = self.interval_unit().as_nanos();
        let nanos = interval.as_nanos();
        let units = u16::try_from(nanos / unit).ok()?;
        let is_exact = nanos.is_multiple_of(unit) && (1..=self.max_interval_units()).contains(&units);
        is_exact.then_some(units)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// What the checksum of version 3 over IPv4 covers. Over IPv6 it always covers the pseudo-header, in version 2 never.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Coverage {
    /// The message alone (RFC 9568, section 5.2.8); keepalived's `v3_checksum_as_v2`.
    Message,
    /// A pseudo-header, too: how RFC 5798 was read by those whose routers are most in use. keepalived discards
    /// what comes without.
    #[default]
    PseudoHeader,
}

/// Where adverts go to, and whose count.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Transport {
    /// To the group; anybody's.
    #[default]
    Multicast,
    /// To each of the other nodes that are listed, and only theirs count; keepalived's `unicast_peer`. There may be none,
    /// if only this node is listed: a list, however short, is no reason to talk to the group.
    Unicast(Vec<IpAddr>),
}

impl Transport {
    /// The other nodes, as far as they are listed.
    pub fn peers(&self) -> &[IpAddr] {
        match self {
            Self::Multicast => &[],
            Self::Unicast(peers) => peers,
        }
    }

    /// Whether the adverts of this sender count.
    pub fn accepts(&self, sender: &IpAddr) -> bool {
        match self {
            Self::Multicast => true,
            Self::Unicast(peers) => peers.contains(sender),
        }
    }
}

/// Whether a router of higher priority takes over from a living master.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Preemption {
    /// It does not; keepalived's `nopreempt`. Each move of a VIP resets connections, so this is the default.
    #[default]
    Never,
    /// It does, once it has heard the lower master for so long; keepalived's `preempt_delay`. Zero is the RFCs'
    /// `Preempt_Mode`.
    After(Duration),
}

/// The password of version 2, keepalived's `auth_pass`. It is sent in the clear: it tells clusters apart, and keeps
/// nobody out.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Password([u8; Self::LENGTH]);

impl Password {
    /// The length of the field, in bytes (RFC 2338, section 5.3.10).
    pub const LENGTH: usize = 8;

    /// The password as it stands in a packet.
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// A shorter text is filled up with zeros; of a longer one only the first eight bytes count, as with keepalived.
    pub fn from_text(text: &str) -> Self {
        let mut bytes = [0; Self::LENGTH];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    /// As it stands in a packet.
    pub const fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(not shown)")
    }
}

/// One virtual router: a router id and an address family on one interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Of the protocol.
    pub version: Version,
    /// The virtual router's id on its segment, 1 to 255; keepalived's `virtual_router_id`.
    pub router_id: u8,
    /// 1 to 254, or [`PRIORITY_OWNER`]; the highest becomes master. keepalived's `priority`.
    pub priority: u8,
    /// Time between the adverts of this node as master; keepalived's `advert_int`. See [`Version::units`] for what
    /// the versions can say.
    pub interval: Duration,
    /// keepalived's `nopreempt` and `preempt_delay`.
    pub preemption: Preemption,
    /// How long after the start nothing is concluded from silence, as the switch may not forward yet; keepalived's
    /// `vrrp_startup_delay`.
    pub startup_delay: Duration,
    /// The source of this node's adverts: the interface's primary address (IPv4) or its link-local one (IPv6), unless
    /// the peers are listed; keepalived's `unicast_src_ip`. Between equal priorities the greater one wins.
    pub address: IpAddr,
    /// The VIPs, in the order of the adverts; keepalived's `virtual_ipaddress`. Over IPv6 the first is link-local, if
    /// RFC 9568, section 5.2.9 is to be obeyed.
    pub addresses: Vec<IpAddr>,
    /// Where adverts go to, and whose count.
    pub transport: Transport,
    /// Version 2 only; keepalived's `auth_type PASS` with `auth_pass`.
    pub password: Option<Password>,
    /// Of the checksums sent. Either is accepted.
    pub coverage: Coverage,
    /// When a master announces its VIPs.
    pub announcements: Schedule,
}

/// Why a virtual router cannot be what is configured.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Unusable {
    /// RFC 9568, section 5.2.3.
    #[error("the router id is 0; it must be 1 to 255")]
    RouterIdZero,
    /// RFC 9568, section 5.2.4.
    #[error("the priority is 0; it must be 1 to 255")]
    PriorityZero,
    /// See [`Version::units`].
    #[error("the interval is not 1 to 255 whole seconds (version 2) or 0.01 to 40.95 s in hundredths (version 3)")]
    Interval,
    /// See [`MAX_DELAY`].
    #[error("a delay is longer than a day")]
    Delay,
    /// RFC 9568, section 5.2.5.
    #[error("there is no address")]
    NoAddresses,
    /// See [`MAX_ADDRESSES`].
    #[error("there are more than {MAX_ADDRESSES} addresses")]
    TooManyAddresses,
    /// RFC 9568, section 5.2.9.
    #[error("the node's, the peers' and the virtual addresses are not all of one family")]
    MixedFamilies,
    /// RFC 3768, section 1.
    #[error("version 2 knows no IPv6")]
    V2OverIpv6,
    /// RFC 9568, section 9.
    #[error("version 3 knows no password")]
    PasswordInV3,
    /// A peer's adverts would be taken for this node's.
    #[error("this node is listed as its own peer")]
    OwnPeer,
}

impl Settings {
    /// With the defaults.
    pub fn new(router_id: u8, address: IpAddr, addresses: Vec<IpAddr>) -> Self {
        Self {
            version: Version::default(),
            router_id,
            priority: PRIORITY_DEFAULT,
            interval: INTERVAL_DEFAULT,
            preemption: Preemption::default(),
            startup_delay: Duration::ZERO,
            address,
            addresses,
            transport: Transport::Multicast,
            password: None,
            coverage: Coverage::default(),
            announcements: Schedule::default(),
        }
    }

    /// Whether this node owns the addresses.
    pub const fn is_owner(&self) -> bool {
        self.priority == PRIORITY_OWNER
    }

    const fn delays(&self) -> [Duration; 6] {
        let Schedule { delay, gap, refresh, lower_priority_delay, .. } = self.announcements;
        let preempt_delay = match self.preemption {
            Preemption::Never => Duration::ZERO,
            Preemption::After(delay) => delay,
        };
        [self.startup_delay, preempt_delay, delay, gap, refresh, lower_priority_delay]
    }

    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), Unusable> {
        let is_ipv4 = self.address.is_ipv4();
        let problem = if self.router_id == 0 {
            Unusable::RouterIdZero
        } else if self.priority == 0 {
            Unusable::PriorityZero
        } else if self.version.units(self.interval).is_none() {
            Unusable::Interval
        } else if self.delays().into_iter().any(|delay| delay > MAX_DELAY) {
            Unusable::Delay
        } else if self.addresses.is_empty() {
            Unusable::NoAddresses
        } else if self.addresses.len() > MAX_ADDRESSES {
            Unusable::TooManyAddresses
        } else if self.addresses.iter().chain(self.transport.peers()).any(|address| address.is_ipv4() != is_ipv4) {
            Unusable::MixedFamilies
        } else if self.version == Version::V2 && !is_ipv4 {
            Unusable::V2OverIpv6
        } else if self.version == Version::V3 && self.password.is_some() {
            Unusable::PasswordInV3
        } else if self.transport.peers().contains(&self.address) {
            Unusable::OwnPeer
        } else {
            return Ok(());
        };
        Err(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(51, [192, 0, 2, 1].into(), vec![[192, 0, 2, 100].into()])
    }

    fn problem(change: impl FnOnce(&mut Settings)) -> Result<(), Unusable> {
        let mut settings = settings();
        change(&mut settings);
        settings.check()
    }

    #[test]
    fn defaults_are_usable() {
        assert_eq!(settings().check(), Ok(()));
        assert_eq!(settings().preemption, Preemption::Never);
        assert_eq!((settings().version, settings().coverage), (Version::V3, Coverage::PseudoHeader));
    }

    #[test]
    fn every_problem_is_found() {
        let v6: IpAddr = "2001:db8::1".parse().expect("an address");
        assert_eq!(problem(|s| s.router_id = 0), Err(Unusable::RouterIdZero));
        assert_eq!(problem(|s| s.priority = 0), Err(Unusable::PriorityZero));
        assert_eq!(problem(|s| s.interval = Duration::from_millis(255)), Err(Unusable::Interval));
        assert_eq!(problem(|s| s.version = Version::V2), Err(Unusable::Interval));
        assert_eq!(problem(|s| s.startup_delay = Duration::MAX), Err(Unusable::Delay));
        assert_eq!(problem(|s| s.preemption = Preemption::After(2 * MAX_DELAY)), Err(Unusable::Delay));
        assert_eq!(problem(|s| s.announcements.refresh = 2 * MAX_DELAY), Err(Unusable::Delay));
        assert_eq!(problem(|s| s.addresses.clear()), Err(Unusable::NoAddresses));
        assert_eq!(problem(|s| s.addresses = vec![s.address; MAX_ADDRESSES + 1]), Err(Unusable::TooManyAddresses));
        assert_eq!(problem(|s| s.addresses.push(v6)), Err(Unusable::MixedFamilies));
        assert_eq!(problem(|s| s.transport = Transport::Unicast(vec![v6])), Err(Unusable::MixedFamilies));
        assert_eq!(problem(|s| s.password = Some(Password::from_text("secret"))), Err(Unusable::PasswordInV3));
        assert_eq!(problem(|s| s.transport = Transport::Unicast(vec![s.address])), Err(Unusable::OwnPeer));
        let v2_over_ipv6 = |s: &mut Settings| {
            *s = Settings::new(1, v6, vec![v6]);
            s.version = Version::V2;
            s.interval = Duration::from_secs(1);
        };
        assert_eq!(problem(v2_over_ipv6), Err(Unusable::V2OverIpv6));
    }

    #[test]
    fn intervals_that_can_be_said() {
        let millis = Duration::from_millis;
        for (version, interval, units) in [
            (Version::V2, millis(1_000), Some(1)),
            (Version::V2, millis(255_000), Some(255)),
            (Version::V2, millis(256_000), None),
            (Version::V2, millis(1_500), None),
            (Version::V2, millis(0), None),
            (Version::V3, millis(10), Some(1)),
            (Version::V3, millis(250), Some(25)),
            (Version::V3, millis(40_950), Some(4095)),
            (Version::V3, millis(40_960), None),
            (Version::V3, millis(15), None),
            (Version::V3, millis(0), None),
            (Version::V3, Duration::MAX, None),
        ] {
            assert_eq!(version.units(interval), units, "{version:?} {interval:?}");
        }
    }

    #[test]
    fn passwords_are_cut_and_not_shown() {
        assert_eq!(Password::from_text("pass").bytes(), b"pass\0\0\0\0");
        assert_eq!(Password::from_text("passwordthatislong").bytes(), b"password");
        assert!(!format!("{:?}", Password::from_text("pass")).contains("pass\\0"));
        assert_eq!(format!("{:?}", Password::from_text("hunter2")), "Password(not shown)");
    }
}
