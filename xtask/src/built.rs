//! Building the workspace, and where cargo puts what it builds.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::command::{self, Command};

/// Everything but the BPF programs, which the agent's build script builds for their own target.
pub const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "kplb-ebpf"];

/// How fast a program shall be, and how long its build may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// For demo and tests, which share it: what one has built, the other need not build again.
    Dev,
    /// For measurements.
    Release,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds every program of the lab and the agent, and returns the path of one of them.
pub fn program(name: &str, profile: Profile) -> Result<PathBuf> {
    Command::new("cargo build --package kplb --package kplb-tests --bins --profile").arg(profile.name()).run()?;
    Ok(target_directory()?.join(profile.directory()).join(name))
}

/// Where cargo builds, whichever way it was told to.
pub fn target_directory() -> Result<PathBuf> {
    let metadata = Command::new("cargo metadata --format-version 1 --no-deps --manifest-path")
        .arg(command::workspace().join("Cargo.toml").to_string_lossy())
        .output()?;
    target_directory_in(&metadata).map(PathBuf::from).context("cargo metadata names no target directory")
}

/// The value of the key `target_directory`, which cargo writes without spaces and, of paths as they are in use, without
/// escapes.
fn target_directory_in(metadata: &str) -> Option<&str> {
    let (_, rest) = metadata.split_once(r#""target_directory":""#)?;
    rest.split_once('"').map(|(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_target_directory() {
        let metadata = r#"{"packages":[],"target_directory":"/home/a/kplb/target","version":1}"#;
        assert_eq!(target_directory_in(metadata), Some("/home/a/kplb/target"));
        assert_eq!(target_directory_in("{}"), None);
    }
}
