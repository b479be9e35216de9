//! An anonymous network namespace with a mount namespace and a control group of its own, for one host of the lab.
//!
//! Invariant: a namespace has no name and no path. It is held by one thread (the keeper) and two file descriptors of
//! this process, and every process started in it dies with its keeper; so whatever ends this process, `SIGKILL`
//! included, the kernel takes the namespace, its interfaces and its processes down with it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Pid, getpid, getppid, gettid, write},
};

use crate::cgroup::{self, Cgroup};

/// One host's view of the world: its own network, `/sys`, `/sys/fs/bpf` and `/run`.
///
/// Dropping it kills every process that was started in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    network: OwnedFd,
    mounts: OwnedFd,
    // Taken on drop, which ends the keeper's loop.
    requests: Option<mpsc::Sender<SpawnRequest>>,
    keeper: Option<thread::JoinHandle<()>>,
    // Last, when its processes are dead. None where the machine has none to give: then nothing is attached to sockets.
    cgroup: Option<Cgroup>,
}

/// A program to start, and where to tell how that went.
type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);

impl Namespace {
    /// Creates a namespace. `name` is for messages only.
    pub fn new(name: &str) -> Result<Self> {
        let (requests, receiver) = mpsc::channel();
        let (ready, created) = mpsc::channel();
        let cgroup = Cgroup::new(name).inspect_err(|error| eprintln!("{name} has no control group: {error:#}")).ok();
        let door = cgroup.as_ref().map(Cgroup::door).transpose()?.map(Arc::new);
        let keeper = thread::Builder::new()
            .name(format!("netns {name}"))
            .spawn(move || keep(&ready, &receiver, door.as_ref()))
            .context("start the thread that keeps a namespace")?;
        let (network, mounts) = created
            .recv()
            .context("the thread that keeps a namespace ended early")?
            .with_context(|| format!("create the namespace of {name} (it takes root)"))?;
        let namespace =
            Self { name: name.to_owned(), network, mounts, requests: Some(requests), keeper: Some(keeper), cgroup };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name it was created with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which other processes reach the network namespace while this process lives, as `ip … netns PATH` and
    /// `nsenter --net=PATH` take it.
    pub fn network_path(&self) -> PathBuf {
        descriptor_path(&self.network)
    }

    /// The same for the mount namespace.
    pub fn mounts_path(&self) -> PathBuf {
        descriptor_path(&self.mounts)
    }

    /// The kernel's names of both namespaces, such as `net:[4026532194]`.
    pub fn ids(&self) -> Result<[String; 2]> {
        let id = |path: PathBuf| -> Result<String> {
            let target = fs::read_link(&path).with_context(|| format!("read the link {}", path.display()))?;
            Ok(target.to_string_lossy().into_owned())
        };
        Ok([id(self.network_path())?, id(self.mounts_path())?])
    }

    /// Starts a program in the namespace. It is killed when the namespace is dropped or this process ends.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        // Whatever it attaches to sockets must not be attached to those of the whole machine.
        command.env(cgroup::VARIABLE, self.cgroup.as_ref().map_or(Path::new(NO_CGROUP), Cgroup::path));
        let program = command.get_program().to_string_lossy().into_owned();
        let (reply, answer) = mpsc::channel();
        self.requests
            .as_ref()
            .and_then(|requests| requests.send((command, reply)).ok())
            .and_then(|()| answer.recv().ok())
            .ok_or_else(|| anyhow!("the thread that keeps the namespace of {} is gone", self.name))?
            .with_context(|| format!("{}: start {program}", self.name))
    }

    /// Runs a program in the namespace to its end. An exit status other than 0 is not an error of this function.
    pub fn output(&self, mut command: Command) -> Result<Output> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(self.spawn(command)?.wait_with_output()?)
    }

    /// Runs a program that must succeed, and returns what it wrote to its standard output.
    pub fn check_output(&self, command: Command) -> Result<String> {
        let line = format!("{command:?}");
        let output = self.output(command)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {line}: {}: {}", self.name, output.status, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs iproute2 commands, one a line and without the leading `ip`, as one batch that stops at the first failure.
    pub fn ip(&self, batch: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.spawn(command)?;
        let mut stdin = child.stdin.take().expect("standard input is piped above");
        // A failed command ends `ip` before it has read all: what matters then is what it says.
        let written = stdin.write_all(batch.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}: ip: {}\nin the batch:\n{batch}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        written.context("write to ip")
    }

    /// Runs a closure on a thread that has entered the namespace. A panic in it goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let run = || {
            enter(&self.network, &self.mounts).expect(ENTERS);
            f()
        };
        thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// Starts a thread in the namespace for what goes on beside a test. It keeps the network for as long as it runs.
    pub fn thread<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<thread::JoinHandle<T>> {
        let (network, mounts) = (self.network.try_clone()?, self.mounts.try_clone()?);
        let run = move || {
            enter(&network, &mounts).expect(ENTERS);
            drop((network, mounts));
            f()
        };
        thread::Builder::new().name(format!("in {}", self.name)).spawn(run).context("start a thread in a namespace")
    }

    /// Runs a future to its end inside the namespace, on a current-thread runtime of its own.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        self.run(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("an epoll instance and a pipe are all it takes")
                .block_on(future)
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(keeper) = self.keeper.take() {
            // The keeper does not panic; nothing is left to do if it did.
            let _ = keeper.join();
        }
    }
}

