//! Reads the node's interfaces, and what is on the one that matters.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    super::facts::{Agent, Interface},
    Options, known,
};
use crate::{
    config::Config,
    control::{Answer, Request, client::Client},
    daemon::{campaign, preflight, present},
    dataplane::{self, Mode},
    driver::Driver,
    netlink::{
        client::Netlink,
        facts::{KnownNeighbours, Snapshot, Survey},
        features,
        message::{InterfaceAddress, Link, shares_prefix},
    },
};

/// An agent that does not answer by then is as good as none.
const PATIENCE: Duration = Duration::from_secs(2);

/// The interfaces and their addresses.
pub(super) struct Node {
    links: Vec<Link>,
    addresses: Vec<InterfaceAddress>,
}

impl Node {
    pub(super) async fn read(netlink: &Netlink) -> Result<Self> {
        Ok(Self { links: netlink.links().await?, addresses: netlink.addresses().await? })
    }

    /// The interface that is meant: the one that was named, the one that has an agent, or the one that is in a VIP's
    /// network.
    pub(super) fn interface(&self, options: &Options, config: Option<&Config>) -> Option<String> {
        if options.interface.is_some() {
            return options.interface.clone();
        }
        if let Ok([interface]) = options.run_dir.interfaces().as_deref() {
            return Some(interface.clone());
        }
        self.next_to_vips(config?).map(|link| link.name.clone())
    }

    fn next_to_vips(&self, config: &Config) -> Option<&Link> {
        let vips = config.vips();
        let is_next = |entry: &&InterfaceAddress| {
            !entry.is_host_only() && vips.iter().any(|vip| shares_prefix(entry.address, *vip, entry.prefix_length))
        };
        let link_of = |index| self.links.iter().find(|link| link.index == index && link.mac.is_some());
        let mut link = self.addresses.iter().filter(is_next).find_map(|entry| link_of(entry.interface))?;
        // The programs are on what carries the VLAN's frames.
        for _ in config.node.vlan.identifiers() {
            link = link_of(link.vlan?.lower)?;
        }
        Some(link)
    }

    pub(super) async fn look_at(
        &self,
        netlink: &Netlink,
        name: &str,
        options: &Options,
        config: Option<&Config>,
    ) -> Interface {
        let device = self.links.iter().find(|link| link.name == name);
        let surroundings = match (device, config) {
            (Some(device), Some(config)) => self.surroundings(netlink, device, config).await.ok(),
            _ => None,
        };
        let election =
            config.and_then(|config| config.vrrp.as_ref().map(|vrrp| (vrrp, config.vips()))).zip(surroundings.as_ref());
        let election =
            election.map(|((vrrp, vips), (snapshot, survey))| known(campaign::settings(vrrp, &vips, snapshot, survey)));
        let index = device.map_or(0, |device| device.index);
        Interface {
            name: name.to_owned(),
            links: self.links.clone(),
            driver: Driver::of(name, index).await,
            active_features: known(features::active(name).await),
            agent: agent(options, name),
            left: match device {
                Some(device) => left(netlink, device, options).await.unwrap_or_default(),
                None => None,
            },
            has_no_place_for_filters: match device {
                Some(device) => preflight::has_no_place_for_filters(netlink, device).await.unwrap_or_default(),
                None => false,
            },
            has_pins: dataplane::pin_directory(&options.pin_root, name).exists(),
            surroundings,
            election,
        }
    }

    /// The node as an agent would see it.
    async fn surroundings(&self, netlink: &Netlink, device: &Link, config: &Config) -> Result<(Snapshot, Survey)> {
        let vlan = config.node.vlan;
        let link = if vlan.is_none() { device } else { preflight::find_vlan(&self.links, device, vlan)? };
        let mut routes = BTreeMap::new();
        for backend in config.services.iter().flat_map(|service| &service.backends) {
            let address = backend.address.ip();
            routes.insert(address, netlink.route(address).await?);
        }
        let neighbours = netlink.neighbours(link.index).await?;
        let snapshot = Snapshot { link: link.clone(), addresses: self.addresses.clone(), routes, neighbours };
        let survey = snapshot.survey(&config.vips(), &KnownNeighbours::default());
        Ok((snapshot, survey.context("the interface has no MAC address")?))
    }
}

/// Where a program runs that is pinned for the interface.
async fn left(netlink: &Netlink, device: &Link, options: &Options) -> Result<Option<Mode>> {
    dataplane::attached_mode(&options.pin_root, &device.name, &present::read(netlink, device).await?)
}

fn agent(options: &Options, interface: &str) -> Option<Agent> {
    let mut client = Client::connect(&options.run_dir.socket(interface), PATIENCE).ok()??;
    match client.ask(&Request::Status).ok()? {
        Answer::Status(status) => {
            Some(Agent { pid: status.pid.unwrap_or_default(), mode: status.mode, mode_reason: status.mode_reason })
        }
        _ => None,
    }
}
