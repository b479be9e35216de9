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
    cast::{self, Cast},
    claim::Claim,
    herald::Herald,
    ipvs,
    leftovers::{self, Place, Unreadable, remove_vips},
    local::Local,
    manager::{self, Watchdog},
    preflight, present,
    probe::{self, Occasion},
    search::Search,
    serve::Agent,
    surroundings::Surroundings,
    vips::Vips,
};
use crate::{
    announce::Announcer,
    bpffs,
    config::Config,
    control::server::Server,
    dataplane::{
        self, Attached, Dataplane, FlowTableSizes, Layout, LoadOptions, ModeChoice, NativeXdp, Predecessor, Present,
        Side, boottime_now_ns,
    },
    driver::Driver,
    election::HEARTBEAT,
    health::fsm::Health,
    heap,
    ids::Ids,
    maglev::Rings,
    metrics::server::Listener,
    model::{self, Conditions, Desired, Family},
    netlink::{client::Netlink, features, message::Link, watch::Watch},
    plan::{Operation, plan},
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
    let metrics = match &config.metrics {
        Some(metrics) => Some(Listener::bind(metrics).await?),
        None => None,
    };
    let device = preflight::interface(&netlink, interface).await?;
    let vip_addresses = config.vips();
    let record = leftovers::record(lock, Unreadable::Assume(&vip_addresses))?;
    preflight::takes_tc_programs(&netlink, &device).await?;
    let present = present::read(&netlink, &device).await?;
    let at_egress = present::filters(&netlink, &device, Side::Egress).await?;
    let predecessor = Predecessor::find(&options.pin_root, interface, &present, &at_egress, record.traces())?;
    added.is_taken_over = predecessor.is_some();
    match &predecessor {
        Some(predecessor) => {
            info!("an earlier agent has left its programs attached: taking over{}", loss(predecessor));
        }
        None => {
            let leftovers = leftovers::remove(lock, interface, &options.pin_root, &record).await?;
            if !leftovers.is_empty() {
                warn!("an earlier agent was killed; removed {}", leftovers.join(", "));
            }
        }
    }
    let native = native_xdp(options, &netlink, &device, predecessor.as_ref().map(|_| &present)).await?;
    let is_new = predecessor.is_none();
    let link = preflight::vlan_interface(&netlink, &device, config.node.vlan).await?;

    let mut watch = Watch::subscribe([device.index, link.index])?;
    // Those that an earlier agent has left are none of the node's own either.
    let vips: BTreeSet<IpAddr> = vip_addresses.iter().chain(&record.vips).copied().collect();
    let surroundings =
        Surroundings::read(netlink.clone(), device.clone(), link.clone(), addresses_of(config), vips.clone()).await?;
    let surroundings = added.surroundings.insert(surroundings);
    if is_new {
        settle(config, surroundings, &mut watch).await?;
        surroundings.warn_of_gaps();
    }
    // They are on their way while the programs are loaded.
    let early = if is_new { Some(Backends::start(&Cast::new(config.clone(), &[]), lock)?) } else { None };

    bpffs::ensure(&options.pin_root)?;
    let dataplane = added.dataplane.insert(load(options, &device, predecessor, native)?);
    // Programs are many times as large on their way to the kernel; and before the election locks what there is.
    heap::give_back();
    let mut rings = Rings::default();
    let Succession { cast, ids, held, health } = succeed(config, dataplane)?;
    if let Some(held) = &held {
        // What the kernel has forgotten, it may find again in a moment.
        surroundings.remember(cast::next_hops_of(held, &cast.config, &ids));
    }
    surroundings.serve(addresses_of(&cast.config), vips).await?;
    let leases = dataplane.leases()?;
    // Of the others it is not this node's turn yet.
    let others: Vec<IpAddr> = (vip_addresses.iter().copied())
        .filter(|vip| !leases.is_fresh(Family::of(vip), boottime_now_ns()).unwrap_or(false))
        .collect();
    let claim = match &config.vrrp {
        // Not yet started: nobody must be told that the VIPs are here before there is something behind them.
        Some(vrrp) => {
            Claim::Elected(Box::new(Campaign::prepare(interface, vrrp, vip_addresses.clone(), surroundings, leases)?))
        }
        None => Claim::Alone(Box::new(Herald::new(Announcer::open(&link.name)?))),
    };
    let resetter = Arc::new(Resetter::open(&link.name)?);
    let server = Server::listen(&lock.fresh_socket()?)?;
    let mut backends = match early {
        Some(backends) => backends,
        None => Backends::start(&cast, lock)?,
    };
    backends.assume(&health);
    let conditions = backends.conditions(Instant::now());
    let desired = model::desired(&cast.config, &ids, &surroundings.survey().facts(), &conditions, &mut rings)?;
    let operations = plan(&desired, held.as_ref());
    dataplane.apply(&operations).context("write the maps")?;
    bpf_log::follow(dataplane);
    let reports = dataplane.reports()?;
    // Between two builds the programs are of neither. What was assumed of a record that could not be read is one now.
    lock.amend_record(|new| {
        new.build = None;
        if !is_new {
            new.vips.clone_from(&record.vips);
        }
    })?;
    let attached = dataplane.attach()?;
    surroundings.look_after(attached.clone());
    lock.amend_record(|record| record.mode = Some((options.mode, attached.reason.clone())))?;
    // Of an agent that was killed between attaching one program and detaching another.
    for side in [Side::Ingress, Side::Egress] {
        leftovers::detach_filters(&netlink, &device, side, attached.classic.on(side)).await?;
    }
    let local = Local::start(config, dataplane);
    dataplane.forget_predecessor()?;
    let generation = record.generation + 1;
    let build = Some(dataplane::build(options.log_level));
    lock.amend_record(|record| (record.build, record.generation) = (build, generation))?;
    let since = Instant::now();

    if !is_new {
        let (stay, strays): (Vec<IpAddr>, Vec<IpAddr>) =
            record.vips.iter().partition(|vip| vip_addresses.contains(*vip));
        remove_vips(lock, interface, &strays, Place::Everywhere).await?;
        // Those of another VLAN.
        remove_vips(lock, interface, &stay, Place::AllBut(link.index)).await?;
        surroundings.serve(addresses_of(&cast.config), vip_addresses.clone()).await?;
    }
    let present = record.vips.into_iter().filter(|vip| !is_new && vip_addresses.contains(vip)).collect();
    let vips = added.vips.insert(Vips::new(netlink, link.index, present));
    let mut agent = Agent {
        options,
        attached,
        local,
        since,
        cast,
        ids,
        generation,
        next_look: None,
        applied: desired,
        rings,
        surroundings,
        dataplane,
        vips,
        claim,
        watchdog: Watchdog::from_environment(),
        heartbeat: interval_at(tokio::time::Instant::now(), HEARTBEAT),
        lock,
        backends,
        reports,
        search: Search::new(&link.name),
        resetter,
        watch,
        server,
    };
    if operations.iter().any(Operation::ends_flows) && !is_new {
        agent.end_orphans(&held.map(|held| held.backends).unwrap_or_default())?;
    }
    agent.look_soon();
    if is_new {
        agent.first_checks().await?;
    }
    match &mut agent.claim {
        Claim::Alone(herald) => {
            agent.vips.hold(vip_addresses, lock).await?;
            herald.start();
        }
        Claim::Elected(campaign) => {
            // Whoever has put them there.
            agent.vips.release(&others, lock).await?;
            probe::other_owners(Occasion::Start, agent.surroundings, &others);
            agent.surroundings.refresh_link().await?;
            campaign.judge(agent.surroundings);
            campaign.election().begin();
        }
    }
    if let Some(metrics) = metrics {
        metrics.serve(agent.server.sender());
    }
    say_ready(options, &agent.attached, &agent.applied);
    Ok(agent)
}