/// A control group that cannot be opened.
const NO_CGROUP: &str = "/nonexistent/control-group";

/// Why [`enter`] does not fail.
const ENTERS: &str = "the descriptors are namespaces, and creating them took the same privilege";

/// Moves the calling thread, which must be a fresh one, into the namespaces.
fn enter(network: &OwnedFd, mounts: &OwnedFd) -> nix::Result<()> {
    // Threads share their root and working directory, and such a thread may not change its mounts.
    unshare(CloneFlags::CLONE_FS)?;
    setns(mounts, CloneFlags::CLONE_NEWNS)?;
    setns(network, CloneFlags::CLONE_NEWNET)
}

fn descriptor_path(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", getpid(), descriptor.as_raw_fd()))
}

/// The keeper: creates the namespaces, then starts programs in them until nobody asks any more.
///
/// All children are started here because `PR_SET_PDEATHSIG` counts the end of the *thread* that forked, not of the
/// process (prctl(2)): it has to be a thread that lives as long as the namespace.
fn keep(
    ready: &mpsc::Sender<Result<(OwnedFd, OwnedFd)>>,
    requests: &mpsc::Receiver<SpawnRequest>,
    door: Option<&Arc<File>>,
) {
    let created = create();
    let failed = created.is_err();
    if ready.send(created).is_err() || failed {
        return;
    }
    let parent = getpid();
    for (mut command, reply) in requests {
        let door = door.cloned();
        // SAFETY: between fork and exec only write(2), prctl(2) and getppid(2) are called: all are async-signal-safe, and
        // no memory is allocated.
        unsafe { command.pre_exec(move || go_in(door.as_deref()).and_then(|()| die_with(parent))) };
        // A caller that is gone does not want the child: it ends with the namespace.
        let _ = reply.send(command.spawn());
    }
}

/// Moves the calling process into a control group.
fn go_in(door: Option<&File>) -> io::Result<()> {
    match door {
        Some(door) => Ok(write(door, b"0").map(drop)?),
        None => Ok(()),
    }
}

fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // A parent that ended before the line above will not end again.
    if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
}

/// Moves the calling thread into new namespaces, prepares them, and returns their descriptors (network, mounts).
fn create() -> Result<(OwnedFd, OwnedFd)> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("unshare")?;
    mount_private()?;
    quiet_ipv6()?;
    let open = |kind: &str| {
        let path = format!("/proc/self/task/{}/ns/{kind}", gettid());
        File::open(&path).map(OwnedFd::from).context(path)
    };
    Ok((open("net")?, open("mnt")?))
}

/// Gives the namespace a `/run` and a `/sys` of its own.
fn mount_private() -> Result<()> {
    const NOTHING: Option<&str> = None;
    const STAGING: &str = "/run/cgroup";
    const CGROUP: &str = "/sys/fs/cgroup";
    let attach = |kind: &str, target: &str| {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), NOTHING)
            .with_context(|| format!("mount {kind} on {target}"))
    };
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING).context("make the mounts private")?;
    attach("tmpfs", "/run")?;
    // A sysfs shows the interfaces of the namespace it was mounted in, so it takes a new one, which hides the control
    // groups: they are set aside and put back.
    let has_cgroups = Path::new(CGROUP).exists();
    if has_cgroups {
        fs::create_dir(STAGING)?;
        mount(Some(CGROUP), STAGING, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING).context("bind cgroups")?;
    }
    attach("sysfs", "/sys")?;
    if has_cgroups {
        mount(Some(STAGING), CGROUP, NOTHING, MsFlags::MS_MOVE, NOTHING).context("put the cgroups back")?;
        fs::remove_dir(STAGING)?;
    }
    attach("bpf", "/sys/fs/bpf")
}

/// Makes IPv6 addresses usable at once, and interfaces silent until something is sent on purpose.
fn quiet_ipv6() -> Result<()> {
    // `default` is what interfaces start with; `all` is what duplicate address detection asks as well.
    for (scope, key, value) in [
        ("all", "accept_dad", "0"),
        ("default", "accept_dad", "0"),
        ("default", "accept_ra", "0"),
        ("default", "router_solicitations", "0"),
        // Else a link that goes down and up again has lost its addresses.
        ("all", "keep_addr_on_down", "1"),
        ("default", "keep_addr_on_down", "1"),
    ] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/{key}");
        fs::write(&path, value).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}
