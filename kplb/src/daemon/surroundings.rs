//! The node around the data path, as last read from the kernel, and the neighbour entries that the agent keeps alive and
//! true.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use anyhow::{Context as _, Result};
use kplb_common::net::Mac;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{
    preflight::{DETACH_PATIENCE, DETACH_POLL},
    present,
};
use crate::{
    dataplane::Attached,
    netlink::{
        client::Netlink,
        facts::{KnownNeighbours, Reach, Snapshot, Standing, Survey},
        message::{InterfaceAddress, Link},
        watch::Changes,
    },
    packet_socket::PacketSocket,
    who_has::{pacing::Pacing, question::Question},
};

/// What the agent knows of the node.
pub(super) struct Surroundings {
    netlink: Netlink,
    /// The interface that the programs are on: that of the snapshot, or the one that carries its VLAN's frames.
    device: Link,
    /// What is attached to that one, once something is, and whether it is still there.
    attached: Option<(Attached, Running)>,
    snapshot: Snapshot,
    known: KnownNeighbours,
    /// Next hops whose entries this agent made the kernel look after.
    managed: BTreeSet<IpAddr>,
    /// By which the segment is asked for next hops, and how often it may be.
    wire: PacketSocket,
    pacing: Pacing,
    backends: BTreeSet<IpAddr>,
    vips: BTreeSet<IpAddr>,
    survey: Survey,
}

/// Whether the data path sees packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Running {
    Yes,
    No,
}

/// The interface is no longer there.
#[derive(Debug, thiserror::Error)]
#[error("the interface is gone")]
pub(super) struct InterfaceGone;

impl Surroundings {
    /// Reads the node for the first time: the programs are to be on `device`, and `link` has the addresses.
    pub(super) async fn read(
        netlink: Netlink,
        device: Link,
        link: Link,
        backends: BTreeSet<IpAddr>,
        vips: BTreeSet<IpAddr>,
    ) -> Result<Self> {
        let mac = link.mac.context("the interface has no MAC address")?;
        let snapshot = Snapshot { link, addresses: Vec::new(), routes: BTreeMap::new(), neighbours: Vec::new() };
        let survey = Survey { mac, ipv4: None, ipv6: None, local: BTreeSet::new(), reach: BTreeMap::new() };
        let wire = PacketSocket::open(&snapshot.link.name)?;
        let (known, managed, pacing) = (KnownNeighbours::default(), BTreeSet::new(), Pacing::default());
        let attached = None;
        let mut surroundings =
            Self { netlink, device, attached, snapshot, known, managed, wire, pacing, backends, vips, survey };
        surroundings.refresh(Changes::everything()).await?;
        Ok(surroundings)
    }

    /// Reads again what may have changed, and makes the kernel look after the next hops.
    ///
    /// # Errors
    /// [`InterfaceGone`], or that the kernel could not be asked.
    pub(super) async fn refresh(&mut self, changes: Changes) -> Result<()> {
        let index = self.snapshot.link.index;
        if changes.topology {
            self.refresh_link().await?;
            self.snapshot.addresses = self.netlink.addresses().await?;
            for backend in &self.backends {
                self.snapshot.routes.insert(*backend, self.netlink.route(*backend).await?);
            }
        }
        self.snapshot.neighbours = self.netlink.neighbours(index).await?;
        let survey =
            self.snapshot.survey(&self.vips, &self.known).context("the interface has no MAC address any more")?;
        self.known.learn(&survey);
        self.report(&survey).await;
        self.survey = survey;
        self.manage_next_hops().await;
        Ok(())
    }

    /// Reads the interfaces again: of programs that come and go by BPF links the kernel tells nobody.
    ///
    /// # Errors
    /// [`InterfaceGone`], or that the kernel could not be asked.
    pub(super) async fn refresh_link(&mut self) -> Result<()> {
        self.device = self.netlink.link(self.device.index).await?.ok_or(InterfaceGone)?;
        if let Some((attached, running)) = &mut self.attached {
            let runs = present::runs(&self.netlink, &self.device, attached).await?;
            *running = if runs { Running::Yes } else { Running::No };
        }
        self.snapshot.link = self.netlink.link(self.snapshot.link.index).await?.ok_or(InterfaceGone)?;
        Ok(())
    }

    /// Follows these backends and VIPs from now on.
    ///
    /// # Errors
    /// [`InterfaceGone`], or that the kernel could not be asked.
    pub(super) async fn serve(&mut self, backends: BTreeSet<IpAddr>, vips: BTreeSet<IpAddr>) -> Result<()> {
        if (&self.backends, &self.vips) == (&backends, &vips) {
            return Ok(());
        }
        self.snapshot.routes.retain(|backend, _| backends.contains(backend));
        (self.backends, self.vips) = (backends, vips);
        self.refresh(Changes::everything()).await
    }

    /// Takes note of where backends' next hops were for an earlier agent.
    pub(super) fn remember(&mut self, macs: BTreeMap<IpAddr, Mac>) {
        for (backend, mac) in macs {
            if let Some(Reach::Via { next_hop, mac: None }) = self.survey.reach.get(&backend) {
                self.known.note(*next_hop, mac);
            }
        }
        if let Some(survey) = self.snapshot.survey(&self.vips, &self.known) {
            self.survey = survey;
        }
    }

