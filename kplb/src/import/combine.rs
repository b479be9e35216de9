//! Virtual routers and listeners put together: which services there are, and who holds their VIPs.
//!
//! Invariant: with a table `[vrrp]`, the VIPs of its services are those that keepalived's adverts name, so that nodes of
//! both take each other's; what would add to them is left out.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use kplb_common::{
    abi::{MAX_BACKENDS, MAX_SERVICES},
    service::LocalClients,
};

use super::{
    draft::{BackendNotes, Draft, ServiceNotes, VrrpNotes},
    election::{self, Election},
    error::ImportError,
    finding::{Findings, NOTHING_TO_DO, Written, brief},
    fit,
    haproxy::Haproxy,
    keepalived::Keepalived,
    limits::MAX_SERVERS,
    wanted::{Address, Listener, Server, Wanted},
};
use crate::config::{BackendConfig, Config, FlowsConfig, LIFETIME_RANGE, NodeConfig, ServiceConfig, value};

/// As many services and backends as kplb has room for.
const N_SERVICES: usize = MAX_SERVICES as usize;
const N_BACKENDS: usize = MAX_BACKENDS as usize;

/// What an import was told beside the files.
pub(super) struct Told<'t> {
    /// The VIPs of listeners at every address.
    pub(super) vips: &'t [IpAddr],
    /// The interface that kplb is to serve.
    pub(super) interface: Option<&'t str>,
}

/// Makes a draft.
pub(super) fn combine(
    keepalived: Keepalived,
    haproxy: Haproxy,
    told: &Told<'_>,
    findings: &mut Findings,
) -> Result<Draft, ImportError> {
    let wanted: Vec<Wanted> = haproxy.wanted.into_iter().chain(keepalived.wanted).collect();
    let named: BTreeSet<IpAddr> = wanted.iter().flat_map(|wanted| &wanted.listeners).filter_map(one).collect();
    let has_instances = !keepalived.instances.is_empty();
    let election = election::choose(keepalived.instances, &named, told.interface, findings)?;
    if has_instances && election.is_none() {
        let message = format!("no vrrp_instance is on the interface {}", told.interface.unwrap_or_default());
        return Err(ImportError::nothing(message, "give --interface another one, or leave it out"));
    }
    if election.is_some() && !told.vips.is_empty() {
        let message = "keepalived.conf says what the VIPs are";
        return Err(ImportError::nothing(message, "leave --vip out, or --keepalived"));
    }
    let mut services = Services::new(election.as_ref(), told.vips);
    // A server may have the address of any of the VIPs, so all of them are known first.
    let endpoints: Vec<_> =
        wanted.iter().map(|wanted| services.endpoints(wanted, findings)).collect::<Result<_, _>>()?;
    services.taken.extend(endpoints.iter().flatten().map(|(endpoint, _)| endpoint.ip()));
    for (wanted, endpoints) in wanted.iter().zip(endpoints) {
        services.add(wanted, &endpoints, findings)?;
    }
    let Services { services, notes, is_without_vip, .. } = services;
    if services.is_empty() {
        return Err(match (is_without_vip, wanted.is_empty()) {
            (true, _) => ImportError::nothing(
                "haproxy listens at every address, and which of them is the VIP is not known",
                "give a keepalived.conf that has a vrrp_instance, or the VIP by --vip",
            ),
            (false, true) => ImportError::nothing(
                "nothing in it listens for clients that kplb could serve",
                "see above what was left out; give both --keepalived and --haproxy if both are in use",
            ),
            (false, false) => ImportError::nothing(
                "no listener has both a VIP and a server that kplb could use",
                "see above what was left out, and why",
            ),
        });
    }
    let vips: BTreeSet<IpAddr> = services.iter().map(|service| service.vip.ip()).collect();
    let (interface, vrrp, vrrp_notes) = match election {
        Some(election) => election.settle(&vips, findings),
        None => (None, None, VrrpNotes::default()),
    };
    let mut flows = FlowsConfig::default();
    if let Some(idle) = haproxy.idle.filter(|idle| *idle > flows.established_lifetime) {
        flows.established_lifetime = idle.min(*LIFETIME_RANGE.end());
    }
    let config = Config { node: NodeConfig::default(), flows, vrrp, metrics: None, services };
    Ok(Draft { heading: heading(interface.as_deref()), config, vrrp: vrrp_notes, services: notes })
}

fn heading(interface: Option<&str>) -> Vec<String> {
    let interface = interface.map_or_else(|| "INTERFACE".to_owned(), brief);
    vec![
        "Made by `kplb import`, which has listed all that has no equivalent, or changes, on standard error.".to_owned(),
        format!("Save it as /etc/kplb/kplb.toml, stop keepalived and haproxy, and start: kplb attach {interface}"),
    ]
}

