//! `kplb status`: how are the agents of this node?

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ratatui::crossterm::terminal::size;
use tokio::signal::unix::{SignalKind, signal};

use super::doctor::seconds;
use crate::{
    bpffs,
    control::{Answer, Request, client::Client},
    daemon::present,
    dataplane::{self, Mode, PinnedMaps, Present},
    netlink::client::Netlink,
    run_dir::RunDir,
    status::{self, Status, VerdictFilter},
    terminal::{self, Colour, Reader},
};

const PATIENCE: Duration = Duration::from_secs(10);

const EXAMPLE: &str = "\
Examples:
  kplb status
  kplb status --watch
  kplb status eth0 --json | jq '.[0].services[].backends[] | {name, ring_share}'
  kplb status --watch 5 --json | jq --unbuffered '.[0].verdicts[\"drop-no-nat-port\"]'

The JSON form is an array with one object for each interface; with --watch, one line each time. Fields are only ever added.
Colour is used on a terminal only, and not at all if NO_COLOR is set.";

/// Show services, backends, flows and what became of packets.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// The interface; every attached one unless given.
    interface: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show verdicts that no packet has had, too.
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// Show it again and again, on a terminal in place, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = pause)]
    watch: Option<Duration>,
}

/// Shorter ones would keep the agent from its work.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The time between two looks.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        pause if pause >= SHORTEST_PAUSE => Ok(pause),
        _ => Err(format!("give at least {} seconds", SHORTEST_PAUSE.as_secs_f64())),
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let run_dir = RunDir::from_environment();
    match arguments.watch {
        None => terminal::print(&once(arguments, &run_dir)?).map(drop).context("print the status"),
        Some(pause) => watch(arguments, &run_dir, pause),
    }
}

/// What is to be printed.
fn once(arguments: &Arguments, run_dir: &RunDir) -> Result<String> {
    let statuses = statuses(arguments, run_dir)?;
    if arguments.json {
        return Ok(match arguments.watch {
            Some(_) => format!("{}\n", serde_json::to_string(&statuses)?),
            None => format!("{}\n", serde_json::to_string_pretty(&statuses)?),
        });
    }
    let verdicts = if arguments.all { VerdictFilter::All } else { VerdictFilter::Seen };
    let colour = Colour::of_stdout();
    let texts: Vec<String> = statuses.iter().map(|status| status::text(status, verdicts, colour)).collect();
    Ok(texts.join("\n"))
}

/// Those of the interface that was asked for, or of all; at least one.
fn statuses(arguments: &Arguments, run_dir: &RunDir) -> Result<Vec<Status>> {
    let mut statuses = Vec::new();
    if let Some(interface) = &arguments.interface {
        statuses.extend(read_somehow(run_dir, interface)?);
        if statuses.is_empty() {
            bail!(
                "no kplb agent is attached to {interface} (no answer at {}); start one with `kplb attach {interface}`",
                run_dir.socket(interface).display()
            );
        }
        return Ok(statuses);
    }
    let mut interfaces = run_dir.interfaces()?;
    interfaces.extend(dataplane::pinned_interfaces(&bpffs::pin_root())?);
    interfaces.sort();
    interfaces.dedup();
    for interface in interfaces {
        statuses.extend(read_somehow(run_dir, &interface)?);
    }
    if statuses.is_empty() {
        bail!(
            "no kplb agent is running (no answer in {}); start one with `kplb attach INTERFACE`",
            run_dir.path().display()
        );
    }
    Ok(statuses)
}

/// What the interface's agent says, or without one its maps; `None` when there are none either.
fn read_somehow(run_dir: &RunDir, interface: &str) -> Result<Option<Status>> {
    if let Some(status) = read(run_dir, interface)? {
        return Ok(Some(status));
    }
    let pin_root = bpffs::pin_root();
    if !dataplane::pinned_interfaces(&pin_root)?.iter().any(|pinned| pinned == interface) {
        return Ok(None);
    }
    let maps = PinnedMaps::find(&pin_root, interface)?;
    status::unattended(interface, &mode(interface, &pin_root)?, &maps).map(Some)
}

/// Where the kernel says that the interface's program at ingress runs.
fn mode(interface: &str, pin_root: &Path) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let present = runtime.block_on(async {
        let netlink = Netlink::connect()?;
        match netlink.links().await?.into_iter().find(|link| link.name == interface) {
            Some(device) => present::read(&netlink, &device).await,
            None => Ok(Present::default()),
        }
    })?;
    let mode = dataplane::attached_mode(pin_root, interface, &present)?;
    Ok(mode.map_or("no", Mode::name).to_owned())
}

