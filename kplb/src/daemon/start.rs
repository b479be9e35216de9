//! From nothing to ready, step by step; each step's result is in [`Added`] before the next.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kplb_common::maglev::NO_BACKEND;
use tokio::time::{interval_at, timeout, timeout_at};
use tracing::{info, warn};

use super::{
    Added, Options,
    backends::Backends,
    bpf_log,
    campaign::Campaign,
    claim::Claim,
    herald::Herald,
    ipvs,
    leftovers::{self, Unreadable},
    local::Local,
    preflight,
    probe::{self, Occasion},
    search::Search,
    serve::Agent,
    surroundings::Surroundings,
    vips::Vips,
};
use crate::{
    announce::Announcer,
    bpffs,
    control::server::Server,
    dataplane::{self, Attached, Dataplane, FlowTableSizes, LoadOptions},
    election::HEARTBEAT,
    maglev::Rings,
    model::{self, Conditions, Desired},
    netlink::{client::Netlink, message::Link, watch::Watch},
    plan::plan,
    reset::Resetter,
    run_dir::Lock,
};

/// For next hops to answer.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(1);
/// For an address without which nothing can be served to become fit: duplicate address detection takes a second or
/// two.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(4);

/// For the checks of all backends, once one of each service is there.
const CHECK_PATIENCE: Duration = Duration::from_millis(200);

/// Starts everything.
pub(super) async fn start<'a>(
    options: &'a Options,
    lock: &'a Lock,
    netlink: Netlink,
    added: &'a mut Added,
) -> Result<Agent<'a>> {
    let Options { interface, config, .. } = options;
    preflight::nat_ports(&config.node.nat_ports)?;
    ipvs::none_of(config)?;
    let device = preflight::interface(&netlink, interface).await?;
    let unreadable = Unreadable::Assume(&config.vips());
    let leftovers = leftovers::remove(lock, interface, &options.pin_root, unreadable).await?;
    if !leftovers.is_empty() {
        warn!("an earlier agent was killed; removed {}", leftovers.join(", "));
    }
    preflight::no_xdp(&netlink, &device).await?;
    let link = preflight::vlan_interface(&netlink, &device, config.node.vlan).await?;
    let vip_addresses: BTreeSet<IpAddr> = config.services.iter().map(|service| service.vip.ip()).collect();

    let mut watch = Watch::subscribe([device.index, link.index])?;
    let surroundings = resolve(options, netlink.clone(), device.clone(), link.clone(), &vip_addresses).await?;
    let surroundings = added.surroundings.insert(surroundings);
    settle(options, surroundings, &mut watch).await?;
    surroundings.warn_of_gaps();
    // They are on their way while the programs are loaded.
    let backends = Backends::start(config, lock)?;

    bpffs::ensure(&options.pin_root)?;
    let dataplane = added.dataplane.insert(load(options, &device)?);
    let mut rings = Rings::default();
    let conditions = backends.conditions(Instant::now());
    let desired = model::desired(config, &surroundings.survey().facts(), &conditions, &mut rings)?;
    dataplane.apply(&plan(&desired, None)).context("write the maps")?;
    bpf_log::follow(dataplane);
    let reports = dataplane.reports()?;
    let attached = dataplane.attach()?;
    let local = Local::start(config, dataplane);
    let since = Instant::now();

    let vips = added.vips.insert(Vips::new(netlink, link.index));
    let claim = match &config.vrrp {
        // Not yet started: nobody must be told that the VIPs are here before there is something behind them.
        Some(vrrp) => Claim::Elected(Box::new(Campaign::prepare(options, vrrp, surroundings, dataplane.leases()?)?)),
        None => Claim::Alone(Box::new(Herald::new(Announcer::open(&link.name)?))),
    };
    let mut agent = Agent {
        options,
        attached,
        local,
        since,
        applied: desired,
        rings,
        surroundings,
        dataplane,
        vips,
        claim,
        heartbeat: interval_at(tokio::time::Instant::now(), HEARTBEAT),
        lock,
        backends,
        reports,
        search: Search::new(&link.name),
        resetter: Arc::new(Resetter::open(&link.name)?),
        watch,
        server: Server::listen(&lock.fresh_socket()?)?,
    };
    agent.first_checks().await?;
    match &mut agent.claim {
        Claim::Alone(herald) => {
            agent.vips.hold(vip_addresses, lock).await?;
            herald.start();
        }
        Claim::Elected(campaign) => {
            // Whoever has put them there: it is not this node's turn yet.
            let vips: Vec<IpAddr> = vip_addresses.into_iter().collect();
            agent.vips.release(&vips, lock).await?;
            probe::other_owners(Occasion::Start, agent.surroundings, &vips);
            agent.surroundings.refresh_link().await?;
            campaign.judge(agent.surroundings, agent.attached.program);
            campaign.election().begin();
        }
    }
    say_ready(options, &agent.attached, &agent.applied);
    Ok(agent)
}

