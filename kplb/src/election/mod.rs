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
mod worker;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use kplb_common::net::Mac;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::{sync::mpsc as tokio_mpsc, task::spawn_blocking};

use self::worker::{Channels, Worker, monotonic_now_ns};
pub(crate) use self::{
    realtime::PRIORITY as REALTIME_PRIORITY,
    wire::{MAX_MESSAGE_BYTES, Wire},
};
pub use self::{
    realtime::Realtime,
    report::{ElectionReport, PeerReport, RouterReport},
};
use crate::{
    announce::Announcer,
    dataplane::Leases,
    model::Family,
    vrrp::{
        fsm::{Fault, Transition},
        receive::{Invalid, Remark},
        settings::Settings,
    },
};

/// The daemon's loop turns at least this often.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// The thread answers at once, or not at all.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);
/// What the daemon tells the thread.
enum Order {
    Begin,
    Raise(Option<Family>, Fault),
    Clear(Option<Family>, Fault),
    Readdress(Box<Settings>),
    Announce(Mac),
    Report(mpsc::SyncSender<ElectionReport>),
    Stop,
    /// With a word to the others, to have patience with adverts that come so far apart.
    Quit(Option<Duration>),
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
        let (orders, received) = mpsc::channel();
        let (tell, notices) = tokio_mpsc::unbounded_channel();
        let waker = Arc::new(
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .context("open an event descriptor")?,
        );
        let heartbeat = Arc::new(AtomicU64::new(monotonic_now_ns()));
        let channels =
            Channels { orders: received, waker: Arc::clone(&waker), heartbeat: Arc::clone(&heartbeat), notices: tell };
        let worker = Worker::new(settings, equipment, channels)?;
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

    /// Takes part from now on: as master of the VIPs that this node has a lease on, and as a backup for others.
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

    /// Announces the VIPs at this MAC address from now on, and at once, if this node is master.
    pub fn announce(&self, mac: Mac) {
        self.order(Order::Announce(mac));
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
        self.join().await;
    }

    async fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, the lease runs out by itself.
            let _ = spawn_blocking(|| thread.join()).await;
        }
    }

    /// Ends as if this process were killed: what this node is master of, it stays master of until its lease ends, for
    /// another election on this node to go on with. If `grace` is given, the others are told to wait that long for each of
    /// three adverts, as far as their protocol has it (version 3), and the lease lasts as long. Must be called on a tokio
    /// runtime.
    pub async fn quit(&mut self, grace: Option<Duration>) {
        self.order(Order::Quit(grace));
        self.join().await;
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
