//! What must be true before the agent touches an interface.

use std::{fs, ops::RangeInclusive, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use kplb_common::node::Vlan;
use tokio::time::{Instant, sleep};

use crate::netlink::{
    client::Netlink,
    features,
    message::{Link, XdpProgram},
};

const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The kernel detaches a program some time after its last pin is gone.
const DETACH_PATIENCE: Duration = Duration::from_secs(2);
const DETACH_POLL: Duration = Duration::from_millis(10);

/// Finds the interface, which must be an Ethernet interface that is up.
pub(super) async fn interface(netlink: &Netlink, name: &str) -> Result<Link> {
    let links = netlink.links().await?;
    let Some(link) = links.iter().find(|link| link.name == name) else {
        let names: Vec<_> = links.iter().filter(|link| link.mac.is_some()).map(|link| link.name.as_str()).collect();
        bail!("there is no interface {name}; Ethernet interfaces here: {}", list(&names));
    };
    ensure!(link.mac.is_some(), "{name} is not an Ethernet interface");
    ensure!(link.is_up, "{name} is down; set it up with `ip link set dev {name} up`");
    Ok(link.clone())
}

/// Finds the interface that has the node's addresses in a VLAN of `device`, which may be none: then it is the device itself.
pub(super) async fn vlan_interface(netlink: &Netlink, device: &Link, vlan: Vlan) -> Result<Link> {
    if vlan.is_none() {
        return Ok(device.clone());
    }
    let links = netlink.links().await?;
    let link = Link::of_vlan(&links, device.index, vlan).with_context(|| no_vlan_interface(&device.name, vlan))?;
    ensure!(link.is_up, "{} is down; set it up with `ip link set dev {0} up`", link.name);
    let stripping = features::active(&device.name).await?;
    if let Some(feature) = TAG_STRIPPING.into_iter().find(|feature| stripping.contains(*feature)) {
        bail!(
            "{0} takes VLAN tags off before an XDP program sees them ({feature}), so that the program cannot tell one \
             VLAN from another; make it leave them with `ethtool -K {0} {feature} off`",
            device.name
        );
    }
    Ok(link.clone())
}

/// Features of an interface that keep a VLAN tag from an XDP program (`net/ethtool/common.c` in the kernel).
const TAG_STRIPPING: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];

fn no_vlan_interface(device: &str, vlan: Vlan) -> String {
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
    format!(
        "{device} has no interface for VLAN {vlan}, which table [node] of the configuration names; add one, and give it this \
         node's address, as with `{}`",
        commands.join("` and `")
    )
}

/// Makes sure that the interface has no XDP program.
pub(super) async fn no_xdp(netlink: &Netlink, link: &Link) -> Result<()> {
    match without_xdp(netlink, link).await? {
        Some(program) => bail!("{}", foreign_program(&link.name, &program)),
        None => Ok(()),
    }
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

fn foreign_program(interface: &str, program: &XdpProgram) -> String {
    let ids: Vec<_> = program.ids.iter().map(ToString::to_string).collect();
    format!(
        "{interface} already has an XDP program (id {}, {} mode), and kplb does not replace it; \
         see it with `bpftool prog show` or `ip -details link show dev {interface}`, \
         and remove it with the tool that attached it or with `ip link set dev {interface} xdp off`",
        list(&ids),
        program.mode
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
    if !Path::new(LOCAL_PORT_RANGE).exists() {
        return Ok(());
    }
    let text = fs::read_to_string(LOCAL_PORT_RANGE).with_context(|| format!("read {LOCAL_PORT_RANGE}"))?;
    let local = port_range(&text).with_context(|| format!("understand {LOCAL_PORT_RANGE}"))?;
    ensure!(
        !overlap(nat, &local),
        "the NAT ports {}-{} overlap the ports of the node's own connections, {}-{} (net.ipv4.ip_local_port_range); \
         set others as `nat_ports` in table [node] of the configuration, or move the node's with \
         `sysctl net.ipv4.ip_local_port_range=\"32768 60999\"`",
        nat.start(),
        nat.end(),
        local.start(),
        local.end()
    );
    Ok(())
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next()?, ports.next()?) {
        (Ok(first), Ok(last)) => Some(first..=last),
        _ => None,
    }
}

fn overlap(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(port_range("32768"), None);
        assert_eq!(port_range("a b"), None);
        assert!(overlap(&(10..=20), &(20..=30)));
        assert!(overlap(&(10..=40), &(20..=30)));
        assert!(!overlap(&(10..=19), &(20..=30)));
        assert!(!overlap(&(31..=40), &(20..=30)));
    }

    #[test]
    fn says_how_to_add_what_is_missing() {
        let text = no_vlan_interface("eth0", Vlan([42, 0]));
        assert!(text.starts_with("eth0 has no interface for VLAN 42, "), "{text}");
        assert!(text.ends_with("`ip link add link eth0 name eth0.42 type vlan id 42`"), "{text}");
        let text = no_vlan_interface("eth0", Vlan([100, 42]));
        assert!(text.starts_with("eth0 has no interface for VLAN 100.42, "), "{text}");
        assert!(text.contains("`ip link add link eth0 name eth0.100 type vlan id 100`"), "{text}");
        assert!(text.ends_with("`ip link add link eth0.100 name eth0.100.42 type vlan id 42`"), "{text}");
    }

    #[test]
    fn names_the_foreign_program() {
        let text = foreign_program("eth0", &XdpProgram { ids: vec![12], mode: "native" });
        assert!(text.starts_with("eth0 already has an XDP program (id 12, native mode)"), "{text}");
    }
}
