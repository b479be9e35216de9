//! The sections `global`: what of them checks depend on.

use std::path::PathBuf;

use super::{parameters::Verify, reason::reason, sections::Section};
use crate::{config::JITTER_RANGE, import::finding::Findings};

/// What holds for all proxies.
#[derive(Clone, Debug)]
pub(super) struct Global {
    pub(super) verify: Verify,
    pub(super) ca_base: Option<PathBuf>,
    pub(super) crt_base: Option<PathBuf>,
    /// Percentage.
    pub(super) spread_checks: Option<u32>,
}

/// Reads them.
pub(super) fn read(sections: &[Section], findings: &mut Findings) -> Global {
    let mut global = Global { verify: Verify::Required, ca_base: None, crt_base: None, spread_checks: None };
    for line in sections.iter().filter(|section| section.kind == "global").flat_map(|section| &section.lines) {
        let argument = line.argument(1);
        match line.keyword() {
            "ssl-server-verify" => {
                global.verify = if argument == Some("none") { Verify::None } else { Verify::Required };
            }
            "ca-base" => global.ca_base = argument.map(PathBuf::from),
            "crt-base" => global.crt_base = argument.map(PathBuf::from),
            "spread-checks" => {
                let percentage = argument.and_then(|text| text.parse().ok());
                global.spread_checks = percentage.filter(|percentage| JITTER_RANGE.contains(percentage));
            }
            _ => {
                let (why, advice) = reason(line);
                findings.left_out(&line.written, why, advice);
            }
        }
    }
    global
}
