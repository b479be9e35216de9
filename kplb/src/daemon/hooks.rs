//! Commands that are run when the role of this node changes.
//!
//! They run one after the other in a task of their own, as another user, with a time limit: whatever they do, the
//! election does not wait for them.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::User;
use tokio::{process::Command, sync::mpsc, time::timeout};
use tracing::{debug, warn};

use crate::{config::NotifyConfig, vrrp::fsm::Transition};

/// The last arguments of a command.
struct Call {
    state: &'static str,
    vips: Vec<String>,
}

/// Commands to run.
pub(super) struct Hooks(mpsc::UnboundedSender<Call>);

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
        let (sender, mut calls) = mpsc::unbounded_channel();
        let NotifyConfig { command, timeout, .. } = notify.clone();
        let interface = interface.to_owned();
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                run(&command, &user, &interface, timeout, call).await;
            }
        });
        Ok(Self(sender))
    }

    /// Runs the command after those that run already, with the new state and the VIPs.
    pub(super) fn run(&mut self, transition: &Transition, vips: &[String]) {
        // The task ends with the runtime only.
        let _ = self.0.send(Call { state: transition.to.name(), vips: vips.to_vec() });
    }
}

async fn run(command: &[String], user: &User, interface: &str, limit: Duration, call: Call) {
    let Some((program, arguments)) = command.split_first() else { return };
    let mut process = Command::new(program);
    process
        .args(arguments)
        .arg(interface)
        .arg(call.state)
        .args(&call.vips)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .gid(user.gid.as_raw())
        .uid(user.uid.as_raw())
        .process_group(0)
        .kill_on_drop(true);
    let ended = match process.spawn() {
        Ok(mut child) => timeout(limit, child.wait()).await.map_err(|_| child),
        Err(error) => {
            warn!("`notify`: cannot run {program}: {error}");
            return;
        }
    };
    match ended {
        Ok(Ok(status)) if status.success() => debug!("`notify`: {program} {} ended well", call.state),
        Ok(Ok(status)) => warn!("`notify`: {program} {} failed: {status}", call.state),
        Ok(Err(error)) => warn!("`notify`: lost {program}: {error}"),
        Err(mut child) => {
            warn!("`notify`: {program} {} took longer than {limit:?}, and was killed", call.state);
            // Nothing is left to do if it is gone already.
            let _ = child.kill().await;
        }
    }
}
