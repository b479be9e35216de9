//! Tests of the board: checks, decisions and times in; states, conditions and times out.

mod by_hand;
mod properties;
mod start;
mod succession;
mod timers;
mod transitions;

use super::{
    super::outcome::{Code, Finding::*},
    *,
};
use crate::config;

/// Of a check that says nothing else.
const TIMEOUT: Duration = Duration::from_secs(3);

const READY: &[Finding] = &[Ready];
const NOT_READY: &[Finding] = &[NotReady];
const DEAD: &[Finding] = &[Refused];

/// A board and its clock.
struct Scene {
    board: Board,
    start: Instant,
    now: Instant,
}

impl Scene {
    /// One service with these settings, and so many backends.
    fn new(settings: &str, n_backends: usize) -> Self {
        Self::with_services(&[(settings, n_backends)])
    }

    fn with_services(services: &[(&str, usize)]) -> Self {
        let start = Instant::now();
        Self { board: Board::new(&config(services), start), start, now: start }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn check(&mut self, backend: usize, finding: Finding) -> Noted {
        self.board.observe(backend, outcome(finding), self.now)
    }

    /// Checks, and leaves it to the caller what became of them.
    fn checks(&mut self, backend: usize, findings: &[Finding]) {
        for finding in findings {
            self.check(backend, *finding);
        }
    }

    fn decide(&mut self, backend: usize, decision: Option<Decision>) -> Option<Transition> {
        self.board.decide(backend, decision, self.now)
    }

    fn state(&self, backend: usize) -> State {
        self.board.entries()[backend].state()
    }

    fn condition(&self, backend: usize) -> (u32, BackendState) {
        self.condition_at(backend, self.now)
    }

    fn condition_at(&self, backend: usize, now: Instant) -> (u32, BackendState) {
        let Condition { share, state } = self.board.conditions(now).backends[backend];
        (share, state)
    }

    fn when_empty(&self) -> Vec<WhenEmpty> {
        self.board.conditions(self.now).when_empty
    }

    /// After which time the conditions change by themselves.
    fn next_change(&self) -> Option<Duration> {
        self.board.next_change(self.now).map(|change| change - self.now)
    }
}

/// Services with these settings, each with so many backends.
fn config(services: &[(&str, usize)]) -> Config {
    let text: String = (services.iter().zip(1..))
        .map(|((settings, n_backends), port)| {
            let backends: Vec<_> = (1..=*n_backends).map(|n| format!("{{ address = '198.18.0.{n}:1' }}")).collect();
            let vip = format!("198.18.0.100:{port}");
            format!("[[service]]\nvip = '{vip}'\n{settings}\nbackend = [{}]\n", backends.join(", "))
        })
        .collect();
    config::parse(&text, "test").unwrap_or_else(|problems| panic!("{problems}"))
}

/// What a check with this finding may come back with.
fn outcome(finding: Finding) -> Outcome {
    let code = match finding {
        Ready => Code::L7ok,
        Unjudged | NotReady => Code::L7sts,
        Refused => Code::L4con,
        Unreachable => Code::L4tout,
        Unknown => Code::Sockerr,
    };
    Outcome { code, finding, latency: Duration::from_millis(7), words: format!("{finding:?}") }
}
