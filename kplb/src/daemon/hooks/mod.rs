//! Commands that are run when the role of this node changes.
//!
//! They run one after the other in a task of their own, as another user, with a time limit: whatever they do, the
//! election does not wait for them. Nor does the daemon's loop: a command is started by a thread, since whoever starts
//! a program waits until the kernel has read it, and that takes for ever on a file system that hangs.

mod queue;

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, User},
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tracing::{debug, warn};

use self::queue::{Call, Queue};
use super::signals::thread_without_mask;
use crate::{config::NotifyConfig, vrrp::fsm::Transition};

/// Commands to run.
pub(super) struct Hooks(Arc<Queue>);

/// What all calls have in common.
struct Hook {
    program: String,
    arguments: Vec<String>,
    user: User,
    interface: String,
    limit: Duration,
}

/// A command that runs, and the processes that it has started. What is left of them is killed when this is dropped.
struct Running {
    child: Child,
    group: Pid,
}

impl Hooks {
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If there is no such user.
    pub(super) fn new(notify: &NotifyConfig, interface: &str) -> Result<Self> {
        let user = User::from_name(&notify.user)
            .ok()
            .flatten()
            .with_context(|| format!("`notify_user`: there is no user {}", notify.user))?;
        let (program, arguments) = notify.command.split_first().context("`notify`: there is no program")?;
        let hook = Hook {
            program: program.clone(),
            arguments: arguments.to_vec(),
            user,
            interface: interface.to_owned(),
            limit: notify.timeout,
        };
        let queue = Arc::new(Queue::default());
        tokio::spawn({
            let queue = Arc::clone(&queue);
            // It ends with the runtime.
            async move {
                loop {
                    hook.run(queue.next().await).await;
                }
            }
        });
        Ok(Self(queue))
    }

    /// Runs the command after those that run already, with the new state and the VIPs.
    pub(super) fn run(&mut self, transition: &Transition, vips: &[String]) {
        self.0.push(Call { state: transition.to.name(), vips: vips.to_vec() });
    }
}

impl Hook {
    /// Runs the command to its end, or to the end of its time.
    async fn run(&self, call: Call) {
        let Self { program, limit, .. } = self;
        let deadline = Instant::now() + *limit;
        let mut started = match start(self.command(&call)) {
            Ok(started) => started,
            Err(error) => {
                warn!("`notify`: cannot run {program}: {error:#}");
                return;
            }
        };
        let started = match timeout_at(deadline, &mut started).await {
            Ok(started) => started,
            Err(_) => {
                warn!("`notify`: {program} {} did not start within {limit:?}: killed as soon as it does", call.state);
                // One that hangs is enough: the next one would hang beside it.
                if let Ok(Ok(running)) = started.await {
                    running.end().await;
                }
                return;
            }
        };
        let mut running = match started {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                warn!("`notify`: cannot run {program}: {error:#}");
                return;
            }
            Err(_) => {
                warn!("`notify`: lost the thread that was to start {program}");
                return;
            }
        };
        match timeout_at(deadline, running.child.wait()).await {
            Ok(Ok(status)) if status.success() => debug!("`notify`: {program} {} ended well", call.state),
            Ok(Ok(status)) => warn!("`notify`: {program} {} failed: {status}", call.state),
            Ok(Err(error)) => warn!("`notify`: lost {program}: {error}"),
            Err(_) => {
                warn!("`notify`: {program} {} took longer than {limit:?}, and was killed", call.state);
                running.end().await;
            }
        }
    }

    fn command(&self, call: &Call) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(&self.interface)
            .arg(call.state)
            .args(&call.vips)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .gid(self.user.gid.as_raw())
            .uid(self.user.uid.as_raw())
            .process_group(0);
        command
    }
}

/// Starts a command from a thread of its own, which no signal is blocked in, so that none is in the command. Must be
/// called on a tokio runtime, but no end of the runtime waits for the thread.
fn start(mut command: Command) -> Result<oneshot::Receiver<Result<Running>>> {
    let (sender, started) = oneshot::channel();
    let runtime = Handle::current();
    let run = move || {
        let _context = runtime.enter();
        // If nobody waits any more, what was started is dropped, and so killed, here.
        let _ = sender.send(command.spawn().map_err(Into::into).and_then(Running::new));
    };
    thread_without_mask("hook", run).context("start a thread")?;
    Ok(started)
}

impl Running {
    /// A child that leads its process group.
    fn new(child: Child) -> Result<Self> {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).context("it is gone")?;
        Ok(Self { child, group: Pid::from_raw(group) })
    }

    async fn end(mut self) {
        self.kill();
        // Nothing is left to do if it is gone already.
        let _ = self.child.wait().await;
    }

    fn kill(&self) {
        // An error says that nobody is left.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Even of a command that has been waited for the number is not another's yet: the kernel gives out all others
        // before it.
        self.kill();
    }
}

#[cfg(test)]
mod tests;
