//! What the nodes of a segment say about VIPs: adverts (IP protocol 112) and claims to an address (ARP, neighbour
//! discovery), kept as whole frames for a test to look at or for [`tshark`] to decode.

mod advert;
mod claim;

pub mod tshark;

use std::{
    net::IpAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub use self::{
    advert::Advert,
    claim::{Claim, ClaimKind, Occasion},
};
use crate::{
    netns::Namespace,
    packet_socket::{Frame, PacketSocket},
};

/// How soon a capture ends that is told to.
const ATTENTION: Duration = Duration::from_millis(20);

/// A capture that goes on until it is dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<Vec<Frame>>,
    changed: Condvar,
    is_over: AtomicBool,
}

impl Capture {
    /// Starts it on an interface: `eth0` of a host, which sees what is sent to all, or a host's port of the switch,
    /// which sees what that host sees. Of claims, only those to `vips` are kept.
    pub fn start(namespace: &Namespace, interface: &str, vips: &[IpAddr]) -> Result<Self> {
        let socket = PacketSocket::open(namespace, interface)?;
        let shared = Arc::<Shared>::default();
        let thread = thread::spawn({
            let (shared, vips) = (Arc::clone(&shared), vips.to_vec());
            move || capture(&socket, &vips, &shared)
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.shared.lock().clone()
    }

    /// The adverts so far.
    pub fn adverts(&self) -> Vec<Advert> {
        self.shared.lock().iter().filter_map(Advert::of).collect()
    }

    /// The claims to the VIPs so far.
    pub fn claims(&self) -> Vec<Claim> {
        self.shared.lock().iter().filter_map(Claim::of).collect()
    }

    /// Waits for an advert that came after `moment` and is as `wanted`.
    pub fn wait_for_advert(
        &self,
        moment: Instant,
        deadline: Duration,
        wanted: impl Fn(&Advert) -> bool,
    ) -> Result<Advert> {
        self.wait(moment, deadline, |frame| Advert::of(frame).filter(&wanted))
    }

    /// Waits for a claim that came after `moment` and is as `wanted`.
    pub fn wait_for_claim(
        &self,
        moment: Instant,
        deadline: Duration,
        wanted: impl Fn(&Claim) -> bool,
    ) -> Result<Claim> {
        self.wait(moment, deadline, |frame| Claim::of(frame).filter(&wanted))
    }

    fn wait<T>(&self, moment: Instant, deadline: Duration, look: impl Fn(&Frame) -> Option<T>) -> Result<T> {
        let end = Instant::now() + deadline;
        let mut frames = self.shared.lock();
        let mut n_seen = 0;
        loop {
            if let Some(found) = frames.iter().skip(n_seen).filter(|frame| frame.at > moment).find_map(&look) {
                return Ok(found);
            }
            n_seen = frames.len();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let adverts: Vec<_> = frames.iter().filter_map(Advert::of).collect();
                let claims: Vec<_> = frames.iter().filter_map(Claim::of).collect();
                bail!("not seen within {deadline:?}; captured were {adverts:#?} and {claims:#?}");
            }
            (frames, _) = self.shared.changed.wait_timeout(frames, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn capture(socket: &PacketSocket, vips: &[IpAddr], shared: &Shared) {
    while !shared.is_over.load(Ordering::Relaxed) {
        match socket.receive(ATTENTION) {
            Ok(Some(frame)) => {
                let is_claim = || Claim::of(&frame).is_some_and(|claim| vips.contains(&claim.address));
                if Advert::of(&frame).is_some() || is_claim() {
                    shared.lock().push(frame);
                    shared.changed.notify_all();
                }
            }
            Ok(None) => {}
            // The interface is gone for good, and with it what is to be captured.
            Err(_) => break,
        }
    }
}
