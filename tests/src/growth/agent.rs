//! What grows with the configuration of an agent: until it serves, and until it has followed a change.

use std::{fmt::Write as _, fs, time::Instant};

use anyhow::Result;

use crate::{
    agent::{self, Agent},
    cluster,
    lab::{Lab, LabOptions},
};

/// Services with so many backends each, none of which is checked.
fn configuration(n_services: u16, n_backends: u16, weight: u16) -> String {
    let mut text = String::new();
    for service in 0..n_services {
        let _ = writeln!(text, "[[service]]\nvip = '198.18.0.100:{}'\ncheck = {{ type = 'none' }}", 1000 + service);
        for number in 0..n_backends {
            let [high, low] = number.to_be_bytes();
            let port = 20_000 + u32::from(service);
            let _ =
                writeln!(text, "[[service.backend]]\naddress = '198.18.{}.{low}:{port}'\nweight = {weight}", 64 + high);
        }
    }
    text
}

/// Milliseconds from the start of an agent until it serves.
///
/// # Errors
/// If it does not.
pub fn start(n_services: u16, n_backends: u16) -> Result<f64> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let file = cluster::write(&configuration(n_services, n_backends, 1))?;
    let path = file.path().to_string_lossy().into_owned();
    let begin = Instant::now();
    let agent = Agent::start(lab.node(1), ["--config", &path])?;
    let time = begin.elapsed();
    agent.stop()?;
    Ok(time.as_secs_f64() * 1e3)
}

/// Milliseconds of `kplb reload` after the weight of every backend has changed, and so every ring.
///
/// # Errors
/// If it fails.
pub fn reload(n_services: u16, n_backends: u16) -> Result<f64> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let file = cluster::write(&configuration(n_services, n_backends, 1))?;
    let path = file.path().to_string_lossy().into_owned();
    let agent = Agent::start(lab.node(1), ["--config", &path])?;
    fs::write(file.path(), configuration(n_services, n_backends, 2).replacen("weight = 2", "weight = 1", 1))?;
    let begin = Instant::now();
    agent::run(lab.node(1), ["reload"])?;
    let time = begin.elapsed();
    agent.stop()?;
    Ok(time.as_secs_f64() * 1e3)
}
