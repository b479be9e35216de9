//! The services and backends of a data path and what they are called: what reading commands show, and take as filters.
//!
//! The maps know addresses alone. Names are known to the agent; without one, addresses stand for them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use kplb_common::{
    backend::Backend,
    net::{Address as _, Ip4},
    service::Service,
};

use crate::{
    config::Protocol,
    model::Endpoint,
    status::{ServiceStatus, Status},
};

/// Services and backends by their addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Directory {
    services: BTreeMap<Endpoint, Entry>,
}

/// A service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Entry {
    name: String,
    backends: BTreeMap<SocketAddr, String>,
}

impl Directory {
    /// What the maps know.
    pub fn new(services: &[(Endpoint, Service)], backends: &[(u16, Backend)]) -> Self {
        let entry = |(endpoint, service): &(Endpoint, Service)| {
            let own = backends.iter().filter(|(_, backend)| backend.service == service.id);
            let backends = own.map(|(_, backend)| backend_address(endpoint, backend));
            let backends = backends.map(|address| (address, address.to_string())).collect();
            (*endpoint, Entry { name: endpoint.to_string(), backends })
        };
        Self { services: services.iter().map(entry).collect() }
    }

    /// Calls everything as the agent does.
    pub fn name_by(&mut self, status: &Status) {
        for service in &status.services {
            let Some(entry) = endpoint(service).and_then(|endpoint| self.services.get_mut(&endpoint)) else { continue };
            entry.name.clone_from(&service.name);
            for backend in &service.backends {
                entry.backends.insert(backend.address, backend.name.clone());
            }
        }
    }

    /// Name of a service.
    pub fn service(&self, endpoint: &Endpoint) -> String {
        self.services.get(endpoint).map_or_else(|| endpoint.to_string(), |entry| entry.name.clone())
    }

    /// Name of a backend of a service.
    pub fn backend(&self, endpoint: &Endpoint, address: SocketAddr) -> String {
        let name = self.services.get(endpoint).and_then(|entry| entry.backends.get(&address));
        name.map_or_else(|| address.to_string(), Clone::clone)
    }

    /// All services with all their backends.
    pub fn backends(&self) -> impl Iterator<Item = (Endpoint, SocketAddr)> {
        self.services.iter().flat_map(|(endpoint, entry)| entry.backends.keys().map(|address| (*endpoint, *address)))
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = Endpoint> {
        self.services.keys().copied()
    }

    /// The services that are called so: by their name, as `VIP:PORT/PROTOCOL`, or as `VIP:PORT`.
    ///
    /// # Errors
    /// If there are none; the error names those that there are.
    pub fn services_called(&self, name: &str) -> Result<Vec<Endpoint>, UnknownName> {
        let is_it = |(endpoint, entry): &(&Endpoint, &Entry)| {
            entry.name == name || endpoint.to_string() == name || endpoint.address.to_string() == name
        };
        let found: Vec<_> = self.services.iter().filter(is_it).map(|(endpoint, _)| *endpoint).collect();
        if found.is_empty() {
            return Err(UnknownName::new("service", name, self.services.values().map(|entry| entry.name.clone())));
        }
        Ok(found)
    }

    /// The addresses of the backends that are called so: by their name, or as `ADDRESS:PORT`.
    ///
    /// # Errors
    /// If there are none; the error names those that there are.
    pub fn backends_called(&self, name: &str) -> Result<Vec<SocketAddr>, UnknownName> {
        let all = || self.services.values().flat_map(|entry| &entry.backends);
        let mut found: Vec<_> = all().filter(|(_, own)| *own == name).map(|(address, _)| *address).collect();
        // One that is no longer configured may still have flows.
        found.extend(name.parse::<SocketAddr>());
        if found.is_empty() {
            return Err(UnknownName::new("backend", name, all().map(|(_, name)| name.clone())));
        }
        Ok(found)
    }
}

/// Nothing is called so.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no {what} `{name}`, but {}", list(.known))]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: Vec<String>,
}

impl UnknownName {
    fn new(what: &'static str, name: &str, known: impl Iterator<Item = String>) -> Self {
        let mut known: Vec<_> = known.collect();
        known.sort();
        known.dedup();
        Self { what, name: name.to_owned(), known }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none at all".to_owned() } else { names.join(", ") }
}

fn endpoint(service: &ServiceStatus) -> Option<Endpoint> {
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == service.protocol)?;
    Some(Endpoint { address: service.vip, protocol })
}

/// Address and port of a backend, which is of its service's family.
pub fn backend_address(service: &Endpoint, backend: &Backend) -> SocketAddr {
    let address: IpAddr = match service.address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::from(Ip4::from_wide(&backend.address)).into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::from(backend.address).into(),
    };
    SocketAddr::new(address, backend.port.to_host())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use kplb_common::net::{Be16, Ip6};

    use super::*;

    fn endpoint(address: &str, protocol: Protocol) -> Endpoint {
        Endpoint { address: address.parse().expect("an endpoint"), protocol }
    }

    fn directory() -> Directory {
        let service = |id| Service { id, ..Service::default() };
        let services = [
            (endpoint("198.18.0.100:6443", Protocol::Tcp), service(0)),
            (endpoint("[2001:2::100]:6443", Protocol::Udp), service(1)),
        ];
        let v6: Ipv6Addr = "2001:2::11".parse().expect("an address");
        let backend =
            |address: Ip6, service| Backend { address, port: Be16::from_host(6443), service, ..Backend::default() };
        let v4 = Ip4::from(std::net::Ipv4Addr::new(198, 18, 0, 11)).widen();
        Directory::new(&services, &[(0, backend(v4, 0)), (1, backend(v6.into(), 1))])
    }

    #[test]
    fn without_names_addresses_stand_for_them() {
        let directory = directory();
        let v6 = endpoint("[2001:2::100]:6443", Protocol::Udp);
        assert_eq!(directory.service(&v6), "[2001:2::100]:6443/udp");
        let address = "[2001:2::11]:6443".parse().expect("an endpoint");
        assert_eq!(directory.backend(&v6, address), "[2001:2::11]:6443");
        let other = "198.18.0.99:1".parse().expect("an endpoint");
        assert_eq!(directory.backend(&v6, other), "198.18.0.99:1");
        assert_eq!(directory.services_called("[2001:2::100]:6443"), Ok(vec![v6]));
        assert_eq!(directory.services_called("[2001:2::100]:6443/udp"), Ok(vec![v6]));
        assert_eq!(directory.backends_called("198.18.0.99:1"), Ok(vec![other]));
        assert_eq!(directory.backends().count(), 2);
    }

    #[test]
    fn who_is_unknown_is_told_who_is_not() {
        let error = directory().services_called("apiserver").expect_err("no name is known").to_string();
        assert_eq!(error, "there is no service `apiserver`, but 198.18.0.100:6443/tcp, [2001:2::100]:6443/udp");
        let error = Directory::default().backends_called("cp1").expect_err("no name is known").to_string();
        assert_eq!(error, "there is no backend `cp1`, but none at all");
    }
}
