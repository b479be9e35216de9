//! Builds the BPF object that the agent carries within it.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use aya_build::{Package, Toolchain};

/// What is missing for the eBPF build, if anything.
fn missing() -> Option<&'static str> {
    let sysroot = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success());
    let Some(sysroot) = sysroot else { return Some("rustup's nightly toolchain") };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Some("rust-src of rustup's nightly toolchain");
    }
    let found = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join("bpf-linker").is_file()));
    (!found).then_some("bpf-linker")
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
    }
}
