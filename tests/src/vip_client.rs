//! A client that wants a VIP all the time: how long was it without, and who answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
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
    net::TcpSocket,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{client::Connection, lab::Host};

/// Time between the starts of two attempts, and so what an outage can be told to.
pub const CADENCE: Duration = Duration::from_millis(10);

/// When an attempt is given up: before its SYN would be repeated (RFC 6298, section 2.1), so that each success says that
/// the VIP was there just then.
const GIVE_UP: Duration = Duration::from_millis(950);

/// What is asked at the other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// The banner of a [`crate::banner::Banner`].
    Banner,
    /// The version of a [`crate::apiserver::Apiserver`], over TLS.
    Version,
}

/// What a client does all the time.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Whom it asks.
    pub target: SocketAddr,
    /// What it asks.
    pub question: Question,
    /// The addresses that it asks from, in turn; none: that which the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// Time between the starts of two attempts.
    pub cadence: Duration,
    /// When an attempt is given up.
    pub patience: Duration,
}

/// One connection, from before the connect to the answer's end.
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

/// What became of every attempt.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    // In the order of their ends.
    attempts: Vec<Attempt>,
}

/// A client that opens a connection at every beat, whatever becomes of the ones before, and hears who answers: the server at
/// the other end, or one that something there forwards to.
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
    /// Starts one on a host that asks for banners at every [`CADENCE`].
    pub fn start(host: &Host, target: SocketAddr) -> Result<Self> {
        let asking =
            Asking { target, question: Question::Banner, sources: Vec::new(), cadence: CADENCE, patience: GIVE_UP };
        Self::start_asking(host, asking)
    }

    /// Starts one on a host that asks for something else.
    pub fn start_asking(host: &Host, asking: Asking) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let thread = host.namespace().thread({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("an epoll instance and a pipe are all it takes").block_on(run(asking, shared));
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

    /// Stops it, and waits for what is under way.
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

async fn run(asking: Asking, shared: Arc<Shared>) {
    let Asking { target, question, sources, cadence, patience } = asking;
    let mut sources = sources.into_iter().cycle();
    let mut ticks = interval(cadence);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = JoinSet::new();
    while !shared.is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (shared, source) = (Arc::clone(&shared), sources.next());
        under_way.spawn(async move {
            let start = Instant::now();
            let answer = async {
                match question {
                    Question::Banner => banner(target, source).await.map_err(|error| error.to_string()),
                    Question::Version => version(target, source, patience).await.map_err(|error| format!("{error:#}")),
                }
            };
            let result = timeout(patience, answer).await.unwrap_or_else(|_| Err("no answer".to_owned()));
            shared.lock().push(Attempt { start, end: Instant::now(), result });
            shared.ended_one.notify_all();
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

/// Which stand-in for an apiserver is at the other end.
async fn version(target: SocketAddr, source: Option<IpAddr>, patience: Duration) -> Result<String> {
    let mut connection = Connection::open_within(target, source, patience).await?;
    Ok(connection.get("/version").await?.node)
}

/// Whose banner is at the other end.
async fn banner(target: SocketAddr, source: Option<IpAddr>) -> io::Result<String> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        socket.bind((source, 0).into())?;
    }
    let mut stream = socket.connect(target).await?;
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
    /// Of when each was begun, how long it took, and what came of it.
    #[cfg(test)]
    pub(crate) fn of(attempts: impl IntoIterator<Item = (Instant, Duration, Result<String, String>)>) -> Self {
        let attempt = |(start, time, result)| Attempt { start, end: start + time, result };
        let mut attempts: Vec<Attempt> = attempts.into_iter().map(attempt).collect();
        attempts.sort_by_key(|attempt| attempt.end);
        Self { attempts }
    }

    /// All of them, in the order of their ends.
    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter()
    }

    /// The longest span without a success of those that were not over at `moment`. None if nothing ever succeeded.
    ///
    /// One that nothing ended counts to the beginning of the last attempt: what is given up later was not asked later.
    pub fn outage_after(&self, moment: Instant) -> Option<Outage> {
        let successes: Vec<Instant> = self.answered().map(|attempt| attempt.end).collect();
        let last = self.attempts.iter().map(|attempt| attempt.start).max()?;
        let between = successes.windows(2).map(|pair| Outage { from: pair[0], until: Some(pair[1]) });
        let after = successes.last().map(|from| Outage { from: *from, until: None });
        between
            .chain(after)
            .filter(|outage| outage.until.is_none_or(|until| until > moment))
            .max_by_key(|outage| outage.until.unwrap_or(last).saturating_duration_since(outage.from))
    }

    /// How long after `moment` the last attempt was begun that failed or took longer than `bound`; zero, if none was.
    pub fn trouble_after(&self, moment: Instant, bound: Duration) -> Duration {
        let bad = self.attempts.iter().filter(|attempt| attempt.result.is_err() || attempt.time() > bound);
        bad.map(|attempt| attempt.start.saturating_duration_since(moment)).max().unwrap_or_default()
    }

    /// The longest that an attempt took of those that were not over at `moment`, failed or not.
    pub fn longest_after(&self, moment: Instant) -> Duration {
        let after = self.attempts.iter().filter(|attempt| attempt.end > moment);
        after.map(Attempt::time).max().unwrap_or_default()
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

impl Attempt {
    /// How long it took.
    pub fn time(&self) -> Duration {
        self.end.saturating_duration_since(self.start)
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
    fn what_is_given_up_at_the_end_is_no_outage_of_its_own() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut record = attempts(start, &[(0, Ok("a")), (10, Err("no")), (60, Ok("b")), (70, Ok("b"))]);
        let mut stuck = record.attempts.remove(1);
        stuck.end = at(960);
        record.attempts.push(stuck);
        assert_eq!(record.outage_after(at(0)), Some(Outage { from: at(1), until: Some(at(61)) }));
    }

    #[test]
    fn trouble_is_what_fails_or_takes_long() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut record = attempts(start, &[(0, Ok("a")), (10, Err("no")), (20, Ok("a")), (30, Ok("b"))]);
        assert_eq!(record.trouble_after(at(5), Duration::from_millis(2)), Duration::from_millis(5));
        record.attempts[2].end = at(90);
        assert_eq!(record.trouble_after(at(5), Duration::from_millis(2)), Duration::from_millis(15));
        assert_eq!(record.longest_after(at(5)), Duration::from_millis(70));
        assert_eq!(record.trouble_after(at(25), Duration::from_millis(2)), Duration::ZERO);
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
