//! `cargo xtask package`: Debian packages with a static program, for each architecture, and what they must have.
//!
//! The program is linked with musl by the linker of the Rust toolchain; what there is of C in it (that of the crate
//! `ring`) needs no library, and clang compiles it for any architecture. So nothing of the build machine's own is in it.

mod contents;
pub mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::{
    built,
    command::{Command, cargo_home, workspace},
    setup,
};

/// What is shipped is built by this profile.
const PROFILE: &str = "shipped";
/// Largest program, in bytes: it is locked in memory.
const MAX_PROGRAM_BYTES: u64 = 8 << 20;
/// A version after any.
const NEWER: &str = "999.0.0";
/// Where man pages and completions are written, as the package's description names it.
const MANUAL: &str = "target/manual";

/// Debian's name of an architecture.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Architecture {
    /// PCs.
    Amd64,
    /// Raspberry Pis from the third on.
    Arm64,
}

impl Architecture {
    /// All there are packages for.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// This machine's, if there are packages for it.
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// Rust's name of the target.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Debian's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// Which version a package is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    /// The workspace's.
    Current,
    /// One that it is upgraded to in a test.
    Newer,
}

impl Version {
    /// Where packages of this version are put, so that nobody takes one for the other.
    const fn directory(self) -> &'static str {
        match self {
            Self::Current => "packages",
            Self::Newer => "package-test/newer",
        }
    }
}

/// Builds the packages, and says where they are.
pub fn run(architectures: &[Architecture]) -> Result<()> {
    for package in build(architectures)? {
        println!("{}", package.display());
    }
    Ok(())
}

/// Builds the packages of these architectures, of all if there are none, and checks them.
pub fn build(architectures: &[Architecture]) -> Result<Vec<PathBuf>> {
    let architectures = if architectures.is_empty() { &Architecture::ALL } else { architectures };
    let targets: Vec<&'static str> = architectures.iter().map(|architecture| architecture.target()).collect();
    setup::run_for_packages(&targets)?;
    write_manual()?;
    architectures.iter().map(|architecture| build_one(*architecture)).collect()
}

/// Man pages and completions, without those of an earlier build.
fn write_manual() -> Result<()> {
    match fs::remove_dir_all(MANUAL) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {MANUAL}"));
        }
        _ => {}
    }
    Command::new("cargo run --quiet --package kplb --example manual --").arg(MANUAL).run()
}

fn build_one(architecture: Architecture) -> Result<PathBuf> {
    let target = architecture.target();
    compile(target).run()?;
    let program = built::target_directory()?.join(target).join(PROFILE).join("kplb");
    let bytes = fs::metadata(&program).with_context(|| format!("look at {}", program.display()))?.len();
    ensure!(bytes <= MAX_PROGRAM_BYTES, "{} has {bytes} bytes; {MAX_PROGRAM_BYTES} are allowed", program.display());
    eprintln!("kplb for {}: {:.2} MiB", architecture.name(), bytes as f64 / f64::from(1 << 20));
    let package = assemble(architecture, Version::Current)?;
    check(&package, architecture)?;
    Ok(package)
}

/// Puts a package together from what was built.
fn assemble(architecture: Architecture, version: Version) -> Result<PathBuf> {
    // By itself it keeps only the last package.
    let directory = built::target_directory()?.join(version.directory());
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let epoch = Command::new("git log -1 --format=%ct").output()?;
    let mut command = Command::new("cargo deb --no-build --no-strip --package kplb --profile")
        .args([PROFILE, "--target", architecture.target(), "--output"])
        .arg(format!("{}/", directory.display()))
        .env("SOURCE_DATE_EPOCH", epoch.trim());
    if version == Version::Newer {
        command = command.args(["--deb-version", NEWER]);
    }
    let made = command.output()?;
    made.lines().last().map(PathBuf::from).context("cargo deb named no package")
}

/// Builds the program for a target, with nothing of this machine in it.
fn compile(target: &str) -> Command {
    let cargo = cargo_home().unwrap_or_default();
    let mut flags = Vec::new();
    for (path, name) in [(cargo.as_path(), "cargo"), (workspace(), "kplb")] {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    let build =
        Command::new("cargo build --locked --package kplb --bin kplb --profile").args([PROFILE, "--target", target]);
    for_target(build, target).env(&cargo_variable(target, "RUSTFLAGS"), flags.join(" "))
}

/// A command of cargo with the compiler and the linker for a target.
pub fn for_target(command: Command, target: &str) -> Command {
    let variable = |prefix: &str| format!("{prefix}_{}", target.replace('-', "_"));
    command
        .env(&variable("CC"), "clang")
        // As ring's build script does by itself for most of these targets: clang's own headers are enough.
        .env(&variable("CFLAGS"), "-ffreestanding -nostdlibinc -DRING_CORE_NOSTDLIBINC=1")
        .env(&cargo_variable(target, "LINKER"), "rust-lld")
}

/// The environment variable by which cargo takes a setting of a target.
fn cargo_variable(target: &str, name: &str) -> String {
    format!("CARGO_TARGET_{}_{name}", target.replace('-', "_").to_uppercase())
}

/// That the package has what it should, and that Debian's own judge finds nothing wrong.
fn check(package: &Path, architecture: Architecture) -> Result<()> {
    let path = package.to_string_lossy().into_owned();
    let field = |name: &str| Command::new("dpkg-deb --field").args([path.as_str(), name]).output();
    let (name, built_for) = (field("Package")?, field("Architecture")?);
    ensure!(name.trim() == "kplb", "{path} is of {name}");
    ensure!(built_for.trim() == architecture.name(), "{path} is for {built_for}");
    let list = Command::new("dpkg-deb --contents").arg(&path).output()?;
    let complaints = contents::check(&list);
    if !complaints.is_empty() {
        bail!("{path}:\n{}", complaints.join("\n"));
    }
    Command::new("lintian --allow-root --fail-on error --suppress-tags initial-upload-closes-no-bugs").arg(&path).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_its_own_compiler_and_linker() {
        let line = compile(Architecture::Arm64.target()).to_string();
        assert!(line.contains("CC_aarch64_unknown_linux_musl=clang "), "{line}");
        assert!(line.contains("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld "), "{line}");
        assert!(line.ends_with("--profile shipped --target aarch64-unknown-linux-musl"), "{line}");
    }
}
