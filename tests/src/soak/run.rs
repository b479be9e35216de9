//! One run, from the lab to the report.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{
    busy::{self, Pause},
    excuse::{self, Episode},
    fault::{self, Fault, Kind, N_CLIENTS, N_NODES, Victim},
    flows,
    growth::{self, Sample},
    inject::Injection,
    ledger::Ledger,
    load::{self, Client},
    masters, peek,
    report::Report,
    stage::{Settled, Stage},
    watch::{self, Seen},
};
use crate::{
    cluster,
    lab::{Lab, LabOptions},
    poll,
    who_has::{Answers, WhoHas},
};

/// Addresses of each client, besides its own.
const N_ADDRESSES: usize = 6;
/// How long it is quiet before a fault, at least.
const QUIET: Duration = Duration::from_secs(3);
/// How long before a fault the flow tables are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// For how long the machine let everybody run before a fault.
const CALM: Duration = Duration::from_secs(5);
/// How long anything may take that is waited for without a reason of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is waited for all to be as it should be.
const MAX_TRIES: usize = 3;

/// How many broken invariants end a run.
const TOO_MUCH: usize = 100;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the faults and their times follow from.
    pub seed: u64,
    /// How long there is load.
    pub load: Duration,
    /// The kinds of faults.
    pub kinds: Vec<Kind>,
    /// Where agents attach, as `kplb attach --mode` takes it.
    pub mode: String,
}

/// Runs it; it ends early, and in good order, when `is_interrupted`.
///
/// # Errors
/// If the lab does not come about, or cannot be looked at. What is wrong with kplb is in the report.
pub fn run(options: &Options, is_interrupted: &AtomicBool) -> Result<Report> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of descriptors")?;
    // The last client asks who has the VIPs.
    let lab = Lab::new(LabOptions { nodes: N_NODES, clients: N_CLIENTS + 1 })?;
    let addresses =
        (1..=N_CLIENTS).map(|number| lab.client(number).add_addresses(N_ADDRESSES)).collect::<Result<Vec<_>>>()?;
    let mut stage = Stage::start(&lab, &addresses, &options.mode)?;
    let pins = stage.pins();
    let asking =
        cluster::VIPS.iter().map(|vip| WhoHas::start(lab.client(N_CLIENTS + 1), *vip)).collect::<Result<Vec<_>>>()?;

    let ledger = Arc::new(Ledger::new());
    let hashes = Arc::new(load::hashes());
    let clients = (1..).zip(addresses.clone()).map(|(number, addresses)| {
        let host = lab.client(number);
        let client = Client::new(host, addresses, Arc::clone(&hashes), Arc::clone(&ledger));
        host.namespace().thread(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().map(|one| one.block_on(client.run()))
        })
    });
    let clients = clients.collect::<Result<Vec<_>>>()?;
    let pids = stage.pids();
    let mut progress = Progress::new(options, &ledger, is_interrupted);
    let (seen, peeks) = thread::scope(|scope| {
        let looking = scope.spawn(|| watch::look(&lab, &pids, &ledger));
        let peeking = scope.spawn(|| peek::look(&lab, &ledger));
        let feeling = scope.spawn(|| watch::feel_pulse(&ledger));
        let result = progress.play(&mut stage);
        if let Err(error) = result {
            ledger.broken(format!("{error:#}"));
        }
        ledger.end();
        feeling.join().expect("the clock does not panic");
        let peeks = peeking.join().expect("reading does not panic");
        looking.join().expect("looking does not panic").map(|seen| (seen, peeks))
    })?;
    let load = ledger.now();
    for client in clients {
        client.join().expect("clients do not panic")?;
    }
    let answers = asking.into_iter().map(WhoHas::stop).collect::<Result<Vec<_>>>()?;
    let (pauses, attempts) = (ledger.pauses(), ledger.census().attempts());
    let mut report = Report { seed: options.seed, load, pauses, attempts, ..progress.finish() };
    for node in peeks.unseen() {
        ledger.broken(format!("the flow tables of node{node} were read too rarely: {peeks:?}"));
    }
    report.peeks = peeks;
    judge(&mut report, &progress.episodes, &seen, &answers, &lab, &ledger);
    match flows::drain(&stage, &ledger) {
        Ok(drained) => report.drained = drained,
        Err(error) => ledger.broken(format!("{error:#}")),
    }
    report.pins = [pins, stage.pins()];
    if report.pins[0] != report.pins[1] {
        ledger.broken(format!("pins were {:?}, and are {:?}", report.pins[0], report.pins[1]));
    }
    if let Err(error) = stage.stop() {
        ledger.broken(format!("{error:#}"));
    }
    (report.counts, report.explained, report.broken) = (ledger.counts(), ledger.explained(), ledger.all_broken());
    if !report.is_clean() {
        // Without them there is still the report.
        match logs(options.seed).and_then(|directory| stage.write_logs(&directory).map(|()| directory)) {
            Ok(directory) => println!("what the programs said is in {}", directory.display()),
            Err(error) => println!("what the programs said cannot be written: {error:#}"),
        }
    }
    Ok(report)
}

