//! Another configuration while the agent runs.
//!
//! Invariant: a configuration is followed as a whole or not at all. Whatever can be wrong with it is found before the
//! first map is written.
//!
//! What goes on is not touched: a service keeps its flows, a backend its flows and what is known of its health, the
//! election its state. A backend that the configuration has no more gets nothing new, and goes when its flows have gone.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tracing::{error, info};

use super::{
    Ending, campaign::Campaign, cast::Cast, claim::Claim, first_error, ipvs, local::Local, preflight, serve::Agent,
    start::addresses_of,
};
use crate::{
    config::{self, Config, ServiceConfig},
    health::probe,
    ids::Ids,
    maglev::Rings,
    model::{self, Conditions, Endpoint},
};

/// How often to look whether backends that are leaving are finished.
const LOOK: Duration = Duration::from_secs(1);

impl Agent<'_> {
    pub(super) async fn reload_or_log(&mut self) -> ControlFlow<Ending> {
        match self.reload().await {
            Ok(summary) => summary.iter().for_each(|line| info!("reloaded: {line}")),
            Err(error) => error!("cannot reload: {error:#}"),
        }
        ControlFlow::Continue(())
    }

    /// Reads the configuration again, and follows it; says what has changed.
    ///
    /// # Errors
    /// If anything is wrong with it; nothing has changed then.
    pub(super) async fn reload(&mut self) -> Result<Vec<String>> {
        let file = self.options.config_file.as_ref().context("there is no file to read again: flags were given")?;
        let new = config::load(file)?;
        preflight::nat_ports(&new.node.nat_ports)?;
        ipvs::none_of(&new)?;
        if let Some(setting) = fixed_setting(&self.cast.config, &new) {
            bail!("{}: {setting} cannot change while the agent runs: restart it, which KEEP", file.display());
        }
        let before = self.cast.config.clone();
        let cast = Cast::new(new, &before.services);
        probe::probes(&cast.config).with_context(|| format!("{}", file.display()))?;
        let busy = self.dataplane.busy()?;
        let ids = Ids::assign(&cast.config, &self.applied, &busy)?;

        let served = self.surroundings.served();
        let prepared = match self.prepare(&cast, &ids).await {
            Ok(campaign) => self.backends.recast(&cast).map(|()| campaign),
            Err(error) => Err(error),
        };
        let campaign = match prepared {
            Ok(campaign) => campaign,
            Err(error) => {
                // What is wrong with the configuration matters more than what is wrong with the node.
                self.surroundings.serve(served.0, served.1).await.unwrap_or_else(|error| error!("{error:#}"));
                return Err(error);
            }
        };
        let summary = summary(&before, &cast);
        (self.cast, self.ids) = (cast, ids);
        self.generation += 1;
        self.look_soon();
        // From here on it holds. What cannot be done keeps nothing else from being done.
        first_error(self.follow_through(&before, campaign).await)
            .context("the configuration is followed, but for this")?;
        Ok(summary)
    }

    async fn follow_through(&mut self, before: &Config, campaign: Option<Campaign>) -> Vec<Result<()>> {
        let generation = self.generation;
        let mut results = vec![self.lock.amend_record(|record| record.generation = generation)];
        results.push(self.update());
        results.push(self.move_vips(before, campaign).await);
        results.push(self.surroundings.serve(addresses_of(&self.cast.config), self.cast.config.vips()).await);
        results.push(self.update());
        if !before.leads_local_clients() && self.cast.config.leads_local_clients() {
            self.local = Local::start(&self.cast.config, self.dataplane);
        }
        results
    }

    /// Everything that can go wrong: whether this node can serve it, and the election that it asks for, if it is another.
    async fn prepare(&mut self, cast: &Cast, ids: &Ids) -> Result<Option<Campaign>> {
        let (config, vips) = (&cast.config, cast.config.vips());
        // Those that are about to go are none of the node's own either.
        let all = vips.union(&self.cast.config.vips()).copied().collect();
        self.surroundings.serve(addresses_of(config), all).await?;
        let facts = self.surroundings.survey().facts();
        model::desired(config, ids, &facts, &Conditions::all_active(config), &mut Rings::default())?;
        let is_other = config.vrrp != self.cast.config.vrrp || vips != self.cast.config.vips();
        match &config.vrrp {
            Some(vrrp) if is_other => {
                let leases = self.dataplane.leases()?;
                Ok(Some(Campaign::prepare(&self.options.interface, vrrp, vips, self.surroundings, leases)?))
            }
            _ => Ok(None),
        }
    }

    /// Holds the VIPs that have come, if this node is to have them, and lets those go that are no more.
    async fn move_vips(&mut self, before: &Config, campaign: Option<Campaign>) -> Result<()> {
        let (old, new) = (before.vips(), self.cast.config.vips());
        if let (Claim::Elected(current), Some(mut campaign)) = (&mut self.claim, campaign) {
            // What this node is master of, it goes on with: its lease has not ended.
            current.quit(None).await;
            campaign.judge(self.surroundings);
            campaign.election().begin();
            **current = campaign;
        }
        let gone: Vec<IpAddr> = old.difference(&new).copied().collect();
        let released = self.vips.release(&gone, self.lock).await;
        if let Claim::Alone(herald) = &mut self.claim {
            let come: BTreeSet<IpAddr> = new.difference(&old).copied().collect();
            if !come.is_empty() {
                herald.start();
                return first_error([released, self.vips.hold(come, self.lock).await]);
            }
        }
        released
    }

    /// Looks soon whether backends that are leaving are finished, if there are some.
    pub(super) fn look_soon(&mut self) {
        self.next_look = self.cast.leaving().next().map(|_| Instant::now() + LOOK);
    }

    /// Lets the backends go that have left the configuration and have no flows any more.
    pub(super) fn dismiss_finished(&mut self) -> ControlFlow<Ending> {
        if let Err(error) = self.try_to_dismiss() {
            error!("cannot let backends go that have left the configuration: {error:#}");
        }
        self.look_soon();
        ControlFlow::Continue(())
    }

    fn try_to_dismiss(&mut self) -> Result<()> {
        let busy = self.dataplane.busy()?;
        let rest = self.cast.without(|place| !busy.contains(&self.ids.backend(place)));
        if rest == self.cast {
            return Ok(());
        }
        let ids = Ids::assign(&rest.config, &self.applied, &busy)?;
        self.backends.recast(&rest)?;
        for (service, left) in self.cast.config.services.iter().zip(&rest.config.services) {
            for backend in service.backends.iter().filter(|backend| !left.backends.contains(backend)) {
                info!("backend {} of service {} has no flows any more, and is gone", backend.name, service.name);
            }
        }
        (self.cast, self.ids) = (rest, ids);
        self.update()
    }
}

