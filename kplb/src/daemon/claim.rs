//! How this node comes to hold the VIPs: because it is alone, or because it was elected.

use anyhow::Result;
use kplb_common::net::Mac;

use super::{campaign::Campaign, herald::Herald};
use crate::election::Notice;

/// How this node comes to hold the VIPs.
pub(super) enum Claim {
    /// It is the only balancer.
    Alone(Box<Herald>),
    /// It is elected, and others are when it is not.
    Elected(Box<Campaign>),
}

/// What is to be done about it.
pub(super) enum Duty {
    /// To announce the VIPs.
    Announce,
    /// To follow the election.
    Notice(Notice),
}

impl Claim {
    /// Waits for the next duty. Safe to cancel.
    pub(super) async fn duty(&mut self) -> Result<Duty> {
        match self {
            Self::Alone(herald) => {
                herald.due().await;
                Ok(Duty::Announce)
            }
            Self::Elected(campaign) => Ok(Duty::Notice(campaign.notice().await?)),
        }
    }

    /// The election, if there is one.
    pub(super) fn campaign(&mut self) -> Option<&mut Campaign> {
        match self {
            Self::Alone(_) => None,
            Self::Elected(campaign) => Some(campaign),
        }
    }

    /// Tells the segment again where the VIPs are, if they are here: at this MAC address.
    pub(super) fn announce_again(&mut self, mac: Mac) {
        match self {
            Self::Alone(herald) => herald.start(),
            Self::Elected(campaign) => campaign.election().announce(mac),
        }
    }
}
