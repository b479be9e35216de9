//! The thread of the election: what it waits for, and who has a turn when.

use std::{
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use kplb_common::net::Mac;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{eventfd::EventFd, time::TimeSpec},
    time::{ClockId, clock_gettime},
};
use tokio::sync::mpsc as tokio_mpsc;

use super::{
    ElectionReport, Equipment, Notice, Order,
    member::{Means, Member},
    wire::Wire,
};
use crate::{
    announce::Announcer,
    dataplane::{Leases, boottime_now_ns},
    model::Family,
    vrrp::{
        fsm::{Fault, Input, Router},
        settings::Settings,
    },
};

/// The longest that the thread sleeps: how soon it sees that the daemon's loop is stuck.
const MAX_SLEEP: Duration = Duration::from_millis(250);
/// A loop that has not turned for so long is stuck: VIPs would not be put back, backends not be taken away.
const STUCK: Duration = Duration::from_secs(3);
/// A suspended machine's clocks differ by more than this; smaller differences are noise.
const SUSPENDED: Duration = Duration::from_millis(10);

/// How late the thread runs.
#[derive(Clone, Copy, Debug, Default)]
struct Delay {
    last: Duration,
    worst: Duration,
}

/// The thread's end of what it shares with the daemon.
pub(super) struct Channels {
    pub(super) orders: mpsc::Receiver<Order>,
    /// Readable when there are orders.
    pub(super) waker: Arc<EventFd>,
    /// When the daemon's loop turned last, by [`monotonic_now_ns`].
    pub(super) heartbeat: Arc<AtomicU64>,
    pub(super) notices: tokio_mpsc::UnboundedSender<Notice>,
}

/// The thread's own.
pub(super) struct Worker {
    members: Vec<Member>,
    announcer: Announcer,
    leases: Leases,
    mac: Mac,
    channels: Channels,
    interface: String,
    index: u32,
    has_begun: bool,
    is_stuck: bool,
    is_ending: bool,
    has_quit: bool,
    /// When this thread had its last turn, on the clock of the heartbeat.
    turn_ns: u64,
    /// Before then, a missing beat says nothing.
    excused_ns: u64,
    /// By how much the machine was suspended so far.
    away: Duration,
    delay: Delay,
}

impl Worker {
    /// Opens the sockets of each virtual router.
    pub(super) fn new(settings: Vec<Settings>, equipment: Equipment, channels: Channels) -> Result<Self> {
        let Equipment { interface, index, mac, announcer, leases } = equipment;
        let mut members = Vec::new();
        for settings in settings {
            let wire = Wire::open(&interface, index, &settings)?;
            members.push(Member::new(Router::new(settings), wire));
        }
        Ok(Self {
            members,
            announcer,
            leases,
            mac,
            channels,
            interface,
            index,
            has_begun: false,
            is_stuck: false,
            is_ending: false,
            has_quit: false,
            turn_ns: monotonic_now_ns(),
            excused_ns: 0,
            away: away(),
            delay: Delay::default(),
        })
    }

    /// Until it is told to stop, and masters have left.
    pub(super) fn run(mut self) {
        loop {
            self.sleep();
            self.notice_suspension();
            self.each(|member, means| member.turn(means));
            self.watch_daemon();
            while let Ok(order) = self.channels.orders.try_recv() {
                self.obey(order);
            }
            // Masters stay until there is another.
            if self.has_quit || self.is_ending && self.members.iter().all(Member::is_over) {
                return;
            }
        }
    }

    /// Sleeps until something is to be done, and measures how late it wakes.
    fn sleep(&mut self) {
        let now = Instant::now();
        let deadline = self.members.iter().filter_map(Member::deadline).min();
        let until = deadline.unwrap_or(now + MAX_SLEEP).min(now + MAX_SLEEP);
        let timeout = TimeSpec::from(until.saturating_duration_since(now));
        let n = {
            let sockets = self.members.iter().map(|member| PollFd::new(member.as_fd(), PollFlags::POLLIN));
            let mut descriptors: Vec<_> =
                sockets.chain([PollFd::new(self.channels.waker.as_fd(), PollFlags::POLLIN)]).collect();
            // An interruption is as good as an event: everything is looked at anyway.
            ppoll(&mut descriptors, Some(timeout), None).unwrap_or(1)
        };
        let _ = self.channels.waker.read();
        if n == 0 {
            self.delay.last = Instant::now().saturating_duration_since(until);
            self.delay.worst = self.delay.worst.max(self.delay.last);
        }
    }

