//! A client that wants a VIP all the time: how long was it without, and who answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::lab::Host;

/// Time between the starts of two attempts, and so what an outage can be told to.
pub const CADENCE: Duration = Duration::from_millis(10);

/// When an attempt is given up: before its SYN would be repeated (RFC 6298, section 2.1), so that each success says that
/// the VIP was there just then.
const GIVE_UP: Duration = Duration::from_millis(950);

/// One connection, from before the connect to the banner's end.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Before the connect.
    pub start: Instant,
    /// When it had been answered, or had failed.
    pub end: Instant,
    /// The node that answered, or why none did.
    pub result: Result<String, String>,
}

/// A span in which no attempt succeeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outage {
    /// The end of the last attempt that succeeded before.
    pub from: Instant,
    /// The end of the first that succeeded afterwards, if any did.
    pub until: Option<Instant>,
}

/// What became of every attempt that was not under way at the end.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    // In the order of their ends.
    attempts: Vec<Attempt>,
}

/// A client that opens a connection at every [`CADENCE`], whatever becomes of the ones before, and hears who answers.
///
/// At the other end is a [`crate::banner::Banner`], or something that forwards to one.
#[derive(Debug)]
pub struct VipClient {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    attempts: Mutex<Vec<Attempt>>,
    ended_one: Condvar,
    is_over: AtomicBool,
}

impl VipClient {
    /// Starts it on a host.
    pub fn start(host: &Host, target: SocketAddr) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let thread = host.namespace().thread({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("an epoll instance and a pipe are all it takes").block_on(run(target, shared));
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits for an attempt that was begun after `moment` and succeeded.
    pub fn wait_for_answer_after(&self, moment: Instant, deadline: Duration) -> Result<Attempt> {
        let end = Instant::now() + deadline;
        let mut attempts = self.shared.lock();
        loop {
            let answered = attempts.iter().find(|attempt| attempt.start > moment && attempt.result.is_ok());
            if let Some(attempt) = answered {
                return Ok(attempt.clone());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = attempts.last().map(|attempt| &attempt.result);
                bail!("no answer within {deadline:?}; the last attempt: {last:?}");
            }
            (attempts, _) = self.shared.ended_one.wait_timeout(attempts, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops it. What is under way is not waited for.
    pub fn stop(self) -> Attempts {
        let shared = Arc::clone(&self.shared);
        drop(self);
        let attempts = std::mem::take(&mut *shared.lock());
        Attempts { attempts }
    }
}

impl Drop for VipClient {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic; nothing is left to do if it did.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(target: SocketAddr, shared: Arc<Shared>) {
    let mut ticks = interval(CADENCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = JoinSet::new();
    while !shared.is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let shared = Arc::clone(&shared);
        under_way.spawn(async move {
            let start = Instant::now();
            let result = match timeout(GIVE_UP, ask(target)).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            shared.lock().push(Attempt { start, end: Instant::now(), result });
            shared.ended_one.notify_all();
        });
        while under_way.try_join_next().is_some() {}
    }
}

/// Who is at the other end.
async fn ask(target: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    // Neither end is to remember the connection: there will be thousands.
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    let mut banner = String::new();
    stream.read_to_string(&mut banner).await?;
    match banner.strip_suffix('\n') {
        Some(name) => Ok(name.to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the banner is not complete")),
    }
}

impl Attempts {
    /// All of them, in the order of their ends.
    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter()
    }

    /// The longest span without a success of those that were not over at `moment`. None if nothing ever succeeded.
    ///
    /// One that nothing ended counts to the last attempt's end.
    pub fn outage_after(&self, moment: Instant) -> Option<Outage> {
        let successes: Vec<Instant> = self.answered().map(|attempt| attempt.end).collect();
        let last = self.attempts.last()?.end;
        let between = successes.windows(2).map(|pair| Outage { from: pair[0], until: Some(pair[1]) });
        let after = successes.last().map(|from| Outage { from: *from, until: None });
        between
            .chain(after)
            .filter(|outage| outage.until.is_none_or(|until| until > moment))
            .max_by_key(|outage| outage.until.unwrap_or(last).saturating_duration_since(outage.from))
    }

    /// Nodes that answered attempts that were begun after `moment`.
    pub fn servers_after(&self, moment: Instant) -> BTreeSet<&str> {
        self.answered_after(moment).collect()
    }

    /// How many attempts that were begun after `moment` this node answered.
    pub fn n_answered_by_after(&self, server: &str, moment: Instant) -> usize {
        self.answered_after(moment).filter(|answered| *answered == server).count()
    }

    /// Attempts that failed, by reason.
    pub fn errors(&self) -> BTreeMap<&str, usize> {
        let mut errors = BTreeMap::new();
        for error in self.attempts.iter().filter_map(|attempt| attempt.result.as_ref().err()) {
            *errors.entry(error.as_str()).or_default() += 1;
        }
        errors
    }

    /// How many attempts failed.
    pub fn n_failed(&self) -> usize {
        self.errors().values().sum()
    }

    fn answered(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.result.is_ok())
    }

    fn answered_after(&self, moment: Instant) -> impl Iterator<Item = &str> {
        let after = self.attempts.iter().filter(move |attempt| attempt.start > moment);
        after.filter_map(|attempt| attempt.result.as_deref().ok())
    }
}

impl Outage {
    /// How long it was, or none if it went on to the end.
    pub fn length(&self) -> Option<Duration> {
        Some(self.until?.saturating_duration_since(self.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts that take a millisecond each: when each begins, in milliseconds, and whether it succeeds.
    fn attempts(start: Instant, list: &[(u64, Result<&str, &str>)]) -> Attempts {
        let attempt = |(at, result): &(u64, Result<&str, &str>)| {
            let start = start + Duration::from_millis(*at);
            let result = result.map(str::to_owned).map_err(str::to_owned);
            Attempt { start, end: start + Duration::from_millis(1), result }
        };
        Attempts { attempts: list.iter().map(attempt).collect() }
    }

    #[test]
    fn the_outage_is_the_longest_that_was_not_over() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = attempts(
            start,
            &[
                (0, Ok("a")),
                (50, Ok("a")),
                (60, Err("no")),
                (70, Err("no")),
                (80, Ok("b")),
                (90, Ok("b")),
                (95, Ok("a")),
            ],
        );
        assert_eq!(record.outage_after(at(0)), Some(Outage { from: at(1), until: Some(at(51)) }));
        assert_eq!(record.outage_after(at(55)), Some(Outage { from: at(51), until: Some(at(81)) }));
        assert_eq!(record.outage_after(at(55)).and_then(|o| o.length()), Some(Duration::from_millis(30)));
        assert_eq!(record.servers_after(at(85)), BTreeSet::from(["a", "b"]));
        assert_eq!(record.n_answered_by_after("b", at(0)), 2);
        assert_eq!(record.errors(), BTreeMap::from([("no", 2)]));
    }

    #[test]
    fn an_outage_may_have_no_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = attempts(start, &[(0, Ok("a")), (10, Ok("a")), (20, Err("no")), (90, Err("no"))]);
        let outage = record.outage_after(at(15)).expect("there is one");
        assert_eq!(outage, Outage { from: at(11), until: None });
        assert_eq!(outage.length(), None);
        assert_eq!(attempts(start, &[(0, Err("no"))]).outage_after(at(0)), None);
    }
}
