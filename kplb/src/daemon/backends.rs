//! The backends as the agent keeps them: what is known of each, the watches over them, and what was decided by hand.

use std::{net::SocketAddr, time::Instant};

use anyhow::Result;
use kplb_common::report::Symptom;
use tracing::{debug, info, warn};

use super::{cast::Cast, watches::Watches};
use crate::{
    config::{BackendConfig, Config, ServiceConfig},
    control::BackendCommand,
    health::{
        board::{Board, Decision, Entry, State, Transition},
        fsm::Health,
        watch::News,
    },
    model::{Conditions, Endpoint},
    run_dir::{Decisions, Lock},
};

/// All backends, known by their places in the configuration.
pub(super) struct Backends<'a> {
    board: Board,
    watches: Watches,
    names: Vec<Name>,
    /// Those that the data path may not know of yet.
    transitions: Vec<Transition>,
    lock: &'a Lock,
}

/// What a backend is called, and what makes it the same one.
#[derive(Clone, Debug)]
struct Name {
    service: String,
    backend: String,
    endpoint: Endpoint,
    address: SocketAddr,
}

impl Name {
    /// Whether it is the same server of the same service.
    fn is_same(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.address == other.address
    }
}

impl<'a> Backends<'a> {
    /// Starts watching; what an earlier agent was told by hand still holds. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If a file that a check needs cannot be used, or what was decided by hand cannot be read.
    pub(super) fn start(cast: &Cast, lock: &'a Lock) -> Result<Self> {
        let config = &cast.config;
        let (board, watches) = (Board::new(config, Instant::now()), Watches::start(config)?);
        let mut backends = Self { board, watches, names: names(config), transitions: Vec::new(), lock };
        backends.decide_anew(cast, &lock.decisions()?, &vec![true; cast.is_leaving.len()]);
        Ok(backends)
    }

    /// Takes each backend for what an earlier agent knew of it.
    pub(super) fn assume(&mut self, health: &[Option<Health>]) {
        for (place, health) in health.iter().enumerate() {
            if let Some(health) = *health {
                self.board.assume(place, health);
            }
        }
        (0..health.len()).for_each(|place| self.follow(place, None));
    }

    /// Follows another configuration: what is known of a backend that stays, holds.
    ///
    /// # Errors
    /// If a file that a check needs cannot be used, or what was decided by hand cannot be read; nothing has changed then.
    pub(super) fn recast(&mut self, cast: &Cast) -> Result<()> {
        let decisions = self.lock.decisions()?;
        self.watches.follow(&cast.config)?;
        let now = Instant::now();
        let mut board = Board::new(&cast.config, now);
        let names = names(&cast.config);
        let mut is_new = vec![true; names.len()];
        for (place, name) in names.iter().enumerate() {
            if let Some(earlier) = self.names.iter().position(|earlier| earlier.is_same(name)) {
                let earlier = &self.board.entries()[earlier];
                let by_hand = if cast.is_leaving[place] {
                    Some(Decision::Removed)
                } else {
                    earlier.by_hand().filter(|decision| *decision != Decision::Removed)
                };
                board.inherit(place, earlier, by_hand, now);
                is_new[place] = false;
            }
        }
        self.log_transitions();
        (self.board, self.names) = (board, names);
        self.decide_anew(cast, &decisions, &is_new);
        (0..self.names.len()).for_each(|place| self.follow(place, None));
        // Names may be others.
        if let Err(error) = self.lock.write_decisions(&self.decisions(&[], None)) {
            warn!("what was decided by hand may not hold for the next agent: {error:#}");
        }
        Ok(())
    }

    /// `is_new`: whether nothing was known of it before, by place.
    fn decide_anew(&mut self, cast: &Cast, decisions: &Decisions, is_new: &[bool]) {
        let now = Instant::now();
        for (place, decision) in self.recall(decisions).into_iter().filter(|(place, _)| is_new[*place]) {
            let transition = self.board.decide(place, Some(decision), now);
            self.follow(place, transition);
        }
        for place in cast.leaving() {
            let transition = self.board.decide(place, Some(Decision::Removed), now);
            self.follow(place, transition);
        }
    }

