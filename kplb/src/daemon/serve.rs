//! The loop of a serving agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    net::IpAddr,
    ops::ControlFlow,
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kplb_common::{backend::Backend, net::Mac, report::Symptom, sweep::SweepMode};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Interval, sleep, sleep_until},
};
use tracing::{debug, error, info};

use super::{
    Ending, Event, Options,
    backends::Backends,
    campaign::Move,
    cast::Cast,
    claim::{Claim, Duty},
    local::Local,
    manager::{self, Watchdog},
    probe::{self, Occasion},
    report::{Sources, report},
    search::{Found, Missing, Search},
    signals::{Signals, Wish},
    surroundings::{InterfaceGone, Surroundings},
    vips::Vips,
};
use crate::{
    control::{
        Answer, Request,
        server::{Call, Server},
    },
    dataplane::{Attached, Dataplane, Reports, Sighting},
    health::watch::News,
    ids::Ids,
    maglev::Rings,
    model::{self, Desired},
    netlink::{
        client::Change,
        watch::{Changes, Watch},
    },
    plan::{Operation, plan},
    reset::{First, Resetter, Route, Sent},
    run_dir::Lock,
};

/// A serving agent.
pub(super) struct Agent<'a> {
    pub(super) options: &'a Options,
    pub(super) attached: Attached,
    pub(super) local: Local,
    pub(super) since: Instant,
    /// What is served now.
    pub(super) cast: Cast,
    pub(super) ids: Ids,
    /// How many configurations the data path has followed, those of earlier agents as well.
    pub(super) generation: u64,
    /// When to look whether backends that have left the configuration are finished.
    pub(super) next_look: Option<Instant>,
    /// What the maps hold.
    pub(super) applied: Desired,
    pub(super) rings: Rings,
    pub(super) surroundings: &'a mut Surroundings,
    pub(super) dataplane: &'a mut Dataplane,
    pub(super) vips: &'a mut Vips,
    pub(super) claim: Claim,
    /// So that the loop turns even if nothing happens.
    pub(super) heartbeat: Interval,
    pub(super) watchdog: Watchdog,
    pub(super) lock: &'a Lock,
    pub(super) backends: Backends<'a>,
    pub(super) reports: Reports,
    pub(super) search: Search,
    pub(super) resetter: Arc<Resetter>,
    pub(super) watch: Watch,
    pub(super) server: Server,
}

/// Serves until something asks for the end.
///
/// # Errors
/// When there is nothing left to serve, or to serve it with. What may pass is logged, and the data path goes on with
/// what it has.
pub(super) async fn serve(mut agent: Agent<'_>, signals: &mut Signals) -> Result<Ending> {
    match follow_events(&mut agent, signals).await {
        Ok(Ending::Leave) => {
            agent.bequeath().await;
            Ok(Ending::Leave)
        }
        served => {
            manager::stopping();
            let left = agent.leave().await;
            served.and_then(|ending| left.map(|()| ending))
        }
    }
}

async fn follow_events(agent: &mut Agent<'_>, signals: &mut Signals) -> Result<Ending> {
    loop {
        let flow = match agent.next_event(signals).await? {
            Event::Changed(changes) => agent.follow(changes).await?,
            Event::News(news) => agent.take(news).await,
            Event::Sightings(sightings) => agent.heed(sightings).await,
            Event::Found(found) => agent.lead_to(&found),
            Event::Due => agent.update_or_log(),
            Event::Look => agent.dismiss_finished(),
            Event::Call(call) => agent.answer(call).await,
            Event::Duty(duty) => agent.carry_out(duty).await,
            Event::Beat => agent.judge_itself().await,
            Event::WatchdogDue => {
                manager::alive();
                ControlFlow::Continue(())
            }
            Event::Signal(Wish::Reload) => agent.reload_or_log().await,
            Event::Signal(Wish::End(signal)) => {
                info!("{signal}: ending");
                ControlFlow::Break(Ending::Remove)
            }
            Event::Signal(Wish::Leave) => {
                info!("ending, and leaving everything for another agent");
                ControlFlow::Break(Ending::Leave)
            }
        };
        if let ControlFlow::Break(ending) = flow {
            return Ok(ending);
        }
    }
}

/// Who has not yet acknowledged all that it got asks back when it is reset (RFC 5961, section 3.2): so long the data path
/// stays, for its question to reach the other end, which knows that it is over.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How far apart the others are to expect adverts while one agent takes the place of another on this node: three times as
/// long they wait, and if no other comes, so long the VIPs are without a node.
const GRACE: Duration = Duration::from_secs(1);

