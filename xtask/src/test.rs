//! `cargo xtask test`: every test, and those of the whole agent in every mode; ended by the runner's own summary.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{
    built::{self, HOST_CRATES},
    command::Command,
    root, setup,
};

/// Where in the receive path kplb's program runs, in tests that do not say it.
struct Mode {
    name: &'static str,
    /// The runner's settings, which say what is run.
    profile: &'static str,
}

/// All of them; in the first one everything is run.
const MODES: [Mode; 3] = [
    Mode { name: "native", profile: "default" },
    Mode { name: "generic", profile: "modes" },
    Mode { name: "tc", profile: "modes" },
];

/// The environment variable by which tests are told.
const MODE: &str = "KPLB_TEST_MODE";

/// Sets up, builds as the user, and starts the test runner, as root.
pub fn run(arguments: &[String]) -> Result<()> {
    setup::run()?;
    // Programs too: the lab runs the agent as users do.
    Command::new("cargo build").args(HOST_CRATES).arg("--all-targets").run()?;
    // nextest runs no examples in documentation.
    Command::new("cargo test --quiet --doc").args(HOST_CRATES).run()?;

    // The runner finds the tests in these descriptions and calls no cargo as root, which would leave files that belong
    // to root in the user's folders.
    let directory = built::target_directory()?.join("nextest");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let describe = |name: &str, command: Command| -> Result<String> {
        let path = directory.join(name);
        fs::write(&path, command.output()?).with_context(|| format!("write {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let binaries = Command::new("cargo nextest list --list-type binaries-only --message-format json").args(HOST_CRATES);
    let binaries = describe("binaries.json", binaries)?;
    let metadata = describe("metadata.json", Command::new("cargo metadata --format-version 1"))?;
    let runner = Command::new("cargo-nextest nextest run --binaries-metadata").arg(binaries);
    let runner = runner.args(["--cargo-metadata".to_owned(), metadata]);
    let mut failed = Vec::new();
    for mode in MODES {
        let runner = runner.clone().args(["--profile", mode.profile, "--no-tests", "pass"]).args(arguments);
        if let Err(error) = root::run(runner.env(MODE, mode.name)) {
            failed.push(format!("in mode {}: {error:#}", mode.name));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}
