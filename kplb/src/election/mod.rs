//! The election at work: a thread of its own, which no other work of the agent can hold up.
//!
//! ```text
//!   orders: faults, the MAC address, stop                      notices: roles have changed, something is odd
//!   daemon --------------------------->  thread: Members  ------------------------------> daemon
//!                                         |      |     |                                    |
//!                                      adverts  leases  announcements               VIPs on the interface, hooks
//! ```
//!
//! The thread does what makes a failover fast and safe itself: adverts, the lease on the VIPs (see
//! [`kplb_common::fence`]) and their announcements. It reads no file, logs nothing and waits for nobody. Adding an
//! address is left to the daemon: packets to a VIP are forwarded with or without it.

mod member;
mod realtime;
mod report;
mod wire;

use std::{
    net::IpAddr,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kplb_common::net::Mac;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};
use tokio::{sync::mpsc as tokio_mpsc, task::spawn_blocking};

use self::{
    member::{Means, Member},
    wire::Wire,
};
pub use self::{
    realtime::Realtime,
    report::{ElectionReport, PeerReport, RouterReport},
};
use crate::{
    announce::Announcer,
    dataplane::{Leases, boottime_now_ns},
    model::Family,
    vrrp::{
        fsm::{Fault, Input, Router, Transition},
        receive::{Invalid, Remark},
        settings::Settings,
    },
};

/// The longest that the thread sleeps: how soon it sees that the daemon's loop is stuck.
const MAX_SLEEP: Duration = Duration::from_millis(250);
/// The daemon's loop turns at least this often.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// A loop that has not turned for so long is stuck: VIPs would not be put back, backends not be taken away.
const STUCK: Duration = Duration::from_secs(3);
/// The thread answers at once, or not at all.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);
/// A suspended machine's clocks differ by more than this; smaller differences are noise.
const SUSPENDED: Duration = Duration::from_millis(10);

/// What the daemon tells the thread.
enum Order {
    Begin,
    Raise(Option<Family>, Fault),
    Clear(Option<Family>, Fault),
    Readdress(Box<Settings>),
    Moved(Mac),
    Reannounce,
    Report(mpsc::SyncSender<ElectionReport>),
    Stop,
}

/// What the thread tells the daemon.
#[derive(Debug)]
pub enum Notice {
    /// A virtual router has changed its state.
    Changed {
        /// Its VIPs.
        addresses: Vec<IpAddr>,
        /// From what to what, and why.
        transition: Transition,
    },
    /// Another node has VIPs that this one had.
    Replaced {
        /// The VIPs.
        addresses: Vec<IpAddr>,
    },
    /// An advert did not count, for the first time for this reason.
    Refused {
        /// Who sent it.
        sender: IpAddr,
        /// Why.
        invalid: Invalid,
    },
    /// An advert was odd, for the first time in this way.
    Odd {
        /// Who sent it.
        sender: IpAddr,
        /// In which way.
        remark: Remark,
    },
    /// As a backup this node ran too late to tell whether the master is silent.
    HeldUp {
        /// By how much.
        late: Duration,
    },
    /// An advert could not be sent, for the first time.
    NotSent {
        /// To whom.
        destination: IpAddr,
        /// What the kernel said.
        error: String,
    },
    /// The lease on the VIPs could not be written.
    NoLease {
        /// What the kernel said.
        error: String,
    },
    /// This node cannot send adverts from its new address.
    NotReaddressed {
        /// The new address.
        address: IpAddr,
        /// What the kernel said.
        error: String,
    },
    /// The VIPs could not be announced.
    NotAnnounced {
        /// What the kernel said.
        error: String,
    },
}

/// The daemon's end of the election. Dropped, it [leaves](Self::leave).
pub struct Election {
    orders: mpsc::Sender<Order>,
    waker: Arc<EventFd>,
    /// When the daemon's loop turned last, in nanoseconds of `CLOCK_MONOTONIC`.
    heartbeat: Arc<AtomicU64>,
    notices: tokio_mpsc::UnboundedReceiver<Notice>,
    thread: Option<thread::JoinHandle<()>>,
    realtime: Realtime,
}

/// What an election acts with.
pub struct Equipment {
    /// The interface's name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// For the VIPs.
    pub announcer: Announcer,
    /// What the fence in the data path goes by.
    pub leases: Leases,
}

impl Election {
    /// Makes a virtual router for each of these settings; see [`Self::begin`].
    ///
    /// # Errors
    /// If a socket cannot be opened, or the thread not be started.
    pub fn start(settings: Vec<Settings>, equipment: Equipment) -> Result<Self> {
        let Equipment { interface, index, mac, announcer, leases } = equipment;
        let mut members = Vec::new();
        for settings in settings {
            let wire = Wire::open(&interface, index, &settings)?;
            members.push(Member::new(Router::new(settings), wire));
        }
        let (orders, received) = mpsc::channel();
        let (tell, notices) = tokio_mpsc::unbounded_channel();
        let waker = Arc::new(
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .context("open an event descriptor")?,
        );
        let heartbeat = Arc::new(AtomicU64::new(monotonic_now_ns()));
        let worker = Worker {
            members,
            announcer,
            leases,
            mac,
            orders: received,
            waker: Arc::clone(&waker),
            heartbeat: Arc::clone(&heartbeat),
            notices: tell,
            interface,
            index,
            has_begun: false,
            is_stuck: false,
            is_ending: false,
            turn_ns: monotonic_now_ns(),
            excused_ns: 0,
            away: away(),
            delay: Delay::default(),
        };
        let (ready, realtime) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("kplb-vrrp".to_owned())
            .spawn(move || {
                // Sent before anything can be waited for, so the receiver gets it.
                let _ = ready.send(Realtime::take());
                worker.run();
            })
            .context("start the thread of the election")?;
        let realtime = realtime.recv().context("the thread of the election ended at once")?;
        Ok(Self { orders, waker, heartbeat, notices, thread: Some(thread), realtime })
    }

