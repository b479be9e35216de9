//! From what the kernel says to what the data path needs: pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use kplb_common::net::Mac;

use super::message::{InterfaceAddress, Link, Neighbour, Route, Suitability, Upkeep, shares_prefix};
use crate::{model::NodeFacts, who_has::question::Question};

/// One consistent reading of the kernel.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The agent's interface.
    pub link: Link,
    /// Addresses of all interfaces, in the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
    /// The route to each backend's address.
    pub routes: BTreeMap<IpAddr, Route>,
    /// Neighbours behind the agent's interface.
    pub neighbours: Vec<Neighbour>,
}

/// What a snapshot means for a set of backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Survey {
    /// MAC address of the interface.
    pub mac: Mac,
    /// IPv4 source address of NATed flows.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 source address of NATed flows.
    pub ipv6: Option<Ipv6Addr>,
    /// Every address of this host, on any interface, without the VIPs.
    pub local: BTreeSet<IpAddr>,
    /// How each backend's address is reached.
    pub reach: BTreeMap<IpAddr, Reach>,
}

/// How a backend is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// It is on this node.
    Local,
    /// Behind the agent's interface.
    Via {
        /// The neighbour that gets its frames: the backend itself, or a gateway.
        next_hop: IpAddr,
        /// The neighbour's MAC address, once it is known.
        mac: Option<Mac>,
    },
    /// Behind another interface, where the data path cannot send.
    OtherInterface(u32),
    /// Nowhere.
    Unreachable,
}

impl Reach {
    const fn next_hop(&self) -> Option<IpAddr> {
        match self {
            Self::Via { next_hop, .. } => Some(*next_hop),
            _ => None,
        }
    }
}

/// What the kernel makes of a neighbour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It sends to it.
    Valid,
    /// It does not know its MAC address, or has given it up.
    Unresolved,
    /// An administrator has set its MAC address.
    Fixed,
}

/// The last known MAC address of each next hop.
///
/// A next hop keeps its last MAC address until the kernel knows another one, even when the kernel gives the entry up:
/// a neighbour that does not answer ARP for a while may well still take frames, and a frame to an address that is no
/// longer there is lost no worse than one that is not sent. Whether a backend is alive is for health checks to say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KnownNeighbours(HashMap<IpAddr, Mac>);

impl KnownNeighbours {
    /// Takes note of where a next hop was.
    pub fn note(&mut self, next_hop: IpAddr, mac: Mac) {
        self.0.entry(next_hop).or_insert(mac);
    }

    /// Takes note of the next hops that the survey knows. They are never forgotten: there are only so many ways to so
    /// many backends, and a route that is gone for a moment is no reason.
    pub fn learn(&mut self, survey: &Survey) {
        self.0.extend(survey.reach.values().filter_map(|reach| match reach {
            Reach::Via { next_hop, mac } => Some((*next_hop, (*mac)?)),
            _ => None,
        }));
    }
}

impl Snapshot {
    /// What this snapshot means for the backends, given their addresses, the VIPs of the configuration (never a source
    /// address) and what was known before. `None` when the interface has no MAC address.
    pub fn survey(&self, vips: &BTreeSet<IpAddr>, known: &KnownNeighbours) -> Option<Survey> {
        let local: BTreeSet<IpAddr> =
            self.addresses.iter().map(|entry| entry.address).filter(|address| !vips.contains(address)).collect();
        let reach: BTreeMap<IpAddr, Reach> = self
            .routes
            .iter()
            .map(|(backend, route)| (*backend, self.reach(*backend, *route, &local, known)))
            .collect();
        let on_link: Vec<IpAddr> =
            reach.iter().filter(|(_, reach)| matches!(reach, Reach::Via { .. })).map(|(backend, _)| *backend).collect();
        let source = |is_ours: fn(IpAddr) -> bool| self.source_address(is_ours, vips, &on_link);
        Some(Survey {
            mac: self.link.mac?,
            ipv4: source(|address| address.is_ipv4()).and_then(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
            ipv6: source(|address| address.is_ipv6()).and_then(|address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(address) => Some(address),
            }),
            local,
            reach,
        })
    }