    /// The decisions that are about backends of this configuration.
    fn recall(&self, decisions: &Decisions) -> Vec<(usize, Decision)> {
        let mut known = Vec::new();
        for (service, backends) in decisions {
            for (backend, decision) in backends {
                match self.names.iter().position(|name| name.service == *service && name.backend == *backend) {
                    Some(place) => known.push((place, *decision)),
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

    /// The backends, by place.
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
    pub(super) fn take_symptom(&mut self, id: usize, symptom: Symptom) {
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
        let Name { service, backend, .. } = &self.names[id];
        format!("backend {backend} of service {service}")
    }

    /// Does by hand what was asked for, and remembers it for the next agent; says for which backends.
    ///
    /// # Errors
    /// In words, if there is no such backend, or it cannot be remembered; nothing has changed then.
    pub(super) fn command(&mut self, command: &BackendCommand) -> Result<Vec<String>, String> {
        let BackendCommand { action, backend, service } = command;
        let ids: Vec<usize> = (self.names.iter().enumerate())
            .filter(|(_, name)| name.backend == *backend && service.as_ref().is_none_or(|of| *of == name.service))
            .map(|(id, _)| id)
            .collect();
        if ids.is_empty() {
            return Err(self.no_such_backend(command));
        }
        let is_removed = |id: &usize| self.board.entries()[*id].by_hand() == Some(Decision::Removed);
        if let Some(id) = ids.iter().find(|id| is_removed(id)) {
            return Err(format!(
                "{} is no longer in the configuration, and drains until it has no flows",
                self.name(*id)
            ));
        }
        let decision = action.decision();
        self.lock.write_decisions(&self.decisions(&ids, decision)).map_err(|error| format!("{error:#}"))?;
        let now = Instant::now();
        for id in &ids {
            let transition = self.board.decide(*id, decision, now);
            self.follow(*id, transition);
        }
        Ok(ids.iter().map(|id| format!("{}: {}", self.name(*id), self.board.entries()[*id].state())).collect())
    }

    /// All that is decided by hand, with this for these backends.
    fn decisions(&self, backends: &[usize], decision: Option<Decision>) -> Decisions {
        let mut decisions = Decisions::new();
        for (place, Name { service, backend, .. }) in self.names.iter().enumerate() {
            let decision = if backends.contains(&place) { decision } else { self.board.entries()[place].by_hand() };
            // Who is removed is that by the configuration.
            if let Some(decision) = decision.filter(|decision| *decision != Decision::Removed) {
                decisions.entry(service.clone()).or_default().insert(backend.clone(), decision);
            }
        }
        decisions
    }

    fn no_such_backend(&self, command: &BackendCommand) -> String {
        let BackendCommand { backend, service, .. } = command;
        let mut services: Vec<&str> = self.names.iter().map(|name| name.service.as_str()).collect();
        services.dedup();
        if let Some(service) = service
            && !services.contains(&service.as_str())
        {
            return format!("there is no service {service}; there are: {}", services.join(", "));
        }
        let of_service = |name: &&Name| service.as_ref().is_none_or(|service| *service == name.service);
        let mut backends: Vec<&str> = self.names.iter().filter(of_service).map(|name| name.backend.as_str()).collect();
        backends.sort_unstable();
        backends.dedup();
        let place = service.as_ref().map(|service| format!(" in service {service}")).unwrap_or_default();
        format!("there is no backend {backend}{place}; there are: {}", backends.join(", "))
    }
}

/// By place.
fn names(config: &Config) -> Vec<Name> {
    let backends = config.services.iter().flat_map(|service| service.backends.iter().map(move |b| (service, b)));
    let name = |(service, backend): (&ServiceConfig, &BackendConfig)| Name {
        service: service.name.clone(),
        backend: backend.name.clone(),
        endpoint: Endpoint::of(service),
        address: backend.address,
    };
    backends.map(name).collect()
}
