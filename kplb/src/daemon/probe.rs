//! Warnings of other hosts that answer for the VIPs.

use std::{net::IpAddr, time::Duration};

use tracing::{debug, info, warn};

use super::surroundings::Surroundings;
use crate::{announce::probe, who_has::question::Answer};

/// For all hosts of a segment to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// When the segment is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Occasion {
    /// This node begins to take part in the election; there may well be a master.
    Start,
    /// This node has become master.
    Claim,
}

/// Asks the segment who has the VIPs, off this thread, and says who answers. Once this node is master, that is a host
/// that was given the address by mistake, or a master that is dead for the others and still on the wire. Nobody waits
/// for it: an election must not be held up by a host that should not be there. Must be called on a tokio runtime.
pub(super) fn other_owners(occasion: Occasion, surroundings: &Surroundings, vips: &[IpAddr]) {
    let (interface, own, vips) = (surroundings.link().name.clone(), surroundings.survey().mac, vips.to_vec());
    tokio::task::spawn_blocking(move || match probe::other_owners(&interface, own, &vips, PATIENCE) {
        Ok(owners) => owners.iter().for_each(|Answer { address: vip, mac }| match occasion {
            Occasion::Start => info!("the VIP {vip} is at {mac}"),
            Occasion::Claim => warn!("{mac} answers for the VIP {vip} as well"),
        }),
        Err(error) => debug!("cannot tell whether others have the VIPs: {error:#}"),
    });
}