/// A new directory for what programs have said.
fn logs(seed: u64) -> Result<PathBuf> {
    let directory = tempfile::Builder::new().prefix(&format!("kplb-soak-{seed}-")).tempdir()?;
    Ok(directory.keep())
}

/// Judges what was seen of the nodes.
fn judge(report: &mut Report, episodes: &[Episode], seen: &Seen, answers: &[Answers], lab: &Lab, ledger: &Ledger) {
    let busy = busy::spans(&report.pauses);
    report.busy = busy::sum(&busy, report.load);
    if busy::is_too_much(report.busy, report.load) {
        ledger.broken("the machine is too busy to tell");
    }
    for (family, answers) in answers.iter().enumerate() {
        let holders = &seen.holders[family];
        for line in masters::unexplained(holders, report.load, episodes, &busy) {
            ledger.broken(line);
        }
        let mut answered = watch::answered(answers, lab, ledger);
        answered.retain(|answer| answer.at <= report.load);
        for line in masters::strange(&answered, holders, report.load, episodes, &busy) {
            ledger.broken(format!("{}: {line}", cluster::VIPS[family]));
        }
        for (at, is_explained) in masters::contested(&answered, episodes, &busy) {
            if is_explained {
                report.contested += 1;
            } else {
                ledger.broken(format!("two nodes answer for {} at {:.3} s", cluster::VIPS[family], at.as_secs_f64()));
            }
        }
        report.questions[family] = answered.len();
        report.masters[family] = masters::timeline(&answered);
    }
    report.n_agents = seen.samples.len();
    let is_quiet = |sample: &Sample| {
        !busy::covers(&busy, sample.at, sample.at) && !episodes.iter().any(|episode| episode.is_on(sample.at))
    };
    let samples =
        seen.samples.iter().map(|(agent, samples)| (*agent, samples.iter().copied().filter(is_quiet).collect()));
    report.growths = growth::growths(&samples.collect());
    report.spared = fault::spared(report.seed);
    let lives = seen.samples.keys().filter(|(node, _)| *node == report.spared).count();
    if let Some(words) = growth::untold(&report.growths, report.load, report.spared, lives) {
        ledger.broken(words);
    }
    for growth in report.growths.iter().filter(|growth| !growth.is_bounded()) {
        ledger.broken(format!("an agent grows: {growth:?}"));
    }
}

/// The faults of a plan, one after the other.
struct Progress<'a> {
    options: &'a Options,
    ledger: &'a Ledger,
    is_interrupted: &'a AtomicBool,
    episodes: Vec<Episode>,
    quiet: Duration,
    most_flows: u64,
}

/// A step of a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Inject,
    Undo,
}

impl<'a> Progress<'a> {
    fn new(options: &'a Options, ledger: &'a Ledger, is_interrupted: &'a AtomicBool) -> Self {
        Self { options, ledger, is_interrupted, episodes: Vec::new(), quiet: Duration::ZERO, most_flows: 0 }
    }

    /// What it knows for the report.
    fn finish(&self) -> Report {
        let mut faults = BTreeMap::new();
        for episode in &self.episodes {
            *faults.entry(episode.fault.kind).or_default() += 1;
        }
        self.explain();
        Report { faults, quiet: self.quiet, most_flows: self.most_flows, ..Report::default() }
    }

    /// Plays all of it.
    fn play(&mut self, stage: &mut Stage<'_>) -> Result<()> {
        let mut quiet_from = Duration::ZERO;
        for slot in fault::plan(self.options.seed, &self.options.kinds, self.options.load) {
            // What took longer than planned puts off what comes next.
            let delay = (quiet_from + QUIET).saturating_sub(slot[0].at);
            if delay > Duration::ZERO {
                println!("{:8.3} s  the next fault is {:.1} s late", self.seconds(), delay.as_secs_f64());
            }
            // Shortly before: the table is looked at under load, and the fault is not late for that.
            if !self.wait_until((slot[0].at + delay).saturating_sub(LOOK)) {
                break;
            }
            self.look_at_flows(stage)?;
            self.explain();
            let n_broken = self.ledger.all_broken().len();
            ensure!(n_broken < TOO_MUCH, "too much is broken to go on");
            if !self.wait_until(slot[0].at + delay) {
                break;
            }
            let delay = delay + self.wait_for_calm();
            if self.ledger.now() > self.options.load {
                break;
            }
            self.quiet += self.ledger.now().saturating_sub(quiet_from);
            self.play_slot(stage, &slot, delay)?;
            quiet_from = excuse::quiet_from(&self.episodes);
        }
        self.wait_until(self.options.load);
        self.quiet += self.ledger.now().saturating_sub(quiet_from);
        Ok(())
    }

    /// Looks whether there are as many flows as the load makes.
    fn look_at_flows(&mut self, stage: &Stage<'_>) -> Result<()> {
        let count = || flows::count_and_judge(stage, self.ledger);
        let (counts, wrong) = poll::until_ok("the number of flows", PATIENCE, count)?;
        self.most_flows = self.most_flows.max(counts.read.iter().sum());
        if !busy::covers(&busy::spans(&self.ledger.pauses()), self.ledger.now(), self.ledger.now()) {
            wrong.into_iter().for_each(|words| self.ledger.broken(words));
        }
        Ok(())
    }