/// The status of the interface's agent; `None` when there is none.
pub(super) fn read(run_dir: &RunDir, interface: &str) -> Result<Option<Status>> {
    let Some(mut client) = Client::connect(&run_dir.socket(interface), PATIENCE)? else {
        return Ok(None);
    };
    match client.ask(&Request::Status)? {
        Answer::Status(status) => Ok(Some(*status)),
        Answer::Error(error) => bail!("the agent of {interface} says: {error}"),
        Answer::Backends(_) | Answer::Reloaded(_) | Answer::Stopping { .. } => {
            bail!("the agent of {interface} gave the wrong answer")
        }
    }
}

/// Prints again and again, whether there is an agent or not, until somebody has seen enough.
fn watch(arguments: &Arguments, run_dir: &RunDir, pause: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let watched = runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).context("wait for Ctrl-C")?;
        let mut terminated = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        let is_terminal = io::stdout().is_terminal();
        let mut picture = Picture::default();
        loop {
            // An agent that does not answer must not keep anybody from ending this.
            let (asked, place) = (arguments.clone(), run_dir.clone());
            let answer = tokio::select! {
                answer = tokio::task::spawn_blocking(move || once(&asked, &place)) => answer.context("ask the agent")?,
                _ = interrupted.recv() => break,
                _ = terminated.recv() => break,
            };
            let text = match answer {
                Ok(text) => text,
                // Programs are not told of it in words.
                Err(_) if arguments.json => "[]\n".to_owned(),
                Err(error) => format!("{error:#}\n"),
            };
            let text = match (is_terminal, arguments.json) {
                (true, false) => picture.next(&text, size().map_or(usize::MAX, |(_, rows)| rows.into())),
                (false, false) => format!("{text}\n"),
                (_, true) => text,
            };
            if terminal::print(&text).context("print the status")? == Reader::Gone {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = interrupted.recv() => break,
                _ = terminated.recv() => break,
            }
        }
        if is_terminal && !arguments.json {
            terminal::print(Picture::END).context("print the status")?;
        }
        Ok(())
    });
    runtime.shutdown_background();
    watched
}

/// What a terminal shows, drawn over what it showed before. Sequences of ECMA-48 and, for lines that are longer than the
/// screen is wide, DECAWM.
#[derive(Debug, Default)]
struct Picture {
    is_drawn: bool,
}

impl Picture {
    /// Clears the screen; lets long lines end at the margin; hides the cursor.
    const START: &str = "\x1b[2J\x1b[?7l\x1b[?25l";
    /// The opposite of the last two.
    const END: &str = "\x1b[?7h\x1b[?25h";

    /// The text of the next picture on a screen of so many rows.
    fn next(&mut self, text: &str, rows: usize) -> String {
        let mut out = String::new();
        if !self.is_drawn {
            out += Self::START;
            self.is_drawn = true;
        }
        out += "\x1b[H";
        let n_lines = text.lines().count();
        // The last row is the cursor's.
        let n_shown = if n_lines < rows { n_lines } else { rows.saturating_sub(2) };
        for line in text.lines().take(n_shown) {
            // Nothing is left of what was there.
            out += line;
            out += "\x1b[K\n";
        }
        if n_shown < n_lines {
            out += &format!("... and {} more lines, for which there is no room\x1b[K\n", n_lines - n_shown);
        }
        out + "\x1b[J"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_drawn_over_the_last_one() {
        let mut picture = Picture::default();
        assert_eq!(picture.next("a\nb\n", 24), "\x1b[2J\x1b[?7l\x1b[?25l\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(picture.next("c\n", 24), "\x1b[Hc\x1b[K\n\x1b[J");
    }

    #[test]
    fn a_picture_fits_on_the_screen() {
        let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
        for rows in 0..200 {
            let drawn = Picture { is_drawn: true }.next(&text, rows);
            let n_lines = drawn.matches('\n').count();
            assert!(n_lines < rows.max(2), "{n_lines} on {rows} rows");
            assert_eq!(n_lines == 100, rows > 100);
        }
    }

    #[test]
    fn pauses() {
        assert_eq!(pause("1"), Ok(Duration::from_secs(1)));
        assert!(pause("0").is_err());
        assert!(pause("0.01").is_err());
    }
}
