//! Acting as root: the lab makes network namespaces and loads BPF programs.

use anyhow::{Result, bail};
use nix::unistd;

use crate::command::{self, Command};

/// How a command can be run as root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Privilege {
    /// As it is: this is root.
    Root,
    /// By `sudo`.
    Sudo,
    /// Not at all.
    None,
}

impl Privilege {
    /// Of this process.
    pub fn find() -> Self {
        if unistd::geteuid().is_root() {
            Self::Root
        } else if command::exists("sudo") {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// `command` in the form that runs it as root.
    pub fn raise(self, command: Command) -> Command {
        if self == Self::Sudo { command.by_sudo() } else { command }
    }
}

/// Becomes `command`, as root. Whoever is not root builds as himself and takes this last step by `sudo`, so that
/// nothing in the target folder comes to belong to root.
pub fn exec(command: Command) -> Result<()> {
    Err(raised(command)?.exec())
}

/// Runs `command`, as root.
pub fn run(command: Command) -> Result<()> {
    raised(command)?.run()
}

fn raised(command: Command) -> Result<Command> {
    let privilege = Privilege::find();
    let path = command::search_path().to_string_lossy().into_owned();
    match privilege {
        Privilege::Root => Ok(command),
        Privilege::Sudo => Ok(privilege.raise(command.env("PATH", path))),
        Privilege::None => bail!(
            "this needs root, for network namespaces and BPF programs, and there is no sudo: all is built, run this \
             as root:\n  {command}"
        ),
    }
}
