//! `cargo xtask package-test`: the package on a Debian that boots, from installation to purge.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Architecture, Version, assemble, build};
use crate::{built, command::Command, root};

/// Builds the package for this machine's processor, and a newer one, and becomes the trial, as root.
pub fn run() -> Result<()> {
    let architecture = Architecture::native().context("there are no packages for this machine's processor")?;
    let [package] = build(&[architecture])?.try_into().ok().context("one architecture has one package")?;
    let newer = assemble(architecture, Version::Newer)?;
    let directory = built::target_directory()?.join("package-test");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    root::exec(Command::new("sh xtask/package-test/run.sh").args([text(&directory), text(&package), text(&newer)]))
}
