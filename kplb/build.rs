//! Builds the BPF object that the agent carries within it.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use aya_build::{Package, Toolchain};

/// Where the toolchain is that builds the BPF programs.
fn sysroot() -> Option<PathBuf> {
    let output = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// What is missing for the eBPF build, if anything.
fn missing() -> Option<&'static str> {
    let Some(sysroot) = sysroot() else { return Some("rustup's nightly toolchain") };
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Some("rust-src of rustup's nightly toolchain");
    }
    let found = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join("bpf-linker").is_file()));
    (!found).then_some("bpf-linker")
}

/// Takes what is for debuggers alone out of an object: three quarters of it, which would be in the agent. What the kernel
/// is told of types and lines (BTF) stays. Where the toolchain has no tool for it, all stays.
fn strip(name: &str) -> Option<()> {
    let host = env::var("HOST").ok()?;
    let tool = sysroot()?.join("lib/rustlib").join(host).join("bin/rust-objcopy");
    let object = PathBuf::from(env::var_os("OUT_DIR")?).join(name);
    // By rustup, which says where the tool's libraries are.
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).arg(tool).arg("--strip-debug").arg(object);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().ok().map(drop)
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PATH");
    if let Some(missing) = missing() {
        println!("cargo::error=the eBPF toolchain is not complete ({missing} is missing): run `cargo xtask setup`");
        return;
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../kplb-ebpf");
    let package = Package { name: "kplb-ebpf", root_dir: root, ..Default::default() };
    // An error that is logged fails the build by itself, in one line; an exit code would add a dozen.
    if let Err(error) = aya_build::build_ebpf([package], Toolchain::default()) {
        println!(
            "cargo::error=the BPF programs did not build: {error:#}; if the toolchain changed, run `cargo xtask setup`"
        );
        return;
    }
    strip("kplb");
}
