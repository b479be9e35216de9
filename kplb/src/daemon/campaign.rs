//! The election as the daemon sees it: what its notices mean for the VIPs, and what may raise a fault.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tracing::{debug, error, info, warn};

use super::{
    hooks::Hooks,
    surroundings::{Running, Surroundings},
};
use crate::{
    announce::Announcer,
    config::VrrpConfig,
    dataplane::Leases,
    election::{Election, Equipment, Notice},
    model::Family,
    netlink::facts::{Snapshot, Survey},
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
    /// Another node has them: what goes through this one is over.
    Replaced(Vec<IpAddr>),
}

/// The election of a node that is not alone.
pub(super) struct Campaign {
    election: Election,
    hooks: Option<Hooks>,
    vrrp: VrrpConfig,
    vips: BTreeSet<IpAddr>,
    /// The sources of this node's adverts.
    addresses: Vec<IpAddr>,
    raised: BTreeSet<(bool, Fault)>,
}

impl Campaign {
    /// Opens what the election needs. It begins when it is told to.
    pub(super) fn prepare(
        interface: &str,
        vrrp: &VrrpConfig,
        vips: BTreeSet<IpAddr>,
        surroundings: &Surroundings,
        leases: Leases,
    ) -> Result<Self> {
        let settings = settings(vrrp, &vips, surroundings.snapshot(), surroundings.survey())?;
        let addresses = settings.iter().map(|settings| settings.address).collect();
        let link = surroundings.link();
        let hooks = vrrp.notify.as_ref().map(|notify| Hooks::new(notify, interface)).transpose()?;
        let election = Election::start(
            settings,
            Equipment {
                interface: link.name.clone(),
                index: link.index,
                mac: surroundings.survey().mac,
                announcer: Announcer::open(&link.name)?,
                leases,
            },
        )?;
        let realtime = election.realtime();
        for (what, granted) in [("real-time scheduling", &realtime.scheduling), ("locked memory", &realtime.memory)] {
            if let Err(error) = granted {
                warn!("the election runs without {what} ({error}): a busy node may lose the VIPs for nothing");
            }
        }
        Ok(Self { election, hooks, vrrp: vrrp.clone(), vips, addresses, raised: BTreeSet::new() })
    }

    /// Waits for the next notice. Safe to cancel.
    pub(super) async fn notice(&mut self) -> Result<Notice> {
        self.election.notice().await.context("the thread of the election has ended")
    }

    /// Gives up the VIPs, and waits until another node has them, or none has taken them in time.
    pub(super) async fn leave(&mut self) {
        self.election.leave().await;
        for notice in self.election.last_notices() {
            self.take(notice);
        }
    }

    /// Ends as if this process were killed, for another election on this node to go on; see [`Election::quit`].
    pub(super) async fn quit(&mut self, grace: Option<Duration>) {
        self.election.quit(grace).await;
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
            Notice::Replaced { addresses } => return Some(Move::Replaced(addresses)),
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
            Notice::NotReaddressed { address, error } => error!("cannot send adverts from {address}: {error}"),
        }
        None
    }

    /// Whatever may keep this node from being master, from what the kernel says now; and what of the interface the
    /// election goes by.
    pub(super) fn judge(&mut self, surroundings: &Surroundings) {
        let link = surroundings.link();
        self.set_fault(None, Fault::LinkDown, !link.is_up || !link.has_carrier);
        self.set_fault(None, Fault::DataPathDown, surroundings.data_path() == Running::No);
        for address in self.addresses.clone() {
            let family = Family::of(&address);
            let is_there = surroundings.snapshot().is_usable(&address);
            if !is_there && self.readdress(&address, surroundings) {
                continue;
            }
            self.set_fault(Some(family), Fault::AddressLost, !is_there);
        }
    }

    /// Whether there is another address for adverts to come from, which the election is told.
    fn readdress(&mut self, lost: &IpAddr, surroundings: &Surroundings) -> bool {
        let (snapshot, survey) = (surroundings.snapshot(), surroundings.survey());
        let Ok(all) = settings(&self.vrrp, &self.vips, snapshot, survey) else { return false };
        let is_like = |settings: &Settings| settings.address.is_ipv4() == lost.is_ipv4();
        let Some(new) = all.into_iter().find(is_like).filter(|new| snapshot.is_usable(&new.address)) else {
            return false;
        };
        warn!("adverts come from {} now: {lost} is no longer on the interface", new.address);
        self.addresses.iter_mut().filter(|address| *address == lost).for_each(|address| *address = new.address);
        self.raised.remove(&(lost.is_ipv4(), Fault::AddressLost));
        self.election.readdress(new);
        true
    }

    fn set_fault(&mut self, family: Option<Family>, fault: Fault, is_raised: bool) {
        // A fault of the whole node is not of a family as well.
        let key = (family != Some(Family::V6), fault);
        let has_changed = if is_raised { self.raised.insert(key) } else { self.raised.remove(&key) };
        if has_changed {
            debug!(?family, ?fault, is_raised, "told the election");
            self.election.set_fault(family, fault, is_raised);
        }
    }
}

/// A virtual router for each family of the VIPs.
///
/// # Errors
/// If the node cannot take part in the election.
pub(crate) fn settings(
    vrrp: &VrrpConfig,
    vips: &BTreeSet<IpAddr>,
    snapshot: &Snapshot,
    survey: &Survey,
) -> Result<Vec<Settings>> {
    let link = &snapshot.link;
    let is_own = |peer: &IpAddr| survey.local.contains(peer);
    let mut all = Vec::new();
    for is_ipv4 in [true, false].into_iter().filter(|is_ipv4| vips.iter().any(|vip| vip.is_ipv4() == *is_ipv4)) {
        let listed = vrrp.peers.iter().filter(|peer| peer.is_ipv4() == is_ipv4).find(|peer| is_own(peer));
        let address = match listed {
            Some(peer) => {
                ensure!(
                    snapshot.is_usable(peer),
                    "peer {peer} is this node, but {} does not have that address",
                    link.name
                );
                Some(*peer)
            }
            None if is_ipv4 => survey.ipv4.map(IpAddr::V4),
            // RFC 9568, section 5.1.2.1: the link-local address; peers are listed by addresses that others know.
            None if vrrp.peers.is_empty() => snapshot.link_local().map(IpAddr::V6),
            None => survey.ipv6.map(IpAddr::V6),
        };
        let family = if is_ipv4 { Family::V4 } else { Family::V6 };
        let address = address.with_context(|| format!("{} has no {family} address to send adverts from", link.name))?;
        let settings = vrrp.settings(address, vips, is_own);
        settings.check().context("in table [vrrp] of the configuration")?;
        all.push(settings);
    }
    Ok(all)
}
