//! The BPF objects, as the build script made them.

/// The programs and maps of kplb.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kplb"));

/// The programs that benchmarks compare with; never loaded in service.
pub static FLOOR_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kplb-floor"));
