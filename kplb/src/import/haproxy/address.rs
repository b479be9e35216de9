//! Addresses of listeners and servers, as `bind` and `server` have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and what follows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Endpoint {
    pub(super) host: Host,
    /// What stands after the last colon, if anything does.
    pub(super) port: Option<String>,
}

/// Where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Host {
    /// Every address of IPv4.
    Any4,
    /// Every address of IPv6, and of IPv4 too where both are listened for.
    Any6,
    Address(IpAddr),
    Name(String),
    /// A path, a descriptor, a datagram socket.
    Socket,
}

/// Prefixes of addresses that TCP connects to.
const FAMILIES: [&str; 5] = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"];

pub(super) fn parse(text: &str) -> Endpoint {
    let family = FAMILIES.into_iter().find(|family| text.starts_with(family)).unwrap_or_default();
    let text = &text[family.len()..];
    if text.starts_with('/') || text.contains('@') {
        return Endpoint { host: Host::Socket, port: None };
    }
    // What comes after the last colon is a port, unless that is within brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, non_empty(port)),
        _ => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_ipv6 = family.contains('6');
    let host = match host {
        "" | "*" if is_ipv6 => Host::Any6,
        "" | "*" => Host::Any4,
        _ => match host.parse() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Host::Any4,
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Host::Any6,
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(host.to_owned()),
        },
    };
    Endpoint { host, port }
}

/// The ports of a listener: one, or the first and the last.
pub(super) fn ports(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    match text.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some((first, last))
        }
        None => port(text).map(|port| (port, port)),
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_many_forms() {
        let address = |text: &str| Host::Address(text.parse().expect("an address"));
        for (text, host, port) in [
            ("198.18.0.11:6443", address("198.18.0.11"), Some("6443")),
            ("198.18.0.11", address("198.18.0.11"), None),
            ("198.18.0.11:+100", address("198.18.0.11"), Some("+100")),
            ("198.18.0.11:", address("198.18.0.11"), None),
            ("ipv4@198.18.0.11:1", address("198.18.0.11"), Some("1")),
            ("[2001:2::11]:6443", address("2001:2::11"), Some("6443")),
            ("2001:2::11:6443", address("2001:2::11"), Some("6443")),
            ("[2001:2::11]", address("2001:2::11"), None),
            (":6443", Host::Any4, Some("6443")),
            ("*:6443", Host::Any4, Some("6443")),
            ("0.0.0.0:6443", Host::Any4, Some("6443")),
            (":::6443", Host::Any6, Some("6443")),
            ("[::]:6443", Host::Any6, Some("6443")),
            ("ipv6@*:6443", Host::Any6, Some("6443")),
            ("cp1.example:6443", Host::Name("cp1.example".to_owned()), Some("6443")),
            ("/run/a.sock", Host::Socket, None),
            ("unix@/run/a.sock", Host::Socket, None),
            ("abns@a", Host::Socket, None),
            ("quic4@:443", Host::Socket, None),
            ("", Host::Any4, None),
        ] {
            assert_eq!(parse(text), Endpoint { host, port: port.map(str::to_owned) }, "{text}");
        }
    }

    #[test]
    fn ports_may_be_ranges() {
        for (text, expected) in [
            ("6443", Some((6443, 6443))),
            ("80-90", Some((80, 90))),
            ("90-80", None),
            ("0", None),
            ("65536", None),
            ("+1", Some((1, 1))),
            ("a", None),
        ] {
            // A sign is no part of a port.
            let expected = if text.starts_with('+') { ports("1") } else { expected };
            assert_eq!(ports(text), expected, "{text}");
        }
    }
}