/// Whether an address is of a family.
type IsOfFamily = fn(&IpAddr) -> bool;

/// What ends the flows of each address family, and which family that is.
const FAMILIES: [(SweepMode, IsOfFamily); 2] =
    [(SweepMode::EndIpv4, IpAddr::is_ipv4), (SweepMode::EndIpv6, IpAddr::is_ipv6)];

/// Waits until then; for ever without one. Safe to cancel.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => future::pending().await,
    }
}

impl Agent<'_> {
    async fn next_event(&mut self, signals: &mut Signals) -> Result<Event> {
        // A node that is alone has nobody to show that it turns.
        let is_watched = if let Claim::Elected(campaign) = &self.claim {
            campaign.election().beat();
            true
        } else {
            false
        };
        let next_change = self.backends.next_change();
        tokio::select! {
            signal = signals.next() => Ok(Event::Signal(signal.context("the signal thread ended")?)),
            changes = self.watch.changed() => Ok(Event::Changed(changes?)),
            news = self.backends.news() => Ok(Event::News(news)),
            sightings = self.reports.next() => Ok(Event::Sightings(sightings.context("read reports of the data path")?)),
            Some(found) = self.search.found() => Ok(Event::Found(found)),
            () = reached(next_change) => Ok(Event::Due),
            () = reached(self.next_look) => Ok(Event::Look),
            call = self.server.next() => Ok(Event::Call(call.context("the control socket was closed")?)),
            duty = self.claim.duty() => Ok(Event::Duty(duty?)),
            _ = self.heartbeat.tick(), if is_watched => Ok(Event::Beat),
            () = self.watchdog.due() => Ok(Event::WatchdogDue),
        }
    }

    /// Brings VIPs and maps up to date with the node.
    async fn follow(&mut self, changes: Changes) -> Result<ControlFlow<Ending>> {
        debug!(?changes, "the node changed");
        let before = self.surroundings.link().clone();
        match self.surroundings.refresh(changes).await {
            Ok(()) => {}
            Err(error) if error.is::<InterfaceGone>() => return Err(error.context(self.options.interface.clone())),
            Err(error) => {
                error!("cannot read the node: {error:#}");
                return Ok(ControlFlow::Continue(()));
            }
        }
        let now = self.surroundings.link();
        let is_connected_again = now.has_carrier && !before.has_carrier;
        let restored = if changes.topology {
            self.vips.restore(self.surroundings.addresses(), self.lock).await.unwrap_or_else(|error| {
                error!("{error:#}");
                Change::Unneeded
            })
        } else {
            Change::Unneeded
        };
        if let Claim::Elected(campaign) = &mut self.claim {
            campaign.judge(self.surroundings);
        }
        if changes.topology {
            self.banish_strays().await;
        }
        let flow = self.update_or_log();
        if is_connected_again || restored == Change::Done {
            self.claim.announce_again(self.applied.node.mac);
        }
        Ok(flow)
    }

    async fn take(&mut self, news: Vec<(usize, News)>) -> ControlFlow<Ending> {
        let hesitant = news.iter().filter(|(_, news)| *news == News::Hesitates).map(|(id, _)| *id).collect();
        self.doubt(&hesitant).await;
        self.backends.take(news);
        self.update_or_log()
    }

    /// What the data path has seen is a reason to look.
    async fn heed(&mut self, sightings: Vec<Sighting>) -> ControlFlow<Ending> {
        let mut silent = BTreeSet::new();
        for sighting in sightings {
            match sighting {
                Sighting::Backend(id, symptom) => {
                    // One that is gone may have been seen a moment ago.
                    let Some(place) = self.ids.place_of_backend(id) else { continue };
                    self.backends.take_symptom(place, symptom);
                    if matches!(symptom, Symptom::Silent | Symptom::Unanswered) {
                        silent.insert(place);
                    }
                }
                Sighting::SilentClient { client, mac } => {
                    if let Some(question) = self.surroundings.question_for(client).await {
                        let own = self.surroundings.survey().mac;
                        self.search.look_for(Missing { client, mac }, question, own, Instant::now());
                    }
                }
            }
        }
        self.doubt(&silent).await;
        ControlFlow::Continue(())
    }

    /// Asks for the next hops to these backends: they may be elsewhere.
    async fn doubt(&mut self, backends: &BTreeSet<usize>) {
        if backends.is_empty() {
            return;
        }
        let all = self.cast.config.services.iter().flat_map(|service| &service.backends).enumerate();
        let doubtful =
            all.filter(|(place, _)| backends.contains(place)).map(|(_, backend)| backend.address.ip()).collect();
        self.surroundings.doubt(&doubtful, Instant::now()).await;
    }

    fn lead_to(&mut self, Found { clients, mac }: &Found) -> ControlFlow<Ending> {
        let start = Instant::now();
        match self.dataplane.lead_clients(clients, *mac) {
            Ok(()) => {
                debug!("at {mac}: {clients:?}");
                info!("led the flows of {} silent clients to {mac} within {:.1?}", clients.len(), start.elapsed());
            }
            Err(error) => error!("cannot lead clients to {mac}: {error:#}"),
        }
        ControlFlow::Continue(())
    }

    fn update_or_log(&mut self) -> ControlFlow<Ending> {
        if let Err(error) = self.update() {
            error!("the data path goes on with what it has: {error:#}");
        }
        ControlFlow::Continue(())
    }

    /// Writes what the maps lack, and ends the flows of backends that serve no longer.
    ///
    /// Another MAC address of the interface is announced when the data path knows it, and not before: what is sent elsewhere
    /// it leaves to the node's own sockets, which know nothing of its flows, and would reset them.
    pub(super) fn update(&mut self) -> Result<()> {
        let mut mac = self.applied.node.mac;
        let conditions = self.backends.conditions(Instant::now());
        let facts = self.surroundings.survey().facts();
        let desired = model::desired(&self.cast.config, &self.ids, &facts, &conditions, &mut self.rings)?;
        let (mut has_orphans, mut gone) = (false, BTreeMap::new());
        for step in plan(&desired, Some(&self.applied)).chunk_by(Operation::goes_with) {
            self.dataplane.apply(step).context("write the maps")?;
            for operation in step {
                has_orphans |= operation.ends_flows();
                if let Operation::RemoveBackend { id } = operation {
                    gone.extend(self.applied.backends.get(id).map(|backend| (*id, *backend)));
                }
                operation.apply(&mut self.applied);
            }
            if self.applied.node.mac != mac {
                mac = self.applied.node.mac;
                self.claim.announce_again(mac);
            }
        }
        // Now it is true.
        self.backends.log_transitions();
        if has_orphans {
            self.end_orphans(&gone)?;
        }
        Ok(())
    }

    /// Ends the flows, and the sockets on this node, of backends that serve no longer, or that are `gone`.
    pub(super) fn end_orphans(&mut self, gone: &BTreeMap<u16, Backend>) -> Result<()> {
        self.end_flows(SweepMode::EndOrphans, "of backends that serve no longer", gone)?;
        self.local.end_orphans(self.dataplane, &self.applied)
    }

    /// Ends established flows, and tells both ends of each, off this thread. `which` of them, is for the log.
    fn end_flows(
        &mut self,
        mode: SweepMode,
        which: &'static str,
        gone: &BTreeMap<u16, Backend>,
    ) -> Result<Option<JoinHandle<()>>> {
        let start = Instant::now();
        let orphans = self.dataplane.end_flows(mode)?;
        if orphans.is_empty() {
            return Ok(None);
        }
        let backends = gone.iter().chain(&self.applied.backends);
        let route = Route {
            node: self.applied.node.mac,
            backends: (backends.filter(|(_, backend)| backend.mac != Mac::UNRESOLVED))
                .map(|(id, backend)| (*id, backend.mac))
                .collect(),
        };
        let first = if mode == SweepMode::EndOrphans { First::Clients } else { First::Backends };
        let resetter = Arc::clone(&self.resetter);
        Ok(Some(spawn_blocking(move || {
            let Sent { to_clients, to_backends } = resetter.send(&orphans, &route, first);
            info!(
                "ended {} flows {which} within {:.1?}: {to_clients} resets to clients, {to_backends} to backends",
                orphans.len(),
                start.elapsed()
            );
        })))
    }

    /// This node no longer has these VIPs: who is connected through it would wait for ever.
    fn end_flows_of(&mut self, vips: &[IpAddr]) -> Result<()> {
        for (mode, is_of_family) in FAMILIES {
            if vips.iter().any(is_of_family) {
                self.end_flows(mode, "of VIPs that another node has", &BTreeMap::new())?;
            }
        }
        Ok(())
    }

    /// Hands the VIPs over if there is somebody to take them, and ends the flows that go through this node, since nobody
    /// will know them any more.
    async fn leave(&mut self) -> Result<()> {
        if let Claim::Elected(campaign) = &mut self.claim {
            campaign.leave().await;
        }
        let mut has_ended_some = false;
        for (mode, _) in FAMILIES {
            if let Some(told) = self.end_flows(mode, "of this node", &BTreeMap::new())? {
                told.await.context("tell clients and backends that their connections are over")?;
                has_ended_some = true;
            }
        }
        if has_ended_some {
            sleep(LAST_WORDS).await;
        }
        Ok(())
    }

    /// Leaves the VIPs to another agent on this node.
    async fn bequeath(&mut self) {
        if let Claim::Elected(campaign) = &mut self.claim {
            campaign.quit(Some(GRACE)).await;
        }
    }

    async fn answer(&mut self, call: Call) -> ControlFlow<Ending> {
        let (answer, flow) = match &call.request {
            Request::Status => (self.status(), ControlFlow::Continue(())),
            Request::Backend(command) => {
                let answer = match self.backends.command(command) {
                    Ok(backends) => Answer::Backends(backends),
                    Err(error) => Answer::Error(error),
                };
                (answer, self.update_or_log())
            }
            Request::Reload => {
                let answer = match self.reload().await {
                    Ok(summary) => Answer::Reloaded(summary),
                    Err(error) => Answer::Error(format!("{error:#}")),
                };
                (answer, ControlFlow::Continue(()))
            }
            Request::Stop => {
                info!("asked to stop: ending");
                (Answer::Stopping { pid: process::id() }, ControlFlow::Break(Ending::Remove))
            }
        };
        // The client may have gone without waiting.
        let _ = call.reply.send(answer);
        flow
    }

    fn status(&mut self) -> Answer {
        let read = |dataplane: &mut Dataplane| anyhow::Ok((dataplane.counters()?, dataplane.flow_table_sizes()?));
        match read(self.dataplane) {
            Ok((counters, limits)) => Answer::Status(Box::new(report(&Sources {
                interface: &self.options.interface,
                attached: &self.attached,
                local: self.local,
                uptime: self.since.elapsed(),
                now: Instant::now(),
                generation: self.generation,
                config: &self.cast.config,
                ids: &self.ids,
                applied: &self.applied,
                survey: self.surroundings.survey(),
                entries: self.backends.entries(),
                counters: &counters,
                limits,
                election: self.claim.campaign().and_then(|campaign| campaign.election().report()),
                events: self.options.recent.events(Instant::now()),
                resets: self.resetter.total(),
            }))),
            Err(error) => Answer::Error(format!("cannot read the counters: {error:#}")),
        }
    }

    async fn carry_out(&mut self, duty: Duty) -> ControlFlow<Ending> {
        let done = match (duty, &mut self.claim) {
            (Duty::Announce, Claim::Alone(herald)) => herald.announce(self.applied.node.mac, self.vips.held()),
            (Duty::Notice(notice), Claim::Elected(campaign)) => match campaign.take(notice) {
                Some(Move::Hold(vips)) => {
                    probe::other_owners(Occasion::Claim, self.surroundings, &vips);
                    self.vips.hold(vips, self.lock).await
                }
                Some(Move::Release(vips)) => self.vips.release(&vips, self.lock).await,
                Some(Move::Replaced(vips)) => self.end_flows_of(&vips),
                None => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(error) = done {
            error!("{error:#}");
        }
        ControlFlow::Continue(())
    }

    /// Whether this node can be master.
    async fn judge_itself(&mut self) -> ControlFlow<Ending> {
        if let Claim::Elected(campaign) = &mut self.claim {
            match self.surroundings.refresh_link().await {
                Ok(()) => campaign.judge(self.surroundings),
                Err(error) => error!("cannot read the interface: {error:#}"),
            }
            if let Err(error) = self.vips.retry().await {
                debug!("{error:#}");
            }
        }
        ControlFlow::Continue(())
    }

    /// Removes VIPs that something else has added to the interface while another node is master.
    async fn banish_strays(&mut self) {
        if !matches!(self.claim, Claim::Elected(_)) {
            return;
        }
        let index = self.surroundings.link().index;
        let here = self.surroundings.addresses().iter().filter(|entry| entry.interface == index);
        let vips = self.cast.config.vips();
        let strays: Vec<IpAddr> = (here.map(|entry| entry.address))
            .filter(|address| vips.contains(address) && !self.vips.held().contains(address))
            .collect();
        if !strays.is_empty()
            && let Err(error) = self.vips.release(&strays, self.lock).await
        {
            error!("{error:#}");
        }
    }
}
