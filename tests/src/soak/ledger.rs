//! What came of everything that clients did: counts, and failures that are still to be explained.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    busy::Pause,
    census::{Census, Phase},
    excuse::{Cause, Span},
};

/// How many broken invariants are told at once; the others at the end.
const MAX_TOLD: usize = 40;

/// What clients do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Activity {
    /// Opening a connection, with TLS and a first request.
    Connection,
    /// One request on a connection that is kept.
    Request,
    /// A line of a watch.
    Watch,
    /// A transfer from a server, checked by its hash.
    Download,
    /// A transfer to a server, checked by its hash.
    Upload,
    /// A datagram and its echo.
    Datagram,
}

/// How often something was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    /// How often it succeeded.
    pub done: u64,
    /// Bytes that were checked.
    pub bytes: u64,
    /// How often it failed.
    pub failed: u64,
}

/// A failure of a client.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was being done.
    pub activity: Activity,
    /// What failed, and when.
    pub span: Span,
    /// The client, the VIP, and what it was told.
    pub words: String,
}

/// Everything that is counted; shared by all that goes on.
#[derive(Debug)]
pub struct Ledger {
    start: Instant,
    is_over: AtomicBool,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    counts: BTreeMap<Activity, Count>,
    census: Census,
    pending: Vec<Failure>,
    explained: BTreeMap<(Cause, Activity), u64>,
    pauses: Vec<Pause>,
    broken: Vec<String>,
}

/// A connection or a flow of datagrams, which is counted for as long as this lives.
#[derive(Debug)]
pub struct Talk {
    ledger: Arc<Ledger>,
    phase: Phase,
}

impl Talk {
    /// Enters one that is about to begin.
    pub fn begin(ledger: &Arc<Ledger>) -> Self {
        ledger.lock().census.begin();
        Self { ledger: Arc::clone(ledger), phase: Phase::Begun }
    }

    /// Enters that a connection was answered, so that a flow must be known for as long as it lasts. To be said once.
    pub fn answered(&mut self) {
        self.phase = Phase::Answered;
        self.ledger.lock().census.answer();
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let now = self.ledger.now();
        self.ledger.lock().census.end(self.phase, now);
    }
}

impl Ledger {
    /// An empty one. Its time begins now.
    pub fn new() -> Self {
        Self { start: Instant::now(), is_over: AtomicBool::new(false), books: Mutex::default() }
    }

    /// The time since it began.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// When an instant was, since it began.
    pub fn moment(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.start)
    }

    /// Tells clients to end. What fails from now on does not count.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether clients are to end.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Counts what succeeded, with this many bytes that were checked.
    pub fn done(&self, activity: Activity, bytes: u64) {
        let mut books = self.lock();
        let count = books.counts.entry(activity).or_default();
        count.done += 1;
        count.bytes += bytes;
    }

    /// Counts what failed, and keeps it to be explained.
    pub fn failed(&self, failure: Failure) {
        if self.is_over() {
            return;
        }
        let mut books = self.lock();
        books.counts.entry(failure.activity).or_default().failed += 1;
        books.pending.push(failure);
    }

    /// The connections and flows of datagrams that clients have and had.
    pub fn census(&self) -> Census {
        self.lock().census.clone()
    }

    /// Notes that the machine let nobody run.
    pub fn paused(&self, pause: Pause) {
        self.lock().pauses.push(pause);
    }

    /// When the machine let nobody run.
    pub fn pauses(&self) -> Vec<Pause> {
        self.lock().pauses.clone()
    }

    /// Says that an invariant is broken, at once and at the end.
    pub fn broken(&self, what: impl fmt::Display) {
        // What programs wrote is in their logs.
        let what = what.to_string();
        let first = what.lines().next().unwrap_or_default();
        let line = format!("{:8.3} s  BROKEN: {first}", self.now().as_secs_f64());
        let mut books = self.lock();
        match books.broken.len() {
            n if n < MAX_TOLD => println!("{line}"),
            MAX_TOLD => println!("... and more"),
            _ => {}
        }
        books.broken.push(line);
    }

    /// Explains what has failed so far.
    pub fn explain(&self, explanation: impl Fn(&Span) -> Option<Cause>) {
        let pending = std::mem::take(&mut self.lock().pending);
        for failure in pending {
            match explanation(&failure.span) {
                Some(cause) => *self.lock().explained.entry((cause, failure.activity)).or_default() += 1,
                None => self.broken(format!("nothing explains this: {failure}")),
            }
        }
    }

    /// The counts, by activity.
    pub fn counts(&self) -> BTreeMap<Activity, Count> {
        self.lock().counts.clone()
    }

    /// Failures that were explained, by what explains them and by activity.
    pub fn explained(&self) -> BTreeMap<(Cause, Activity), u64> {
        self.lock().explained.clone()
    }

    /// What was broken.
    pub fn all_broken(&self) -> Vec<String> {
        self.lock().broken.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Activity {
    /// What several are called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connections",
            Self::Request => "requests",
            Self::Watch => "lines of watches",
            Self::Download => "downloads",
            Self::Upload => "uploads",
            Self::Datagram => "datagrams",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { activity, span: Span { failed, begun, ended }, words } = self;
        let [begun, ended] = [begun, ended].map(Duration::as_secs_f64);
        write!(f, "{}, {failed:?}, from {begun:.3} s to {ended:.3} s: {words}", activity.name())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{excuse::Failed, fault::Kind},
        *,
    };

    fn failure(begun: u64) -> Failure {
        let [begun, ended] = [begun, begun + 1].map(Duration::from_secs);
        Failure {
            activity: Activity::Request,
            span: Span { failed: Failed::Opening, begun, ended },
            words: "no".into(),
        }
    }

    #[test]
    fn a_failure_is_explained_or_broken() {
        let ledger = Ledger::new();
        let cause = Cause::Fault(Kind::LinkFlap);
        ledger.done(Activity::Request, 10);
        ledger.failed(failure(1));
        ledger.failed(failure(2));
        ledger.explain(|span| (span.begun == Duration::from_secs(1)).then_some(cause));
        assert_eq!(ledger.counts()[&Activity::Request], Count { done: 1, bytes: 10, failed: 2 });
        assert_eq!(ledger.explained(), BTreeMap::from([((cause, Activity::Request), 1)]));
        assert_eq!(ledger.all_broken().len(), 1);
        // Once.
        ledger.explain(|_| None);
        assert_eq!(ledger.all_broken().len(), 1);
    }

    #[test]
    fn what_fails_at_the_end_does_not_count() {
        let ledger = Ledger::new();
        ledger.end();
        ledger.failed(failure(1));
        ledger.explain(|_| None);
        assert_eq!(ledger.all_broken(), Vec::<String>::new());
    }
}
