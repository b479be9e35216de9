//! Configurations of others: keepalived.conf and haproxy.cfg in, a `kplb.toml` that means the same out, and a finding for
//! each directive that has no equivalent or changes its meaning.
//!
//! ```text
//!   keepalived.conf --- keepalived ---> virtual routers ---+
//!                                \----> listeners ---------+--> combine, election --> draft --- print ---> kplb.toml
//!   haproxy.cfg ------- haproxy -----------^               |
//!                                 \------- findings <------+
//! ```
//!
//! Invariant: what is printed is a configuration that [`crate::config::parse`] takes, and means what was drafted.
//! Invariant: nothing here opens a file or reads the environment: [`Surroundings`] does, for all of it.
//! Invariant: it ends, whatever it reads: `limits` says how much that is.

mod combine;
mod draft;
mod election;
mod error;
mod finding;
mod fit;
mod glob;
mod haproxy;
mod keepalived;
mod limits;
mod print;
mod reading;
mod wanted;

use std::{net::IpAddr, path::PathBuf};

use self::{combine::Told, reading::Reading};
pub use self::{
    error::ImportError,
    finding::{Effect, Finding, Place},
    limits::MAX_BYTES,
    reading::Surroundings,
};
use crate::config;

/// What is to be imported.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// keepalived.conf.
    pub keepalived: Option<PathBuf>,
    /// haproxy.cfg, in one file or several, or directories of them, in the order in which haproxy reads them.
    pub haproxy: Vec<PathBuf>,
    /// The VIPs, where haproxy listens at every address and there is no keepalived.conf.
    pub vips: Vec<IpAddr>,
    /// What keepalived's lines with `@` are for: its option `--config-id`.
    pub config_id: String,
    /// The interface whose virtual routers are meant; that of the first, unless it is given.
    pub interface: Option<String>,
}

/// What came of an import.
#[derive(Debug)]
pub struct Imported {
    /// The text of a `kplb.toml`, or why there is none.
    pub text: Result<String, ImportError>,
    /// What it does not say, or says differently, as the lines follow each other.
    pub findings: Vec<Finding>,
}

/// Imports.
pub fn import(sources: &Sources, surroundings: &mut dyn Surroundings) -> Imported {
    let mut reading = Reading::new(surroundings);
    let text = make(sources, &mut reading);
    Imported { text, findings: reading.findings.sorted() }
}

fn make(sources: &Sources, reading: &mut Reading<'_>) -> Result<String, ImportError> {
    let keepalived = match &sources.keepalived {
        Some(path) => keepalived::read(path, &sources.config_id, reading)?,
        None => keepalived::Keepalived::default(),
    };
    let haproxy = match sources.haproxy.as_slice() {
        [] => haproxy::Haproxy::default(),
        paths => haproxy::read(paths, reading)?,
    };
    let told = Told { vips: &sources.vips, interface: sources.interface.as_deref() };
    let draft = combine::combine(keepalived, haproxy, &told, &mut reading.findings)?;
    let text = print::print(&draft);
    // What is printed is what would be read.
    if config::parse(&text, "kplb.toml")? == draft.config { Ok(text) } else { Err(ImportError::Unlike) }
}

#[cfg(test)]
mod tests;
