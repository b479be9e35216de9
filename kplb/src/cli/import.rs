//! `kplb import`: what keepalived and haproxy are told, as a configuration of kplb.

use std::{
    env,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{ArgGroup, Args};

use crate::import::{self, Effect, Finding, Imported, MAX_BYTES, Sources, Surroundings};

const EXAMPLES: &str = "\
Examples:
  kplb import --keepalived /etc/keepalived/keepalived.conf --haproxy /etc/haproxy/haproxy.cfg > kplb.toml
  kplb import --keepalived keepalived.conf                   where keepalived balances by IPVS (virtual_server)
  kplb import --haproxy haproxy.cfg --vip 198.18.0.100       without keepalived
  kplb check kplb.toml

It prints a configuration, and on standard error each directive that has no equivalent or changes its meaning: file, line,
why, and what to do. Nothing is changed on the node. Import each node's own files: priorities differ.";

/// Print the configuration that does what keepalived and haproxy do now.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("sources").required(true).multiple(true)))]
pub(super) struct Arguments {
    /// keepalived.conf; what it includes is read, too.
    #[arg(long, value_name = "FILE", group = "sources")]
    keepalived: Option<PathBuf>,
    /// haproxy.cfg, or a directory of .cfg files; more than one as haproxy itself is given them.
    #[arg(long, value_name = "FILE", group = "sources")]
    haproxy: Vec<PathBuf>,
    /// The VIP, where haproxy listens at every address and no vrrp_instance says which it is.
    #[arg(long, value_name = "ADDRESS", requires = "haproxy")]
    vip: Vec<IpAddr>,
    /// keepalived's option of this name, which decides its lines with `@` [default: the host's name up to the first dot].
    #[arg(long, value_name = "ID", requires = "keepalived")]
    config_id: Option<String>,
    /// The interface whose virtual routers are meant [default: that of the first one].
    #[arg(long, requires = "keepalived")]
    interface: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> Result<()> {
    let Arguments { keepalived, haproxy, vip, config_id, interface } = arguments;
    let config_id = config_id.unwrap_or_else(host_name);
    let sources = Sources { keepalived, haproxy, vips: vip, config_id, interface };
    let Imported { text, findings } = import::import(&sources, &mut Here);
    for finding in &findings {
        eprintln!("{finding}");
    }
    match text {
        Ok(text) => {
            eprintln!("{}", summary(&findings));
            // Who reads it may have seen enough.
            io::stdout().write_all(text.as_bytes()).context("print the configuration")
        }
        Err(error) => Err(error.into()),
    }
}

fn summary(findings: &[Finding]) -> String {
    let changed = findings.iter().filter(|finding| finding.effect == Effect::Changed).count();
    match findings.len() {
        0 => "everything has an equivalent".to_owned(),
        n => format!("of what was read, {} left out, and {changed} changed", n - changed),
    }
}

/// The node's name up to the first dot, as keepalived takes it.
fn host_name() -> String {
    let name = nix::sys::utsname::uname().map(|names| names.nodename().to_string_lossy().into_owned());
    name.unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
}

/// This machine.
struct Here;

impl Surroundings for Here {
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One more than is taken is enough to tell.
        File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&mut self, directory: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn variable(&self, name: &str) -> Option<String> {
        env::var(name).ok()
    }

    fn resolve(&mut self, host: &str) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in (host, 0).to_socket_addrs().into_iter().flatten().map(|address| address.ip()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_not_read_to_the_end() {
        let bytes = Here.read(Path::new("/dev/zero")).expect("there is one");
        assert_eq!(bytes.len(), MAX_BYTES + 1);
    }

    #[test]
    fn directories_are_listed_and_files_are_not() {
        assert!(Here.list(Path::new("/")).expect("there is one").contains(&"dev".to_owned()));
        assert!(Here.list(Path::new("/dev/null")).is_err());
        assert!(Here.read(Path::new("/")).is_err());
    }
}