impl Agent<'_> {
    /// Waits until there is a backend for every service, and a little longer for the others; or until it is known that
    /// there is none. The first clients shall not be refused, nor all be given the first backend that answered.
    async fn first_checks(&mut self) -> Result<()> {
        let patience = Instant::now() + CHECK_PATIENCE;
        loop {
            self.update()?;
            let now = Instant::now();
            let can_serve = self.applied.rings.values().all(|ring| ring[0] != NO_BACKEND);
            if self.backends.is_settled() || can_serve && now >= patience {
                return Ok(());
            }
            let wait = if can_serve { patience - now } else { CHECK_PATIENCE };
            if let Ok(news) = timeout(wait, self.backends.news()).await {
                self.backends.take(news);
            } else if !self.backends.awaits_first_checks(Instant::now()) {
                return Ok(());
            }
        }
    }
}

async fn resolve(
    options: &Options,
    netlink: Netlink,
    device: Link,
    link: Link,
    vips: &BTreeSet<IpAddr>,
) -> Result<Surroundings> {
    let services = options.config.services.iter();
    let backends = services.flat_map(|service| &service.backends).map(|backend| backend.address.ip()).collect();
    Surroundings::read(netlink, device, link, backends, vips.clone()).await
}

/// Waits until the node can serve the configuration and every next hop has answered, or for as long as that is worth.
async fn settle(options: &Options, surroundings: &mut Surroundings, watch: &mut Watch) -> Result<()> {
    let start = tokio::time::Instant::now();
    let conditions = Conditions::all_active(&options.config);
    let mut rings = Rings::default();
    loop {
        let desired =
            model::desired(&options.config, &surroundings.survey().facts(), &conditions, &mut rings).map(drop);
        if surroundings.is_settled() {
            return Ok(desired?);
        }
        let patience = if desired.is_ok() { RESOLVE_PATIENCE } else { ADDRESS_PATIENCE };
        match timeout_at(start + patience, watch.changed()).await {
            Ok(changes) => surroundings.refresh(changes?).await?,
            Err(_) => return Ok(desired?),
        }
    }
}

fn load(options: &Options, device: &Link) -> Result<Dataplane> {
    let flows = &options.config.flows;
    Dataplane::load(LoadOptions {
        interface: &options.interface,
        interface_index: device.index,
        mode: options.mode,
        pin_directory: &dataplane::pin_directory(&options.pin_root, &options.interface),
        flows: FlowTableSizes { max_flows: flows.max, max_half_open: flows.max_half_open },
        log_level: options.log_level,
    })
}

/// The line that whoever started the agent waits for.
fn say_ready(options: &Options, attached: &Attached, desired: &Desired) {
    let vips: Vec<String> = desired.services.keys().map(ToString::to_string).collect();
    info!("ready: {} XDP on {} ({}), serving {}", attached.mode, options.interface, attached.reason, vips.join(", "));
}
