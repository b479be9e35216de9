//! What a received advert must be to count: the checks of RFC 9568, section 7.1, and RFC 3768, section 7.1.
//!
//! Invariant: what is decoded has passed every check; nothing in a packet makes this panic.

use std::{fmt, net::IpAddr, time::Duration};

use thiserror::Error;

use super::{
    checksum::{PseudoHeader, checksum},
    packet::{AUTH_NONE, AUTH_PASS, Advert, TYPE_ADVERT},
    settings::{Coverage, PRIORITY_OWNER, Password, Settings, Version},
};

/// Nobody can have forwarded a packet that has it (RFC 5082).
const HOP_LIMIT: u8 = 255;
/// The bits of the interval in the third word of version 3 (RFC 9568, sections 5.2.6 and 5.2.7).
const INTERVAL_MASK: u16 = 0x0fff;

/// What matters of the IP header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Who sent it.
    pub source: IpAddr,
    /// To whom, as it is on the wire: the group, or this node.
    pub destination: IpAddr,
    /// The IPv4 TTL or the IPv6 hop limit.
    pub hop_limit: u8,
}

/// Why an advert does not count.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
pub enum Invalid {
    /// No complete header (RFC 9568, section 7.1).
    #[error("it is shorter than its header")]
    TooShort,
    /// Another virtual router's: no fault at all (RFC 9568, section 7.1).
    #[error("it is of another router id")]
    RouterId,
    /// The IP header's addresses are not of this virtual router's family (RFC 9568, section 5.2.9).
    #[error("it is of the other address family")]
    Family,
    /// This node's own, looped, or of one with the same address. Neither would win between equal priorities.
    #[error("it comes from this node's own address: looped by the network, or the address is used twice")]
    OwnAddress,
    /// Peers are listed, and the sender is none of them; keepalived's `vrrp_check_unicast_src`. A stranger that
    /// counted could silence the VIP.
    #[error("it comes from a stranger: another cluster uses the same router id, or a peer is not listed")]
    NotAPeer,
    /// RFC 9568, sections 5.1.1.3 and 5.1.2.3.
    #[error("its hop limit is not 255, so it may come from beyond the segment")]
    HopLimit,
    /// RFC 9568, section 7.1.
    #[error("it is of another version of VRRP")]
    Version,
    /// RFC 9568, section 5.2.2.
    #[error("it is no advert")]
    Type,
    /// Not as long as its count of addresses says (RFC 9568, section 7.1). What is too long is refused as well: the
    /// checksum does not cover it.
    #[error("its length is not that of its addresses")]
    Length,
    /// RFC 9568, section 5.2.5, erratum 8299.
    #[error("it names no address")]
    NoAddresses,
    /// RFC 9568, section 7.1.
    #[error("its checksum is wrong")]
    Checksum,
    /// Version 2: one has a password, the other has none (RFC 3768, section 7.1).
    #[error("only one of it and this node has a password")]
    AuthType,
    /// Version 2 (RFC 2338, section 7.1).
    #[error("its password is another one")]
    Password,
    /// Version 3 (RFC 9568, section 7.1, erratum 8301).
    #[error("its interval is zero")]
    IntervalZero,
    /// Version 2, where intervals must agree (RFC 3768, section 7.1). Both nodes become master: it must be seen.
    #[error("its interval is not this node's, as version 2 demands: both become master")]
    Interval,
    /// Over IPv6: this node's first address is link-local, its is not (RFC 9568, section 5.2.9, erratum 8300). A node
    /// that has no such address itself cannot demand it; a VIP of a balancer, which is nobody's gateway, needs none.
    #[error("its first address is not link-local")]
    LinkLocal,
    /// It names none of this virtual router's addresses; see [`decode`].
    #[error("it names none of these VIPs: another cluster uses the same router id")]
    Addresses,
}

