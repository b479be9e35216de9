//! What the commands have in common that read the maps themselves: which interfaces, and who is called how.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::status;
use crate::{
    dataplane::{self, PinnedMaps},
    directory::Directory,
    model::Endpoint,
    run_dir::RunDir,
    terminal,
};

/// The interface that was given, or every one that kplb is attached to.
pub(super) fn interfaces(given: Option<&String>, pin_root: &Path) -> Result<Vec<String>> {
    if let Some(interface) = given {
        return Ok(vec![interface.clone()]);
    }
    let interfaces = dataplane::pinned_interfaces(pin_root)?;
    if interfaces.is_empty() {
        bail!(
            "kplb is attached to no interface (nothing is pinned below {}); start it with `kplb attach INTERFACE`",
            pin_root.display()
        );
    }
    Ok(interfaces)
}

/// The services and backends of an interface, and whether its agent has named them. Who has no names is told so on
/// standard error.
pub(super) fn directory(maps: &PinnedMaps, interface: &str) -> Result<(Directory, Names)> {
    let mut directory = Directory::new(&maps.services()?, &maps.backends()?);
    // An agent that hangs must not hide what the kernel has.
    let why = match status::read(&RunDir::from_environment(), interface) {
        Ok(Some(status)) => {
            directory.name_by(&status);
            return Ok((directory, Names::OfAgent));
        }
        Ok(None) => "no agent is running".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    eprintln!("{interface}: {why}; addresses stand for the names of services and backends");
    Ok((directory, Names::Addresses))
}

/// Where the names of services and backends are from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Names {
    /// The agent.
    OfAgent,
    /// There are none.
    Addresses,
}

impl Names {
    /// The services that are called so.
    pub(super) fn services(self, directory: &Directory, name: &str) -> Result<Vec<Endpoint>> {
        directory.services_called(name).map_err(|error| self.explain(error.into()))
    }

    /// An error about a name that nobody has.
    pub(super) fn explain(self, error: anyhow::Error) -> anyhow::Error {
        match self {
            Self::OfAgent => error,
            Self::Addresses => error.context("without an agent no names are known"),
        }
    }
}

/// How something is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Form {
    /// JSON, if it is asked for.
    pub(super) const fn new(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }

    /// Prints reports: as one array, or each as its text with a line between.
    pub(super) fn print<T: Serialize>(self, reports: &[T], text: impl Fn(&T) -> String) -> Result<()> {
        let out = match self {
            Self::Text => reports.iter().map(text).collect::<Vec<_>>().join("\n"),
            Self::Json => serde_json::to_string_pretty(reports)? + "\n",
        };
        terminal::print(&out).map(drop).context("write to standard output")
    }
}
