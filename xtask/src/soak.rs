//! `cargo xtask soak`: hours of load and faults at random.

use anyhow::Result;

use crate::{
    built::{self, Profile},
    command::Command,
    root, setup,
};

/// Sets up, builds, and becomes the soak. It measures nothing, so what the tests have built will do.
pub fn run(arguments: &[String]) -> Result<()> {
    setup::run()?;
    let soak = built::program("soak", Profile::Dev)?;
    root::exec(Command::of(&soak).args(arguments))
}