    /// `Instant` stands still while the machine is suspended, and the others' clocks do not.
    fn notice_suspension(&mut self) {
        let away = away();
        let more = away.saturating_sub(self.away);
        self.away = away;
        if more > SUSPENDED {
            self.each(|member, means| member.handle(Input::HeldUp(more), means));
        }
    }

    fn watch_daemon(&mut self) {
        let now_ns = monotonic_now_ns();
        // If this thread did not run either, nothing can be said of the other.
        if Duration::from_nanos(now_ns.saturating_sub(self.turn_ns)) > 2 * MAX_SLEEP {
            self.excused_ns = now_ns;
        }
        self.turn_ns = now_ns;
        let beat_ns = self.channels.heartbeat.load(Ordering::Relaxed).max(self.excused_ns);
        let is_stuck = Duration::from_nanos(now_ns.saturating_sub(beat_ns)) > STUCK;
        // A daemon that prepares the beginning or waits for the end does not beat.
        if is_stuck == self.is_stuck || !self.has_begun || self.is_ending {
            return;
        }
        self.is_stuck = is_stuck;
        let input =
            if is_stuck { Input::FaultRaised(Fault::AgentStuck) } else { Input::FaultCleared(Fault::AgentStuck) };
        self.each(|member, means| member.handle(input, means));
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin => {
                self.has_begun = true;
                self.excused_ns = monotonic_now_ns();
                self.each(|member, means| member.begin(means));
            }
            Order::Raise(family, fault) => self.handle_of(family, Input::FaultRaised(fault)),
            Order::Clear(family, fault) => self.handle_of(family, Input::FaultCleared(fault)),
            Order::Readdress(settings) => self.readdress(*settings),
            Order::Announce(mac) => {
                self.mac = mac;
                self.each(|member, _| member.reannounce());
            }
            Order::Report(reply) => {
                // Who asked may have gone.
                let _ = reply.send(self.report());
            }
            Order::Quit(grace) => {
                self.has_quit = true;
                if let Some(grace) = grace {
                    self.each(|member, means| member.bequeath(grace, means));
                }
            }
            Order::Stop => {
                self.is_ending = true;
                self.each(|member, means| member.handle(Input::Stop, means));
            }
        }
    }

    fn handle_of(&mut self, family: Option<Family>, input: Input) {
        self.each(|member, means| {
            if family.is_none_or(|family| family == member.family()) {
                member.handle(input, means);
            }
        });
    }

    fn readdress(&mut self, settings: Settings) {
        let address = settings.address;
        let wire = match Wire::open(&self.interface, self.index, &settings) {
            Ok(wire) => wire,
            Err(error) => {
                // Who is told may have gone.
                let _ = self.channels.notices.send(Notice::NotReaddressed { address, error: format!("{error:#}") });
                return;
            }
        };
        let mut new = Some((Router::new(settings), wire));
        self.each(|member, means| {
            if member.family() == Family::of(&address)
                && let Some((router, wire)) = new.take()
            {
                *member = member.succeeded_by(router, wire, means);
            }
        });
    }

    fn report(&self) -> ElectionReport {
        ElectionReport {
            delay_last_us: self.delay.last.as_secs_f64() * 1e6,
            delay_worst_us: self.delay.worst.as_secs_f64() * 1e6,
            routers: self.members.iter().map(Member::report).collect(),
        }
    }

    fn each(&mut self, mut act: impl FnMut(&mut Member, &mut Means<'_>)) {
        let Self { members, announcer, leases, mac, channels, .. } = self;
        let tell = |notice| {
            // Without a daemon there is nobody to tell, and the end is near.
            let _ = channels.notices.send(notice);
        };
        let mut means = Means { announcer, leases, mac: *mac, tell: &tell };
        for member in members {
            act(member, &mut means);
        }
    }
}

/// How long the machine was suspended since it was started.
fn away() -> Duration {
    Duration::from_nanos(boottime_now_ns().saturating_sub(monotonic_now_ns()))
}

/// The time by which the daemon's loop is watched: `CLOCK_MONOTONIC`, in nanoseconds. It stands still while the machine
/// is suspended, and so do loops: on waking, none is stuck for that. Standard Rust's `Instant` is on the same clock, but
/// does not fit into an atomic.
pub(super) fn monotonic_now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("POSIX systems have this clock, and the pointer is valid");
    // Centuries fit.
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}
