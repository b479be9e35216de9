//! Which packets are asked for: as the data path understands it, and in all detail.

use std::{collections::BTreeSet, net::SocketAddr, str::FromStr};

use kplb_common::{
    net::{Address as _, Ip4, Ip6},
    trace::TraceRequest,
    verdict::{DropReason, ForwardReason, PassReason, ResetReason, Verdict},
};

use crate::{dataplane::from_ip, model::Endpoint, prefix::Prefix};

/// What a packet must be to be shown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Its client's address begins so.
    pub client: Option<Prefix>,
    /// It is of one of these services.
    pub services: Option<Vec<Endpoint>>,
    /// It has one of these verdicts; without, any but those of packets that are passed on as they are.
    pub verdicts: Vec<VerdictSet>,
}

/// Verdicts under one name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerdictSet(Vec<Verdict>);

/// What the data path is asked for: no less than what is wanted.
pub fn request(wanted: &Wanted, sample: u32, rate: u32) -> TraceRequest {
    let mut request =
        TraceRequest { verdicts: verdict_bits(&wanted.verdicts), sample, rate, ..TraceRequest::default() };
    if let Some(prefix) = wanted.client {
        let (mask, address) = (prefix.mask(), prefix.address());
        let (mask, address): (Ip6, Ip6) = (from_ip(mask), from_ip(address));
        let (mask, address) = (mask.to_wire(), address.to_wire());
        request.client_mask = Ip6::from_wire(mask);
        request.client = Ip6::from_wire(std::array::from_fn(|i| address[i] & mask[i]));
        request.client_version = version(prefix.address().is_ipv4());
    }
    // One VIP, or the data path would have to look for it in a table.
    let vips: BTreeSet<_> = wanted.services.iter().flatten().map(|service| service.address.ip()).collect();
    if vips.len() == 1
        && let Some(vip) = vips.first()
    {
        request.vip = from_ip(*vip);
        request.vip_version = version(vip.is_ipv4());
    }
    request
}

const fn version(is_ipv4: bool) -> u8 {
    if is_ipv4 { Ip4::VERSION } else { Ip6::VERSION }
}

fn verdict_bits(sets: &[VerdictSet]) -> u64 {
    let bit = |verdict: Verdict| 1 << verdict.index();
    if sets.is_empty() {
        return Verdict::all().filter(|verdict| !matches!(verdict, Verdict::Pass(_))).fold(0, |bits, v| bits | bit(v));
    }
    sets.iter().flat_map(|set| &set.0).fold(0, |bits, verdict| bits | bit(*verdict))
}

impl Wanted {
    /// Whether a packet is wanted whose verdict is: one of this service, with these addresses for its client's.
    pub fn takes(&self, service: Option<&Endpoint>, clients: &[SocketAddr]) -> bool {
        self.client.is_none_or(|prefix| clients.iter().any(|client| prefix.contains(client.ip())))
            && self.services.as_ref().is_none_or(|services| service.is_some_and(|own| services.contains(own)))
    }
}

impl FromStr for VerdictSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let set: Vec<Verdict> = match text {
            "pass" => PassReason::ALL.iter().copied().map(Verdict::Pass).collect(),
            "forward" => ForwardReason::ALL.iter().copied().map(Verdict::Forward).collect(),
            "reset" => ResetReason::ALL.iter().copied().map(Verdict::Reset).collect(),
            "drop" => DropReason::ALL.iter().copied().map(Verdict::Drop).collect(),
            name => Verdict::all().filter(|verdict| verdict.name() == name).collect(),
        };
        if set.is_empty() {
            let names: Vec<_> = Verdict::all().map(Verdict::name).collect();
            return Err(format!(
                "there is no verdict `{text}`, but {}; and pass, forward, reset and drop for all of their kind",
                names.join(", ")
            ));
        }
        Ok(Self(set))
    }
}

