//! Whole tables by few system calls, which aya has none for: a flow table key by key takes two calls for each entry, and
//! begins anew whenever the key that it stands at is removed.
//!
//! Invariant: but for `heap`, this is the only file of the crate with `unsafe`, and it only reads.

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, ensure};
use aya::{Pod, maps::MapData};
use kplb_common::pod;
use nix::{errno::Errno, libc};

/// Commands of `bpf(2)`, and a flag (`include/uapi/linux/bpf.h`).
const BPF_OBJ_GET: libc::c_int = 7;
/// Since Linux 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_F_RDONLY: u32 = 1 << 3;

/// Entries that are asked for at once. A bucket of the kernel's table comes as a whole or not at all.
const ENTRIES: u32 = 4096;

/// The members of the kernel's `union bpf_attr` for [`BPF_OBJ_GET`].
#[repr(C)]
struct GetAttributes {
    path: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Those for [`BPF_MAP_LOOKUP_BATCH`].
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

/// `bpf(2)`.
///
/// # Safety
/// The attributes must be those of the command, and what they point to must be as long as the command takes it for.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the attributes are as long as is said, and the rest is the caller's promise.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

/// Opens a pinned map for reading alone.
pub(super) fn open_pinned(path: &Path) -> anyhow::Result<MapData> {
    let name = CString::new(path.as_os_str().as_bytes()).context("a path with a zero byte")?;
    let mut attributes = GetAttributes { path: name.as_ptr() as u64, bpf_fd: 0, file_flags: BPF_F_RDONLY };
    // SAFETY: the path ends with a zero byte and lives until the call returns.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }.map_err(io::Error::from);
    let fd = i32::try_from(fd.with_context(|| format!("open {}", path.display()))?).context("a file descriptor")?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
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
