//! The backends as the agent keeps them: what is known of each, the watches over them, and what was decided by hand.

use std::time::Instant;

use anyhow::Result;
use kplb_common::report::Symptom;
use tracing::{debug, info, warn};

use super::watches::Watches;
use crate::{
    config::Config,
    control::BackendCommand,
    health::{
        board::{Board, Decision, Entry, State, Transition},
        watch::News,
    },
    model::Conditions,
    run_dir::{Decisions, Lock},
};

/// All backends.
pub(super) struct Backends<'a> {
    board: Board,
    watches: Watches,
    /// Service and backend, by backend id.
    names: Vec<(&'a str, &'a str)>,
    /// Those that the data path may not know of yet.
    transitions: Vec<Transition>,
    lock: &'a Lock,
}

impl<'a> Backends<'a> {
    /// Starts watching; what an earlier agent was told by hand still holds. Must be called on a tokio runtime.
    pub(super) fn start(config: &'a Config, lock: &'a Lock) -> Result<Self> {
        let names = (config.services.iter())
            .flat_map(|service| service.backends.iter().map(|backend| (service.name.as_str(), backend.name.as_str())))
            .collect();
        let now = Instant::now();
        let (board, watches) = (Board::new(config, now), Watches::start(config)?);
        let mut backends = Self { board, watches, names, transitions: Vec::new(), lock };
        for (id, decision) in backends.recall(&lock.decisions()?) {
            let transition = backends.board.decide(id, Some(decision), now);
            backends.follow(id, transition);
        }
        Ok(backends)
    }

    /// The decisions that are about backends of this configuration.
    fn recall(&self, decisions: &Decisions) -> Vec<(usize, Decision)> {
        let mut known = Vec::new();
        for (service, backends) in decisions {
            for (backend, decision) in backends {
                match self.names.iter().position(|name| *name == (service.as_str(), backend.as_str())) {
                    Some(id) => known.push((id, *decision)),
                    None => warn!(
                        "{decision:?} was decided by hand for backend {backend} of service {service}, which is no more"
                    ),
                }
            }
        }
        known
    }

    pub(super) fn conditions(&self, now: Instant) -> Conditions {
        self.board.conditions(now)
    }

    /// The backends, by id.
    pub(super) fn entries(&self) -> &[Entry] {
        self.board.entries()
    }

    /// Whether there may still be news of a first check.
    pub(super) fn awaits_first_checks(&self, now: Instant) -> bool {
        self.board.awaits_first_checks(now)
    }

    /// Whether every backend has been heard of.
    pub(super) fn is_settled(&self) -> bool {
        self.board.is_settled()
    }

    /// When the conditions change by themselves next.
    pub(super) fn next_change(&self) -> Option<Instant> {
        self.board.next_change(Instant::now())
    }

    /// Waits for news of backends. Safe to cancel.
    pub(super) async fn news(&mut self) -> Vec<(usize, News)> {
        self.watches.next().await
    }

    /// Takes news into account.
    pub(super) fn take(&mut self, news: Vec<(usize, News)>) {
        for (id, news) in news {
            let transition = match news {
                News::Hesitates => {
                    debug!("{}: does not accept a connection at once", self.name(id));
                    None
                }
                News::Lost => {
                    debug!("{}: an idle connection was closed", self.name(id));
                    self.board.suspect(id);
                    None
                }
                News::Checked(outcome) => {
                    debug!("{}: {outcome}", self.name(id));
                    let noted = self.board.observe(id, outcome.clone(), Instant::now());
                    if noted.is_newly_unjudged {
                        warn!(
                            "{} must not tell whether it is ready, and counts as ready: {outcome}; let the check log in \
                             (`client_certificate_file` or `token_file`), or ask for what all may see (`path`)",
                            self.name(id)
                        );
                    }
                    noted.transition
                }
            };
            self.follow(id, transition);
        }
    }

    /// Takes into account what the data path saw of a backend.
    pub(super) fn take_symptom(&mut self, id: u16, symptom: Symptom) {
        let id = usize::from(id);
        if id >= self.names.len() {
            return;
        }
        debug!("{}: the data path saw {symptom:?}", self.name(id));
        match symptom {
            Symptom::Refused => {
                self.board.suspect(id);
                self.watches.check_now(id);
            }
            Symptom::Unanswered => self.watches.check_now(id),
            // Streams of datagrams are never answered: that is no reason to check all the time.
            Symptom::Silent | Symptom::SilentClient => {}
        }
    }

    fn follow(&mut self, id: usize, transition: Option<Transition>) {
        if transition.is_some() {
            // Whether it is the last one matters to the others.
            for id in self.board.siblings(id) {
                self.watches.set_pace(id, self.board.pace(id));
            }
        } else {
            self.watches.set_pace(id, self.board.pace(id));
        }
        self.transitions.extend(transition);
    }

    /// Says what has changed since this was last called.
    pub(super) fn log_transitions(&mut self) {
        for Transition { backend, from, to, reason } in std::mem::take(&mut self.transitions) {
            let name = self.name(backend);
            match to {
                State::Active | State::Checking => info!("{name}: {from} -> {to}: {reason}"),
                State::Draining | State::Down | State::Maintenance => warn!("{name}: {from} -> {to}: {reason}"),
            }
        }
    }

    fn name(&self, id: usize) -> String {
        let (service, backend) = self.names[id];
        format!("backend {backend} of service {service}")
    }

    /// Does by hand what was asked for, and remembers it for the next agent; says for which backends.
    ///
    /// # Errors
    /// In words, if there is no such backend, or it cannot be remembered; nothing has changed then.
    pub(super) fn command(&mut self, command: &BackendCommand) -> Result<Vec<String>, String> {
        let BackendCommand { action, backend, service } = command;
        let ids: Vec<usize> = (self.names.iter().enumerate())
            .filter(|(_, name)| name.1 == backend && service.as_deref().is_none_or(|service| service == name.0))
            .map(|(id, _)| id)
            .collect();
        if ids.is_empty() {
            return Err(self.no_such_backend(command));
        }
        let decision = action.decision();
        let mut decisions = Decisions::new();
        for (id, (service, backend)) in self.names.iter().enumerate() {
            let decision = if ids.contains(&id) { decision } else { self.board.entries()[id].by_hand() };
            if let Some(decision) = decision {
                decisions.entry((*service).to_owned()).or_default().insert((*backend).to_owned(), decision);
            }
        }
        self.lock.write_decisions(&decisions).map_err(|error| format!("{error:#}"))?;
        let now = Instant::now();
        for id in &ids {
            let transition = self.board.decide(*id, decision, now);
            self.follow(*id, transition);
        }
        Ok(ids.iter().map(|id| format!("{}: {}", self.name(*id), self.board.entries()[*id].state())).collect())
    }

    fn no_such_backend(&self, command: &BackendCommand) -> String {
        let BackendCommand { backend, service, .. } = command;
        let mut services: Vec<&str> = self.names.iter().map(|(service, _)| *service).collect();
        services.dedup();
        if let Some(service) = service
            && !services.contains(&service.as_str())
        {
            return format!("there is no service {service}; there are: {}", services.join(", "));
        }
        let of_service = |name: &&(&str, &str)| service.as_deref().is_none_or(|service| service == name.0);
        let mut backends: Vec<&str> = self.names.iter().filter(of_service).map(|(_, backend)| *backend).collect();
        backends.sort_unstable();
        backends.dedup();
        let place = service.as_ref().map(|service| format!(" in service {service}")).unwrap_or_default();
        format!("there is no backend {backend}{place}; there are: {}", backends.join(", "))
    }
}
