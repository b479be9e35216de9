//! What must be true before the agent touches an interface.

use std::{collections::BTreeSet, fs, ops::RangeInclusive, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use kplb_common::node::Vlan;
use tokio::time::{Instant, sleep};

use super::obstacle::Obstacle;
use crate::{
    dataplane,
    netlink::{
        client::Netlink,
        message::{Link, XdpProgram},
    },
};

const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// The kernel detaches a program some time after its last pin is gone.
pub(super) const DETACH_PATIENCE: Duration = Duration::from_secs(2);
pub(super) const DETACH_POLL: Duration = Duration::from_millis(10);

/// Finds the interface, which must be an Ethernet interface that is up.
pub(super) async fn interface(netlink: &Netlink, name: &str) -> Result<Link> {
    Ok(find(&netlink.links().await?, name)?.clone())
}

/// The interface of this name, which must be an Ethernet interface that is up.
pub(crate) fn find<'l>(links: &'l [Link], name: &str) -> Result<&'l Link, Obstacle> {
    let Some(link) = links.iter().find(|link| link.name == name) else {
        let names: Vec<_> = links.iter().filter(|link| link.mac.is_some()).map(|link| link.name.as_str()).collect();
        let advice = format!("Ethernet interfaces here: {}", list(&names));
        return Err(Obstacle::new(format!("there is no interface {name}"), advice));
    };
    if link.mac.is_none() {
        return Err(Obstacle::new(format!("{name} is not an Ethernet interface"), "attach to one that is"));
    }
    is_up(link)
}

fn is_up(link: &Link) -> Result<&Link, Obstacle> {
    let Link { name, .. } = link;
    let advice = || format!("set it up with `ip link set dev {name} up`");
    if link.is_up { Ok(link) } else { Err(Obstacle::new(format!("{name} is down"), advice())) }
}

/// Finds the interface that has the node's addresses in a VLAN of `device`, which may be none: then it is the device itself.
pub(super) async fn vlan_interface(netlink: &Netlink, device: &Link, vlan: Vlan) -> Result<Link> {
    if vlan.is_none() {
        return Ok(device.clone());
    }
    let links = netlink.links().await?;
    Ok(find_vlan(&links, device, vlan)?.clone())
}

/// The interface that has the node's addresses in a VLAN of `device`.
pub(crate) fn find_vlan<'l>(links: &'l [Link], device: &Link, vlan: Vlan) -> Result<&'l Link, Obstacle> {
    is_up(Link::of_vlan(links, device.index, vlan).ok_or_else(|| no_vlan_interface(&device.name, vlan))?)
}

/// Makes sure that an interface, of which these features are on, leaves VLAN tags on frames.
pub(crate) fn leaves_tags(device: &str, active: &BTreeSet<String>) -> Result<(), Obstacle> {
    let Some(feature) = TAG_STRIPPING.into_iter().find(|feature| active.contains(*feature)) else { return Ok(()) };
    Err(Obstacle::new(
        format!(
            "{device} takes VLAN tags off before an XDP program sees them ({feature}), so that the program cannot tell one \
             VLAN from another"
        ),
        format!(
            "`--mode auto` or `--mode tc` takes them from where they are; or make it leave them with `ethtool -K {device} \
             {feature} off`"
        ),
    ))
}

/// Makes sure that an interface can have TC programs on both of its sides.
pub(super) async fn takes_tc_programs(netlink: &Netlink, device: &Link) -> Result<()> {
    if has_no_place_for_filters(netlink, device).await? {
        Err(no_place_for_filters(&device.name).into())
    } else {
        Ok(())
    }
}

/// Whether TC programs are filters here, as the kernel has no links for them, and there is no place for such at egress.
pub(crate) async fn has_no_place_for_filters(netlink: &Netlink, device: &Link) -> Result<bool> {
    Ok(!dataplane::has_tc_links() && netlink.has_ingress_discipline(device.index).await?)
}

/// That there is none.
pub(crate) fn no_place_for_filters(interface: &str) -> Obstacle {
    Obstacle::new(
        format!(
            "{interface} has the queueing discipline `ingress`, next to which there is no `clsact` for kplb's filters"
        ),
        format!(
            "add `clsact` in its place, which does the same and more: `tc qdisc del dev {interface} ingress`, then `tc qdisc \
             add dev {interface} clsact`; its filters must be added again"
        ),
    )
}

/// Features of an interface that keep a VLAN tag from an XDP program (`net/ethtool/common.c` in the kernel).
const TAG_STRIPPING: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];

fn no_vlan_interface(device: &str, vlan: Vlan) -> Obstacle {
    let mut lower = device.to_owned();
    let commands: Vec<String> = vlan
        .identifiers()
        .map(|identifier| {
            let name = format!("{lower}.{identifier}");
            let command = format!("ip link add link {lower} name {name} type vlan id {identifier}");
            lower = name;
            command
        })
        .collect();
    Obstacle::new(
        format!("{device} has no interface for VLAN {vlan}, which table [node] of the configuration names"),
        format!("add one, and give it this node's address, as with `{}`", commands.join("` and `")),
    )
}

/// Waits until the interface has no XDP program, and gives back the one that stays.
pub(super) async fn without_xdp(netlink: &Netlink, link: &Link) -> Result<Option<XdpProgram>> {
    let deadline = Instant::now() + DETACH_PATIENCE;
    let mut program = link.xdp.clone();
    while program.is_some() && Instant::now() < deadline {
        sleep(DETACH_POLL).await;
        program = netlink.link(link.index).await?.and_then(|link| link.xdp);
    }
    Ok(program)
}