/// What taking over costs, in words.
fn loss(predecessor: &Predecessor) -> &'static str {
    match predecessor.layout() {
        Layout::Same => "",
        Layout::Other => "; its maps are of another version: flows that are in them are reset with their next packet",
    }
}

/// What an earlier agent leaves to this one.
struct Succession {
    cast: Cast,
    ids: Ids,
    /// What its maps hold.
    held: Option<Desired>,
    /// What it took each backend for, by place.
    health: Vec<Option<Health>>,
}

fn succeed(config: &Config, dataplane: &mut Dataplane) -> Result<Succession> {
    let Some(held) = dataplane.held()? else {
        let (cast, ids) = (Cast::new(config.clone(), &[]), Ids::in_order(config));
        return Ok(Succession { cast, ids, held: None, health: Vec::new() });
    };
    let flows = FlowTableSizes { max_flows: config.flows.max, max_half_open: config.flows.max_half_open };
    if dataplane.flow_table_sizes()? != flows {
        warn!(
            "the flow tables stay as large as they were, since flows are in them; `kplb detach` lets them be made anew"
        );
    }
    let cast = Cast::new(config.clone(), &cast::services_of(&held, config));
    let ids = Ids::assign(&cast.config, &held, &dataplane.busy()?)?;
    let health = cast::health_of(&held, &cast.config, &ids);
    Ok(Succession { cast, ids, held: Some(held), health })
}

