//! `balance`: which connections go to one server.

use kplb_common::service::Persistence;

use super::{lines::Line, proxy::Settings};
use crate::import::finding::{Findings, NOTHING_TO_DO, Written};

const BY_HASH: &str = "kplb gives a connection to the backend that its hash falls on";

/// The nearest that kplb has, and the directive that it is for. `written`: the backend, for when it says nothing.
pub(super) fn persistence(
    settings: &Settings,
    written: &Written,
    findings: &mut Findings,
) -> (Persistence, Option<Written>) {
    if let Some(stick) = &settings.stick {
        let why = "all connections of a client go to one backend, by its address and without a table that ends";
        findings.changed(stick, why, NOTHING_TO_DO);
        return (Persistence::Client, Some(stick.clone()));
    }
    let (algorithm, by) = match &settings.balance {
        Some(line) => (line.argument(1).unwrap_or_default(), &line.written),
        // From haproxy 3.3 on it is `random`, and what follows is nearly the same.
        None => ("roundrobin", written),
    };
    // Arguments stand in parentheses.
    let algorithm = algorithm.split('(').next().unwrap_or_default();
    if algorithm == "source" {
        source(settings, by, findings);
        return (Persistence::Client, Some(by.clone()));
    }
    let why = match algorithm {
        "roundrobin" | "static-rr" => format!("{BY_HASH}, not to each in turn: over many, the shares are the same"),
        "leastconn" => format!("{BY_HASH}, however many the others have"),
        "random" => format!("{BY_HASH}, however busy that one is"),
        "first" => format!("{BY_HASH}, and does not fill one after the other"),
        _ => format!("{BY_HASH}, and does not look into it: all of a client's are apart"),
    };
    let advice = match algorithm {
        "roundrobin" | "static-rr" | "leastconn" | "random" => {
            "nothing to do; without `persistence` all connections of a client go to one backend"
        }
        _ => "without `persistence` all connections of a client go to one backend: choose",
    };
    findings.changed(by, why, advice);
    (Persistence::Connection, settings.balance.is_some().then(|| by.clone()))
}

/// By the client's address, as kplb does it unless told otherwise.
fn source(settings: &Settings, by: &Written, findings: &mut Findings) {
    let is_consistent = settings.hash_type.as_ref().and_then(|line| line.argument(1)) == Some("consistent");
    let why = match is_consistent {
        true => "kplb has another hash, so clients go to other backends than before",
        false => {
            "kplb has another hash, so clients go to other backends than before; when one fails, the others' stay where \
             they are"
        }
    };
    findings.changed(by, why, NOTHING_TO_DO);
    if let Some(Line { written, .. }) = &settings.hash_type {
        findings.left_out(written, "kplb's ring is maglev's, which is consistent", NOTHING_TO_DO);
    }
}