#[cfg(test)]
mod tests {
    use kplb_common::trace::TraceAddresses;

    use super::*;
    use crate::config::Protocol;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address and port")
    }

    fn addresses(source: &str, destination: &str) -> TraceAddresses {
        let (source, destination) = (at(source).ip(), at(destination).ip());
        let version = u32::from(version(source.is_ipv4()));
        TraceAddresses { source: from_ip(source), destination: from_ip(destination), version }
    }

    fn service(text: &str) -> Endpoint {
        Endpoint { address: at(text), protocol: Protocol::Tcp }
    }

    #[test]
    fn the_data_path_understands_what_is_wanted() {
        let before = addresses("198.18.0.101:1", "198.18.0.100:2");
        let after = addresses("198.18.0.11:3", "198.18.0.12:4");
        let v6 = addresses("[2001:2::101]:1", "[2001:2::100]:2");
        let wanted = |client: Option<&str>, services: Option<Vec<Endpoint>>| Wanted {
            client: client.map(|client| client.parse().expect("a prefix")),
            services,
            verdicts: Vec::new(),
        };
        let both = Some(vec![service("198.18.0.100:2"), service("[2001:2::100]:2")]);
        for (wanted, takes_v4, takes_v6) in [
            (wanted(None, None), true, true),
            (wanted(Some("198.18.0.101"), None), true, false),
            (wanted(Some("198.18.0.77/24"), None), true, false),
            (wanted(Some("198.18.1.0/24"), None), false, false),
            (wanted(Some("2001:2::/64"), None), false, true),
            (wanted(None, Some(vec![service("198.18.0.100:9")])), true, false),
            (wanted(None, Some(vec![service("198.18.0.99:2")])), false, false),
            (wanted(None, both), true, true),
        ] {
            let request = request(&wanted, 1, 1);
            assert_eq!(request.takes_addresses(&before, &after), takes_v4, "{wanted:?}");
            assert_eq!(request.takes_addresses(&v6, &v6), takes_v6, "{wanted:?}");
        }
    }

    #[test]
    fn verdicts_by_name_and_by_kind() {
        let bits = |names: &[&str]| {
            let verdicts = names.iter().map(|name| name.parse().expect("a verdict")).collect();
            request(&Wanted { verdicts, ..Wanted::default() }, 1, 1)
        };
        let taken = |request: &TraceRequest| -> Vec<&str> {
            Verdict::all().filter(|verdict| request.takes_verdict(verdict.index())).map(Verdict::name).collect()
        };
        assert_eq!(taken(&bits(&["to-backend"])), ["to-backend"]);
        assert_eq!(taken(&bits(&["not-ours", "drop-ttl-expired"])), ["not-ours", "drop-ttl-expired"]);
        assert_eq!(taken(&bits(&["reset"])).len(), ResetReason::ALL.len());
        let usual = taken(&bits(&[]));
        assert_eq!(usual.len() as u32, Verdict::COUNT - PassReason::ALL.len() as u32);
        assert!(!usual.contains(&"not-ours"));
        let error = "dropped".parse::<VerdictSet>().expect_err("no verdict");
        assert!(error.contains("drop-ttl-expired"), "{error}");
    }

    #[test]
    fn the_rest_is_told_apart_here() {
        let wanted = Wanted {
            client: Some("198.18.0.101".parse().expect("a prefix")),
            services: Some(vec![service("198.18.0.100:2")]),
            verdicts: Vec::new(),
        };
        let (client, own, other) = (at("198.18.0.101:1"), service("198.18.0.100:2"), service("198.18.0.100:3"));
        assert!(wanted.takes(Some(&own), &[client]));
        assert!(!wanted.takes(Some(&other), &[client]));
        assert!(!wanted.takes(None, &[client]));
        assert!(!wanted.takes(Some(&own), &[at("198.18.0.102:1")]));
        assert!(Wanted::default().takes(None, &[]));
    }
}
