//! The election as the daemon sees it: what its notices mean for the VIPs, and what may raise a fault.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result};
use tracing::{debug, error, info, warn};

use super::{Options, hooks::Hooks, surroundings::Surroundings};
use crate::{
    announce::Announcer,
    config::VrrpConfig,
    dataplane::Leases,
    election::{Election, Equipment, Notice},
    netlink::message::Link,
    vrrp::{
        fsm::{Fault, State},
        settings::Settings,
    },
};

/// What a notice asks of the VIPs on the interface.
pub(super) enum Move {
    /// This node is master: add them.
    Hold(Vec<IpAddr>),
    /// It no longer is, or is not yet: remove them.
    Release(Vec<IpAddr>),
}

/// The election of a node that is not alone.
pub(super) struct Campaign {
    election: Election,
    hooks: Option<Hooks>,
    /// The sources of this node's adverts.
    addresses: Vec<IpAddr>,
    raised: BTreeSet<Fault>,
}

impl Campaign {
    /// Opens what the election needs. It begins when it is told to.
    pub(super) fn prepare(
        options: &Options,
        vrrp: &VrrpConfig,
        surroundings: &Surroundings,
        leases: Leases,
    ) -> Result<Self> {
        let settings = settings(options, vrrp, surroundings)?;
        let addresses = settings.iter().map(|settings| settings.address).collect();
        let hooks = vrrp.notify.as_ref().map(|notify| Hooks::new(notify, &options.interface)).transpose()?;
        let election = Election::start(
            settings,
            Equipment {
                interface: options.interface.clone(),
                index: surroundings.link().index,
                mac: surroundings.survey().mac,
                announcer: Announcer::open(&options.interface)?,
                leases,
            },
        )?;
        let realtime = election.realtime();
        for (what, granted) in [("real-time scheduling", &realtime.scheduling), ("locked memory", &realtime.memory)] {
            if let Err(error) = granted {
                warn!("the election runs without {what} ({error}): a busy node may lose the VIPs for nothing");
            }
        }
        Ok(Self { election, hooks, addresses, raised: BTreeSet::new() })
    }

    /// Waits for the next notice. Safe to cancel.
    pub(super) async fn notice(&mut self) -> Result<Notice> {
        self.election.notice().await.context("the thread of the election has ended")
    }

    /// Gives up the VIPs, and waits until another node has them, or none has taken them in time.
    pub(super) fn leave(&mut self) {
        self.election.leave();
    }

    pub(super) const fn election(&self) -> &Election {
        &self.election
    }

    /// Says what a notice says, and what is to be done about the VIPs.
    pub(super) fn take(&mut self, notice: Notice) -> Option<Move> {
        match notice {
            Notice::Changed { addresses, transition } => {
                let vips: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                info!("VIP {}: {transition}", vips.join(", "));
                if let Some(hooks) = &mut self.hooks {
                    hooks.run(&transition, &vips);
                }
                return Some(match transition.to {
                    State::Master => Move::Hold(addresses),
                    State::Backup | State::Initialize => Move::Release(addresses),
                });
            }
            Notice::Refused { sender, invalid } if invalid.is_foreign() => {
                warn!("an advert of {sender} does not count, nor will those to come: {invalid}");
            }
            Notice::Refused { sender, invalid } => warn!("an advert of {sender} does not count: {invalid}"),
            Notice::Odd { sender, remark } => warn!("an advert of {sender} is odd: {remark}"),
            Notice::HeldUp { late } => {
                warn!("the election woke {late:.1?} too late to tell whether the master is silent, and listens anew");
            }
            Notice::NotSent { destination, error } => error!("cannot send an advert to {destination}: {error}"),
            Notice::NoLease { error } => error!("cannot renew the lease on the VIPs: {error}"),
            Notice::NotAnnounced { error } => error!("cannot announce the VIPs: {error}"),
        }
        None
    }

    /// Whatever may keep this node from being master, from what the kernel says now.
    pub(super) fn judge(&mut self, surroundings: &Surroundings, program: u32) {
        let link = surroundings.link();
        let has_addresses = self.addresses.iter().all(|address| {
            surroundings.addresses().iter().any(|entry| entry.interface == link.index && entry.address == *address)
        });
        self.set_fault(Fault::LinkDown, !link.is_up || !link.has_carrier);
        self.set_fault(Fault::DataPathDown, !runs(link, program));
        self.set_fault(Fault::AddressLost, !has_addresses);
    }

    fn set_fault(&mut self, fault: Fault, is_raised: bool) {
        let has_changed = if is_raised { self.raised.insert(fault) } else { self.raised.remove(&fault) };
        if has_changed {
            debug!(?fault, is_raised, "told the election");
            self.election.set_fault(fault, is_raised);
        }
    }
}

/// Whether this XDP program is still on the interface.
fn runs(link: &Link, program: u32) -> bool {
    link.xdp.as_ref().is_some_and(|xdp| xdp.ids.contains(&program))
}

/// A virtual router for each family of the VIPs.
fn settings(options: &Options, vrrp: &VrrpConfig, surroundings: &Surroundings) -> Result<Vec<Settings>> {
    let vips = options.config.vips();
    let survey = surroundings.survey();
    let own_peer = |is_ipv4: bool| {
        vrrp.peers.iter().copied().find(|peer| peer.is_ipv4() == is_ipv4 && survey.local.contains(peer))
    };
    let mut all = Vec::new();
    if vips.iter().any(IpAddr::is_ipv4) {
        let address = own_peer(true).or(survey.ipv4.map(IpAddr::V4));
        all.push(address.with_context(|| format!("{} has no IPv4 address to send adverts from", options.interface))?);
    }
    if vips.iter().any(IpAddr::is_ipv6) {
        // RFC 9568, section 5.1.2.1: the link-local address; peers are listed by addresses that others know.
        let link_local = || surroundings.link_local().map(IpAddr::V6);
        let address = match vrrp.peers.is_empty() {
            true => link_local(),
            false => own_peer(false).or(survey.ipv6.map(IpAddr::V6)),
        };
        all.push(address.with_context(|| format!("{} has no IPv6 address to send adverts from", options.interface))?);
    }
    all.into_iter()
        .map(|address| {
            let settings = vrrp.settings(address, &vips, |peer| survey.local.contains(peer));
            settings.check().context("in table [vrrp] of the configuration")?;
            Ok(settings)
        })
        .collect()
}
