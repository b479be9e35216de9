//! The clock of the data path, next to the agent's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kplb::dataplane::monotonic_now_ns;
use kplb_common::net::TCP;
use kplb_tests::{poll, testbed::Testbed};
use nix::time::{ClockId, clock_getres};

use crate::{
    case::{seen_ns, take},
    scene::{AMPLE, Flow, Kind, NAT_PORTS, everywhere},
};

/// It is not ahead, unless the wall clock was set a moment before it was read, and by two ticks behind at most, but for
/// moments in which the processor that counts ticks is not given time by whoever it shares a machine with.
#[test]
fn a_packets_time_is_the_agents() -> Result<()> {
    let tick_ns = u64::try_from(Duration::from(clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?).as_nanos())?;
    for (ingress, family) in everywhere() {
        let mut testbed = Testbed::new(ingress, &family.configuration(NAT_PORTS), &family.facts(), AMPLE)?;
        let flow = Flow::new(family, TCP, Kind::Remote);
        flow.established().iter().try_for_each(|step| take(&mut testbed, step))?;
        let data = flow.client_sent(&flow.data());
        poll::until_ok("a packet at the time it is", Duration::from_secs(10), || {
            let before_ns = monotonic_now_ns();
            take(&mut testbed, &data)?;
            let seen_ns = seen_ns(&mut testbed, &flow.forward()).context("there is no such flow")?;
            let after_ns = monotonic_now_ns();
            assert!(seen_ns <= after_ns, "{ingress:?}: {seen_ns} is ahead of {after_ns}");
            ensure!(before_ns <= seen_ns + 2 * tick_ns, "{ingress:?}: {seen_ns} is behind {before_ns}");
            Ok(())
        })?;
    }
    Ok(())
}