/// The address of a listener that has one.
fn one(listener: &Listener) -> Option<IpAddr> {
    match listener.address {
        Address::One(address) => Some(address),
        Address::All(_) => None,
    }
}

/// Services as they are added.
struct Services {
    services: Vec<ServiceConfig>,
    notes: Vec<ServiceNotes>,
    names: HashSet<String>,
    endpoints: HashSet<(SocketAddr, u8)>,
    /// Servers that were looked at, for each service.
    n_servers: usize,
    n_backends: usize,
    /// Addresses that no server can have.
    taken: HashSet<IpAddr>,
    /// Where a listener at every address listens.
    vips: Vec<IpAddr>,
    /// Whether it may listen nowhere else.
    is_elected: bool,
    /// Whether there was one without a VIP.
    is_without_vip: bool,
}

impl Services {
    fn new(election: Option<&Election>, told: &[IpAddr]) -> Self {
        Self {
            services: Vec::new(),
            notes: Vec::new(),
            names: HashSet::new(),
            endpoints: HashSet::new(),
            n_servers: 0,
            n_backends: 0,
            taken: HashSet::new(),
            vips: election.map_or_else(|| told.to_vec(), Election::vips),
            is_elected: election.is_some(),
            is_without_vip: false,
        }
    }

    /// The VIPs and ports of listeners, each once.
    fn endpoints<'w>(
        &mut self,
        wanted: &'w Wanted,
        findings: &mut Findings,
    ) -> Result<Vec<(SocketAddr, &'w Listener)>, ImportError> {
        let mut endpoints = Vec::new();
        for listener in &wanted.listeners {
            for vip in self.addresses(listener, findings) {
                let endpoint = SocketAddr::new(vip, listener.port);
                if self.endpoints.insert((endpoint, wanted.protocol.number())) {
                    endpoints.push((endpoint, listener));
                    if self.endpoints.len() > N_SERVICES {
                        return Err(ImportError::too_much(&listener.written.place, "too many services", N_SERVICES));
                    }
                } else {
                    let why = format!("{endpoint}/{} is a service already", wanted.protocol);
                    findings.left_out(&listener.written, why, "leave one of them out");
                }
            }
        }
        Ok(endpoints)
    }

    /// Adds the services of listeners.
    fn add(
        &mut self,
        wanted: &Wanted,
        endpoints: &[(SocketAddr, &Listener)],
        findings: &mut Findings,
    ) -> Result<(), ImportError> {
        for (endpoint, listener) in endpoints {
            let place = &listener.written.place;
            self.n_servers += wanted.servers.len();
            if self.n_servers > MAX_SERVERS {
                return Err(ImportError::too_much(place, "too many servers", MAX_SERVERS));
            }
            let name = wanted.name.as_deref().map(|name| names(name, *endpoint, endpoints.len())).unwrap_or_default();
            self.add_one(wanted, *endpoint, listener, name, findings);
            if self.n_backends > N_BACKENDS {
                return Err(ImportError::too_much(place, "too many backends", N_BACKENDS));
            }
        }
        Ok(())
    }

    /// Which VIPs a listener listens at.
    fn addresses(&mut self, listener: &Listener, findings: &mut Findings) -> Vec<IpAddr> {
        match listener.address {
            Address::All(families) => {
                let vips: Vec<_> = self.vips.iter().copied().filter(|vip| families.contain(*vip)).collect();
                if vips.is_empty() {
                    self.is_without_vip |= self.vips.is_empty();
                    let advice = match self.vips.is_empty() {
                        true => "give keepalived.conf, or the VIP by --vip",
                        false => "nothing to do, unless there should be one",
                    };
                    findings.left_out(&listener.written, "there is no VIP of its family", advice);
                }
                vips
            }
            Address::One(address) if self.is_elected && !self.vips.contains(&address) => {
                let why = format!("{address} is no VIP of the vrrp_instance that is imported");
                findings.left_out(&listener.written, why, "nothing to do, unless clients use it");
                Vec::new()
            }
            Address::One(address) => match value::unusable(address) {
                Some((what, _)) => {
                    let why = format!("{address} {what}");
                    findings.left_out(&listener.written, why, "nothing to do, unless clients use it");
                    Vec::new()
                }
                None => vec![address],
            },
        }
    }

    /// Adds a service, with the first of the names that no other has.
    fn add_one(
        &mut self,
        wanted: &Wanted,
        endpoint: SocketAddr,
        listener: &Listener,
        names: Vec<String>,
        findings: &mut Findings,
    ) {
        let (backends, notes) = self.backends(wanted, endpoint, findings);
        if backends.is_empty() {
            let why = format!("no server is behind {endpoint} that kplb could use");
            findings.left_out(&listener.written, why, "add one of the VIP's family");
            return;
        }
        self.n_backends += backends.len();
        let default = format!("{endpoint}/{}", wanted.protocol);
        // Those that services have by default have a slash.
        let is_fine = |name: &String| value::name(name).is_ok() && !name.contains('/') && !self.names.contains(name);
        let name = names.into_iter().find(is_fine);
        self.names.insert(name.clone().unwrap_or_else(|| default.clone()));
        let persistence =
            wanted.persistence_by.as_ref().map(|by| format!("As nearly as possible: {}.", brief(&by.text)));
        self.notes.push(ServiceNotes {
            origin: format!("{} ({})", brief(&wanted.written.text), listener.written.place),
            is_named: name.is_some(),
            persistence,
            backends: notes,
        });
        self.services.push(ServiceConfig {
            name: name.unwrap_or(default),
            vip: endpoint,
            protocol: wanted.protocol,
            persistence: wanted.persistence,
            local_clients: LocalClients::PreferLocal,
            seed: 0,
            on_down: wanted.on_down,
            drain_timeout: None,
            slow_start: wanted.slow_start,
            backends,
        });
    }

    /// The servers that can be backends of a service.
    fn backends(
        &self,
        wanted: &Wanted,
        vip: SocketAddr,
        findings: &mut Findings,
    ) -> (Vec<BackendConfig>, Vec<BackendNotes>) {
        let mut servers: Vec<(&Server, SocketAddr, u32)> = Vec::new();
        let mut places: HashMap<SocketAddr, usize> = HashMap::new();
        let is_like = |server: &&Server| server.address.is_ipv4() == vip.is_ipv4();
        let here: HashSet<&Written> = wanted.servers.iter().filter(is_like).map(|server| &server.written).collect();
        for server in &wanted.servers {
            // One that has an address of the other family as well is not missing.
            if !is_like(&server) && here.contains(&server.written) {
                continue;
            }
            let Some(address) = self.usable(server, vip, findings) else { continue };
            match places.get(&address).copied() {
                Some(place) => {
                    let first = &mut servers[place];
                    first.2 = first.2.saturating_add(server.weight);
                    let why = format!("{address} is a backend of this service already, and has its weight as well");
                    findings.changed(&server.written, why, NOTHING_TO_DO);
                }
                None => {
                    places.insert(address, servers.len());
                    servers.push((server, address, server.weight));
                }
            }
        }
        let weights = fit::weights(&servers.iter().map(|(.., weight)| *weight).collect::<Vec<_>>());
        // Those that backends have by default are theirs.
        let mut names: HashSet<String> = servers.iter().map(|(_, address, _)| address.to_string()).collect();
        let mut backends = Vec::new();
        let mut notes = Vec::new();
        for ((server, address, _), weight) in servers.into_iter().zip(weights) {
            let name = server.name.clone().filter(|name| value::name(name).is_ok() && names.insert(name.clone()));
            let is_named = name.is_some();
            let name = name.unwrap_or_else(|| address.to_string());
            backends.push(BackendConfig { name, address, weight, check: server.check.clone() });
            notes.push(BackendNotes { is_named, note: server.note.clone() });
        }
        (backends, notes)
    }

    /// Where a server is for the clients of a VIP; none if kplb cannot lead them there.
    fn usable(&self, server: &Server, vip: SocketAddr, findings: &mut Findings) -> Option<SocketAddr> {
        let written: &Written = &server.written;
        if server.address.is_ipv4() != vip.is_ipv4() {
            let families = if vip.is_ipv4() { ["IPv4", "IPv6"] } else { ["IPv6", "IPv4"] };
            let why = format!("kplb leads no clients of an {} VIP to {}", families[0], families[1]);
            findings.left_out(written, why, "list the server's address of the VIP's family, too");
            return None;
        }
        if let Some((what, _)) = value::unusable(server.address) {
            findings.left_out(written, format!("{} {what}", server.address), "give the node's own address");
            return None;
        }
        if self.taken.contains(&server.address) {
            findings.left_out(written, "it has the address of a VIP", "give the node's own address");
            return None;
        }
        let Some(port) = server.port.of(vip.port()) else {
            findings.left_out(written, "it has no port", "give it one");
            return None;
        };
        Some(SocketAddr::new(server.address, port))
    }
}

/// What the service of an endpoint may be called after a proxy that has so many.
fn names(proxy: &str, endpoint: SocketAddr, n_endpoints: usize) -> Vec<String> {
    let alone = (n_endpoints == 1).then(|| proxy.to_owned());
    alone.into_iter().chain([format!("{proxy}-{}", endpoint.ip()), format!("{proxy}-{endpoint}")]).collect()
}
