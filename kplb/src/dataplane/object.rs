//! The BPF objects, as the build script made them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

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

/// The programs that benchmarks compare with; never loaded in service.
pub static FLOOR_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kplb-floor"));
