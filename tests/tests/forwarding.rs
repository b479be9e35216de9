//! What the benchmark of forwarding compares does forward, and every packet that it is fed.

use anyhow::{Context as _, Result, bail, ensure};
use kplb_tests::bench::{
    Traffic,
    forwarding::{ESTABLISHED, Forwarder, Stage},
};

const PACKETS: u32 = 2 * ESTABLISHED;

fn forwards(forwarder: Forwarder) -> Result<()> {
    let mut stage = Stage::new(forwarder, 0)?;
    for (traffic, n_flows, n_packets) in [
        (Traffic::ToBackend, 1, PACKETS),
        (Traffic::ToBackend, ESTABLISHED, PACKETS),
        (Traffic::ToClient, 1, PACKETS),
        (Traffic::Opening, ESTABLISHED, ESTABLISHED),
    ] {
        let fed = stage.feed(traffic, n_flows, n_packets).with_context(|| format!("{traffic:?}, {n_flows} flows"))?;
        ensure!(!fed.busy.is_zero() && fed.busy <= fed.wall, "{traffic:?}: {fed:?}");
    }
    Ok(())
}

#[test]
fn nothing_is_counted_where_it_would_be_forwarded() -> Result<()> {
    forwards(Forwarder::Nothing)
}

#[test]
fn the_mac_swap_forwards() -> Result<()> {
    forwards(Forwarder::Swap)
}

#[test]
fn kplb_forwards_at_xdp() -> Result<()> {
    forwards(Forwarder::Xdp)
}

#[test]
fn kplb_forwards_at_tc() -> Result<()> {
    forwards(Forwarder::Tc)
}

#[test]
fn nftables_forwards() -> Result<()> {
    forwards(Forwarder::Nft)
}

#[test]
fn packets_that_are_not_forwarded_are_missed() -> Result<()> {
    let mut stage = Stage::new(Forwarder::Xdp, 0)?;
    let Err(error) = stage.feed(Traffic::NotOurs, 1, PACKETS) else { bail!("nobody forwards what is the node's own") };
    ensure!(error.to_string() == format!("of {PACKETS} packets, 0 have arrived"), "{error:#}");
    Ok(())
}
