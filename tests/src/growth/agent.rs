//! What grows with the configuration of an agent: until it serves, and until it has followed a change.

use std::{collections::BTreeSet, fmt::Write as _, fs, time::Instant};

use anyhow::{Result, ensure};

use super::N_ROUNDS;
use crate::{
    agent::{self, Agent},
    cluster,
    figure::median,
    kernel_maps::{self, Holder},
    lab::{Lab, LabOptions},
};

/// Which weights the backends of each service have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Weights {
    /// All the same.
    Even,
    /// The first one has twice the others': as rings are of shares, nothing else would change each of them.
    FirstIsHeavier,
}

/// Services with so many backends each, none of which is checked.
fn configuration(n_services: u16, n_backends: u16, weights: Weights) -> String {
    let mut text = String::new();
    for service in 0..n_services {
        let _ = writeln!(text, "[[service]]\nvip = '198.18.0.100:{}'\ncheck = {{ type = 'none' }}", 1000 + service);
        for number in 0..n_backends {
            let [high, low] = number.to_be_bytes();
            let port = 20_000 + u32::from(service);
            let weight = if number == 0 && weights == Weights::FirstIsHeavier { 2 } else { 1 };
            let _ =
                writeln!(text, "[[service.backend]]\naddress = '198.18.{}.{low}:{port}'\nweight = {weight}", 64 + high);
        }
    }
    text
}

/// Milliseconds from the start of an agent until it serves: the median of several.
///
/// # Errors
/// If it does not.
pub fn start(n_services: u16, n_backends: u16) -> Result<f64> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let file = cluster::write(&configuration(n_services, n_backends, Weights::Even))?;
    let path = file.path().to_string_lossy().into_owned();
    let mut times = Vec::new();
    for _ in 0..N_ROUNDS {
        let begin = Instant::now();
        let agent = Agent::start(lab.node(1), ["--config", &path])?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        agent.stop()?;
    }
    Ok(median(times))
}

/// Milliseconds of `kplb reload` after the weight of one backend of each service has changed, and so every ring: the median of
/// several.
///
/// # Errors
/// If it fails, or not every ring has changed: with less than two backends of each service, none can.
pub fn reload(n_services: u16, n_backends: u16) -> Result<f64> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let file = cluster::write(&configuration(n_services, n_backends, Weights::Even))?;
    let path = file.path().to_string_lossy().into_owned();
    let mut agent = Agent::start(lab.node(1), ["--config", &path])?;
    let mut before = rings(&mut agent)?;
    let mut times = Vec::new();
    for weights in [Weights::FirstIsHeavier, Weights::Even].into_iter().cycle().take(N_ROUNDS) {
        fs::write(file.path(), configuration(n_services, n_backends, weights))?;
        let begin = Instant::now();
        agent::run(lab.node(1), ["reload"])?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        let after = rings(&mut agent)?;
        let n_new = after.difference(&before).count();
        ensure!(n_new == usize::from(n_services), "{n_new} of {n_services} rings have changed");
        before = after;
    }
    agent.stop()?;
    Ok(median(times))
}

/// The numbers of the maps that are an agent's rings: each swap makes a new one.
fn rings(agent: &mut Agent<'_>) -> Result<BTreeSet<u32>> {
    let maps = kernel_maps::of_process(agent.process().pid())?;
    Ok(maps.into_iter().filter(|map| map.holder == Holder::Outer).map(|map| map.id).collect())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

    use kplb::{
        config,
        ids::Ids,
        maglev::Rings,
        model::{self, Conditions, NodeFacts},
    };
    use kplb_common::maglev::Ring;

    use super::*;

    fn rings_of(text: &str) -> BTreeMap<u16, Arc<Ring>> {
        let config = config::parse(text, "test").expect("a configuration");
        let facts = NodeFacts { ipv4: Some(Ipv4Addr::new(198, 18, 0, 1)), ..NodeFacts::default() };
        let conditions = Conditions::all_active(&config);
        let desired = model::desired(&config, &Ids::in_order(&config), &facts, &conditions, &mut Rings::default());
        desired.expect("a node that serves it").rings.into_iter().collect()
    }

    #[test]
    fn one_heavier_backend_of_each_service_changes_every_ring() {
        for (n_services, n_backends) in [(3, 2), (1, 10)] {
            let [even, heavier] = [Weights::Even, Weights::FirstIsHeavier]
                .map(|weights| rings_of(&configuration(n_services, n_backends, weights)));
            assert_eq!(even.len(), usize::from(n_services));
            assert!(even.iter().all(|(service, ring)| heavier[service] != *ring), "{n_services}, {n_backends}");
        }
        // A single backend has all of its ring in any case.
        let [even, heavier] =
            [Weights::Even, Weights::FirstIsHeavier].map(|weights| rings_of(&configuration(1, 1, weights)));
        assert_eq!(even, heavier);
    }
}
