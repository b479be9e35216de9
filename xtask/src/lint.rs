//! `cargo xtask lint`: format, clippy, house rules, documentation.

use anyhow::Result;

use crate::{built::HOST_CRATES, command::Command, setup, tidy};

/// Runs every check; the first that fails ends it. The quick ones come first.
pub fn run() -> Result<()> {
    setup::run()?;
    // The options in `.rustfmt.toml` are not stable.
    Command::new("cargo +nightly fmt --all --check").run()?;
    tidy::run(tidy::Lock::Check)?;
    Command::new("cargo clippy").args(HOST_CRATES).args(["--all-targets", "--", "-D", "warnings"]).run()?;
    // For its own target, or the BPF crate would be linted as code that is never built.
    Command::new("cargo +nightly clippy --package kplb-ebpf --bins --target")
        .arg(bpf_target())
        .args(["-Z", "build-std=core", "--target-dir", "target/ebpf-lint", "--", "-D", "warnings"])
        .run()?;
    Command::new("cargo doc --no-deps --document-private-items")
        .args(HOST_CRATES)
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

/// The BPF target of this machine's byte order.
fn bpf_target() -> &'static str {
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}