    /// Plays faults that go together, and waits until all is as it should be.
    fn play_slot(&mut self, stage: &mut Stage<'_>, slot: &[Fault], delay: Duration) -> Result<()> {
        let mut steps: Vec<(Duration, usize, Step)> = Vec::new();
        for (i, fault) in slot.iter().enumerate() {
            steps.extend([(fault.at + delay, i, Step::Inject), (fault.at + delay + fault.hold, i, Step::Undo)]);
        }
        // The sort is stable: what is not held at all is still undone after it is done.
        steps.sort_by_key(|(at, ..)| *at);
        let first = self.episodes.len();
        let mut injections: BTreeMap<usize, (usize, Injection)> = BTreeMap::new();
        for (at, i, step) in steps {
            // It lasts for as long as it is to, however long it took to begin.
            let held = injections.get(&i).map(|(episode, _)| self.episodes[*episode].from + slot[i].hold);
            // Once it is begun, a slot is played to its end: everything is to be there again.
            self.wait_until(held.unwrap_or_default().max(at));
            let from = self.ledger.now();
            if step == Step::Inject {
                let mut injection = Injection::aim(stage, slot[i])?;
                println!("{:8.3} s  {}", from.as_secs_f64(), describe(&injection));
                let Injection { fault, node, role, .. } = injection;
                self.episodes.push(Episode { fault, node, role, from, undone: None, settled: None });
                injection.inject(stage).with_context(|| describe(&injection))?;
                injections.insert(i, (self.episodes.len() - 1, injection));
            } else if let Some((episode, injection)) = injections.get_mut(&i) {
                injection.undo(stage).with_context(|| format!("undo {}", describe(injection)))?;
                self.episodes[*episode].undone = Some(self.ledger.now());
                println!("{:8.3} s  {} is over", self.seconds(), injection.fault.kind);
            }
        }
        if self.settle(stage)? == Settled::Interrupted {
            return Ok(());
        }
        let settled = self.ledger.now();
        self.episodes[first..].iter_mut().for_each(|episode| episode.settled = Some(settled));
        println!("{:8.3} s  all is as it should be", settled.as_secs_f64());
        Ok(())
    }

    /// Waits until all is as it should be; a few times, if the machine lets nobody run meanwhile.
    fn settle(&self, stage: &Stage<'_>) -> Result<Settled> {
        let mut n_tries = 0;
        loop {
            let begun = self.ledger.now();
            let result = stage.settle(|| self.is_interrupted.load(Ordering::Relaxed));
            n_tries += 1;
            if result.is_ok() || !may_try_again(n_tries, begun, &self.ledger.pauses()) {
                return result;
            }
        }
    }

    /// Waits until a moment of the run, or until it is to end; whether it is not.
    fn wait_until(&self, at: Duration) -> bool {
        let is_over = || self.is_interrupted.load(Ordering::Relaxed);
        poll::pass(at.saturating_sub(self.ledger.now()), is_over);
        !is_over()
    }

    /// Waits until the machine has let everybody run for a while: what a fault does is to be told from that. How long that
    /// took.
    fn wait_for_calm(&self) -> Duration {
        let begun = self.ledger.now();
        let is_calm = || self.ledger.pauses().last().is_none_or(|pause| pause.at + CALM < self.ledger.now());
        while !is_calm() && self.ledger.now() < self.options.load && self.wait_until(self.ledger.now() + LOOK) {}
        self.ledger.now().saturating_sub(begun)
    }

    fn explain(&self) {
        let busy = busy::spans(&self.ledger.pauses());
        self.ledger.explain(|span| excuse::explanation(&self.episodes, &busy, span));
    }

    fn seconds(&self) -> f64 {
        self.ledger.now().as_secs_f64()
    }
}

/// Whether what has not settled since it began is waited for once more.
fn may_try_again(n_tries: usize, begun: Duration, pauses: &[Pause]) -> bool {
    n_tries < MAX_TRIES && pauses.last().is_some_and(|pause| pause.at > begun)
}

fn describe(injection: &Injection) -> String {
    let Injection { fault, node, role, .. } = injection;
    let Fault { kind, hold, variant, .. } = fault;
    let hold = hold.as_secs_f64();
    match fault.victim() {
        Victim::Client => format!("{kind} of client{}, for {hold:.1} s", fault.client()),
        _ => format!("{kind} on node{node} ({role:?}), for {hold:.1} s, variant {variant}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_without_end() {
        let s = Duration::from_secs;
        let pauses = [Pause { at: s(70), late: s(1) }];
        assert!(may_try_again(1, s(10), &pauses));
        assert!(!may_try_again(1, s(80), &pauses), "the machine let everybody run");
        assert!(!may_try_again(1, s(10), &[]));
        assert!(!may_try_again(MAX_TRIES, s(10), &pauses));
    }
}
