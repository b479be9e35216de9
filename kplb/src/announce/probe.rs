//! Who else answers for a VIP: duplicate address detection, with questions that change nobody's cache.

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use kplb_common::net::Mac;

use crate::who_has::{
    Inquiry,
    question::{Answer, Question},
};

/// Asks once who has each of the VIPs, and listens for as long as `patience`. Blocks.
///
/// # Errors
/// If a socket cannot be opened or used.
pub fn other_owners(interface: &str, own: Mac, vips: &[IpAddr], patience: Duration) -> Result<Vec<Answer>> {
    let questions: Vec<Question> = vips.iter().copied().map(Question::anonymous).collect();
    let inquiry = Inquiry::start(interface, own, &questions)?;
    let deadline = Instant::now() + patience;
    let mut owners = HashSet::new();
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        owners.extend(inquiry.answers(left)?);
    }
    Ok(owners.into_iter().filter(|owner| vips.contains(&owner.address) && owner.mac != own).collect())
}
