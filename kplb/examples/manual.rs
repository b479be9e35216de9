//! Writes man pages and completions for shells, as the command line defines them, into a directory:
//! `cargo run --package kplb --example manual -- DIRECTORY`
//!
//! An example, since examples are not shipped, and what makes these files is of no use where they are installed.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap_complete::Shell;

fn main() -> Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from).context("name a directory to write to")?;
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    // `kplb help COMMAND` shows what the pages of the commands say.
    let mut command = kplb::cli::command().disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "kplb", &directory)
            .with_context(|| format!("write the completions for {shell}"))?;
    }
    clap_mangen::generate_to(command, &directory).context("write the man pages")
}
