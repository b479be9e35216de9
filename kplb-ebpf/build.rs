//! Builds the programs anew when the linker changes: it decides what code they become.

use std::{env, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let linker = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path).map(|directory| directory.join("bpf-linker")).find(|file| Path::is_file(file))
    });
    if let Some(linker) = linker {
        println!("cargo:rerun-if-changed={}", linker.display());
    }
}