/// What differs that a running agent cannot change, if anything.
fn fixed_setting(before: &Config, after: &Config) -> Option<&'static str> {
    let is_elected = |config: &Config| config.vrrp.is_some();
    let sizes = |config: &Config| (config.flows.max, config.flows.max_half_open);
    [
        (before.node.vlan != after.node.vlan, "`vlan` in table [node]"),
        (before.node.nat_ports != after.node.nat_ports, "`nat_ports` in table [node], which flows have ports of,"),
        (sizes(before) != sizes(after), "the size of the flow tables (`max`, `max_half_open` in table [flows])"),
        (is_elected(before) != is_elected(after), "whether there is a table [vrrp]"),
        (before.metrics != after.metrics, "table [metrics]"),
    ]
    .into_iter()
    .find_map(|(differs, setting)| differs.then_some(setting))
}

/// What has changed, in words.
fn summary(before: &Config, cast: &Cast) -> Vec<String> {
    let after = &cast.config;
    let mut lines = Vec::new();
    let mut places = 0..;
    for service in &after.services {
        let same = before.services.iter().find(|earlier| Endpoint::of(earlier) == Endpoint::of(service));
        if same.is_none() {
            lines.push(format!("service {} ({}) is new", service.name, Endpoint::of(service)));
        }
        let earlier = same.map(|earlier| &earlier.backends[..]).unwrap_or_default();
        // In this order: the other way round would take a place for the backend that ends the list.
        for (backend, place) in service.backends.iter().zip(places.by_ref()) {
            let known = earlier.iter().find(|known| known.address == backend.address);
            let what = match known {
                _ if cast.is_leaving[place] => "is removed, and drains",
                None => "is new",
                Some(known) if known != backend => "has other settings",
                Some(_) => continue,
            };
            lines.push(format!("backend {} ({}) of service {} {what}", backend.name, backend.address, service.name));
        }
        if let Some(earlier) = same {
            let settings = |service: &ServiceConfig| ServiceConfig { backends: Vec::new(), ..service.clone() };
            if settings(earlier) != settings(service) {
                lines.push(format!("service {} has other settings", service.name));
            }
        }
    }
    for service in &before.services {
        if after.services.iter().all(|present| Endpoint::of(present) != Endpoint::of(service)) {
            lines.push(format!("service {} ({}) is removed: its flows are ended", service.name, Endpoint::of(service)));
        }
    }
    for (table, differs) in [
        ("node", before.node != after.node),
        ("flows", before.flows != after.flows),
        ("vrrp", before.vrrp != after.vrrp),
    ] {
        if differs {
            lines.push(format!("table [{table}] has other settings"));
        }
    }
    if lines.is_empty() {
        lines.push("nothing has changed".to_owned());
    }
    lines
}
