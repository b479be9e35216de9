//! A program that runs in a namespace of the lab while a test looks at what it says.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{netns::Namespace, poll};

/// Standard output and standard error.
const N_STREAMS: usize = 2;

/// A running program with its output kept. Killed and reaped on drop; its output is then printed if the test panics.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
    readers: Vec<thread::JoinHandle<()>>,
}

/// What a program has written so far, both streams in the order in which lines arrived.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<(Instant, String)>,
    n_closed: usize,
}

impl Process {
    /// Starts `command` in a namespace. `name` is for messages.
    pub fn spawn(namespace: &Namespace, name: &str, mut command: Command) -> Result<Self> {
        // In a group of its own: Ctrl-C on a terminal is for this program alone, which then ends what it has started.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = namespace.spawn(command)?;
        let log = Arc::new(Log::default());
        let stdout = child.stdout.take().map(|stream| read_lines(stream, &log));
        let stderr = child.stderr.take().map(|stream| read_lines(stream, &log));
        let readers = stdout.into_iter().chain(stderr).collect();
        Ok(Self { name: format!("{} on {}", name, namespace.name()), child, log, readers })
    }

    /// The process id, as seen by everybody: the lab has no process namespaces.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far to standard output and standard error.
    pub fn output(&self) -> String {
        self.log.lock().text()
    }

    /// Waits until a line contains `pattern`, and returns that line. Lines written before count as well.
    pub fn wait_for_line(&self, pattern: &str, deadline: Duration) -> Result<String> {
        self.wait_for(pattern, None, deadline).map(|(_, line)| line)
    }

    /// Waits until a line contains `pattern` that was written after `moment`, and returns when it was.
    pub fn wait_for_line_after(&self, moment: Instant, pattern: &str, deadline: Duration) -> Result<Instant> {
        self.wait_for(pattern, Some(moment), deadline).map(|(written, _)| written)
    }

    /// How many lines that were written after `moment` contain `pattern`.
    pub fn count_lines_after(&self, moment: Instant, pattern: &str) -> usize {
        let state = self.log.lock();
        state.lines.iter().filter(|(written, line)| *written > moment && line.contains(pattern)).count()
    }

    fn wait_for(&self, pattern: &str, after: Option<Instant>, deadline: Duration) -> Result<(Instant, String)> {
        let end = Instant::now() + deadline;
        let mut state = self.log.lock();
        let mut n_seen = 0;
        loop {
            let is_it = |(written, line): &&(Instant, String)| {
                after.is_none_or(|moment| *written > moment) && line.contains(pattern)
            };
            if let Some(line) = state.lines.iter().skip(n_seen).find(is_it) {
                return Ok(line.clone());
            }
            n_seen = state.lines.len();
            let left = end.saturating_duration_since(Instant::now());
            let ended = state.n_closed == N_STREAMS;
            if ended || left.is_zero() {
                let why = if ended { "it ended".to_owned() } else { format!("not within {deadline:?}") };
                bail!("{}: no line with {pattern:?}: {why}; it wrote:\n{}", self.name, state.text());
            }
            (state, _) = self.log.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("a process id is positive")?;
        signal::kill(Pid::from_raw(pid), signal).with_context(|| format!("{}: send {signal}", self.name))
    }

    /// Waits for the end.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        let child = &mut self.child;
        let status = poll::until_some(&what, deadline, || child.try_wait().transpose())
            .with_context(|| format!("it wrote:\n{}", self.log.lock().text()))??;
        // What it wrote last is readable once its streams are closed.
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Ok(status)
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to stop (`SIGTERM`) and waits for the end.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }

    /// Ends it at once (`SIGKILL`).
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended and has been waited for.
        let _ = self.child.kill();
        let status = self.child.wait();
        if thread::panicking() {
            let ended = match status {
                Ok(status) if status.signal() == Some(Signal::SIGKILL as i32) => "killed".to_owned(),
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            eprintln!("--- {} ({ended}) wrote:\n{}\n---", self.name, self.output());
        }
    }
}

impl LogState {
    fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_lines(stream: impl Read + Send + 'static, log: &Arc<Log>) -> thread::JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            log.lock().lines.push((Instant::now(), line));
            log.changed.notify_all();
        }
        log.lock().n_closed += 1;
        log.changed.notify_all();
    })
}

/// Resident memory of a process, in KiB; none if it has ended.
pub fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The processes that `parent` has started and not yet waited for, oldest first.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended in the meantime is nobody's child.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // `pid (name) state parent`, and a name may contain anything, parentheses too (proc_pid_stat(5)).
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        if fields.split_whitespace().nth(1) == Some(&parent.to_string()) {
            children.push(pid);
        }
    }
    children.sort_unstable();
    Ok(children)
}

/// The path of a program of this workspace, built next to the running one. The environment variable `KPLB_BIN` names
/// another `kplb`.
pub fn workspace_program(name: &str) -> Result<PathBuf> {
    if name == "kplb"
        && let Some(path) = std::env::var_os("KPLB_BIN")
    {
        return Ok(path.into());
    }
    // target/<profile>/deps/<test> or target/<profile>/<program>
    let this = std::env::current_exe().context("find the running program")?;
    let path = this.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    path.with_context(|| {
        format!("{name} is not built next to {}: run `cargo build -p kplb -p kplb-tests`", this.display())
    })
}
