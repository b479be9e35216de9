//! One virtual router at work: its state machine, its sockets, and what it has seen.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use kplb_common::net::Mac;

use super::{
    Notice,
    report::{PeerReport, RouterReport},
    wire::{MAX_MESSAGE_BYTES, Wire},
};
use crate::{
    announce::Announcer,
    dataplane::{Leases, boottime_now_ns},
    model::Family,
    vrrp::{
        announcements::Announcements,
        fsm::{Action, Fault, Heard, Input, Router, State},
        packet::Advert,
        receive::{Invalid, Remark, decode},
        settings::{PRIORITY_RELEASE, Version},
        timers,
    },
};

/// Adverts that are read before the timers have their turn: more than any election sends in a turn, and a flood cannot
/// hold up the rest.
const MAX_ADVERTS_PER_TURN: usize = 256;
/// How long a node that cannot speak leaves the VIPs to others before it tries again.
const MUTE_RETRY: Duration = Duration::from_secs(5);
/// Senders that are remembered; more are no cluster.
const MAX_SENDERS: usize = 32;

/// One virtual router at work.
pub(super) struct Member {
    router: Router,
    wire: Wire,
    announcements: Announcements,
    n_transitions: u64,
    n_sent: u64,
    n_send_errors: u64,
    n_lease_errors: u64,
    n_received: u64,
    n_relistened: u64,
    dropped: BTreeMap<&'static str, u64>,
    remarks: BTreeMap<&'static str, u64>,
    heard: BTreeMap<IpAddr, (Instant, Heard)>,
    /// When it ends, on the clock of the leases.
    lease_ns: Option<u64>,
    /// Since when nothing could be said, as master.
    mute_since: Option<Instant>,
    /// When to try again, if that has become a fault.
    retry_at: Option<Instant>,
    /// Whether others have connections through this node that it was master of, and no longer is.
    has_lost_vips: bool,
}

/// What a virtual router acts with, all of them the same.
pub(super) struct Means<'a> {
    pub(super) announcer: &'a Announcer,
    pub(super) leases: &'a mut Leases,
    pub(super) mac: Mac,
    pub(super) tell: &'a dyn Fn(Notice),
}

impl Member {
    pub(super) fn new(router: Router, wire: Wire) -> Self {
        let announcements = Announcements::new(router.settings().announcements);
        Self {
            router,
            wire,
            announcements,
            n_transitions: 0,
            n_sent: 0,
            n_send_errors: 0,
            n_lease_errors: 0,
            n_received: 0,
            n_relistened: 0,
            dropped: BTreeMap::new(),
            remarks: BTreeMap::new(),
            heard: BTreeMap::new(),
            lease_ns: None,
            mute_since: None,
            retry_at: None,
            has_lost_vips: false,
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.router.state() == State::Initialize
    }

    /// Which address family its VIPs are of.
    pub(super) fn family(&self) -> Family {
        Family::of(&self.router.settings().address)
    }

    /// A member in the place of this one, whose address is no more. What keeps this one from being master keeps the new
    /// one, but for that.
    pub(super) fn succeeded_by(&self, router: Router, wire: Wire, means: &mut Means<'_>) -> Self {
        let mut member = Self { n_transitions: self.n_transitions, ..Self::new(router, wire) };
        for fault in self.router.faults().filter(|fault| *fault != Fault::AddressLost) {
            member.handle(Input::FaultRaised(fault), means);
        }
        member.handle(Input::Start, means);
        member
    }

    /// Begins: as master, if this node has not ceased to be it.
    pub(super) fn begin(&mut self, means: &mut Means<'_>) {
        // A lease that cannot be read is none that can be relied on.
        let is_master = means.leases.is_fresh(self.family(), boottime_now_ns()).unwrap_or(false);
        self.handle(if is_master { Input::Resume } else { Input::Start }, means);
    }

    /// If this node is master, has the others wait for adverts this far apart, and takes a lease for as long as that. They
    /// learn it from the advert (RFC 9568, section 6.4.2); in version 2 the interval is what everybody has configured.
    pub(super) fn bequeath(&mut self, interval: Duration, means: &mut Means<'_>) {
        let settings = self.router.settings();
        if self.router.state() != State::Master || settings.version != Version::V3 || interval <= settings.interval {
            return;
        }
        let advert = Advert { interval, ..Advert::new(settings, settings.priority) };
        // Twice: nobody says it again.
        let n_sent = self.send_to_all(&advert, means).max(self.send_to_all(&advert, means));
        // Who has not been told takes over as always.
        if n_sent == self.wire.destinations().len() {
            self.set_lease(Some(timers::patience(interval)), means);
        }
    }

    /// When it must have its turn.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.router.deadline(), self.announcements.next(), self.retry_at].into_iter().flatten().min()
    }

