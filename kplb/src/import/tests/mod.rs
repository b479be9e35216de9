//! Imports from the files to the text, by what the text means and by what is said of the rest.

mod cases;
mod checks;
mod election;
mod endless;
mod fuzz;
mod haproxy;
mod keepalived;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{Effect, Finding, ImportError, Imported, Sources, Surroundings, import};
use crate::config::{self, Config};

/// A machine made up: files by their paths, and what else an import asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    files: HashMap<PathBuf, Vec<u8>>,
    variables: HashMap<String, String>,
    hosts: HashMap<String, Vec<IpAddr>>,
}

impl Surroundings for Machine {
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&mut self, directory: &Path) -> io::Result<Vec<String>> {
        let directory = if directory == Path::new(".") { Path::new("") } else { directory };
        let inside = self.files.keys().filter_map(|path| path.strip_prefix(directory).ok());
        let names = inside.filter_map(|path| path.iter().next()?.to_str().map(str::to_owned));
        let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
        if names.is_empty() { Err(io::ErrorKind::NotADirectory.into()) } else { Ok(names) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn resolve(&mut self, host: &str) -> Vec<IpAddr> {
        self.hosts.get(host).cloned().unwrap_or_default()
    }
}

/// An import that is being set up.
#[derive(Clone, Debug, Default)]
pub(super) struct Scene {
    machine: Machine,
    sources: Sources,
}

impl Scene {
    fn new() -> Self {
        Self::default()
    }

    fn file(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.machine.files.insert(path.into(), text.as_ref().to_vec());
        self
    }

    fn keepalived(mut self, text: impl AsRef<[u8]>) -> Self {
        self.sources.keepalived = Some("keepalived.conf".into());
        self.file("keepalived.conf", text)
    }

    fn haproxy(mut self, text: impl AsRef<[u8]>) -> Self {
        self.sources.haproxy = vec!["haproxy.cfg".into()];
        self.file("haproxy.cfg", text)
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.machine.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn host(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.machine.hosts.insert(name.to_owned(), addresses);
        self
    }

    fn vip(mut self, vip: &str) -> Self {
        self.sources.vips.push(vip.parse().expect("an address"));
        self
    }

    fn config_id(mut self, id: &str) -> Self {
        self.sources.config_id = id.to_owned();
        self
    }

    fn interface(mut self, interface: &str) -> Self {
        self.sources.interface = Some(interface.to_owned());
        self
    }

    fn import(&self) -> Imported {
        import(&self.sources, &mut self.machine.clone())
    }

    /// What is printed, read as kplb reads it, and what was found.
    #[track_caller]
    fn imported(&self) -> (Config, Vec<Finding>) {
        let Imported { text, findings } = self.import();
        let text = text.unwrap_or_else(|error| panic!("{error}\n{}", shown(&findings)));
        (config::parse(&text, "kplb.toml").unwrap_or_else(|problems| panic!("{problems}\n{text}")), findings)
    }

    /// Why nothing is printed.
    #[track_caller]
    fn refused(&self) -> ImportError {
        match self.import().text {
            Ok(text) => panic!("it was printed:\n{text}"),
            Err(error) => error,
        }
    }
}

fn shown(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The findings of one directive: what became of it, and why.
fn of<'f>(findings: &'f [Finding], line: usize, directive: &str) -> Vec<(Effect, &'f str)> {
    let is_it = |finding: &&Finding| finding.place.line() == line && finding.directive == directive;
    findings.iter().filter(is_it).map(|finding| (finding.effect, finding.why.as_str())).collect()
}

/// There is a finding of this directive whose reason has these words.
#[track_caller]
fn assert_found(findings: &[Finding], line: usize, directive: &str, effect: Effect, words: &str) {
    let found = of(findings, line, directive);
    assert!(
        found.iter().any(|(other, why)| *other == effect && why.contains(words)),
        "{directive} in line {line}: {effect:?} as {words:?}: {found:?}\n{}",
        shown(findings)
    );
}

/// A frontend at every address of IPv4, and a server.
const HAPROXY: &str = "\
defaults
  mode tcp
frontend api
  bind *:6443
  default_backend cps
backend cps
  server cp1 198.18.0.11:6443
";

/// A virtual router with more lines, from line 4 on.
fn router(lines: &str) -> String {
    format!(
        "vrrp_instance VI_1 {{\n  interface eth0\n  virtual_router_id 51\n{lines}\n  virtual_ipaddress {{\n    \
         198.18.0.100\n  }}\n}}\n"
    )
}