impl Invalid {
    /// All, in the order of the checks.
    pub const ALL: [Self; 17] = [
        Self::TooShort,
        Self::RouterId,
        Self::Family,
        Self::OwnAddress,
        Self::NotAPeer,
        Self::HopLimit,
        Self::Version,
        Self::Type,
        Self::Length,
        Self::NoAddresses,
        Self::Checksum,
        Self::AuthType,
        Self::Password,
        Self::IntervalZero,
        Self::Interval,
        Self::LinkLocal,
        Self::Addresses,
    ];

    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too-short",
            Self::RouterId => "router-id",
            Self::Family => "family",
            Self::OwnAddress => "own-address",
            Self::NotAPeer => "not-a-peer",
            Self::HopLimit => "hop-limit",
            Self::Version => "version",
            Self::Type => "type",
            Self::Length => "length",
            Self::NoAddresses => "no-addresses",
            Self::Checksum => "checksum",
            Self::AuthType => "auth-type",
            Self::Password => "password",
            Self::IntervalZero => "interval-zero",
            Self::Interval => "interval",
            Self::LinkLocal => "link-local",
            Self::Addresses => "addresses",
        }
    }

    /// Whether it says that a foreign virtual router on the segment uses this one's id: to be reported, not fought.
    pub const fn is_foreign(self) -> bool {
        matches!(self, Self::NotAPeer | Self::Addresses)
    }
}

/// What is odd about an advert that counts: a difference in the configurations, most likely.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Remark {
    /// Some addresses are this virtual router's, others are not, or some are missing.
    Addresses,
    /// Version 3: its interval is not this node's (RFC 9568, section 7.1). A backup goes by the master's.
    Interval,
    /// It says that it owns the addresses, and so does this node (RFC 9568, section 7.1, erratum 8298).
    Owner,
    /// Its checksum covers the pseudo-header where this node's do not, or the other way round. It may discard this
    /// node's adverts.
    Coverage,
}

impl Remark {
    /// All.
    pub const ALL: [Self; 4] = [Self::Addresses, Self::Interval, Self::Owner, Self::Coverage];

    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Addresses => "addresses-differ",
            Self::Interval => "interval-differs",
            Self::Owner => "two-owners",
            Self::Coverage => "checksum-coverage-differs",
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addresses => "it does not name the same VIPs as this node",
            Self::Interval => "its interval is not this node's",
            Self::Owner => "it claims to own the VIPs, as this node does",
            Self::Coverage => "its checksums are not of the form that this node sends, and it may discard this node's",
        })
    }
}

/// An advert that counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Received {
    /// As it was sent.
    pub advert: Advert,
    /// What its checksum covers.
    pub coverage: Coverage,
    /// What is odd about it.
    pub remarks: Vec<Remark>,
}

