//! Whole tables by few system calls, which aya has none for: a flow table key by key takes two calls for each entry, and
//! begins anew whenever the key that it stands at is removed.
//!
//! Invariant: it only reads.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, ensure};
use aya::{Pod, maps::MapData};
use kplb_common::pod;
use nix::{errno::Errno, libc};

use super::syscall::{self, Access, bpf};

/// A command of `bpf(2)` (`include/uapi/linux/bpf.h`), since Linux 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Entries that are asked for at once. A bucket of the kernel's table comes as a whole or not at all.
const ENTRIES: u32 = 4096;

/// The members of the kernel's `union bpf_attr` for [`BPF_MAP_LOOKUP_BATCH`].
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Opens a pinned map for reading alone.
pub(super) fn open_pinned(path: &Path) -> anyhow::Result<MapData> {
    let fd = syscall::open_pinned(path, Access::Read).with_context(|| format!("open {}", path.display()))?;
    MapData::from_fd(fd).with_context(|| format!("ask what {} is", path.display()))
}

/// Calls `visit` with every entry of a table, which may change meanwhile: what comes or goes is seen or not.
pub(super) fn for_each<K: Pod, V: Pod>(map: &MapData, mut visit: impl FnMut(&K, &V)) -> anyhow::Result<()> {
    let info = map.info().context("ask for the sizes of a table")?;
    let (key_size, value_size) = (size_of::<K>(), size_of::<V>());
    let sizes = (info.key_size() as usize, info.value_size() as usize);
    ensure!(sizes == (key_size, value_size), "the table has other keys or values: {sizes:?}");
    let mut room = ENTRIES;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    // Where the kernel stands: of hash tables the number of a bucket, of arrays a key.
    let mut position = vec![0_u8; key_size.max(size_of::<u32>())];
    let mut next = position.clone();
    let mut has_begun = false;
    loop {
        keys.resize(room as usize * key_size, 0_u8);
        values.resize(room as usize * value_size, 0_u8);
        let mut attributes = BatchAttributes {
            in_batch: if has_begun { position.as_ptr() as u64 } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room,
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: there is room for so many keys and values of the sizes that the map has, and for a position; the
        // buffers live on, and nobody else looks at them.
        let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        match result {
            Ok(_) | Err(Errno::ENOENT) => {}
            // A bucket with more entries than there was room for.
            Err(Errno::ENOSPC) if room < info.max_entries() => {
                room = room.saturating_mul(2);
                continue;
            }
            Err(errno) => return Err(io::Error::from(errno)).context("read a table"),
        }
        let entries = keys.chunks_exact(key_size).zip(values.chunks_exact(value_size));
        for (key, value) in entries.take(attributes.count as usize) {
            if let (Some(key), Some(value)) = (pod::read(key), pod::read(value)) {
                visit(&key, &value);
            }
        }
        if result.is_err() {
            return Ok(());
        }
        std::mem::swap(&mut position, &mut next);
        has_begun = true;
    }
}