    /// How the thread is scheduled.
    pub const fn realtime(&self) -> &Realtime {
        &self.realtime
    }

    /// The next notice; none when the thread has ended. Safe to cancel.
    pub async fn notice(&mut self) -> Option<Notice> {
        self.notices.recv().await
    }

    /// Takes part from now on.
    pub fn begin(&self) {
        self.order(Order::Begin);
    }

    /// The daemon's loop turns.
    pub fn beat(&self) {
        self.heartbeat.store(monotonic_now_ns(), Ordering::Relaxed);
    }

    /// This node cannot be master for this reason, or can again: of the VIPs of one family, or of all.
    pub fn set_fault(&self, family: Option<Family>, fault: Fault, is_raised: bool) {
        self.order(if is_raised { Order::Raise(family, fault) } else { Order::Clear(family, fault) });
    }

    /// The address that the adverts of a virtual router come from is another one now.
    pub fn readdress(&self, settings: Settings) {
        self.order(Order::Readdress(Box::new(settings)));
    }

    /// The interface has this MAC address now.
    pub fn moved(&self, mac: Mac) {
        self.order(Order::Moved(mac));
    }

    /// Announces the VIPs again, if this node is master.
    pub fn reannounce(&self) {
        self.order(Order::Reannounce);
    }

    /// How it is; none when the thread has ended.
    pub fn report(&self) -> Option<ElectionReport> {
        let (reply, report) = mpsc::sync_channel(1);
        self.order(Order::Report(reply));
        report.recv_timeout(REPORT_PATIENCE).ok()
    }

    /// Gives up the VIPs, tells the others so, and waits until one of them has taken over, or none has in time. Must be
    /// called on a tokio runtime.
    pub async fn leave(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, the lease runs out by itself.
            let _ = spawn_blocking(|| thread.join()).await;
        }
    }

    /// What the thread has told and nobody has asked for.
    pub fn last_notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.notices.try_recv().ok()).collect()
    }

    fn order(&self, order: Order) {
        // A thread that has ended needs no orders.
        let _ = self.orders.send(order);
        let _ = self.waker.write(1);
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, the lease runs out by itself.
            let _ = thread.join();
        }
    }
}

/// How late the thread runs.
#[derive(Clone, Copy, Debug, Default)]
struct Delay {
    last: Duration,
    worst: Duration,
}

struct Worker {
    members: Vec<Member>,
    announcer: Announcer,
    leases: Leases,
    mac: Mac,
    orders: mpsc::Receiver<Order>,
    waker: Arc<EventFd>,
    heartbeat: Arc<AtomicU64>,
    notices: tokio_mpsc::UnboundedSender<Notice>,
    interface: String,
    index: u32,
    has_begun: bool,
    is_stuck: bool,
    is_ending: bool,
    /// When this thread had its last turn, on the clock of the heartbeat.
    turn_ns: u64,
    /// Before then, a missing beat says nothing.
    excused_ns: u64,
    /// By how much the machine was suspended so far.
    away: Duration,
    delay: Delay,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.sleep();
            self.notice_suspension();
            self.each(|member, means| member.turn(means));
            self.watch_daemon();
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            // Masters stay until there is another.
            if self.is_ending && self.members.iter().all(Member::is_over) {
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
            let mut descriptors: Vec<_> = sockets.chain([PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)]).collect();
            // An interruption is as good as an event: everything is looked at anyway.
            ppoll(&mut descriptors, Some(timeout), None).unwrap_or(1)
        };
        let _ = self.waker.read();
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
        let beat_ns = self.heartbeat.load(Ordering::Relaxed).max(self.excused_ns);
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
                self.each(|member, means| member.handle(Input::Start, means));
            }
            Order::Raise(family, fault) => self.handle_of(family, Input::FaultRaised(fault)),
            Order::Clear(family, fault) => self.handle_of(family, Input::FaultCleared(fault)),
            Order::Readdress(settings) => self.readdress(*settings),
            Order::Moved(mac) => {
                self.mac = mac;
                self.each(|member, _| member.reannounce());
            }
            Order::Reannounce => self.each(|member, _| member.reannounce()),
            Order::Report(reply) => {
                // Who asked may have gone.
                let _ = reply.send(self.report());
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
                let _ = self.notices.send(Notice::NotReaddressed { address, error: format!("{error:#}") });
                return;
            }
        };
        let mut new = Some((Router::new(settings), wire));
        self.each(|member, means| {
            if address.is_ipv4() == (member.family() == Family::V4)
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
        let Self { members, announcer, leases, mac, notices, .. } = self;
        let tell = |notice| {
            // Without a daemon there is nobody to tell, and the end is near.
            let _ = notices.send(notice);
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
fn monotonic_now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("POSIX systems have this clock, and the pointer is valid");
    // Centuries fit.
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}
