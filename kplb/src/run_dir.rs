//! The run directory: who is the agent of an interface, where it listens, and what it must take away again.
//!
//! Invariant: only the holder of an interface's lock writes or removes the interface's other files. What the agent
//! adds to the node is recorded *before* it is added, so that the next agent can remove what a killed one left.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

use crate::{
    dataplane::{ModeChoice, Traces},
    health::board::Decision,
};

/// Environment variable that sets the run directory.
const RUN_DIR_VARIABLE: &str = "KPLB_RUN_DIR";
const SOCKET_EXTENSION: &str = "sock";

/// The run directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// `$KPLB_RUN_DIR`, else `/run/kplb`. It need not exist.
    pub fn from_environment() -> Self {
        Self { root: env::var_os(RUN_DIR_VARIABLE).map_or_else(|| PathBuf::from("/run/kplb"), PathBuf::from) }
    }

    /// The run directory at `root`.
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Path of the control socket of the interface's agent.
    pub fn socket(&self, interface: &str) -> PathBuf {
        self.file(interface, SOCKET_EXTENSION)
    }

    fn lock_file(&self, interface: &str) -> PathBuf {
        self.file(interface, "lock")
    }

    fn record_file(&self, interface: &str) -> PathBuf {
        self.file(interface, "json")
    }

    fn decisions_file(&self, interface: &str) -> PathBuf {
        self.file(interface, "decisions.json")
    }

    fn file(&self, interface: &str, extension: &str) -> PathBuf {
        // Not `with_extension`: an interface's name may have a dot.
        self.root.join(format!("{interface}.{extension}"))
    }

    /// The interfaces with a control socket, sorted.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read the directory {}", self.root.display())),
        };
        let mut interfaces = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| format!("read the directory {}", self.root.display()))?.file_name();
            let suffix = format!(".{SOCKET_EXTENSION}");
            interfaces.extend(name.to_str().and_then(|name| name.strip_suffix(&suffix)).map(str::to_owned));
        }
        interfaces.sort();
        Ok(interfaces)
    }

    /// Becomes the agent of the interface, unless there is one.
    pub fn lock(&self, interface: &str) -> Result<LockOutcome> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.root)
            .with_context(|| format!("create the run directory {}", self.root.display()))?;
        let path = self.lock_file(interface);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("open the lock file {}", path.display()))?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, Errno::EAGAIN)) => {
                    let mut text = String::new();
                    // The holder may not have written its pid yet: then there is none to name.
                    let read = file.read_to_string(&mut text);
                    return Ok(LockOutcome::HeldBy(read.ok().and_then(|_| text.trim().parse().ok())));
                }
                Err((_, errno)) => {
                    return Err(errno).with_context(|| format!("lock {}", path.display()));
                }
            };
            // The last holder may have removed the file between our opening and locking it.
            if !is_same_file(&file, &path) {
                continue;
            }
            file.set_len(0).and_then(|()| writeln!(file, "{}", process::id())).context("write the lock file")?;
            return Ok(LockOutcome::Locked(Lock {
                run_dir: self.clone(),
                interface: interface.to_owned(),
                _file: file,
            }));
        }
    }

    /// Becomes the one that traces the interface's packets, unless there is one.
    pub fn lock_trace(&self, interface: &str) -> Result<LockOutcome> {
        // No interface's name has a colon.
        self.lock(&format!("{interface}:trace"))
    }
}

fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => ours.ino() == theirs.ino() && ours.dev() == theirs.dev(),
        _ => false,
    }
}

/// What became of an attempt to lock an interface.
#[derive(Debug)]
pub enum LockOutcome {
    /// This process is the interface's agent now.
    Locked(Lock),
    /// Another process is, with this pid where it could be read.
    HeldBy(Option<u32>),
}

/// The right to be the interface's agent. Dropping it removes the interface's files from the run directory.
#[derive(Debug)]
pub struct Lock {
    run_dir: RunDir,
    interface: String,
    /// Unlocked last, after the files are gone.
    _file: Flock<File>,
}

impl Lock {
    /// Path of the control socket; a socket file that a killed agent left is removed.
    pub fn fresh_socket(&self) -> Result<PathBuf> {
        let path = self.run_dir.socket(&self.interface);
        remove_if_present(&path)?;
        Ok(path)
    }

    /// What an earlier agent recorded and did not remove. A record that cannot be read is an error: it may name
    /// addresses that must not stay.
    pub fn record(&self) -> Result<Option<Record>> {
        let path = self.run_dir.record_file(&self.interface);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let record = serde_json::from_str(&text).with_context(|| {
            format!(
                "read {}, in which an earlier agent recorded its VIPs; look for such addresses, then remove it",
                path.display()
            )
        })?;
        Ok(Some(record))
    }

    /// Changes the record, before what it says is done. The file is replaced as a whole.
    pub fn amend_record(&self, amend: impl FnOnce(&mut Record)) -> Result<()> {
        // Whoever could not read it has said so.
        let mut record = self.record().ok().flatten().unwrap_or_default();
        amend(&mut record);
        self.replace(&self.run_dir.record_file(&self.interface), &record)
    }