    /// Takes what has come, in the order that the state machine demands: adverts, then the clock.
    pub(super) fn turn(&mut self, means: &mut Means<'_>) {
        self.receive(means);
        let now = Instant::now();
        if self.router.deadline().is_some_and(|deadline| now >= deadline) {
            self.handle(Input::Timer, means);
        }
        self.judge_speech(means);
        let n = self.announcements.due(Instant::now());
        for _ in 0..n {
            self.announce(means);
        }
    }

    /// A master that nobody hears is one beside another.
    fn judge_speech(&mut self, means: &mut Means<'_>) {
        let now = Instant::now();
        let patience = timers::patience(self.router.settings().interval);
        if self.mute_since.is_some_and(|since| now >= since + patience) {
            self.mute_since = None;
            self.retry_at = Some(now + MUTE_RETRY);
            self.handle(Input::FaultRaised(Fault::SocketFailed), means);
        }
        if self.retry_at.take_if(|at| now >= *at).is_some() {
            self.handle(Input::FaultCleared(Fault::SocketFailed), means);
        }
    }

    /// Takes an input, and does what follows.
    pub(super) fn handle(&mut self, input: Input, means: &mut Means<'_>) {
        let now = Instant::now();
        for action in self.router.handle(input, now) {
            self.act(action, now, means);
        }
    }

    /// The VIPs were put back, or the interface has changed: tells the segment again.
    pub(super) fn reannounce(&mut self) {
        if self.router.state() == State::Master {
            self.announcements.start(Instant::now());
        }
    }

