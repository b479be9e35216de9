//! `kplb import` beside the real keepalived and haproxy: it takes what they take, understands what they understand, and
//! what it prints does their work.

mod acceptance;
mod cluster;
mod understanding;

use std::{fs, path::Path, process::Output};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{agent, lab::Host};

/// Files of a case that the import's own tests have as well, with what they mean.
macro_rules! case {
    ($case:literal, $name:literal) => {
        include_str!(concat!("../../../kplb/src/import/tests/cases/", $case, "/", $name))
    };
}
use case;

/// The smallest pair: one virtual router with a password, one frontend at its VIP, three servers.
const MINIMAL: [&str; 2] = [case!("minimal", "keepalived.conf"), case!("minimal", "haproxy.cfg")];

/// A folder with both files in it.
fn folder(keepalived: &str, haproxy: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("kplb-import").tempdir()?;
    fs::write(folder.path().join("keepalived.conf"), keepalived)?;
    fs::write(folder.path().join("haproxy.cfg"), haproxy)?;
    Ok(folder)
}

/// Runs `kplb import` on the files of a folder, with more arguments.
fn import(host: &Host, folder: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = agent::kplb()?;
    command.args(["import", "--keepalived", "keepalived.conf", "--haproxy", "haproxy.cfg"]);
    command.args(arguments).current_dir(folder);
    host.namespace().output(command)
}

/// The configuration that is printed; it passes `kplb check`.
fn imported(host: &Host, folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = import(host, folder, arguments)?;
    let findings = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kplb import: {}:\n{findings}", output.status);
    let path = folder.join("kplb.toml");
    fs::write(&path, &output.stdout)?;
    agent::run(host, ["check".as_ref(), path.as_os_str()]).context("what was printed")?;
    Ok(String::from_utf8(output.stdout)?)
}