/// That an interface has a program of somebody else.
pub(crate) fn foreign_program(interface: &str, program: &XdpProgram) -> Obstacle {
    Obstacle::new(
        format!("{interface} already has {program}, and kplb does not replace it"),
        format!(
            "`--mode auto` or `--mode tc` leaves it there and does without; see it with `bpftool prog show` or `ip -details link show dev {interface}`, and remove it with the tool that \
             attached it or with `ip link set dev {interface} xdp off`"
        ),
    )
}

fn list(items: &[impl AsRef<str>]) -> String {
    if items.is_empty() {
        return "none".into();
    }
    items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// Makes sure that no connection of the node's own can have a port of the NAT range.
pub(super) fn nat_ports(nat: &RangeInclusive<u16>) -> Result<()> {
    match own_ports()? {
        Some(own) => Ok(own.are_apart_from(nat)?),
        None => Ok(()),
    }
}

/// The ports that the kernel gives to the node's own connections.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OwnPorts {
    /// From the first to the last…
    pub(crate) range: RangeInclusive<u16>,
    /// …without these.
    pub(crate) reserved: Vec<RangeInclusive<u16>>,
}

/// Reads them; a network namespace may have no such setting.
pub(crate) fn own_ports() -> Result<Option<OwnPorts>> {
    if !Path::new(LOCAL_PORT_RANGE).exists() {
        return Ok(None);
    }
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
    let range = port_range(&read(LOCAL_PORT_RANGE)?).with_context(|| format!("understand {LOCAL_PORT_RANGE}"))?;
    let reserved = read(RESERVED_PORTS)?;
    let reserved = port_ranges(&reserved).with_context(|| format!("understand {RESERVED_PORTS}"))?;
    Ok(Some(OwnPorts { range, reserved }))
}

impl OwnPorts {
    /// Whether none of them is in the NAT range.
    pub(crate) fn are_apart_from(&self, nat: &RangeInclusive<u16>) -> Result<(), Obstacle> {
        let is_reserved = |port: &u16| self.reserved.iter().any(|range| range.contains(port));
        let mut common = *nat.start().max(self.range.start())..=*nat.end().min(self.range.end());
        if common.all(|port| is_reserved(&port)) {
            return Ok(());
        }
        Err(Obstacle::new(
            format!(
                "the NAT ports {}-{} overlap the ports of the node's own connections, {}-{} (net.ipv4.ip_local_port_range)",
                nat.start(),
                nat.end(),
                self.range.start(),
                self.range.end()
            ),
            "set others as `nat_ports` in table [node] of the configuration, or move the node's with \
             `sysctl net.ipv4.ip_local_port_range=\"32768 60999\"`",
        ))
    }
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next()?, ports.next()?) {
        (Ok(first), Ok(last)) => Some(first..=last),
        _ => None,
    }
}

/// Ranges as `net.ipv4.ip_local_reserved_ports` has them: `8080,9148-9200`.
fn port_ranges(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let ranges = text.trim().split(',').filter(|range| !range.is_empty());
    ranges
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        assert_eq!(port_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(port_range("32768"), None);
        assert_eq!(port_range("a b"), None);
        assert_eq!(port_ranges("8080,9148-9200\n"), Some(vec![8080..=8080, 9148..=9200]));
        assert_eq!(port_ranges("\n"), Some(Vec::new()));
        assert_eq!(port_ranges("1-2-3"), None);
    }

    #[test]
    fn ports_of_both_kinds() {
        let own = |reserved: &[RangeInclusive<u16>]| OwnPorts { range: 20..=30, reserved: reserved.to_vec() };
        assert!(own(&[]).are_apart_from(&(10..=20)).is_err());
        assert!(own(&[]).are_apart_from(&(10..=40)).is_err());
        assert!(own(&[]).are_apart_from(&(10..=19)).is_ok());
        assert!(own(&[]).are_apart_from(&(31..=40)).is_ok());
        // What is reserved the kernel gives to nobody.
        assert!(own(&[20..=25, 26..=28]).are_apart_from(&(10..=28)).is_ok());
        assert!(own(&[20..=25, 26..=28]).are_apart_from(&(10..=29)).is_err());
    }

    #[test]
    fn says_how_to_add_what_is_missing() {
        let text = no_vlan_interface("eth0", Vlan([42, 0])).to_string();
        assert!(text.starts_with("eth0 has no interface for VLAN 42, "), "{text}");
        assert!(text.ends_with("`ip link add link eth0 name eth0.42 type vlan id 42`"), "{text}");
        let text = no_vlan_interface("eth0", Vlan([100, 42])).to_string();
        assert!(text.starts_with("eth0 has no interface for VLAN 100.42, "), "{text}");
        assert!(text.contains("`ip link add link eth0 name eth0.100 type vlan id 100`"), "{text}");
        assert!(text.ends_with("`ip link add link eth0.100 name eth0.100.42 type vlan id 42`"), "{text}");
    }

    #[test]
    fn names_the_foreign_program() {
        let text = foreign_program("eth0", &XdpProgram { ids: vec![12], mode: "native" }).to_string();
        assert!(text.starts_with("eth0 already has an XDP program (id 12, native mode)"), "{text}");
    }
}
