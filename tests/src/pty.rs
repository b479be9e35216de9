//! A program on a terminal, as a person has it, while a test looks at its screen and types.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    pty::{Winsize, openpty},
    sys::{
        signal::{self, Signal},
        termios::{Termios, tcgetattr},
    },
    unistd::{Pid, setsid},
};
use vt100::Parser;

use crate::{netns::Namespace, poll};

/// Rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// From above.
    pub rows: u16,
    /// From the left.
    pub columns: u16,
}

/// A terminal with a program that runs on it.
pub struct Terminal {
    child: Child,
    keyboard: File,
    // Kept open, so that its settings can be read after the program has ended. None only while this is dropped.
    line: Option<OwnedFd>,
    before: Termios,
    seen: Arc<Mutex<Seen>>,
    reader: Option<thread::JoinHandle<()>>,
}

struct Seen {
    parser: Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    /// Starts a program on a new terminal.
    pub fn spawn(namespace: &Namespace, mut command: Command, size: Size) -> Result<Self> {
        let window = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&window, None).context("open a pseudoterminal")?;
        let before = tcgetattr(&pty.slave).context("read its settings")?;
        let stdio = || pty.slave.try_clone().map(Stdio::from);
        command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?).env("TERM", "xterm-256color");
        // SAFETY: between fork and exec only setsid(2) and ioctl(2) are called: both are async-signal-safe.
        unsafe { command.pre_exec(take_terminal) };
        let child = namespace.spawn(command)?;
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone()?;
        let seen = Seen { parser: Parser::new(size.rows, size.columns, 0), bytes: Vec::new() };
        let seen = Arc::new(Mutex::new(seen));
        let reader = thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = output.read(&mut buffer) {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.parser.process(&buffer[..n]);
                    seen.bytes.extend(&buffer[..n]);
                }
            }
        });
        Ok(Self { child, keyboard, line: Some(pty.slave), before, seen, reader: Some(reader) })
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.look(|seen| seen.parser.screen().contents())
    }

    /// All that was written to the terminal so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.look(|seen| seen.bytes.clone())
    }

    fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the screen is as it should be, and returns it.
    pub fn wait_for(&self, what: &str, deadline: Duration, is_so: impl Fn(&str) -> bool) -> Result<String> {
        let found = poll::until_some(what, deadline, || Some(self.screen()).filter(|screen| is_so(screen)));
        found.with_context(|| format!("the screen shows:\n{}", self.screen()))
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("type")
    }

    /// Makes the window larger or smaller; whoever has the terminal is told.
    pub fn resize(&self, size: Size) -> Result<()> {
        let window = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.parser.screen_mut().set_size(size.rows, size.columns);
        // SAFETY: the descriptor is open, and the structure lives longer than the call.
        let result = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&self.keyboard), libc::TIOCSWINSZ, &window) };
        nix::errno::Errno::result(result).map(drop).context("set the size of the window")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        signal::kill(pid, signal).with_context(|| format!("send {signal}"))
    }

    /// Waits for the end.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = poll::until_some("the program's end", deadline, || child.try_wait().transpose());
        Ok(status.with_context(|| format!("the screen shows:\n{}", self.screen()))??)
    }

    /// Makes sure that the terminal is as it was before the program: its settings, its screen, its cursor. What the program
    /// wrote last may still be on its way.
    pub fn wait_until_restored(&self, deadline: Duration) -> Result<()> {
        let line = self.line.as_ref().context("the terminal is gone")?;
        let is_plain = |seen: &Seen| {
            let screen = seen.parser.screen();
            !screen.alternate_screen() && !screen.hide_cursor()
        };
        poll::until("the terminal to be as it was", deadline, || {
            tcgetattr(line).is_ok_and(|after| after == self.before) && self.look(is_plain)
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if it has ended and has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Nobody has the other end any more, so that reading ends.
        drop(self.line.take());
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("--- the screen shows:\n{}\n---", self.screen());
        }
    }
}

/// Makes standard input the terminal that signals of keys and of its window come from.
fn take_terminal() -> std::io::Result<()> {
    setsid()?;
    // SAFETY: standard input is a terminal, and nothing is read or written.
    let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    Ok(nix::errno::Errno::result(result).map(drop)?)
}
