//! Keeping the maps as the plan wants them.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context as _, bail};
use aya::{
    Pod,
    maps::{Array, HashMap, Map},
};
use kplb_common::{
    abi::map,
    backend::Backend,
    fence::Vip,
    gate::Gate,
    maglev::{NO_BACKEND, RING_SIZE, Ring},
    net::{Ip4, Ip6},
    node::Node,
    service::Service,
};

use super::{
    super::{counters, rings},
    Dataplane,
};
use crate::{
    model::{Endpoint, EndpointKey},
    plan::Operation,
};

impl Dataplane {
    /// Carries out operations, in their order.
    ///
    /// # Errors
    /// If the kernel refuses one; those before it are done.
    pub fn apply(&mut self, operations: &[Operation]) -> anyhow::Result<()> {
        operations.chunk_by(Operation::goes_with).try_for_each(|step| match step {
            [operation] => self.apply_one(operation),
            _ => self.set_rings(&step.iter().filter_map(Operation::ring).collect::<Vec<_>>()),
        })
    }

    fn apply_one(&mut self, operation: &Operation) -> anyhow::Result<()> {
        match operation {
            Operation::SetNode(node) => self.set_element(map::NODE, 0, &Node { clock: self.clock, ..*node }),
            Operation::SetGate(gate) => self.set_element::<Gate>(map::GATE, 0, gate),
            Operation::SetVip { address: IpAddr::V4(v4), vip } => self.insert(map::VIPS4, &Ip4::from(*v4), vip),
            Operation::SetVip { address: IpAddr::V6(v6), vip } => self.insert(map::VIPS6, &Ip6::from(*v6), vip),
            Operation::RemoveVip { address: IpAddr::V4(v4) } => self.remove::<_, Vip>(map::VIPS4, &Ip4::from(*v4)),
            Operation::RemoveVip { address: IpAddr::V6(v6) } => self.remove::<_, Vip>(map::VIPS6, &Ip6::from(*v6)),
            Operation::SetService { endpoint, service } => {
                self.insert_endpoint([map::SERVICES4, map::SERVICES6], endpoint, service)
            }
            Operation::RemoveService { endpoint } => {
                self.remove_endpoint::<Service>([map::SERVICES4, map::SERVICES6], endpoint)
            }
            Operation::SetBackend { id, backend } => {
                self.n_backends = self.n_backends.max(usize::from(*id) + 1);
                self.set_element(map::BACKENDS, u32::from(*id), backend)
            }
            Operation::RemoveBackend { id } => {
                self.set_element(map::BACKENDS, u32::from(*id), &Backend::default())?;
                // The next backend with this id begins at zero.
                counters::clear(&mut self.ebpf, *id)
            }
            Operation::SetRing { service, ring } => self.set_rings(&[(*service, Arc::clone(ring))]),
            // aya cannot delete from an array of maps; a ring of no backends is the same to the data path.
            Operation::RemoveRing { service } => self.set_rings(&[(*service, Arc::new([NO_BACKEND; RING_SIZE]))]),
        }
    }

    fn set_rings(&mut self, new: &[(u16, Arc<Ring>)]) -> anyhow::Result<()> {
        match self.ebpf.map(map::RINGS) {
            Some(Map::ArrayOfMaps(rings)) => rings::swap_in(rings, new),
            _ => bail!("the object has no array of maps {}", map::RINGS),
        }
    }

    pub(super) fn set_element<V: Pod>(&mut self, name: &str, index: u32, value: &V) -> anyhow::Result<()> {
        let mut array: Array<_, V> = self.open(name)?;
        array.set(index, value, 0).with_context(|| format!("write element {index} of {name}"))
    }

    pub(super) fn insert<K: Pod, V: Pod>(&mut self, name: &str, key: &K, value: &V) -> anyhow::Result<()> {
        let mut table: HashMap<_, K, V> = self.open(name)?;
        table.insert(key, value, 0).with_context(|| format!("add to {name}"))
    }

    pub(super) fn remove<K: Pod, V: Pod>(&mut self, name: &str, key: &K) -> anyhow::Result<()> {
        let mut table: HashMap<_, K, V> = self.open(name)?;
        table.remove(key).with_context(|| format!("remove from {name}"))
    }

    fn insert_endpoint<V: Pod>(&mut self, names: [&str; 2], endpoint: &Endpoint, value: &V) -> anyhow::Result<()> {
        match endpoint.key() {
            EndpointKey::V4(key) => self.insert(names[0], &key, value),
            EndpointKey::V6(key) => self.insert(names[1], &key, value),
        }
    }

    fn remove_endpoint<V: Pod>(&mut self, names: [&str; 2], endpoint: &Endpoint) -> anyhow::Result<()> {
        match endpoint.key() {
            EndpointKey::V4(key) => self.remove::<_, V>(names[0], &key),
            EndpointKey::V6(key) => self.remove::<_, V>(names[1], &key),
        }
    }

    /// A map of the object as the type that it has.
    pub(super) fn open<'a, T>(&'a mut self, name: &str) -> anyhow::Result<T>
    where
        T: TryFrom<&'a mut Map>,
        T::Error: std::error::Error + Send + Sync + 'static,
    {
        let map = self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
        T::try_from(map).with_context(|| format!("the map {name} is of another type"))
    }
}
