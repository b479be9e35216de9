//! Reads the facts.

mod adverts;
mod host;
mod node;
mod processes;
mod segment;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::future::join_all;

use super::facts::{Backend, Configuration, Facts, Known};
use crate::{
    config::{self, Config},
    daemon::{ipvs, preflight},
    health::probe,
    netlink::client::Netlink,
    run_dir::RunDir,
};

/// What to look at.
#[derive(Debug)]
pub struct Options {
    /// The interface; the one that seems to be meant, without.
    pub interface: Option<String>,
    /// The configuration; the one at the usual place, if there is one, without.
    pub config: Option<PathBuf>,
    /// How long to listen to adverts; as long as it takes to hear everybody, without.
    pub listen: Option<Duration>,
    /// The run directory.
    pub run_dir: RunDir,
    /// The directory below which agents pin.
    pub pin_root: PathBuf,
}

/// Reads everything. Takes some seconds, in which the segment is listened to.
///
/// # Errors
/// If the kernel cannot be asked for its interfaces; whatever else cannot be known is a fact, too.
pub fn gather(options: &Options) -> Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(all(options))
}

async fn all(options: &Options) -> Result<Facts> {
    let configuration = configuration(options);
    let config = configuration.config();
    let netlink = Netlink::connect()?;
    let node = node::Node::read(&netlink).await?;
    let interface = match node.interface(options, config) {
        Some(name) => Some(node.look_at(&netlink, &name, options, config).await),
        None => None,
    };
    let heard = async {
        match (config, &interface) {
            (Some(config), Some(interface)) => segment::gather(config, interface, options.listen).await,
            _ => None,
        }
    };
    let (segment, backends) = tokio::join!(heard, backends(config));
    let (processes, node_ips) = processes::gather();
    Ok(Facts {
        host: host::gather(&options.pin_root),
        own_ports: known(preflight::own_ports()),
        ipvs: ipvs::list().map_err(|error| error.to_string()),
        processes,
        node_ips,
        segment,
        backends,
        interface,
        configuration,
    })
}

/// A fact, or the words of an error.
fn known<T>(result: Result<T>) -> Known<T> {
    result.map_err(|error| format!("{error:#}"))
}

fn configuration(options: &Options) -> Configuration {
    let path = options.config.clone().unwrap_or_else(|| PathBuf::from(config::DEFAULT_PATH));
    if options.config.is_none() && !path.exists() {
        return Configuration::None;
    }
    // What the health checks log in with is as much part of it as the file itself.
    let usable = config::load(&path).map_err(anyhow::Error::from).and_then(|config| {
        probe::probes(&config).with_context(|| path.display().to_string())?;
        Ok(config)
    });
    match usable {
        Ok(config) => Configuration::Right { path, config: Box::new(config) },
        Err(error) => Configuration::Wrong { path, problem: format!("{error:#}") },
    }
}

/// Checks every backend once, all at the same time.
async fn backends(config: Option<&Config>) -> Vec<Backend> {
    let Some(config) = config else { return Vec::new() };
    let Ok(probes) = probe::probes(config) else { return Vec::new() };
    let all = config.services.iter().flat_map(|service| service.backends.iter().map(move |backend| (service, backend)));
    let checks = all.zip(probes).map(async |((service, backend), probe)| Backend {
        service: service.name.clone(),
        name: backend.name.clone(),
        address: backend.address,
        outcome: match probe {
            Some(mut probe) => Some(probe.check().run(|| ()).await.0),
            None => None,
        },
    });
    join_all(checks).await
}
