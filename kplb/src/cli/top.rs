//! `kplb top`: how the agent is, all the time, on a terminal.

use std::{
    io::{self, IsTerminal as _},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event as TerminalEvent, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use super::status::{pause, read};
use crate::{
    run_dir::RunDir,
    terminal::Colour,
    top::{Flow, Key, Model, News, draw},
};

const EXAMPLES: &str = "\
Examples:
  kplb top
  kplb top eth0 --interval 0.5

Keys: q, Esc or Ctrl-C end it; p stops it and lets it go on; arrows, Page Up, Page Down, Home and End select a line.

It needs a terminal; `kplb status --watch` does not. It goes on while there is no agent, and when another one starts.";

/// Watch services, backends, the election and events live.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The interface; the one that has an agent unless given.
    interface: Option<String>,
    /// The time between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = pause)]
    interval: Duration,
}

/// Lines of a page.
const PAGE: i32 = 10;

/// What can happen.
enum Event {
    /// The agent was asked.
    News(News),
    /// Somebody did something to the terminal.
    Terminal(TerminalEvent),
    /// A signal asks for the end.
    End,
    /// The terminal is gone.
    Lost(io::Error),
}

pub(super) fn run(arguments: Arguments) -> Result<()> {
    let Arguments { interface, interval } = arguments;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!("this is no terminal; use `kplb status --watch`, or `kplb status --watch --json` for programs");
    }
    let run_dir = RunDir::from_environment();
    if let (None, interfaces @ [_, _, ..]) = (&interface, run_dir.interfaces()?.as_slice()) {
        bail!("several agents run; say which: {}", interfaces.join(", "));
    }
    // Before any other thread is started: all of them are to leave these signals to the one that waits for them.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block().context("block signals")?;
    let (sender, events) = mpsc::channel();
    // Restores the terminal if anything panics, too.
    let mut terminal = ratatui::try_init().context("set up the terminal")?;
    let followed = start(&sender, signals, run_dir, interface.clone(), interval)
        .and_then(|()| follow(&mut terminal, &events, Model::new(interface)));
    let restored = ratatui::try_restore().context("restore the terminal");
    followed.and(restored)
}

/// Starts a thread for each source of events. They end with the process.
fn start(
    sender: &mpsc::Sender<Event>,
    signals: SigSet,
    run_dir: RunDir,
    interface: Option<String>,
    interval: Duration,
) -> Result<()> {
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).context("start a thread")
    };
    let to = sender.clone();
    spawn(
        "signals",
        Box::new(move || {
            // Fails for a set that is no set only.
            let _ = signals.wait();
            let _ = to.send(Event::End);
        }),
    )?;
    let to = sender.clone();
    spawn(
        "keys",
        Box::new(move || {
            loop {
                let (event, goes_on) = match event::read() {
                    Ok(event) => (Event::Terminal(event), true),
                    Err(error) => (Event::Lost(error), false),
                };
                if to.send(event).is_err() || !goes_on {
                    return;
                }
            }
        }),
    )?;
    let to = sender.clone();
    spawn(
        "agent",
        Box::new(move || {
            while to.send(Event::News(ask(&run_dir, interface.as_deref()))).is_ok() {
                thread::sleep(interval);
            }
        }),
    )
}

/// Asks the agent how it is.
fn ask(run_dir: &RunDir, interface: Option<&str>) -> News {
    let found = match interface {
        Some(interface) => Ok(Some(interface.to_owned())),
        None => run_dir.interfaces().map(|interfaces| interfaces.into_iter().next()),
    };
    let status = found.and_then(|interface| match interface {
        Some(interface) => read(run_dir, &interface),
        None => Ok(None),
    });
    match status {
        Ok(Some(status)) => News::Status(Box::new(status)),
        Ok(None) => News::Silence(format!("no answer in {}", run_dir.path().display())),
        Err(error) => News::Silence(format!("{error:#}")),
    }
}

/// Draws after each event, until one asks for the end.
fn follow(terminal: &mut DefaultTerminal, events: &mpsc::Receiver<Event>, mut model: Model) -> Result<()> {
    let colour = Colour::of_stdout();
    loop {
        terminal.draw(|frame| draw(frame, &model, colour)).context("draw")?;
        match events.recv().context("nothing can happen any more")? {
            Event::News(news) => model.take(news, Instant::now()),
            Event::Terminal(TerminalEvent::Key(key)) => {
                if key_for(key).map(|key| model.press(key)) == Some(Flow::End) {
                    return Ok(());
                }
            }
            // Drawing finds out how large the window is.
            Event::Terminal(_) => {}
            Event::End => return Ok(()),
            Event::Lost(error) => return Err(error).context("read the terminal"),
        }
    }
}

/// What a key is for.
fn key_for(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('p') => Some(Key::Pause),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Move(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Move(1)),
        KeyCode::PageUp => Some(Key::Move(-PAGE)),
        KeyCode::PageDown => Some(Key::Move(PAGE)),
        KeyCode::Home => Some(Key::First),
        KeyCode::End => Some(Key::Last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let key = |code, modifiers| key_for(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(key(KeyCode::Esc, KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Down, KeyModifiers::NONE), Some(Key::Move(1)));
        assert_eq!(key(KeyCode::PageUp, KeyModifiers::NONE), Some(Key::Move(-PAGE)));
        let release = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE) };
        assert_eq!(key_for(release), None);
    }
}
