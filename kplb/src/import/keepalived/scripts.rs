//! `vrrp_script`, and what watches it: in keepalived a reason to move the VIPs, in kplb never.

use std::collections::HashMap;

use super::{globals, tree::Directive, value};
use crate::import::finding::{Findings, NOTHING_TO_DO, Written};

/// The scripts of a file, by name.
pub(super) struct Scripts {
    weights: HashMap<String, i64>,
}

const WATCHES_HAPROXY: &str =
    "it watches haproxy, which is not there any more; kplb watches its own data path and agent";
const WATCHES_APISERVER: &str =
    "it watches the apiserver, whose health decides where connections go, not where the VIPs are";
const WATCHES_OTHERS: &str =
    "the VIPs depend on this node's link, address, data path and agent alone, and on no script";

/// Reads them, and reports that they are not run.
pub(super) fn read(file: &[Directive], findings: &mut Findings) -> Scripts {
    let mut weights = HashMap::new();
    for block in file.iter().filter(|directive| directive.keyword() == "vrrp_script") {
        findings.left_out(&block.written, "kplb runs no scripts to decide who holds the VIPs", NOTHING_TO_DO);
        let mut weight = 0;
        for directive in &block.block {
            match directive.keyword() {
                "script" => {
                    let advice = match what_it_watches(&directive.written.text) {
                        WATCHES_OTHERS => "if clients need what it watches on this very node, stop kplb where it fails",
                        _ => NOTHING_TO_DO,
                    };
                    findings.left_out(&directive.written, what_it_watches(&directive.written.text), advice);
                }
                "weight" => {
                    weight = directive.argument().and_then(value::integer).unwrap_or(0);
                    let why = "kplb's priority is what is configured, and nothing adds to it or takes from it";
                    findings.left_out(&directive.written, why, NOTHING_TO_DO);
                }
                "interval" | "timeout" | "rise" | "fall" | "user" | "init_fail" => {
                    findings.left_out(&directive.written, "it belongs to a script that is not run", NOTHING_TO_DO);
                }
                _ => globals::no_equivalent(directive, findings),
            }
        }
        weights.insert(block.argument().unwrap_or_default().to_owned(), weight);
    }
    Scripts { weights }
}

/// Goes by words that such scripts are known by.
fn what_it_watches(text: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["haproxy"]) {
        WATCHES_HAPROXY
    } else if has(&["apiserver", "healthz", "readyz", "livez", "6443", "curl"]) {
        WATCHES_APISERVER
    } else {
        WATCHES_OTHERS
    }
}

impl Scripts {
    /// What a virtual router watches, on `interface`; `no_preemption` is its `nopreempt`.
    pub(super) fn tracked(
        &self,
        blocks: &[&Directive],
        interface: Option<&str>,
        no_preemption: Option<&Written>,
        findings: &mut Findings,
    ) {
        for block in blocks {
            for line in &block.block {
                let weight = line.arguments().windows(2).find(|pair| pair[0] == "weight");
                let weight = weight.and_then(|pair| value::integer(&pair[1]));
                match block.keyword() {
                    "track_interface" => tracked_interface(line, weight.unwrap_or(0), interface, findings),
                    _ => {
                        let weight = weight.or_else(|| self.weights.get(line.keyword()).copied()).unwrap_or(0);
                        tracked_script(line, weight, no_preemption, findings);
                    }
                }
            }
        }
    }
}

fn tracked_interface(line: &Directive, weight: i64, interface: Option<&str>, findings: &mut Findings) {
    if Some(line.keyword()) != interface {
        let why = "kplb watches the interface that it serves, and no other";
        findings.left_out(&line.written, why, NOTHING_TO_DO);
    } else if weight != 0 {
        let why = "kplb takes the VIPs away when the link is down, and changes no priority";
        findings.changed(&line.written, why, NOTHING_TO_DO);
    }
}

fn tracked_script(line: &Directive, weight: i64, no_preemption: Option<&Written>, findings: &mut Findings) {
    let why = match (weight, no_preemption) {
        (0, _) => "keepalived gives the VIPs up when the script fails; kplb goes by itself alone".to_owned(),
        (_, None) => format!(
            "keepalived changes its priority by {weight}, so the VIPs move only if that puts another node above this \
             one; kplb goes by itself alone"
        ),
        (_, Some(nopreempt)) => format!(
            "keepalived changes its priority by {weight}, which moves nothing where nodes do not preempt (line {}); kplb \
             goes by itself alone",
            nopreempt.place.line()
        ),
    };
    findings.left_out(&line.written, why, NOTHING_TO_DO);
}
