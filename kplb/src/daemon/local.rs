//! Clients on this node: their sockets are led to backends, and ended when those are gone.
//!
//! Invariant: whatever of it this node cannot do is said once, and the rest goes on.

use std::{collections::BTreeSet, thread, time::Instant};

use anyhow::{Context as _, Result};
use tracing::{debug, info, warn};

use crate::{
    cgroup,
    config::Config,
    dataplane::Dataplane,
    model::Desired,
    sockets::{self, Ended},
};

/// What this node can do for its own clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Local {
    /// Nothing: it cannot, or was told not to.
    Off,
    /// Their sockets are led to backends.
    Led,
    /// And ended when their backend is gone.
    LedAndEnded,
}

impl Local {
    /// Attaches what there is to attach.
    pub(super) fn start(config: &Config, dataplane: &mut Dataplane) -> Self {
        if !config.leads_local_clients() {
            // An earlier configuration may have had it otherwise.
            if let Err(error) = dataplane.detach_from_sockets() {
                warn!("clients on this node are still led to backends: {error:#}");
            }
            return Self::Off;
        }
        if let Err(error) = attach(dataplane) {
            warn!("clients on this node are not led to backends, and use the VIPs like any other: {error:#}");
            return Self::Off;
        }
        match sockets::can_be_ended() {
            Ok(true) => Self::LedAndEnded,
            Ok(false) => {
                warn!(
                    "clients on this node are not told when their backend is gone: the kernel ends no sockets (it has no \
                     CONFIG_INET_DIAG_DESTROY)"
                );
                Self::Led
            }
            Err(error) => {
                warn!("clients on this node are not told when their backend is gone: {error:#}");
                Self::Led
            }
        }
    }

    /// Whether sockets are led to backends.
    pub(super) fn is_on(self) -> bool {
        self != Self::Off
    }

    /// Ends the sockets that were led to backends which serve no longer, on a thread of its own.
    pub(super) fn end_orphans(self, dataplane: &Dataplane, applied: &Desired) -> Result<()> {
        if self != Self::LedAndEnded {
            return Ok(());
        }
        let start = Instant::now();
        let orphans = dataplane.orphaned_sockets(|diversion| {
            let backend = applied.backends.get(&diversion.backend_id);
            // An id may have gone to another server.
            !backend.is_some_and(|backend| backend.is_serving() && diversion.is_to_backend(backend))
        })?;
        if orphans.is_empty() {
            return Ok(());
        }
        let cookies: BTreeSet<u64> = orphans.into_iter().map(|(cookie, _)| cookie).collect();
        let end = move || match sockets::end(cookies) {
            Ok(Ended { n_ended, n_unseen }) => {
                if n_unseen > 0 {
                    debug!(
                        "{n_unseen} sockets that were led to backends are gone, or in namespaces not seen from here"
                    );
                }
                if n_ended > 0 {
                    info!("ended {n_ended} sockets of clients on this node within {:.1?}", start.elapsed());
                }
            }
            Err(error) => warn!("cannot end the sockets of clients on this node: {error:#}"),
        };
        thread::Builder::new().name("kplb-sockets".to_owned()).spawn(end).map(drop).context("start a thread")
    }
}

fn attach(dataplane: &mut Dataplane) -> Result<()> {
    if dataplane.keeps_sockets() {
        return Ok(());
    }
    let cgroup = cgroup::root()?;
    dataplane.load_socket_programs()?;
    dataplane.attach_to_sockets(&cgroup)?;
    debug!("sockets of all processes in {} are led to backends", cgroup.display());
    Ok(())
}
