//! A control group of version 2 for the processes of one host of the lab.
//!
//! Invariant: what a host of the lab attaches to sockets is attached here, and never to the machine's own processes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::poll;

/// The environment variable that tells kplb where to attach.
pub const VARIABLE: &str = "KPLB_CGROUP";

const PREFIX: &str = "kplb-lab-";
/// For killed processes to be gone.
const EMPTY: Duration = Duration::from_secs(10);

/// A control group. Dropping it kills what is in it, and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates one. `name` is for whoever lists them.
    ///
    /// # Errors
    /// If control groups of version 2 are not mounted, or none can be added.
    pub fn new(name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Not by `KPLB_CGROUP`: that is for what runs in it.
        let root = mounted()?;
        remove_leftovers(&root);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{PREFIX}{}-{number}-{name}", process::id()));
        fs::create_dir(&path).with_context(|| format!("create the control group {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file to which a process writes `0` to get in.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn door(&self) -> Result<File> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).with_context(|| format!("open {}", path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Since 5.14; before, its processes end with their namespace.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let removed = poll::until("an empty control group", EMPTY, || is_removed(&self.path));
        if let Err(error) = removed {
            eprintln!("cannot remove {}: {error:#}", self.path.display());
        }
    }
}

fn is_removed(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Where the hierarchy is mounted.
fn mounted() -> Result<PathBuf> {
    for path in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        if Path::new(path).join("cgroup.procs").exists() && Path::new(path).join("cgroup.controllers").exists() {
            return Ok(path.into());
        }
    }
    bail!("no control groups of version 2: `mount -t cgroup2 none /sys/fs/cgroup/unified` mounts them")
}

/// Removes what processes that were killed have left; it is empty.
fn remove_leftovers(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid).exists()
        {
            // Another test may be faster.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
