//! Listens to adverts, of the group as well as to this node, whatever the configuration says of who counts.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use super::super::facts::HeardAdvert;
use crate::{
    election::{MAX_MESSAGE_BYTES, Wire},
    netlink::message::Link,
    vrrp::{
        receive::{self, Header},
        settings::{Settings, Transport},
    },
};

/// More senders than this are not told of.
const MAX_HEARD: usize = 256;

/// Listens for `patience`, as these virtual routers. Blocks.
///
/// # Errors
/// If a socket cannot be opened or used.
pub(super) fn listen(link: &Link, routers: &[Settings], patience: Duration) -> Result<Vec<HeardAdvert>> {
    let open = |router: &Settings| {
        Wire::open(&link.name, link.index, &Settings { transport: Transport::Multicast, ..router.clone() })
    };
    let wires = routers.iter().map(open).collect::<Result<Vec<_>>>()?;
    let deadline = Instant::now() + patience;
    let mut heard = BTreeMap::new();
    let mut buffer = [0; MAX_MESSAGE_BYTES];
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let mut descriptors: Vec<_> = wires.iter().map(|wire| PollFd::new(wire.as_fd(), PollFlags::POLLIN)).collect();
        ppoll(&mut descriptors, Some(TimeSpec::from(left)), None).context("wait for adverts")?;
        for (wire, router) in wires.iter().zip(routers) {
            // One at a time, so that a flood does not outlast the patience.
            if let Some((header, message)) = wire.receive(&mut buffer).context("receive adverts")?
                && let Some(advert) = judged(message, &header, router)
            {
                note(&mut heard, advert);
            }
        }
    }
    Ok(heard.into_values().collect())
}

/// Keeps an advert, but no good one instead of a bad one.
fn note(heard: &mut BTreeMap<(IpAddr, u8), HeardAdvert>, advert: HeardAdvert) {
    let key = (advert.source, advert.router_id);
    match heard.get(&key) {
        Some(known) if known.judgement.is_err() => {}
        None if heard.len() >= MAX_HEARD => {}
        _ => drop(heard.insert(key, advert)),
    }
}

/// What a message says, however wrong it is, and what it is to the virtual router; none for what is too short to say
/// anything.
fn judged(message: &[u8], header: &Header, router: &Settings) -> Option<HeardAdvert> {
    let &[_, router_id, priority, count, _, _, _, _, ref body @ ..] = message else { return None };
    let length = if header.source.is_ipv4() { 4 } else { 16 };
    let vips = body.chunks_exact(length).take(count.into()).filter_map(|bytes| match length {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    });
    Some(HeardAdvert {
        source: header.source,
        router_id,
        priority,
        vips: vips.collect(),
        judgement: receive::decode(message, header, router).map(|received| received.remarks),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vrrp::{packet::Advert, receive::Invalid, settings::Coverage};

    const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 11));
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 12));
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 77));
    const GROUP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(224, 0, 0, 18));

    fn router() -> Settings {
        let transport = Transport::Unicast(vec![PEER]);
        Settings { transport, ..Settings::new(100, NODE, vec![[198, 18, 0, 100].into()]) }
    }

    fn heard(source: IpAddr, change: impl FnOnce(&mut Settings)) -> HeardAdvert {
        let mut sender = router();
        change(&mut sender);
        let message = Advert::new(&sender, 200).encode(source, GROUP, Coverage::PseudoHeader);
        let header = Header { source, destination: GROUP, hop_limit: 255 };
        judged(&message, &header, &router()).expect("an advert")
    }

    #[test]
    fn strangers_and_peers() {
        let advert = heard(STRANGER, |sender| sender.addresses = vec![[198, 18, 0, 200].into()]);
        assert_eq!(advert.judgement, Err(Invalid::NotAPeer));
        assert_eq!((advert.router_id, advert.priority), (100, 200));
        assert_eq!(advert.vips, [IpAddr::from([198, 18, 0, 200])]);
        assert_eq!(heard(PEER, |_| ()).judgement, Ok(Vec::new()));
        assert_eq!(heard(STRANGER, |sender| sender.router_id = 51).judgement, Err(Invalid::RouterId));
    }

    #[test]
    fn the_worst_of_a_sender_is_kept() {
        let mut all = BTreeMap::new();
        note(&mut all, heard(PEER, |_| ()));
        note(&mut all, heard(PEER, |sender| sender.addresses = vec![[198, 18, 0, 200].into()]));
        note(&mut all, heard(PEER, |_| ()));
        assert_eq!(all.len(), 1);
        assert_eq!(all[&(PEER, 100)].judgement, Err(Invalid::Addresses));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            for source in [STRANGER, "fe80::1".parse().expect("an address")] {
                let header = Header { source, destination: GROUP, hop_limit: 255 };
                judged(&message, &header, &router());
            }
        }
    }
}
