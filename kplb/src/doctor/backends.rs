//! The backends: whether each can be reached, and what a check of it finds.

use super::{Facts, Finding, facts::Backend};
use crate::{
    health::outcome::{self, Outcome},
    netlink::facts::Reach,
};

const TOPIC: &str = "backends";

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    facts.backends.iter().map(|backend| way(facts, backend).unwrap_or_else(|| health(backend))).collect()
}

/// What is wrong with the way to a backend.
fn way(facts: &Facts, backend: &Backend) -> Option<Finding> {
    let interface = facts.interface.as_ref()?;
    let (_, survey) = interface.surroundings.as_ref()?;
    let name = name(backend);
    match survey.reach.get(&backend.address.ip())? {
        Reach::OtherInterface(index) => {
            let other =
                interface.links.iter().find(|link| link.index == *index).map_or("another interface", |link| &link.name);
            let what = format!("{name}: is behind {other}, not {}: it gets nothing from this node", interface.name);
            Some(Finding::error(TOPIC, what, "attach to the interface that the backends are behind"))
        }
        Reach::Unreachable => Some(Finding::error(
            TOPIC,
            format!("{name}: there is no route to it"),
            "add one, or see that its address is right",
        )),
        Reach::Local | Reach::Via { .. } => None,
    }
}

fn health(backend: &Backend) -> Finding {
    let name = name(backend);
    let Some(outcome @ Outcome { finding, .. }) = &backend.outcome else {
        return Finding::ok(TOPIC, format!("{name}: not checked"));
    };
    let what = format!("{name}: {outcome}");
    match finding {
        outcome::Finding::Ready => Finding::ok(TOPIC, what),
        outcome::Finding::Unjudged => Finding::warning(
            TOPIC,
            format!("{what}: it must not tell whether it is ready, and counts as ready"),
            "let the check log in (`client_certificate_file` or `token_file`), or ask for what all may see (`path`)",
        ),
        outcome::Finding::NotReady => {
            Finding::warning(TOPIC, format!("{what}: it is not ready, and gets no new connections"), "see its log")
        }
        outcome::Finding::Refused => Finding::warning(
            TOPIC,
            format!("{what}: nobody listens there"),
            "nothing to do before `kubeadm init` or `kubeadm join` there; else start it",
        ),
        outcome::Finding::Unreachable => Finding::warning(
            TOPIC,
            format!("{what}: it does not answer"),
            "see that its host is up, and lets connections in",
        ),
        outcome::Finding::Unknown => Finding::note(TOPIC, format!("{what}: the check failed on this node")),
    }
}

fn name(backend: &Backend) -> String {
    let Backend { service, name, address, .. } = backend;
    let address = address.to_string();
    // One that was given no name is called by its address.
    if *name == address { format!("{service}/{name}") } else { format!("{service}/{name} {address}") }
}