/// The addresses of all backends.
pub(super) fn addresses_of(config: &Config) -> BTreeSet<IpAddr> {
    config.services.iter().flat_map(|service| &service.backends).map(|backend| backend.address.ip()).collect()
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

/// Waits until the node can serve the configuration and every next hop has answered, or for as long as that is worth.
async fn settle(config: &Config, surroundings: &mut Surroundings, watch: &mut Watch) -> Result<()> {
    let start = tokio::time::Instant::now();
    let (ids, conditions) = (Ids::in_order(config), Conditions::all_active(config));
    let mut rings = Rings::default();
    loop {
        let desired = model::desired(config, &ids, &surroundings.survey().facts(), &conditions, &mut rings).map(drop);
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

/// What is known of native XDP on the device. Where something keeps XDP from seeing what it must, there is TC, unless XDP is
/// what the user wants.
async fn native_xdp(
    options: &Options,
    netlink: &Netlink,
    device: &Link,
    predecessor: Option<&Present>,
) -> Result<NativeXdp> {
    if options.mode == ModeChoice::Tc {
        return Ok(NativeXdp::Unknown);
    }
    let own = predecessor.map(|present| &present.xdp[..]).unwrap_or_default();
    let foreign = if device.programs() == own { None } else { preflight::without_xdp(netlink, device).await? };
    let obstacle = match foreign {
        Some(program) => Err(preflight::foreign_program(&device.name, &program)),
        None if options.config.node.vlan.is_none() => Ok(()),
        None => preflight::leaves_tags(&device.name, &features::active(&device.name).await?),
    };
    match (obstacle, options.mode) {
        (Err(obstacle), ModeChoice::Auto) => Ok(NativeXdp::Unfit(obstacle.what)),
        (Err(obstacle), _) => Err(obstacle.into()),
        (Ok(()), ModeChoice::Auto) => Ok(Driver::of(&device.name, device.index).await.native_xdp(device)),
        (Ok(()), _) => Ok(NativeXdp::Unknown),
    }
}

fn load(options: &Options, device: &Link, predecessor: Option<Predecessor>, native: NativeXdp) -> Result<Dataplane> {
    let flows = &options.config.flows;
    Dataplane::load(LoadOptions {
        interface: &options.interface,
        interface_index: device.index,
        mode: options.mode,
        pin_directory: &dataplane::pin_directory(&options.pin_root, &options.interface),
        native,
        predecessor,
        flows: FlowTableSizes { max_flows: flows.max, max_half_open: flows.max_half_open },
        log_level: options.log_level,
    })
}

/// The line that whoever started the agent waits for.
fn say_ready(options: &Options, attached: &Attached, desired: &Desired) {
    let vips: Vec<String> = desired.services.keys().map(ToString::to_string).collect();
    let vips = vips.join(", ");
    let title = attached.mode.title();
    info!("ready: {title} on {} ({}), serving {vips}", options.interface, attached.reason);
    manager::ready(&format!("{title}, serving {vips}"));
}