    /// The backends and VIPs that it follows.
    pub(super) fn served(&self) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        (self.backends.clone(), self.vips.clone())
    }

    async fn manage_next_hops(&mut self) {
        for next_hop in self.snapshot.unmanaged(&self.survey) {
            match self.netlink.manage_neighbour(self.snapshot.link.index, next_hop).await {
                Ok(()) => {
                    self.managed.insert(next_hop);
                }
                Err(error) => warn!("{error:#}"),
            }
        }
    }

    /// Asks the segment for the next hops to these backends, which seem not to get what is sent to them; as often as is
    /// seemly. The kernel hears the answers, corrects its entries, and says so.
    pub(super) async fn doubt(&mut self, backends: &BTreeSet<IpAddr>, now: Instant) {
        for next_hop in self.survey.next_hops_to(backends) {
            let standing = self.snapshot.standing(next_hop);
            if standing == Standing::Fixed || !self.pacing.may_ask(next_hop, now) {
                continue;
            }
            debug!("next hop {next_hop}: where is it?");
            if let Err(error) = self.ask_for(next_hop, standing).await {
                debug!("{error:#}");
            }
        }
    }

    async fn ask_for(&self, next_hop: IpAddr, standing: Standing) -> Result<()> {
        if standing == Standing::Unresolved {
            // Of one that it has given up it takes no answer (`ndisc_recv_na` in the kernel's net/ipv6/ndisc.c), but one
            // that it is told to use it asks for itself, once a second.
            self.netlink.manage_neighbour(self.snapshot.link.index, next_hop).await?;
        }
        if let Some(question) = self.snapshot.question_for(next_hop, &self.vips) {
            self.wire.send(&question.frame(self.survey.mac)).context("ask for a next hop")?;
        }
        Ok(())
    }

    /// The question by which to find a client: for itself, or for the router to it. None if it is not behind the
    /// interface, or the node has no address to ask from.
    pub(super) async fn question_for(&self, client: IpAddr) -> Option<Question> {
        match self.netlink.route(client).await {
            Ok(route) => {
                let neighbour = self.snapshot.neighbour_towards(client, route)?;
                self.snapshot.question_for(neighbour, &self.vips)
            }
            Err(error) => {
                debug!("{error:#}");
                None
            }
        }
    }

    /// Leaves the neighbour entries to the kernel again, as far as it goes.
    pub(super) async fn release_next_hops(&mut self) {
        for next_hop in std::mem::take(&mut self.managed) {
            if let Err(error) = self.netlink.release_neighbour(self.snapshot.link.index, next_hop).await {
                debug!("{error:#}");
            }
        }
    }

    /// Makes sure that the kernel has taken this program off the interface: "detached" should mean just that.
    pub(super) async fn wait_for_detach(&self, program: u32) -> Result<()> {
        let deadline = Instant::now() + DETACH_PATIENCE;
        while let Some(device) = self.netlink.link(self.device.index).await?
            && present::read(&self.netlink, &device).await?.has(program)
        {
            if Instant::now() >= deadline {
                warn!("{} still has the program with id {program}", device.name);
                break;
            }
            sleep(DETACH_POLL).await;
        }
        Ok(())
    }

    /// Says what is new about the way to the backends.
    async fn report(&self, survey: &Survey) {
        for (backend, reach) in &survey.reach {
            if self.survey.reach.get(backend) == Some(reach) {
                continue;
            }
            match reach {
                Reach::Local => info!("backend {backend} is on this node"),
                Reach::Via { next_hop, mac: Some(mac) } => info!("backend {backend}: next hop {next_hop} is at {mac}"),
                Reach::Via { next_hop, mac: None } => debug!("backend {backend}: next hop {next_hop} is not resolved"),
                Reach::OtherInterface(index) => {
                    let other = self.netlink.link(*index).await.ok().flatten();
                    let other = other.map_or_else(|| format!("interface {index}"), |link| link.name);
                    warn!(
                        "backend {backend} is behind {other}, not {}: it gets nothing until its route changes",
                        self.snapshot.link.name
                    );
                }
                Reach::Unreachable => warn!("backend {backend}: there is no route to it, so it gets nothing"),
            }
        }
    }

    /// Warns of all that keeps a backend from getting anything.
    pub(super) fn warn_of_gaps(&self) {
        for (backend, reach) in &self.survey.reach {
            if let Reach::Via { next_hop, mac: None } = reach {
                warn!("backend {backend} gets nothing yet: its next hop {next_hop} does not answer");
            }
        }
    }

    /// Whether it is worth waiting: a next hop may still answer, or an address become fit.
    pub(super) fn is_settled(&self) -> bool {
        self.survey.is_resolved() && !self.snapshot.is_settling()
    }

    pub(super) const fn survey(&self) -> &Survey {
        &self.survey
    }

    /// From now on there is this to look after.
    pub(super) fn look_after(&mut self, attached: Attached) {
        self.attached = Some((attached, Running::Yes));
    }

    /// Whether the program at ingress is there, as last read.
    pub(super) fn data_path(&self) -> Running {
        self.attached.as_ref().map_or(Running::No, |(_, running)| *running)
    }

    /// The interface that has the addresses: that of the VLAN, if the node is in one.
    pub(super) const fn link(&self) -> &Link {
        &self.snapshot.link
    }

    /// As last read.
    pub(super) const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(super) fn addresses(&self) -> &[InterfaceAddress] {
        &self.snapshot.addresses
    }
}
