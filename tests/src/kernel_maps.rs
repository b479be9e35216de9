//! The BPF maps that a process has, and the kernel's memory for them.
//!
//! What is only in a map of maps (a service's ring) is in no descriptor of any process: the kernel has it for as long as
//! the outer map has. So outer maps are asked for what is in them.

use std::{collections::BTreeMap, fs, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};

/// `BPF_MAP_TYPE_ARRAY_OF_MAPS` (include/uapi/linux/bpf.h).
const ARRAY_OF_MAPS: u64 = 12;

/// A map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KernelMap {
    /// The kernel's number of it.
    pub id: u32,
    /// Bytes that the kernel says it takes.
    pub bytes: u64,
    /// How it is had.
    pub holder: Holder,
}

/// How a process has a map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holder {
    /// By a descriptor.
    Descriptor,
    /// By another map, which it is in.
    Outer,
}

/// The maps of a process, each of them once, and those that are in them.
///
/// # Errors
/// If the process has ended, or the kernel does not tell.
pub fn of_process(pid: u32) -> Result<Vec<KernelMap>> {
    let directory = format!("/proc/{pid}/fdinfo");
    // By id: several descriptors can be of one map.
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("list {directory}"))? {
        // Those of a process that is at work come and go, as does the one of this very listing.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let Some(Described { id, kind, bytes }) = parse(&text) else { continue };
        maps.insert(id, KernelMap { id, bytes, holder: Holder::Descriptor });
        if kind == ARRAY_OF_MAPS {
            maps.extend(inside(id)?.into_iter().map(|map| (map.id, map)));
        }
    }
    Ok(maps.into_values().collect())
}

/// Mebibytes of maps.
pub fn mebibytes(maps: &[KernelMap]) -> f64 {
    maps.iter().map(|map| map.bytes).sum::<u64>() as f64 / f64::from(1 << 20)
}

/// What is in an array of maps.
fn inside(outer: u32) -> Result<Vec<KernelMap>> {
    let outer: ArrayOfMaps<_, MapData> = Map::ArrayOfMaps(MapData::from_id(outer)?).try_into()?;
    let mut maps = Vec::new();
    for index in 0..outer.len() {
        let map = match outer.get(&index, 0) {
            Ok(map) => map,
            Err(MapError::KeyNotFound) => continue,
            Err(error) => return Err(error).with_context(|| format!("look up the map at {index}")),
        };
        let path = format!("/proc/self/fdinfo/{}", std::os::fd::AsFd::as_fd(map.fd()).as_raw_fd());
        let Described { id, bytes, .. } = parse(&fs::read_to_string(&path)?).with_context(|| format!("read {path}"))?;
        maps.push(KernelMap { id, bytes, holder: Holder::Outer });
    }
    Ok(maps)
}

/// What the kernel says of a map's descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Described {
    id: u32,
    kind: u64,
    bytes: u64,
}

/// None, if the descriptor is of something else (`bpf_map_show_fdinfo` in kernel/bpf/syscall.c).
fn parse(text: &str) -> Option<Described> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(Described { id: field("map_id:")?.try_into().ok()?, kind: field("map_type:")?, bytes: field("memlock:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_told_from_other_descriptors() {
        let map = "pos:\t0\nflags:\t02000002\nmap_type:\t12\nkey_size:\t4\nvalue_size:\t4\nmax_entries:\t256\n\
                   map_flags:\t0x0\nmap_extra:\t0x0\nmemlock:\t2368\nmap_id:\t77\nfrozen:\t0\n";
        assert_eq!(parse(map), Some(Described { id: 77, kind: ARRAY_OF_MAPS, bytes: 2368 }));
        // A program has memory, too.
        assert_eq!(parse("pos:\t0\nprog_type:\t6\nprog_id:\t5\nmemlock:\t4096\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn memory_is_in_mebibytes() {
        let map = |bytes| KernelMap { id: 1, bytes, holder: Holder::Outer };
        assert!((mebibytes(&[map(1 << 20), map(1 << 19)]) - 1.5).abs() < 1e-9);
    }
}
