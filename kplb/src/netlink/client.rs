//! Questions to the kernel, and the few changes that the agent makes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, bail};
use futures_util::{TryStreamExt as _, pin_mut};
use nix::errno::Errno;
use rtnetlink::{
    AddressMessageBuilder, Handle, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo},
        neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState},
    },
};

use super::message::{InterfaceAddress, Link, Neighbour, Route, dependents, host_prefix};

/// Whether an operation changed anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// It did.
    Done,
    /// It was so already.
    Unneeded,
}

/// A connection for requests. Notifications come on another, [`super::watch::Watch`], whose overflow so cannot lose an
/// answer.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Connects. Must be called on a tokio runtime.
    pub fn connect() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Every interface.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages = self.handle.link().get().execute();
        messages.map_ok(|message| Link::decode(&message)).try_collect().await.context("list interfaces")
    }

    /// The interface with this index, if it still exists.
    pub async fn link(&self, index: u32) -> Result<Option<Link>> {
        let messages = self.handle.link().get().match_index(index).execute();
        pin_mut!(messages);
        match messages.try_next().await {
            Ok(message) => Ok(message.as_ref().map(Link::decode)),
            Err(error) if is_error(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(error).context("read the interface"),
        }
    }

    /// Every address of every interface.
    pub async fn addresses(&self) -> Result<Vec<InterfaceAddress>> {
        let messages = self.handle.address().get().execute();
        let addresses: Vec<_> = messages
            .map_ok(|message| InterfaceAddress::decode(&message))
            .try_collect()
            .await
            .context("list addresses")?;
        Ok(addresses.into_iter().flatten().collect())
    }

    /// Every neighbour behind the interface.
    pub async fn neighbours(&self, interface: u32) -> Result<Vec<Neighbour>> {
        let messages = self.handle.neighbours().get().execute();
        let neighbours: Vec<_> =
            messages.map_ok(|message| Neighbour::decode(&message)).try_collect().await.context("list neighbours")?;
        Ok(neighbours.into_iter().flatten().filter(|neighbour| neighbour.interface == interface).collect())
    }

    /// Where the kernel would send a packet for `destination`.
    pub async fn route(&self, destination: IpAddr) -> Result<Route> {
        let message = match destination {
            IpAddr::V4(ip) => {
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, host_prefix(destination)).build()
            }
            IpAddr::V6(ip) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, host_prefix(destination)).build()
            }
        };
        let messages = self.handle.route().get(message).execute();
        pin_mut!(messages);
        match messages.try_next().await {
            Ok(message) => Ok(message.as_ref().map_or(Route::Unreachable, Route::decode)),
            // The kernel reports unreachable, prohibited and blackhole destinations as failures of the lookup.
            Err(rtnetlink::Error::NetlinkError(_)) => Ok(Route::Unreachable),
            Err(error) => Err(error).with_context(|| format!("look up the route to {destination}")),
        }
    }

    /// Adds a VIP to the interface, for itself alone (/32 or /128), so that nothing takes it for the node's own
    /// address. An IPv6 VIP is also deprecated, the kernel's word for "no source of new traffic", and skips duplicate
    /// address detection, which would delay it.
    pub async fn add_vip(&self, interface: u32, vip: IpAddr) -> Result<Change> {
        let mut request = self.handle.address().add(interface, vip, host_prefix(vip));
        if vip.is_ipv6() {
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_preferred = 0;
            lifetimes.ifa_valid = u32::MAX;
            request.message_mut().attributes.extend([
                AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
                AddressAttribute::CacheInfo(lifetimes),
            ]);
        }
        done_unless(request.execute().await, &[Errno::EEXIST]).with_context(|| format!("add the VIP {vip}"))
    }

    /// Removes a VIP from the interface as it was added by [`Self::add_vip`]; nothing is to be done when either is gone.
    pub async fn remove_vip(&self, interface: u32, vip: IpAddr) -> Result<Change> {
        let removed = self.handle.address().del(vip_message(interface, vip)).execute().await;
        done_unless(removed, &[Errno::EADDRNOTAVAIL, Errno::ENODEV]).with_context(|| format!("remove the VIP {vip}"))
    }

    /// Removes a VIP from the interface with whatever prefix length something has put it there: the kernel compares that,
    /// too, and an interface may have one address several times.
    ///
    /// # Errors
    /// If it stays, because it cannot be removed or because the kernel would take others away with it.
    pub async fn banish_vip(&self, interface: u32, vip: IpAddr) -> Result<Change> {
        let entries = self.address_messages(interface).await?;
        let mut change = Change::Unneeded;
        for entry in &entries {
            if InterfaceAddress::decode(entry).is_none_or(|entry| entry.address != vip) {
                continue;
            }
            let dependents = dependents(entry, &entries);
            if !dependents.is_empty() {
                self.ensure_promotion(interface, vip, &dependents).await?;
            }
            // As the kernel has described it: of an address with a peer it compares the peer's as well.
            let removed = self.handle.address().del(entry.clone()).execute().await;
            let removed = done_unless(removed, &[Errno::EADDRNOTAVAIL, Errno::ENODEV])
                .with_context(|| format!("remove the VIP {vip}/{}", entry.header.prefix_len))?;
            if removed == Change::Done {
                change = Change::Done;
            }
        }
        Ok(change)
    }

    /// Every address of the interface.
    async fn address_messages(&self, interface: u32) -> Result<Vec<AddressMessage>> {
        let messages = self.handle.address().get().set_link_index_filter(interface).execute();
        messages.try_collect().await.context("list addresses of the interface")
    }

    /// Makes sure that the kernel promotes an address of the VIP's subnet when the VIP goes, instead of removing them all.
    async fn ensure_promotion(&self, interface: u32, vip: IpAddr, dependents: &[IpAddr]) -> Result<()> {
        let name = self.link(interface).await?.map(|link| link.name).unwrap_or_default();
        // The kernel heeds either. What cannot be read is off, as it is by default.
        let is_on = |scope: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{scope}/promote_secondaries");
            fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
        };
        if ["all", &name].into_iter().any(is_on) {
            return Ok(());
        }
        let dependents: Vec<String> = dependents.iter().map(ToString::to_string).collect();
        bail!(
            "the VIP {vip} stays on {name}: it is the first address of its subnet there, and the kernel would take {} away \
             with it; see to it by hand, or allow it with `sysctl -w net/ipv4/conf/{name}/promote_secondaries=1`",
            dependents.join(", ")
        );
    }

    /// Makes the kernel resolve a neighbour and keep it resolved, with or without traffic. Not for a permanent entry,
    /// which would lose its permanence.
    ///
    /// # Minimum kernel version
    /// 5.16, for `NTF_EXT_MANAGED`.
    pub async fn manage_neighbour(&self, interface: u32, address: IpAddr) -> Result<()> {
        let mut request = self.handle.neighbours().add(interface, address).state(NeighbourState::None).replace();
        request.message_mut().attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        request.execute().await.with_context(|| format!("resolve the next hop {address}"))
    }

    /// Undoes [`Self::manage_neighbour`]: the entry stays, until the kernel has no use for it.
    pub async fn release_neighbour(&self, interface: u32, address: IpAddr) -> Result<()> {
        // A use without the managed flag takes the flag away and leaves the entry's state alone
        // (`neigh_update_flags` in the kernel's net/core/neighbour.c).
        let request = self.handle.neighbours().add(interface, address).state(NeighbourState::None).replace();
        let released = request.flags(NeighbourFlags::Use).execute().await;
        released.with_context(|| format!("release the next hop {address}"))
    }
}

fn vip_message(interface: u32, vip: IpAddr) -> AddressMessage {
    match vip {
        IpAddr::V4(ip) => {
            AddressMessageBuilder::<Ipv4Addr>::new().address(ip, host_prefix(vip)).index(interface).build()
        }
        IpAddr::V6(ip) => {
            AddressMessageBuilder::<Ipv6Addr>::new().address(ip, host_prefix(vip)).index(interface).build()
        }
    }
}

fn done_unless(result: Result<(), rtnetlink::Error>, unneeded: &[Errno]) -> Result<Change> {
    match result {
        Ok(()) => Ok(Change::Done),
        Err(error) if unneeded.iter().any(|errno| is_error(&error, *errno)) => Ok(Change::Unneeded),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn is_error(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}
