//! The tests' programs for an architecture.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result};

use super::suite::{Extent, Group};
use crate::{
    built::HOST_CRATES,
    command::Command,
    package::{Architecture, for_target},
};

/// What many tests are built by.
const PROFILE: &str = "emulated";

/// Builds what these groups need: where each program is, by its name.
pub fn build(architecture: Architecture, extent: Extent, groups: &[Group<'_>]) -> Result<BTreeMap<String, PathBuf>> {
    let tests = groups.iter().flat_map(|group| ["--test", group.program]);
    let is_native = Some(architecture) == Architecture::native();
    let command = if is_native && extent == Extent::Short {
        // As for `cargo xtask test`: what one has built, the other need not build again.
        Command::new("cargo build --bins").args(HOST_CRATES).args(tests)
    } else {
        Command::new("cargo build --package kplb --package kplb-tests --bins --profile").arg(PROFILE).args(tests)
    };
    let target = architecture.target();
    let command = if is_native { command } else { for_target(command.args(["--target", target]), target) };
    command.run()?;
    executables(&command.args(["--message-format", "json"]).output()?)
}

/// The programs with tests in what cargo says of a build: a line of JSON for each of its parts.
fn executables(messages: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut programs = BTreeMap::new();
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("cargo's messages are JSON")?;
        let is_test = message["target"]["kind"][0] == "test";
        if let (true, Some(name), Some(path)) =
            (is_test, message["target"]["name"].as_str(), message["executable"].as_str())
        {
            programs.insert(name.to_owned(), path.into());
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_tests_are_found_among_all_that_was_built() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"kplb"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"kplb"},"executable":"/t/kplb"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"e2e"},"executable":"/t/deps/e2e-1"}
{"reason":"build-finished","success":true}"#;
        let programs = executables(messages).expect("each line is JSON");
        assert_eq!(programs, BTreeMap::from([("e2e".to_owned(), PathBuf::from("/t/deps/e2e-1"))]));
        assert!(executables("error: no").is_err());
    }
}
