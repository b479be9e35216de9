//! The BPF objects, as the build script made them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{Program, SchedClassifier, Xdp},
};
use tracing::Level;

/// The programs and maps of kplb.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kplb"));

/// Tells the programs of one build from those of another, and those that log more from those that log less.
pub fn build(log_level: Level) -> u64 {
    // Another standard library may hash in another way: then programs are exchanged that need not be.
    let mut hasher = DefaultHasher::new();
    (OBJECT, log_level.as_str()).hash(&mut hasher);
    hasher.finish()
}

/// Loads a program of the object that runs on packets, unless it is loaded.
///
/// # Errors
/// If there is none of this name, or the kernel refuses it.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    if program.fd().is_ok() {
        return Ok(());
    }
    let loaded = match program {
        Program::SchedClassifier(_) => <&mut SchedClassifier>::try_from(program)?.load(),
        _ => <&mut Xdp>::try_from(program)?.load(),
    };
    loaded.with_context(|| format!("the kernel does not accept the program {name}"))
}

/// The programs that benchmarks compare with; never loaded in service.
pub static FLOOR_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kplb-floor"));
