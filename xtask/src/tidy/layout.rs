//! The layout of the maps must not change without its version: an agent of another version would misread them.
//!
//! `kplb-common/layout.lock` holds the version and a fingerprint of all that makes the layout: every `#[repr]` item,
//! constant, type alias and list of reasons of the shared files, without comments.

use std::fs;

use anyhow::{Context as _, Result};

use super::Lock;

const LOCK: &str = "kplb-common/layout.lock";

/// The files of `kplb-common/src` whose types cross the kernel boundary.
const FILES: [&str; 16] = [
    "abi",
    "backend",
    "endpoint",
    "fence",
    "flow",
    "flow_state",
    "gate",
    "local",
    "maglev",
    "net",
    "node",
    "report",
    "service",
    "stats",
    "sweep",
    "trace",
];

/// The verdicts' order is that of their counters.
const VERDICTS: &str = "kplb-common/src/verdict.rs";

/// What is wrong with the lock.
pub(super) fn check(lock: Lock) -> Result<Option<String>> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
    let mut layout = Vec::new();
    for file in FILES {
        layout.extend(shared_lines(&read(&format!("kplb-common/src/{file}.rs"))?));
    }
    layout.extend(reasons(&read(VERDICTS)?));
    let abi = read("kplb-common/src/abi.rs")?;
    let version = version(&abi).context("kplb-common/src/abi.rs has no LAYOUT_VERSION")?;
    let now = format!("{version} {:016x}\n", fingerprint(&layout));
    let locked = fs::read_to_string(LOCK).ok();
    if lock == Lock::Bless && may_bless(locked.as_deref(), &now) {
        fs::write(LOCK, now).with_context(|| format!("write {LOCK}"))?;
        return Ok(None);
    }
    Ok(complaint(locked.as_deref(), &now))
}

/// A layout may be recorded under a version that has none yet.
fn may_bless(locked: Option<&str>, now: &str) -> bool {
    locked.is_none_or(|locked| locked.split(' ').next() != now.split(' ').next())
}

fn complaint(locked: Option<&str>, now: &str) -> Option<String> {
    match locked {
        Some(locked) if locked == now => None,
        Some(locked) if !may_bless(Some(locked), now) => {
            Some("kplb-common: the layout of the maps changed: raise LAYOUT_VERSION in abi.rs, then run `cargo xtask tidy --bless`".to_owned())
        }
        _ => Some(format!("{LOCK} is not of this LAYOUT_VERSION: run `cargo xtask tidy --bless`")),
    }
}

fn version(abi: &str) -> Option<&str> {
    abi.split("LAYOUT_VERSION: u32 = ").nth(1)?.split(';').next()
}

/// The lines before the tests that make the layout.
fn shared_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut in_item = false;
    for line in code(text) {
        if line.starts_with("#[repr(") {
            in_item = true;
        }
        let defines = line.starts_with("pub const ") && !line.contains(" fn ") || line.starts_with("pub type ");
        if in_item || defines && !line.contains("LAYOUT_VERSION") {
            lines.push(line.to_owned());
        }
        if in_item && (line == "}" || line.ends_with(';')) {
            in_item = false;
        }
    }
    lines
}

/// The variants of the reasons, in their order.
fn reasons(text: &str) -> Vec<String> {
    let variant = |line: &str| Some(line.split_once(" = \"")?.0.to_owned());
    code(text).filter(|line| line.contains("\": \"")).filter_map(variant).collect()
}

/// The lines before the tests, trimmed, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//"))
}

/// FNV-1a: an accident detector, not a cipher.
fn fingerprint(lines: &[String]) -> u64 {
    let bytes = lines.iter().flat_map(|line| line.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = "//! A.\n/// Doc.\n#[repr(C)]\npub struct A {\n    /// Doc.\n    pub a: u32,\n}\nfn f() {\n    g();\n}\npub const N: usize = 4;\n#[cfg(test)]\nmod tests {}\n";

    #[test]
    fn only_the_layout_counts() {
        assert_eq!(shared_lines(ITEM), ["#[repr(C)]", "pub struct A {", "pub a: u32,", "}", "pub const N: usize = 4;"]);
        let commented = ITEM.replace("Doc.", "Other words.").replace("g();", "h();");
        assert_eq!(fingerprint(&shared_lines(ITEM)), fingerprint(&shared_lines(&commented)));
        let changed = ITEM.replace("u32", "u64");
        assert_ne!(fingerprint(&shared_lines(ITEM)), fingerprint(&shared_lines(&changed)));
        assert_eq!(reasons("    NotIp = \"not-ip\": \"Neither.\",\n"), ["NotIp"]);
    }

    #[test]
    fn a_change_needs_a_new_version() {
        assert_eq!(complaint(Some("1 aa\n"), "1 aa\n"), None);
        assert!(complaint(Some("1 aa\n"), "1 bb\n").is_some_and(|words| words.contains("raise LAYOUT_VERSION")));
        assert!(complaint(Some("1 aa\n"), "2 bb\n").is_some_and(|words| words.contains("--bless")));
        assert!(!may_bless(Some("1 aa\n"), "1 bb\n"));
        assert!(may_bless(Some("1 aa\n"), "2 bb\n"));
        assert!(may_bless(None, "1 aa\n"));
        assert_eq!(version("pub const LAYOUT_VERSION: u32 = 7;\n"), Some("7"));
    }
}