    fn reach(&self, backend: IpAddr, route: Route, local: &BTreeSet<IpAddr>, known: &KnownNeighbours) -> Reach {
        if local.contains(&backend) {
            return Reach::Local;
        }
        match route {
            Route::Local => Reach::Local,
            Route::Unreachable => Reach::Unreachable,
            Route::Via { interface, .. } if interface != self.link.index => Reach::OtherInterface(interface),
            Route::Via { gateway, .. } => {
                let next_hop = gateway.unwrap_or(backend);
                let current = self.neighbour(next_hop).and_then(|neighbour| neighbour.mac);
                Reach::Via { next_hop, mac: current.or_else(|| known.0.get(&next_hop).copied()) }
            }
        }
    }

    /// The address that NATed flows come from: of the interface's addresses that are fit to be a source one that is no
    /// VIP, the one that shares a subnet with most backends, primary before secondary, then the kernel's order.
    fn source_address(
        &self,
        is_ours: fn(IpAddr) -> bool,
        vips: &BTreeSet<IpAddr>,
        backends: &[IpAddr],
    ) -> Option<IpAddr> {
        self.addresses
            .iter()
            .filter(|entry| entry.interface == self.link.index && is_ours(entry.address))
            .filter(|entry| entry.suitability < Suitability::Tentative && !is_link_local(entry.address))
            // A VIP with a subnet is not one that an agent has added. One that is all there is is for the model to
            // complain of; beside other addresses it is one that something has left there.
            .filter(|entry| !(vips.contains(&entry.address) && entry.is_host_only()))
            .min_by_key(|entry| {
                let strangers =
                    backends.iter().filter(|b| !shares_prefix(entry.address, **b, entry.prefix_length)).count();
                (vips.contains(&entry.address), strangers, entry.suitability)
            })
            .map(|entry| entry.address)
    }

    fn neighbour(&self, address: IpAddr) -> Option<&Neighbour> {
        self.neighbours.iter().find(|neighbour| neighbour.address == address)
    }

    /// What the kernel makes of a neighbour.
    pub fn standing(&self, neighbour: IpAddr) -> Standing {
        match self.neighbour(neighbour) {
            Some(entry) if entry.upkeep == Upkeep::Permanent => Standing::Fixed,
            Some(entry) if entry.mac.is_some() => Standing::Valid,
            _ => Standing::Unresolved,
        }
    }

    /// The neighbour that gets packets to an address by this route, if it is behind the interface.
    pub fn neighbour_towards(&self, address: IpAddr, route: Route) -> Option<IpAddr> {
        match route {
            Route::Via { interface, gateway } if interface == self.link.index => Some(gateway.unwrap_or(address)),
            _ => None,
        }
    }

    /// The question who has an address, from the address of the interface that is next to it.
    pub fn question_for(&self, address: IpAddr, vips: &BTreeSet<IpAddr>) -> Option<Question> {
        let is_of_family: fn(IpAddr) -> bool = match address {
            IpAddr::V4(_) => |own| own.is_ipv4(),
            IpAddr::V6(_) => |own| own.is_ipv6(),
        };
        Question::from(self.source_address(is_of_family, vips, &[address])?, address)
    }

    /// The link-local IPv6 address of the interface.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|entry| match entry.address {
            IpAddr::V6(v6)
                if entry.interface == self.link.index
                    && entry.suitability != Suitability::Unsuitable
                    && v6.is_unicast_link_local() =>
            {
                Some(v6)
            }
            _ => None,
        })
    }

    /// Whether packets can come from and go to an address of the interface.
    pub fn is_usable(&self, address: &IpAddr) -> bool {
        self.addresses.iter().any(|entry| {
            entry.interface == self.link.index
                && entry.address == *address
                && entry.suitability != Suitability::Tentative
        })
    }

    /// Whether the interface has an address that is soon fit to be a source for packets to backends.
    pub fn is_settling(&self) -> bool {
        self.addresses
            .iter()
            .filter(|entry| entry.interface == self.link.index && entry.suitability == Suitability::Tentative)
            .any(|entry| self.routes.keys().any(|backend| backend.is_ipv4() == entry.address.is_ipv4()))
    }

    /// The next hops of the survey whose entries the kernel does not look after by itself and that no administrator
    /// has set.
    pub fn unmanaged(&self, survey: &Survey) -> Vec<IpAddr> {
        let is_unmanaged =
            |next_hop: &IpAddr| self.neighbour(*next_hop).is_none_or(|neighbour| neighbour.upkeep == Upkeep::OnDemand);
        survey.next_hops().into_iter().filter(is_unmanaged).collect()
    }
}