/// Checks and decodes what followed an IP header.
///
/// What another virtual router sends is told first, so that it counts as nothing else.
///
/// **Addresses.** The RFCs let a receiver compare the addresses; if they differ, version 2 must discard the advert
/// (RFC 3768, section 7.1), version 3 logs it and goes on (RFC 9568, section 7.1). Here both versions do what keeps
/// the VIPs up. With *some* address in common, the nodes are of one cluster whose configuration is being changed, and
/// two masters would fight for that address: the advert counts, with a [`Remark`]. With *none* in common, the sender
/// is another cluster's, and this one's VIPs must not go down because of it: the advert does not count. Without a
/// virtual MAC both can be master side by side.
///
/// **Owners.** A local owner need not discard the adverts of others (RFC 9568, erratum 8298; RFC 3768, section 7.1
/// does): the [state machine](super::fsm) answers them, which ends a double mastership sooner.
pub fn decode(message: &[u8], header: &Header, settings: &Settings) -> Result<Received, Invalid> {
    let &[version_and_type, router_id, priority, count, fifth, sixth, _, _, ref body @ ..] = message else {
        return Err(Invalid::TooShort);
    };
    check(router_id == settings.router_id, Invalid::RouterId)?;
    check_header(header, settings)?;
    check(version_and_type >> 4 == settings.version.number(), Invalid::Version)?;
    check(version_and_type & 0xf == TYPE_ADVERT, Invalid::Type)?;

    let address_length = if header.source.is_ipv4() { 4 } else { 16 };
    let (addresses, password) = body.split_at_checked(usize::from(count) * address_length).ok_or(Invalid::Length)?;
    let password = match settings.version {
        Version::V2 => Some(<[u8; Password::LENGTH]>::try_from(password).map_err(|_| Invalid::Length)?),
        Version::V3 if password.is_empty() => None,
        Version::V3 => return Err(Invalid::Length),
    };
    check(count != 0, Invalid::NoAddresses)?;
    let coverage = verified(message, header, settings.version)?;

    let (interval, password) = match password {
        Some(password) => {
            let password = check_v2(fifth, Password::new(password), settings)?;
            (Duration::from_secs(sixth.into()), password)
        }
        None => {
            let units = u16::from_be_bytes([fifth, sixth]) & INTERVAL_MASK;
            check(units != 0, Invalid::IntervalZero)?;
            (settings.version.interval_unit() * u32::from(units), None)
        }
    };
    check(settings.version == Version::V3 || interval == settings.interval, Invalid::Interval)?;

    let addresses: Vec<IpAddr> = addresses.chunks_exact(address_length).filter_map(address).collect();
    let is_link_local = |addresses: &[IpAddr]| addresses.first().is_some_and(is_link_local);
    check(!is_link_local(&settings.addresses) || is_link_local(&addresses), Invalid::LinkLocal)?;
    let is_ours = |address: &IpAddr| settings.addresses.contains(address);
    check(addresses.iter().any(is_ours), Invalid::Addresses)?;

    let is_the_same = addresses.iter().all(is_ours) && settings.addresses.iter().all(|own| addresses.contains(own));
    let has_two_forms = settings.version == Version::V3 && header.source.is_ipv4();
    let remarks = [
        (!is_the_same, Remark::Addresses),
        (interval != settings.interval, Remark::Interval),
        (priority == PRIORITY_OWNER && settings.is_owner(), Remark::Owner),
        (has_two_forms && coverage != settings.coverage, Remark::Coverage),
    ];
    let remarks = remarks.into_iter().filter_map(|(holds, remark)| holds.then_some(remark)).collect();
    let advert = Advert { version: settings.version, router_id, priority, interval, addresses, password };
    Ok(Received { advert, coverage, remarks })
}

fn check(holds: bool, otherwise: Invalid) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn check_header(header: &Header, settings: &Settings) -> Result<(), Invalid> {
    let is_ipv4 = settings.address.is_ipv4();
    check(header.source.is_ipv4() == is_ipv4 && header.destination.is_ipv4() == is_ipv4, Invalid::Family)?;
    check(header.source != settings.address, Invalid::OwnAddress)?;
    check(settings.transport.accepts(&header.source), Invalid::NotAPeer)?;
    check(header.hop_limit == HOP_LIMIT, Invalid::HopLimit)
}

/// Version 2's authentication. Without any, what stands in the field is ignored (RFC 3768, section 5.3.10).
fn check_v2(auth_type: u8, password: Password, settings: &Settings) -> Result<Option<Password>, Invalid> {
    match settings.password {
        None => check(auth_type == AUTH_NONE, Invalid::AuthType).map(|()| None),
        Some(own) => {
            check(auth_type == AUTH_PASS, Invalid::AuthType)?;
            check(password == own, Invalid::Password)?;
            Ok(Some(password))
        }
    }
}

/// What the checksum covers; over IPv4 version 3 has two forms.
fn verified(message: &[u8], header: &Header, version: Version) -> Result<Coverage, Invalid> {
    let &Header { source, destination, .. } = header;
    let holds = |pseudo_header| checksum(message, pseudo_header) == 0;
    let with_pseudo_header = || holds(Some(PseudoHeader { source, destination }));
    match (version, source) {
        (Version::V3, _) if with_pseudo_header() => Ok(Coverage::PseudoHeader),
        (Version::V2, _) | (Version::V3, IpAddr::V4(_)) if holds(None) => Ok(Coverage::Message),
        _ => Err(Invalid::Checksum),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests;
