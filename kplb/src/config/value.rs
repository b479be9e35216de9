//! Single values as users write them.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

/// What is wrong with a value, and what to write instead.
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// Ports below this one belong to the system.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;
/// Longer names do not fit in a table.
const MAX_NAME_LENGTH: usize = 64;

/// A value as messages show it: quoted, on one line.
pub(crate) fn shown(text: &str) -> String {
    format!("`{}`", text.escape_debug())
}

/// An address and port of a host.
pub(crate) fn endpoint(text: &str) -> Result<SocketAddr, Wrong> {
    let endpoint: SocketAddr = text.parse().map_err(|_| not_an_endpoint(text))?;
    if let Some((what, hint)) = unusable(endpoint.ip()) {
        return Err(Wrong::new(format!("{} {what}", endpoint.ip()), hint));
    }
    if endpoint.port() == 0 {
        return Err(Wrong::new(format!("port 0 in {}", shown(text)), "ports are 1 to 65535"));
    }
    if let SocketAddr::V6(v6) = endpoint
        && v6.scope_id() != 0
    {
        return Err(Wrong::new(format!("{} names an interface", shown(text)), "leave out the part from `%` on"));
    }
    Ok(endpoint)
}

fn not_an_endpoint(text: &str) -> Wrong {
    const EXAMPLES: &str = "write it as 198.18.0.100:6443 or [2001:2::100]:6443";

    let shown = shown(text);
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => Wrong::new(format!("{shown} has no port"), format!("add it, as in {address}:6443")),
        Ok(IpAddr::V6(address)) => {
            Wrong::new(format!("{shown} has no port"), format!("add brackets and the port, as in [{address}]:6443"))
        }
        Err(_) if text.starts_with(|first: char| first.is_ascii_alphabetic()) && !text.contains("::") => {
            Wrong::new(format!("{shown} is not an IP address and port"), format!("names are not resolved, {EXAMPLES}"))
        }
        Err(_) => Wrong::new(format!("{shown} is not an IP address and port"), EXAMPLES),
    }
}

/// Why an address cannot be that of a service or a server behind a wire, and what to write instead.
pub(crate) fn unusable(address: IpAddr) -> Option<(&'static str, String)> {
    const UNICAST: &str = "use a unicast address that other hosts can reach";

    let what = match address {
        _ if address.is_unspecified() => "is the unspecified address",
        _ if address.is_loopback() => "is a loopback address, which other hosts cannot reach",
        _ if address.is_multicast() => "is a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address",
        IpAddr::V4(v4) if v4.is_link_local() => "is a link-local address",
        // RFC 1122, 3.2.1.3 (0/8: this network) and RFC 1112, section 4 (240/4: reserved).
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240 => "is a reserved address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "is a link-local address",
        IpAddr::V6(v6) => {
            let v4 = v6.to_ipv4_mapped()?;
            return Some(("is an IPv4 address in IPv6 form", format!("write {v4}")));
        }
        IpAddr::V4(_) => return None,
    };
    Some((what, UNICAST.to_owned()))
}

/// A range of ports that the system does not use itself.
pub(crate) fn ports(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    const EXAMPLE: &str = "write the first and the last port, as in 10000-32767";

    let bounds = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?)));
    let (first, last) =
        bounds.ok_or_else(|| Wrong::new(format!("{} is not a range of ports", shown(text)), EXAMPLE))?;
    if last < first {
        return Err(Wrong::new(format!("the range `{text}` is reversed"), format!("write {last}-{first}")));
    }
    if first < FIRST_UNPRIVILEGED_PORT {
        return Err(Wrong::new(
            format!("the range `{text}` reaches below port {FIRST_UNPRIVILEGED_PORT}, which belong to the system"),
            EXAMPLE,
        ));
    }
    Ok(first..=last)
}

/// A duration of `range`.
pub(crate) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let duration = humantime::parse_duration(text).map_err(|_| {
        Wrong::new(format!("{} is not a duration", shown(text)), "write a number and a unit, as in 500ms, 10s or 24h")
    })?;
    within(duration, range, |bound| humantime::format_duration(*bound).to_string())
        .map_err(|hint| Wrong::new(format!("`{text}` makes no sense here"), hint))
}

/// What an HTTP request asks for.
pub(crate) fn path(text: &str) -> Result<String, Wrong> {
    let is_visible = |c: char| c.is_ascii_graphic();
    if !text.starts_with('/') || !text.chars().all(is_visible) {
        return Err(Wrong::new(format!("{} is not a path", shown(text)), "begin with a slash, as in /readyz"));
    }
    Ok(text.to_owned())
}

/// Something that stands in a header.
pub(crate) fn header(text: &str) -> Result<String, Wrong> {
    let is_visible = |c: char| c.is_ascii_graphic();
    if text.is_empty() || !text.chars().all(is_visible) {
        return Err(Wrong::new(
            format!("{} cannot stand in a header", shown(text)),
            "use printable ASCII without spaces",
        ));
    }
    Ok(text.to_owned())
}

/// A host's name or address, as certificates have it.
pub(crate) fn server_name(text: &str) -> Result<String, Wrong> {
    match rustls::pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Wrong::new(
            format!("{} is not a host's name or address", shown(text)),
            "write it as a certificate has it, as in apiserver.example or 198.18.0.11",
        )),
    }
}

/// Path of a file.
pub(crate) fn file(text: &str) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Wrong::new(
            format!("{} is not an absolute path", shown(text)),
            "begin with a slash: where kplb is started varies",
        ))
    }
}

/// An integer of `range`.
pub(crate) fn integer<T: PartialOrd + Display + Copy + TryFrom<i128>>(
    number: i128,
    range: &RangeInclusive<T>,
) -> Result<T, Wrong> {
    let hint = || format!("it must be {} to {}", range.start(), range.end());
    let value = T::try_from(number).map_err(|_| Wrong::new(format!("{number} is out of range"), hint()))?;
    within(value, range, T::to_string).map_err(|hint| Wrong::new(format!("{number} is out of range"), hint))
}

fn within<T: PartialOrd>(value: T, range: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> Result<T, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(format!("it must be {} to {}", show(range.start()), show(range.end())))
    }
}

/// A name that fits in a table and in a command line.
pub(crate) fn name(text: &str) -> Result<String, Wrong> {
    let is_printable = |c: char| !c.is_whitespace() && !c.is_control();
    if text.is_empty() || text.chars().count() > MAX_NAME_LENGTH || !text.chars().all(is_printable) {
        let rule = format!("use 1 to {MAX_NAME_LENGTH} printable characters without spaces");
        return Err(Wrong::new(format!("{} cannot be a name", shown(text)), rule));
    }
    Ok(text.to_owned())
}
