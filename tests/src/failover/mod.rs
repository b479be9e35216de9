//! Two routers and a client: how long is the client without the VIP when its holder stops, dies or is cut off?
//!
//! ```text
//!   node1: router, priority 200 ----+        +---- client1: connects to the VIP every few milliseconds
//!   node2: router, priority 100 ----+ switch +---- client2: asks who has the VIP, and listens to announcements
//! ```
//!
//! On each node runs a server that says the node's name.

mod router;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

pub use self::router::{Program, Router, Settings};
use crate::{
    banner::Banner,
    capture::{Capture, Claim, Occasion},
    cluster::VIPS,
    figure::Figure,
    lab::{Lab, LabOptions, LinkState},
    poll,
    vip_client::VipClient,
    who_has::WhoHas,
};

/// What a banner is served on.
const PORT: u16 = 7000;
/// How long anything may take, beyond the time that adverts take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long clients go on afterwards: until each attempt from before has ended.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// What happens to the node that has the VIP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Its router is asked to stop.
    Stop,
    /// Its router is killed, with all its processes. The node keeps the VIP, and goes on answering for it.
    Kill,
    /// Its cable is cut.
    Cut,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stop, Self::Kill, Self::Cut];
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "The VIP's holder is stopped",
            Self::Kill => "The VIP's holder is killed",
            Self::Cut => "The VIP's holder is cut off",
        })
    }
}

/// Plays an event on a lab of its own, with two routers of the same program.
///
/// # Errors
/// If a router does not do what it is there for.
pub fn measure(program: Program, event: Event, interval: Duration) -> Result<Vec<Figure>> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 2 })?;
    let vip = VIPS[0];
    let _servers = lab.nodes().iter().map(|node| Banner::start(node, PORT)).collect::<Result<Vec<_>>>()?;
    // The one that is still there afterwards: it is the VIP that is to be measured, not the health of backends.
    let backend = SocketAddr::from((lab.node(2).ipv4(), PORT));
    let start =
        |node, priority| program.start(&lab, node, &Settings { vip, backend, priority, interval, peers: Vec::new() });
    let [holder, other] = [start(1, 200)?, start(2, 100)?];
    let election = PATIENCE + 4 * interval;
    wait_until_only(&*holder, &*other, vip, election)?;

    let capture = Capture::start(lab.client(2).namespace(), "eth0", &[vip])?;
    let who_has = WhoHas::start(lab.client(2), vip)?;
    let client = VipClient::start(lab.client(1), SocketAddr::from((vip, PORT)))?;
    client.wait_for_answer_after(Instant::now(), PATIENCE)?;
    // Adverts keep time: an event at the same distance from each would measure but one case.
    poll::pass(interval.mul_f64(rand::random_range(0.0..1.0)), || false);

    let moment = Instant::now();
    let is_announcement = |claim: &Claim| claim.occasion == Occasion::Announcement && claim.mac == lab.node(2).mac();
    let announced = thread::scope(|scope| {
        let happening = scope.spawn(|| happen(event, &lab, holder));
        let announced = capture.wait_for_claim(moment, election, is_announcement);
        // A router that was cut off is there until all is over.
        let survivor = happening.join().expect("an event does not panic")?;
        let announced = announced?;
        client.wait_for_answer_after(announced.at, PATIENCE)?;
        poll::pass(AFTERWARDS, || false);
        drop(survivor);
        anyhow::Ok(announced)
    })?;
    let (attempts, answers) = (client.stop(), who_has.stop()?);
    let outage = attempts.outage_after(moment).and_then(|outage| outage.length()).context("the VIP is still away")?;
    Ok(vec![
        Figure::time("the client is without the VIP", outage),
        Figure::time("until the other node announces it", announced.at.saturating_duration_since(moment)),
        Figure::count("connections that failed", attempts.n_failed()),
        Figure::count("connections that the former holder answered later", {
            attempts.n_answered_by_after(lab.node(1).name(), announced.at)
        }),
        Figure::count("questions for the VIP that both nodes answered", answers.n_contested()),
    ])
}

/// Lets it happen, and returns the router that is still there.
fn happen<'l>(event: Event, lab: &'l Lab, holder: Box<dyn Router + 'l>) -> Result<Option<Box<dyn Router + 'l>>> {
    match event {
        Event::Stop => holder.stop().map(|()| None),
        Event::Kill => holder.kill().map(|()| None),
        Event::Cut => lab.set_cable(lab.node(1), LinkState::Down).map(|()| Some(holder)),
    }
}

fn wait_until_only(holder: &dyn Router, other: &dyn Router, vip: IpAddr, deadline: Duration) -> Result<()> {
    let name = holder.host().name();
    poll::until_ok(&format!("{vip} on {name}"), deadline, || {
        ensure!(holder.holds(vip)? && !other.holds(vip)?, "{name} has it not, or not alone");
        Ok(())
    })
}