    /// What was decided by hand, by this agent's predecessors.
    pub fn decisions(&self) -> Result<Decisions> {
        let path = self.run_dir.decisions_file(&self.interface);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Decisions::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        serde_json::from_str(&text).with_context(|| {
            format!(
                "read {}, in which an earlier agent wrote what was decided by hand; look at it, then remove it",
                path.display()
            )
        })
    }

    /// Remembers what was decided by hand, for the next agent.
    pub fn write_decisions(&self, decisions: &Decisions) -> Result<()> {
        let path = self.run_dir.decisions_file(&self.interface);
        if decisions.is_empty() {
            return remove_if_present(&path);
        }
        self.replace(&path, decisions)
    }

    /// Writes a file as a whole.
    fn replace(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        let new = self.run_dir.file(&self.interface, "new");
        let text = serde_json::to_string(value).context("encode a record")?;
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).with_context(|| format!("write {}", path.display()))
    }

    /// Forgets the record: what it names is gone.
    pub fn remove_record(&self) -> Result<()> {
        remove_if_present(&self.run_dir.record_file(&self.interface))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The record stays when its addresses do: whoever removed those removed it too.
        for path in [self.run_dir.socket(&self.interface), self.run_dir.lock_file(&self.interface)] {
            if let Err(error) = remove_if_present(&path) {
                tracing::warn!("{error:#}");
            }
        }
    }
}

fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What was decided by hand: service to backend to decision.
pub type Decisions = BTreeMap<String, BTreeMap<String, Decision>>;

/// What an agent added to the node that does not bear its name, and how it came to what it attached.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// The VIPs on the interface.
    pub vips: Vec<IpAddr>,
    /// Which mode was asked for, and why the one was taken that was.
    #[serde(default)]
    pub mode: Option<(ModeChoice, String)>,
    /// Of which build the programs are ([`crate::dataplane::build`]).
    #[serde(default)]
    pub build: Option<u64>,
    /// How many configurations the data path has followed.
    #[serde(default)]
    pub generation: u64,
}

impl Record {
    /// What it says of what is attached.
    pub fn traces(&self) -> Traces {
        Traces { build: self.build, mode: self.mode.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_dir(name: &str) -> RunDir {
        let root = env::temp_dir().join(format!("kplb-run-dir-{}-{name}", process::id()));
        RunDir::new(root)
    }

    fn locked(run_dir: &RunDir) -> Lock {
        match run_dir.lock("eth0").expect("lockable") {
            LockOutcome::Locked(lock) => lock,
            LockOutcome::HeldBy(pid) => panic!("held by {pid:?}"),
        }
    }

    #[test]
    fn one_agent_per_interface() {
        let run_dir = run_dir("lock");
        let lock = locked(&run_dir);
        match run_dir.lock("eth0").expect("readable") {
            LockOutcome::HeldBy(pid) => assert_eq!(pid, Some(process::id())),
            LockOutcome::Locked(_) => panic!("locked twice"),
        }
        // A trace is not in the agent's way, but in that of another one.
        let trace = run_dir.lock_trace("eth0").expect("lockable");
        assert!(matches!(trace, LockOutcome::Locked(_)));
        assert!(matches!(run_dir.lock_trace("eth0").expect("readable"), LockOutcome::HeldBy(Some(_))));
        drop((lock, trace));
        assert_eq!(fs::read_dir(run_dir.path()).expect("exists").count(), 0);
        drop(locked(&run_dir));
        fs::remove_dir(run_dir.path()).expect("empty");
    }

    #[test]
    fn the_record_outlives_the_agent() {
        let run_dir = run_dir("record");
        let record = Record { vips: vec![IpAddr::from([198, 18, 0, 100])], generation: 3, ..Record::default() };
        let lock = locked(&run_dir);
        assert_eq!(lock.record().expect("readable"), None);
        lock.amend_record(|new| *new = record.clone()).expect("writable");
        drop(lock);
        let lock = locked(&run_dir);
        assert_eq!(lock.record().expect("readable"), Some(record));
        lock.remove_record().expect("removable");
        assert_eq!(lock.record().expect("readable"), None);
        drop(lock);
        fs::remove_dir(run_dir.path()).expect("empty");
    }

    #[test]
    fn decisions_outlive_the_agent() {
        let run_dir = run_dir("decisions");
        let backends = BTreeMap::from([("cp1".to_owned(), Decision::Drain)]);
        let decisions = Decisions::from([("apiserver".to_owned(), backends)]);
        let lock = locked(&run_dir);
        assert_eq!(lock.decisions().expect("readable"), Decisions::new());
        lock.write_decisions(&decisions).expect("writable");
        drop(lock);
        let lock = locked(&run_dir);
        assert_eq!(lock.decisions().expect("readable"), decisions);
        lock.write_decisions(&Decisions::new()).expect("removable");
        drop(lock);
        fs::remove_dir(run_dir.path()).expect("empty");
    }

    #[test]
    fn finds_the_sockets() {
        let run_dir = run_dir("sockets");
        assert_eq!(run_dir.interfaces().expect("no directory is no agents"), Vec::<String>::new());
        fs::create_dir(run_dir.path()).expect("new");
        for name in ["eth0.sock", "br0.100.sock", "eth0.lock"] {
            fs::write(run_dir.path().join(name), "").expect("writable");
        }
        assert_eq!(run_dir.interfaces().expect("readable"), ["br0.100", "eth0"]);
        fs::remove_dir_all(run_dir.path()).expect("removable");
    }
}
