//! `cargo xtask tidy`: house rules that no lint knows.

mod layout;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::command::Command;

/// Lines of a file before its tests.
const MAX_LINES: usize = 500;

/// What the kernel shows of a map's or program's name, without the final zero.
const MAX_NAME: usize = 15;

/// What may be at the top of the repository, besides files whose names begin with a dot.
const TOP: [&str; 13] = [
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-GPL",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "kplb",
    "kplb-common",
    "kplb-ebpf",
    "packaging",
    "tests",
];

/// What to do about the record of the maps' layout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lock {
    /// It must be right.
    Check,
    /// Written anew, if the version was raised.
    Bless,
}

/// Checks every file that git knows or would take.
pub fn run(lock: Lock) -> Result<()> {
    let list = Command::new("git ls-files --cached --others --exclude-standard").output()?;
    let mut complaints = Vec::new();
    for path in list.lines().filter(|path| Path::new(path).is_file()) {
        complaints.extend(misplaced(path));
        if path.ends_with(".rs") {
            let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
            complaints.extend(check(path, &text));
        }
    }
    complaints.extend(layout::check(lock)?);
    if !complaints.is_empty() {
        bail!("tidy:\n{}", complaints.join("\n"));
    }
    Ok(())
}

fn misplaced(path: &str) -> Option<String> {
    let top = path.split('/').next().unwrap_or(path);
    let known = top.starts_with('.') || top == "xtask" || TOP.contains(&top);
    (!known).then(|| format!("{path}: nothing else belongs at the top of the repository"))
}

/// What is wrong with a file of Rust.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("{path}:1: a file begins with `//!`: its purpose and invariant"));
    }
    let n_lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    if n_lines > MAX_LINES {
        complaints.push(format!("{path}: {n_lines} lines without tests; one concept takes at most {MAX_LINES}"));
    }
    for (line, number) in text.lines().zip(1..) {
        complaints.extend(check_line(path, line).into_iter().map(|complaint| format!("{path}:{number}: {complaint}")));
    }
    complaints
}

fn check_line(path: &str, line: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    // In two parts, so that this file does not forbid itself.
    let unfinished = ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}"];
    if unfinished.iter().any(|word| line.contains(word)) {
        complaints.push("unfinished work has an issue, not a mark in the code".to_owned());
    }
    let code = line.trim_start();
    if code.starts_with("#[allow(") || code.starts_with("#![allow(") {
        complaints.push("`#[expect(lint, reason = \"…\")]` instead of `allow`".to_owned());
    }
    if code.starts_with("#[ignore") {
        complaints.push("a test that cannot run fails".to_owned());
    }
    let sleeps = code.contains("thread::sleep(") || code.contains("time::sleep(");
    if sleeps && path.starts_with("tests/") && path != "tests/src/poll.rs" {
        complaints.push("no sleeps in tests: poll with a deadline".to_owned());
    }
    complaints.extend(too_long_name(path, code));
    complaints
}

/// The kernel cuts names of maps and programs.
fn too_long_name(path: &str, code: &str) -> Option<String> {
    let name = match path {
        "kplb-ebpf/src/maps.rs" => code.strip_prefix("pub static ").or(code.strip_prefix("static "))?,
        "kplb-ebpf/src/main.rs" => code.strip_prefix("fn ")?,
        _ => return None,
    };
    let name = name.split([':', '(']).next().unwrap_or(name);
    (name.len() > MAX_NAME).then(|| format!("the kernel shows only {MAX_NAME} bytes of the name {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let long = format!("//! Long.\n{}", "fn f() {}\n".repeat(MAX_LINES));
        let cases = [
            ("kplb/src/a.rs", "//! Fine.\n", None),
            ("kplb/src/a.rs", "fn main() {}\n", Some("begins with")),
            ("kplb/src/a.rs", long.as_str(), Some("501 lines")),
            ("kplb/src/a.rs", "//! A.\n// TO\u{44}O: b\n", Some("a.rs:2: unfinished")),
            ("kplb/src/a.rs", "//! A.\n#[allow(dead_code)]\n", Some("`allow`")),
            ("tests/tests/a.rs", "//! A.\n#[ignore]\n", Some("cannot run fails")),
            ("tests/tests/a.rs", "//! A.\n    std::thread::sleep(second);\n", Some("no sleeps")),
            ("tests/src/poll.rs", "//! A.\n    std::thread::sleep(second);\n", None),
            ("kplb-ebpf/src/maps.rs", "//! A.\nstatic ABCDEFGHIJKLMNO: A = B;\n", None),
            ("kplb-ebpf/src/maps.rs", "//! A.\npub static ABCDEFGHIJKLMNOP: A = B;\n", Some("15 bytes")),
            ("kplb-ebpf/src/main.rs", "//! A.\nfn kplb_much_too_long(ctx: XdpContext) -> u32 {\n", Some("15 bytes")),
        ];
        for (path, text, expected) in cases {
            let complaints = check(path, text);
            match expected {
                None => assert_eq!(complaints, Vec::<String>::new(), "{path}"),
                Some(words) => {
                    assert_eq!(complaints.len(), 1, "{complaints:?}");
                    assert!(complaints[0].contains(words), "{complaints:?}");
                }
            }
        }
    }

    #[test]
    fn the_top_has_a_fixed_list() {
        for path in ["Cargo.toml", ".ci/run", "kplb/src/main.rs", "xtask/Cargo.toml"] {
            assert_eq!(misplaced(path), None);
        }
        for path in ["notes.txt", "docs/a.md"] {
            assert!(misplaced(path).is_some());
        }
    }
}
