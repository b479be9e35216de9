//! A configuration whose values are well formed, each for itself, but not yet checked against each other.
//!
//! Invariant: what is missing here because it was wrong has been reported.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use kplb_common::service::{LocalClients, Persistence};

use super::{
    Balancers, FlowsConfig, MetricsConfig, NodeConfig, OnDown, Place, Problems, Protocol, health::DraftCheck, value,
    vrrp::DraftVrrp,
};

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

pub(super) struct Draft {
    pub(super) node: NodeConfig,
    pub(super) flows: FlowsConfig,
    pub(super) vrrp: Option<DraftVrrp>,
    pub(super) metrics: Option<MetricsConfig>,
    pub(super) services: Vec<DraftService>,
    /// Whether a service was tried at least, well or not.
    pub(super) tries_service: bool,
    /// Where to say that something is missing.
    pub(super) place: Place,
}

pub(super) struct DraftService {
    pub(super) place: Place,
    pub(super) name: Option<At<String>>,
    pub(super) vip: Option<At<SocketAddr>>,
    pub(super) protocol: Protocol,
    pub(super) persistence: Persistence,
    pub(super) local_clients: LocalClients,
    pub(super) seed: u64,
    pub(super) check: DraftCheck,
    pub(super) on_down: OnDown,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) slow_start: Option<Duration>,
    pub(super) backends: Vec<DraftBackend>,
}

pub(super) struct DraftBackend {
    pub(super) name: Option<At<String>>,
    pub(super) address: Option<At<SocketAddr>>,
    pub(super) weight: u16,
    pub(super) check: DraftCheck,
}

impl DraftService {
    /// A service as it is where the configuration says nothing.
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            name: None,
            vip: None,
            protocol: Protocol::Tcp,
            persistence: Persistence::Client,
            local_clients: LocalClients::PreferLocal,
            seed: 0,
            check: DraftCheck::default(),
            on_down: OnDown::Reset,
            drain_timeout: None,
            slow_start: None,
            backends: Vec::new(),
        }
    }
}

impl DraftBackend {
    /// The weight where the configuration gives none.
    pub(super) const DEFAULT_WEIGHT: u16 = 1;
}

impl Draft {
    /// The configuration of an empty text.
    pub(super) fn new(place: Place) -> Self {
        Self {
            node: NodeConfig::default(),
            flows: FlowsConfig::default(),
            vrrp: None,
            metrics: None,
            services: Vec::new(),
            tries_service: false,
            place,
        }
    }

    /// A service for each VIP with all backends of its family.
    pub(super) fn from_flags(
        vips: &[impl AsRef<str>],
        backends: &[impl AsRef<str>],
        balancers: Balancers,
        problems: &mut Problems,
    ) -> Self {
        let tries_service = !vips.is_empty();
        let vips = endpoints("--vip", vips, problems);
        let backends = endpoints("--backend", backends, problems);
        for backend in &backends {
            if !vips.is_empty() && !vips.iter().any(|vip| is_same_family(vip, backend)) {
                let address = backend.value;
                problems.add(
                    &backend.place,
                    format!("no VIP is of the family of backend {address}"),
                    "give a --vip of the same family, or leave the backend out",
                );
            }
        }
        let vrrp = (balancers == Balancers::Backends).then(|| {
            let mut seen = BTreeSet::new();
            let peers = backends.iter().map(|at| At { value: at.value.ip(), place: at.place.clone() });
            DraftVrrp {
                peers: peers.filter(|peer| seen.insert(peer.value)).collect(),
                ..DraftVrrp::new(Place::Flag("--elect".to_owned()))
            }
        });
        let services = (vips.into_iter())
            .map(|vip| DraftService {
                backends: (backends.iter())
                    .filter(|backend| is_same_family(&vip, backend))
                    .map(|backend| DraftBackend {
                        name: None,
                        address: Some(backend.clone()),
                        weight: DraftBackend::DEFAULT_WEIGHT,
                        check: DraftCheck::default(),
                    })
                    .collect(),
                vip: Some(vip.clone()),
                ..DraftService::new(vip.place)
            })
            .collect();
        Self { services, tries_service, vrrp, ..Self::new(Place::Flag("--vip".to_owned())) }
    }
}

fn endpoints(flag: &str, values: &[impl AsRef<str>], problems: &mut Problems) -> Vec<At<SocketAddr>> {
    let parse = |value: &str| {
        let place = Place::Flag(format!("{flag} {value}"));
        match value::endpoint(value) {
            Ok(value) => Some(At { value, place }),
            Err(wrong) => {
                problems.add(&place, wrong.message, wrong.hint);
                None
            }
        }
    };
    values.iter().map(AsRef::as_ref).filter_map(parse).collect()
}

fn is_same_family(a: &At<SocketAddr>, b: &At<SocketAddr>) -> bool {
    a.value.is_ipv4() == b.value.is_ipv4()
}