    fn receive(&mut self, means: &mut Means<'_>) {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        for _ in 0..MAX_ADVERTS_PER_TURN {
            let (header, message) = match self.wire.receive(&mut buffer) {
                Ok(Some(received)) => received,
                // A socket says once that its interface was down; whether it is, netlink tells.
                Ok(None) | Err(_) => return,
            };
            match decode(message, &header, self.router.settings()) {
                Ok(received) => {
                    self.n_received += 1;
                    let heard = Heard::new(&received.advert, header.source);
                    for remark in received.remarks {
                        self.remark(remark, header.source, means);
                    }
                    self.remember(heard);
                    self.handle(Input::Advert(heard), means);
                    self.notice_successor(heard, means);
                }
                Err(invalid) => self.refuse(invalid, header.source, means),
            }
        }
    }

    /// Tells when another node has the VIPs that this one had: connections through this node are over then, and not
    /// before.
    fn notice_successor(&mut self, heard: Heard, means: &Means<'_>) {
        let is_master = self.router.state() == State::Master;
        if self.has_lost_vips && !is_master && heard.priority != PRIORITY_RELEASE {
            self.has_lost_vips = false;
            (means.tell)(Notice::Replaced { addresses: self.router.settings().addresses.clone() });
        }
    }

    fn remember(&mut self, heard: Heard) {
        if self.heard.len() < MAX_SENDERS || self.heard.contains_key(&heard.sender) {
            self.heard.insert(heard.sender, (Instant::now(), heard));
        }
    }

    fn refuse(&mut self, invalid: Invalid, sender: IpAddr, means: &Means<'_>) {
        let count = self.dropped.entry(invalid.name()).or_default();
        *count += 1;
        // Another virtual router's adverts are nobody's fault, and a looped one is no news the second time.
        if *count == 1 && invalid != Invalid::RouterId {
            (means.tell)(Notice::Refused { sender, invalid });
        }
    }

    fn remark(&mut self, remark: Remark, sender: IpAddr, means: &Means<'_>) {
        let count = self.remarks.entry(remark.name()).or_default();
        *count += 1;
        if *count == 1 {
            (means.tell)(Notice::Odd { sender, remark });
        }
    }

    fn act(&mut self, action: Action, now: Instant, means: &mut Means<'_>) {
        match action {
            Action::Send { priority } => self.send(priority, means),
            Action::Acquire => {
                self.has_lost_vips = false;
                self.announcements.start(now);
                // At once: each millisecond counts for those who send to the old master.
                for _ in 0..self.announcements.due(now) {
                    self.announce(means);
                }
            }
            Action::Release => {
                self.has_lost_vips = true;
                self.mute_since = None;
                self.announcements.stop();
                self.set_lease(None, means);
            }
            Action::Reannounce { .. } => self.announcements.lower_priority_heard(now),
            Action::Relisten { late } => {
                self.n_relistened += 1;
                (means.tell)(Notice::HeldUp { late });
            }
            Action::Report(transition) => {
                self.n_transitions += 1;
                let addresses = self.router.settings().addresses.clone();
                (means.tell)(Notice::Changed { addresses, transition });
            }
        }
    }

    fn send(&mut self, priority: u8, means: &mut Means<'_>) {
        let advert = Advert::new(self.router.settings(), priority);
        let is_heard = self.send_to_all(&advert, means) > 0 || self.wire.destinations().is_empty();
        if priority == PRIORITY_RELEASE {
            return;
        }
        // No longer than the others wait: when they take over, nobody is told any more that the VIPs are here. And not at
        // all if they may be waiting already.
        let is_leased = is_heard && self.set_lease(Some(timers::patience(self.router.settings().interval)), means);
        if is_leased {
            if self.mute_since.take().is_some() {
                // What was announced without a lease may not have left the node: the fence is at egress, too.
                self.announcements.start(Instant::now());
            }
        } else {
            self.mute_since.get_or_insert_with(Instant::now);
        }
    }

    /// To how many it could be sent.
    fn send_to_all(&mut self, advert: &Advert, means: &Means<'_>) -> usize {
        let settings = self.router.settings();
        let mut n_sent: usize = 0;
        for destination in self.wire.destinations() {
            let message = advert.encode(settings.address, *destination, settings.coverage);
            match self.wire.send(&message, *destination) {
                Ok(()) => n_sent += 1,
                Err(error) => {
                    self.n_send_errors += 1;
                    if self.n_send_errors == 1 {
                        (means.tell)(Notice::NotSent { destination: *destination, error: error.to_string() });
                    }
                }
            }
        }
        self.n_sent += n_sent as u64;
        n_sent
    }

    /// From now for so long, or not at all any more. Returns whether it is so.
    fn set_lease(&mut self, period: Option<Duration>, means: &mut Means<'_>) -> bool {
        let family = self.family();
        let now_ns = boottime_now_ns();
        let set = match period {
            Some(period) => {
                let expires_ns = now_ns.saturating_add(u64::try_from(period.as_nanos()).unwrap_or(u64::MAX));
                self.lease_ns = Some(expires_ns);
                means.leases.renew(family, expires_ns)
            }
            None => {
                self.lease_ns = self.lease_ns.map(|_| now_ns);
                means.leases.expire(family)
            }
        };
        match set {
            Ok(()) => true,
            Err(error) => {
                self.n_lease_errors += 1;
                if self.n_lease_errors == 1 {
                    (means.tell)(Notice::NoLease { error: format!("{error:#}") });
                }
                false
            }
        }
    }

    fn announce(&self, means: &Means<'_>) {
        if let Err(error) = means.announcer.announce(means.mac, &self.router.settings().addresses) {
            (means.tell)(Notice::NotAnnounced { error: format!("{error:#}") });
        }
    }

    /// How it is.
    pub(super) fn report(&self) -> RouterReport {
        let now = Instant::now();
        let settings = self.router.settings();
        let age = |moment: Instant| now.saturating_duration_since(moment).as_secs_f64();
        RouterReport {
            is_ipv4: settings.address.is_ipv4(),
            version: settings.version.number(),
            router_id: settings.router_id,
            priority: settings.priority,
            interval: settings.interval.as_secs_f64(),
            address: settings.address,
            state: self.router.state().name().to_owned(),
            state_seconds: self.router.since().map(age),
            faults: self.router.faults().map(|fault| fault.name().to_owned()).collect(),
            master: match self.router.state() {
                State::Master => Some(settings.address),
                State::Backup => self.router.heard().filter(|h| h.priority != PRIORITY_RELEASE).map(|h| h.sender),
                State::Initialize => None,
            },
            peers: self.peers(age),
            transitions: self.n_transitions,
            adverts_sent: self.n_sent,
            send_errors: self.n_send_errors,
            adverts_received: self.n_received,
            relistened: self.n_relistened,
            dropped: self.dropped.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            remarks: self.remarks.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            lease_seconds: self
                .lease_ns
                .map(|ns| Duration::from_nanos(ns.saturating_sub(boottime_now_ns())).as_secs_f64()),
        }
    }

    /// Those that are listed, heard or not, and those that were heard.
    fn peers(&self, age: impl Fn(Instant) -> f64) -> Vec<PeerReport> {
        let listed = self.router.settings().transport.peers().iter().copied();
        let addresses: std::collections::BTreeSet<IpAddr> = listed.chain(self.heard.keys().copied()).collect();
        (addresses.into_iter())
            .map(|address| {
                let heard = self.heard.get(&address);
                PeerReport {
                    address,
                    priority: heard.map(|(_, heard)| heard.priority),
                    heard_seconds: heard.map(|(moment, _)| age(*moment)),
                }
            })
            .collect()
    }
}

impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
