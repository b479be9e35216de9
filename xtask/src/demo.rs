//! `cargo xtask demo`: the main job, shown on a terminal.

use anyhow::Result;

use crate::{
    built::{self, Profile},
    command::Command,
    root, setup,
};

/// Sets up, builds, and becomes the demo.
pub fn run() -> Result<()> {
    setup::run()?;
    let demo = built::program("demo", Profile::Dev)?;
    root::exec(Command::of(&demo))
}
