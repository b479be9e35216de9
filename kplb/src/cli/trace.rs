//! `kplb trace`: watch packets on their way.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use kplb_common::trace::{TraceCounts, TraceEvent, TraceRequest};
use tokio::signal::unix::{SignalKind, signal};

use super::reading::{self, Form};
use crate::{
    bpffs,
    dataplane::{PinnedMaps, REQUEST_LIFETIME, Tracing, monotonic_now_ns},
    directory::Directory,
    prefix::Prefix,
    run_dir::{LockOutcome, RunDir},
    terminal::{self, Reader},
    trace::{self, Clocks, Detail, VerdictSet, Wanted},
};

const EXAMPLES: &str = "\
Examples:
  kplb trace
  kplb trace --client 198.18.0.101 --count 10
  kplb trace --verdict drop --verdict reset
  kplb trace --service apiserver --sample 100 --json | jq -r .backend

What XDP sends is in no capture of this node, so the data path tells of it: `198.18.0.101:40000 > 198.18.0.100:6443  =>
198.18.0.11:12753 > 198.18.0.12:6443` came in as the one and was sent as the other. Packets that are passed on as they
are show only if --verdict asks for them.

One trace runs on an interface at a time. It costs something while it runs, and ends with --count, Ctrl-C, or a few
seconds after it was killed. It needs no agent; who runs without one has no names, and addresses stand for them.

The JSON form is one object a line: `time`, `interface`, `hook` (in: it came in; out: it was about to leave), `verdict`,
`direction` (to-backend, to-client, null), `length` of the frame, `protocol`, `service`, `backend`, `before` and `after`
(null: not changed), each with `source`, `destination`, `source_mac`, `destination_mac`, `ttl`, `flags`, `sequence`,
`acknowledgement`, `window`, `note`, `about_source` and `about_destination`. What a packet does not have is null. Fields
are only ever added.";

/// Watch packets, what is decided about them, and how they are rewritten.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The interface; need not be given if kplb is attached to one alone.
    interface: Option<String>,
    /// Only of clients whose address begins so.
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    client: Option<Prefix>,
    /// Only of this service: its name, VIP:PORT, or VIP:PORT/PROTOCOL.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only with this verdict, as `kplb status --all` lists them; or pass, forward, reset or drop for all of a kind. Can be
    /// given several times.
    #[arg(long, value_name = "NAME")]
    verdict: Vec<VerdictSet>,
    /// End after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Show one packet in so many.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Show about so many packets a second at most.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Show MAC addresses, hops and TCP's numbers, too.
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How often the request is made again, and what was lost is told.
const BEAT: Duration = Duration::from_secs(1);
const _: () = assert!(BEAT.as_secs() < REQUEST_LIFETIME.as_secs());

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let pin_root = bpffs::pin_root();
    let interfaces = reading::interfaces(arguments.interface.as_ref(), &pin_root)?;
    let [interface] = &interfaces[..] else {
        bail!("kplb is attached to {}: say to which of them", interfaces.join(", "));
    };
    let maps = PinnedMaps::find(&pin_root, interface)?;
    let _lock = match RunDir::from_environment().lock_trace(interface)? {
        LockOutcome::Locked(lock) => lock,
        LockOutcome::HeldBy(pid) => bail!(
            "another `kplb trace` of {interface} is running{}; end it first",
            pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
        ),
    };
    let (directory, names) = reading::directory(&maps, interface)?;
    let services = arguments.service.as_ref().map(|name| names.services(&directory, name)).transpose()?;
    let wanted = Wanted { client: arguments.client, services, verdicts: arguments.verdict.clone() };
    let request = trace::request(&wanted, arguments.sample, arguments.rate);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let tracing = Tracing::open(&maps)?;
        let counted = tracing.counts()?;
        let form = Form::new(arguments.json);
        let detail = if arguments.verbose { Detail::All } else { Detail::Line };
        let left = arguments.count.unwrap_or(u64::MAX);
        let shown = Shown { interface, directory, wanted, form, detail, left };
        Session { tracing, request, counted, told: TraceCounts::default(), shown }.run().await
    })
}

/// A running trace.
struct Session<'a> {
    tracing: Tracing,
    request: TraceRequest,
    /// What was counted before it began.
    counted: TraceCounts,
    /// What of it the user knows.
    told: TraceCounts,
    shown: Shown<'a>,
}

/// What is shown, and how.
struct Shown<'a> {
    interface: &'a str,
    directory: Directory,
    wanted: Wanted,
    form: Form,
    detail: Detail,
    /// How many packets are still to be shown.
    left: u64,
}

/// Whether a trace goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    GoOn,
    End,
}

impl Session<'_> {
    async fn run(mut self) -> Result<()> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut beats = tokio::time::interval(BEAT);
        self.tracing.ask(&self.request)?;
        eprintln!("{}: tracing; Ctrl-C ends it", self.shown.interface);
        loop {
            let next = tokio::select! {
                events = self.tracing.next() => self.shown.show(&events.context("wait for packets")?)?,
                _ = beats.tick() => {
                    self.tracing.ask(&self.request)?;
                    self.tell_losses()?;
                    Next::GoOn
                }
                _ = interrupt.recv() => Next::End,
                _ = terminate.recv() => Next::End,
            };
            if next == Next::End {
                self.tracing.end()?;
                return self.tell_losses();
            }
        }
    }

    /// Says what cannot be shown, once.
    fn tell_losses(&mut self) -> Result<()> {
        let counts = self.tracing.counts()?.since(&self.counted);
        let TraceCounts { lost, over_rate, .. } = counts.since(&self.told);
        self.told = counts;
        if lost > 0 {
            eprintln!("! {lost} packets are lost: they came faster than they could be shown");
        }
        if over_rate > 0 {
            eprintln!("! {over_rate} packets are left out, because of --rate {}", self.request.rate);
        }
        Ok(())
    }
}

impl Shown<'_> {
    fn show(&mut self, events: &[TraceEvent]) -> Result<Next> {
        let clocks = Clocks { monotonic_ns: monotonic_now_ns(), wall: SystemTime::now() };
        let mut out = String::new();
        for event in events {
            if self.left == 0 {
                break;
            }
            let report = trace::report(event, self.interface, &clocks, &self.directory, &self.wanted);
            let Some(report) = report else { continue };
            self.left -= 1;
            match self.form {
                Form::Text => out += &trace::text(&report, self.detail),
                Form::Json => {
                    out += &serde_json::to_string(&report)?;
                    out.push('\n');
                }
            }
        }
        let reader = terminal::print(&out).context("write to standard output")?;
        Ok(if reader == Reader::Gone || self.left == 0 { Next::End } else { Next::GoOn })
    }
}
