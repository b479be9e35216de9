//! Services of IPVS, the kernel's own load balancer, that this node has: one with the same address, port and protocol as
//! one of kplb's cannot be. Which of the two a packet met would depend on the way that it came.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::Result;
use tracing::warn;

use super::obstacle::Obstacle;
use crate::config::{Config, Protocol};

/// Where the kernel lists them, if it has IPVS.
const LIST: &str = "/proc/net/ip_vs";

/// Makes sure that no service of the configuration is one of IPVS, too. One that goes by marks of packets has no address,
/// and cannot be compared.
pub(super) fn none_of(config: &Config) -> Result<()> {
    match list() {
        Ok(text) => Ok(none_in(&text, config)?),
        Err(error) => {
            warn!("cannot read {LIST}, and so not tell whether IPVS has a service of the same address: {error}");
            Ok(())
        }
    }
}

/// The kernel's list; empty without IPVS.
pub(crate) fn list() -> io::Result<String> {
    match fs::read_to_string(LIST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text,
    }
}

/// Makes sure that no service of the configuration is in the kernel's list.
pub(crate) fn none_in(list: &str, config: &Config) -> Result<(), Obstacle> {
    let services: Vec<_> = services(list).collect();
    let clash = config.services.iter().find(|service| services.contains(&(service.vip, service.protocol)));
    clash.map_or(Ok(()), |service| Err(clashes(service.vip, service.protocol)))
}

fn clashes(vip: SocketAddr, protocol: Protocol) -> Obstacle {
    let (name, option) = match protocol {
        Protocol::Tcp => ("tcp", "-t"),
        Protocol::Udp => ("udp", "-u"),
    };
    Obstacle::new(
        format!(
            "IPVS has a service {vip}/{name} as well, made by keepalived's `virtual_server`, by kube-proxy or by hand"
        ),
        format!(
            "take it away where it comes from (for kube-proxy with `excludeCIDRs`), and then with `ipvsadm -D {option} {vip}`"
        ),
    )
}

/// The services in the kernel's list (`ip_vs_info_seq_show` in net/netfilter/ipvs/ip_vs_ctl.c): protocol, address and port in
/// hexadecimal digits, an IPv6 address in brackets. The lines of their servers begin with an arrow.
fn services(text: &str) -> impl Iterator<Item = (SocketAddr, Protocol)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let protocol = match words.next()? {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        };
        let (address, port) = words.next()?.rsplit_once(':')?;
        let address = match address.strip_prefix('[') {
            Some(address) => IpAddr::V6(address.strip_suffix(']')?.parse().ok()?),
            None => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?)),
        };
        Some((SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?), protocol))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C6120064:192B wlc persistent 360 FFFFFFFF
  -> C612000B:192B      Masq    1      0          0         \n\
UDP  C6120064:0035 rr \n\
TCP  [2001:0002:0000:0000:0000:0000:0000:0100]:192B rr
  -> [2001:0002:0000:0000:0000:0000:0000:0011]:192B      Route   1      0          0         \n\
SCTP C6120064:192C rr \n\
FWM  00000001 wlc \n";

    #[test]
    fn services_are_told_from_servers_and_marks() {
        let expected = [
            ("198.18.0.100:6443", Protocol::Tcp),
            ("198.18.0.100:53", Protocol::Udp),
            ("[2001:2::100]:6443", Protocol::Tcp),
        ]
        .map(|(text, protocol)| (text.parse().expect("an address and port"), protocol));
        assert_eq!(services(TEXT).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn says_how_to_take_it_away() {
        let text = clashes("[2001:2::100]:53".parse().expect("an address and port"), Protocol::Udp).to_string();
        assert!(text.starts_with("IPVS has a service [2001:2::100]:53/udp as well"), "{text}");
        assert!(text.ends_with("`ipvsadm -D -u [2001:2::100]:53`"), "{text}");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(TCP|UDP|FWM)? *\\[?[0-9A-Fa-f:.\\]]{0,40}:?[0-9A-F]{0,6}.*") {
            services(&text).for_each(drop);
        }
    }
}