impl Survey {
    /// What the model needs of it.
    pub fn facts(&self) -> NodeFacts {
        let here = self.reach.iter().filter(|(_, reach)| **reach == Reach::Local).map(|(backend, _)| *backend);
        let mac = |(backend, reach): (&IpAddr, &Reach)| match reach {
            Reach::Via { mac: Some(mac), .. } => Some((*backend, *mac)),
            _ => None,
        };
        NodeFacts {
            mac: self.mac,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            local: self.local.iter().copied().chain(here).collect(),
            macs: self.reach.iter().filter_map(mac).collect(),
        }
    }

    /// The neighbours that must be resolved.
    pub fn next_hops(&self) -> BTreeSet<IpAddr> {
        self.reach.values().filter_map(Reach::next_hop).collect()
    }

    /// Those that get what is sent to these backends.
    pub fn next_hops_to(&self, backends: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        self.reach
            .iter()
            .filter(|(backend, _)| backends.contains(backend))
            .filter_map(|(_, reach)| reach.next_hop())
            .collect()
    }

    /// Whether every backend behind the interface can be sent to.
    pub fn is_resolved(&self) -> bool {
        !self.reach.values().any(|reach| matches!(reach, Reach::Via { mac: None, .. }))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_loopback(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const OTHER_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
    const ETH0: u32 = 2;
    const ETH1: u32 = 3;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a valid address")
    }

    fn address(interface: u32, text: &str, suitability: Suitability) -> InterfaceAddress {
        let (address, length) = text.split_once('/').expect("a prefix");
        let prefix_length = length.parse().expect("a prefix length");
        InterfaceAddress { interface, address: ip(address), prefix_length, suitability }
    }

    fn neighbour(address: &str, mac: Option<Mac>, upkeep: Upkeep) -> Neighbour {
        Neighbour { interface: ETH0, address: ip(address), mac, upkeep }
    }

    fn snapshot(addresses: &[InterfaceAddress], routes: &[(&str, Route)], neighbours: &[Neighbour]) -> Snapshot {
        Snapshot {
            link: Link {
                index: ETH0,
                name: "eth0".into(),
                mac: Some(MAC),
                is_up: true,
                has_carrier: true,
                xdp: None,
                kind: None,
                vlan: None,
            },
            addresses: addresses.to_vec(),
            routes: routes.iter().map(|(backend, route)| (ip(backend), *route)).collect(),
            neighbours: neighbours.to_vec(),
        }
    }

    fn survey(snapshot: &Snapshot) -> Survey {
        survey_knowing(snapshot, &KnownNeighbours::default())
    }

    fn survey_knowing(snapshot: &Snapshot, known: &KnownNeighbours) -> Survey {
        let vips = BTreeSet::from([ip("198.18.0.100"), ip("2001:2::100")]);
        snapshot.survey(&vips, known).expect("the interface has a MAC address")
    }

    const ON_LINK: Route = Route::Via { interface: ETH0, gateway: None };

    #[test]
    fn the_source_is_near_the_backends() {
        use Suitability::{Primary, Secondary, Tentative, Unsuitable};
        let cases: [(&str, &[InterfaceAddress], Option<&str>); 9] = [
            (
                "first",
                &[address(ETH0, "198.18.0.11/24", Primary), address(ETH0, "198.18.0.12/24", Primary)],
                Some("198.18.0.11"),
            ),
            (
                "near",
                &[address(ETH0, "198.19.0.1/24", Primary), address(ETH0, "198.18.0.12/24", Secondary)],
                Some("198.18.0.12"),
            ),
            (
                "primary",
                &[address(ETH0, "198.18.0.13/24", Secondary), address(ETH0, "198.18.0.12/24", Primary)],
                Some("198.18.0.12"),
            ),
            (
                "no VIP",
                &[address(ETH0, "198.18.0.100/32", Primary), address(ETH0, "198.19.0.1/24", Primary)],
                Some("198.19.0.1"),
            ),
            ("ours", &[address(ETH1, "198.18.0.11/24", Primary)], None),
            ("own", &[address(ETH0, "198.18.0.100/24", Primary)], Some("198.18.0.100")),
            (
                "left there",
                &[address(ETH0, "198.18.0.100/24", Primary), address(ETH0, "198.19.0.1/24", Secondary)],
                Some("198.19.0.1"),
            ),
            ("unique", &[address(ETH0, "198.18.0.11/24", Tentative)], None),
            ("fit", &[address(ETH0, "198.18.0.11/24", Unsuitable), address(ETH0, "169.254.0.1/16", Primary)], None),
        ];
        for (name, addresses, expected) in cases {
            let survey = survey(&snapshot(addresses, &[("198.18.0.21", ON_LINK)], &[]));
            assert_eq!(survey.ipv4.map(IpAddr::V4), expected.map(ip), "{name}");
            assert_eq!(survey.ipv6, None, "{name}");
        }
        let v6 = [address(ETH0, "fe80::1/64", Primary), address(ETH0, "2001:2::11/64", Primary)];
        assert_eq!(survey(&snapshot(&v6, &[], &[])).ipv6.map(IpAddr::V6), Some(ip("2001:2::11")));
    }

    #[test]
    fn how_backends_are_reached() {
        let snapshot = snapshot(
            &[
                address(ETH0, "198.18.0.11/24", Suitability::Primary),
                address(ETH1, "198.19.0.1/24", Suitability::Primary),
            ],
            &[
                ("198.18.0.11", Route::Local),
                ("198.19.0.1", ON_LINK),
                ("198.18.0.21", ON_LINK),
                ("198.18.0.22", ON_LINK),
                ("198.18.9.1", Route::Via { interface: ETH0, gateway: Some(ip("198.18.0.1")) }),
                ("198.19.0.9", Route::Via { interface: ETH1, gateway: None }),
                ("198.18.8.1", Route::Unreachable),
            ],
            &[
                neighbour("198.18.0.21", Some(OTHER_MAC), Upkeep::OnDemand),
                neighbour("198.18.0.1", Some(OTHER_MAC), Upkeep::Permanent),
            ],
        );
        let survey = survey(&snapshot);
        let reach = |backend| survey.reach[&ip(backend)];
        let via = |next_hop, mac| Reach::Via { next_hop: ip(next_hop), mac };
        assert_eq!(reach("198.18.0.11"), Reach::Local);
        assert_eq!(reach("198.19.0.1"), Reach::Local);
        assert_eq!(reach("198.18.0.21"), via("198.18.0.21", Some(OTHER_MAC)));
        assert_eq!(reach("198.18.0.22"), via("198.18.0.22", None));
        assert_eq!(reach("198.18.9.1"), via("198.18.0.1", Some(OTHER_MAC)));
        assert_eq!(reach("198.19.0.9"), Reach::OtherInterface(ETH1));
        assert_eq!(reach("198.18.8.1"), Reach::Unreachable);
        assert!(!survey.is_resolved());
        let facts = survey.facts();
        assert_eq!(facts.local, BTreeSet::from([ip("198.18.0.11"), ip("198.19.0.1")]));
        assert_eq!(facts.macs, BTreeMap::from([(ip("198.18.0.21"), OTHER_MAC), (ip("198.18.9.1"), OTHER_MAC)]));
        assert_eq!(snapshot.unmanaged(&survey), [ip("198.18.0.21"), ip("198.18.0.22")]);
    }

    #[test]
    fn whom_to_ask_for() {
        let v6 = address(ETH0, "2001:2::11/64", Suitability::Primary);
        let snapshot = snapshot(
            &[
                address(ETH0, "198.18.0.100/32", Suitability::Primary),
                address(ETH0, "198.18.0.11/24", Suitability::Primary),
                address(ETH0, "198.19.0.11/24", Suitability::Primary),
                v6,
            ],
            &[
                ("198.18.0.21", ON_LINK),
                ("198.18.9.1", Route::Via { interface: ETH0, gateway: Some(ip("198.18.0.1")) }),
                ("198.18.9.2", Route::Via { interface: ETH0, gateway: Some(ip("198.18.0.1")) }),
                ("198.18.8.1", Route::Unreachable),
            ],
            &[
                neighbour("198.18.0.1", Some(OTHER_MAC), Upkeep::Permanent),
                neighbour("198.18.0.21", Some(OTHER_MAC), Upkeep::Managed),
                neighbour("198.18.0.22", None, Upkeep::Managed),
            ],
        );
        let next_hops =
            |backends: &[&str]| survey(&snapshot).next_hops_to(&backends.iter().map(|backend| ip(backend)).collect());
        assert_eq!(next_hops(&["198.18.9.1", "198.18.9.2", "198.18.8.1"]), BTreeSet::from([ip("198.18.0.1")]));
        assert_eq!(next_hops(&["198.18.0.21"]), BTreeSet::from([ip("198.18.0.21")]));
        for (neighbour, standing) in [
            ("198.18.0.1", Standing::Fixed),
            ("198.18.0.21", Standing::Valid),
            ("198.18.0.22", Standing::Unresolved),
            ("198.18.0.23", Standing::Unresolved),
        ] {
            assert_eq!(snapshot.standing(ip(neighbour)), standing, "{neighbour}");
        }

        // A client on the segment, behind a router, behind another interface, nowhere.
        let client = ip("198.18.0.101");
        let router = Some(ip("198.18.0.1"));
        for (route, neighbour) in [
            (ON_LINK, Some(client)),
            (Route::Via { interface: ETH0, gateway: router }, router),
            (Route::Via { interface: ETH1, gateway: router }, None),
            (Route::Local, None),
            (Route::Unreachable, None),
        ] {
            assert_eq!(snapshot.neighbour_towards(client, route), neighbour, "{route:?}");
        }

        // From the address next to it, and from no VIP.
        let vips = BTreeSet::from([ip("198.18.0.100"), ip("2001:2::100")]);
        for (neighbour, sender) in [
            ("198.18.0.21", "198.18.0.11"),
            ("198.19.0.21", "198.19.0.11"),
            ("203.0.113.1", "198.18.0.11"),
            ("2001:2::21", "2001:2::11"),
            ("fe80::21", "2001:2::11"),
        ] {
            let question = Question::from(ip(sender), ip(neighbour));
            assert_eq!(snapshot.question_for(ip(neighbour), &vips), question, "{neighbour}");
        }
        let bare = Snapshot { addresses: vec![v6], ..snapshot };
        assert_eq!(bare.question_for(client, &vips), None);
    }

    #[test]
    fn the_last_mac_is_kept() {
        let routes = [("198.18.0.21", ON_LINK)];
        let found = snapshot(&[], &routes, &[neighbour("198.18.0.21", Some(OTHER_MAC), Upkeep::Managed)]);
        let failed = snapshot(&[], &routes, &[neighbour("198.18.0.21", None, Upkeep::Managed)]);
        let gone = snapshot(&[], &routes, &[]);
        let moved = snapshot(&[], &routes, &[neighbour("198.18.0.21", Some(MAC), Upkeep::Managed)]);
        let mac = |snapshot: &Snapshot, known: &KnownNeighbours| match survey_knowing(snapshot, known).reach
            [&ip("198.18.0.21")]
        {
            Reach::Via { mac, .. } => mac,
            reach => panic!("{reach:?}"),
        };
        let mut known = KnownNeighbours::default();
        assert_eq!(mac(&failed, &known), None);
        known.learn(&survey(&found));
        assert_eq!(mac(&failed, &known), Some(OTHER_MAC));
        assert_eq!(mac(&gone, &known), Some(OTHER_MAC));
        assert_eq!(mac(&moved, &known), Some(MAC));
        known.learn(&survey(&failed));
        assert_eq!(mac(&failed, &known), Some(OTHER_MAC));
        known.learn(&survey(&moved));
        assert_eq!(mac(&failed, &known), Some(MAC));
    }
}
