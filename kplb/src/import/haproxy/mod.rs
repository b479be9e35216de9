//! haproxy.cfg: who listens where, and the servers behind it.
//!
//! ```text
//!   files --- lines (words, condition) --> words --- sections --> global, defaults --> proxies --- routes --> Wanted
//!                                                                                        bind, balance, servers, check
//! ```

mod address;
mod balance;
mod bind;
mod check;
mod condition;
mod expect;
mod global;
mod lines;
mod parameters;
mod proxy;
mod reason;
mod routes;
mod sections;
mod servers;
mod time;
mod words;

use std::{path::PathBuf, time::Duration};

use self::{
    proxy::{Kind, Proxy, Settings},
    sections::Section,
};
use super::{
    error::ImportError,
    finding::{Findings, NOTHING_TO_DO, Written},
    reading::Reading,
    wanted::Wanted,
};

/// What files of haproxy say.
#[derive(Default)]
pub(super) struct Haproxy {
    pub(super) wanted: Vec<Wanted>,
    /// How long connections may be idle that are imported; none: none are.
    pub(super) idle: Option<Duration>,
}

/// A `defaults`, read.
struct Defaults {
    settings: Settings,
    /// None once they are reported.
    findings: Option<Findings>,
    /// Which section it inherits from.
    from: Option<usize>,
}

/// Reads the files.
pub(super) fn read(paths: &[PathBuf], reading: &mut Reading<'_>) -> Result<Haproxy, ImportError> {
    let lines = lines::read(paths, reading)?;
    let sections = sections::split(lines, &mut reading.findings);
    let global = global::read(&sections, &mut reading.findings);
    let mut defaults = read_defaults(&sections);
    let mut proxies = Vec::new();
    for section in &sections {
        match (Kind::of(section), &section.name) {
            (Some(kind), Some(name)) => {
                let inherited = section.defaults.and_then(|index| defaults.get(index)?.as_ref());
                let settings = inherited.map(|defaults| defaults.settings.clone()).unwrap_or_default();
                proxies.push(Proxy::read(section, kind, name.clone(), settings));
            }
            (Some(_), None) => {
                let why = "it has no name";
                reading.findings.left_out(&section.written, why, "haproxy refuses it as well: give it one");
            }
            (None, _) => report_section(section, &mut reading.findings),
        }
    }
    routes::follow(proxies, &global, &mut defaults, reading)
}

/// Reads the `defaults`, each at the place of its section.
fn read_defaults(sections: &[Section]) -> Vec<Option<Defaults>> {
    let mut all: Vec<Option<Defaults>> = Vec::with_capacity(sections.len());
    for section in sections {
        let read = (section.kind == "defaults").then(|| {
            let inherited = section.defaults.and_then(|index| all.get(index)?.as_ref());
            let mut settings = inherited.map(|defaults| defaults.settings.clone()).unwrap_or_default();
            let mut findings = Findings::default();
            settings.forget_rules(&section.lines);
            section.lines.iter().for_each(|line| settings.take(line, &mut findings));
            Defaults { settings, findings: Some(findings), from: section.defaults }
        });
        all.push(read);
    }
    all
}

/// A section that is none of a proxy's.
fn report_section(section: &Section, findings: &mut Findings) {
    let why = match section.kind.as_str() {
        "global" | "defaults" => return,
        "resolvers" => "kplb resolves no names",
        "peers" => "kplb keeps no tables that others would need",
        "userlist" => "kplb asks nobody who they are",
        "mailers" => "kplb sends no mail",
        "program" => "kplb starts no programs",
        _ => "kplb has nothing like it",
    };
    findings.left_out(&section.written, why, NOTHING_TO_DO);
}

/// What is said of a proxy that is not imported.
fn unused(proxy: &Proxy, why: &str, findings: &mut Findings) {
    let written: &Written = &proxy.written;
    findings.left_out(written, why, "nothing to do, unless it is needed: then write a [[service]] for it");
}
