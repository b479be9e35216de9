//! Commands of `bpf(2)` that aya has no words for.
//!
//! Invariant: but for `heap` and `batch`, this is the only file of the crate with `unsafe`.

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{errno::Errno, libc};

/// Commands, and a flag (`include/uapi/linux/bpf.h`).
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_F_RDONLY: u32 = 1 << 3;

/// The members of the kernel's `union bpf_attr` for [`BPF_OBJ_GET`].
#[repr(C)]
struct GetAttributes {
    path: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Those for [`BPF_LINK_DETACH`].
#[repr(C)]
struct DetachAttributes {
    link_fd: u32,
}

/// What is to be done with a pinned object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// To read it, and nothing else.
    Read,
    /// Whatever the permissions of the pin allow.
    All,
}

/// `bpf(2)`.
///
/// # Safety
/// The attributes must be those of the command, and what they point to must be as long as the command takes it for.
pub(super) unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the attributes are as long as is said, and the rest is the caller's promise.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

/// Opens what is pinned at this path.
pub(super) fn open_pinned(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let file_flags = match access {
        Access::Read => BPF_F_RDONLY,
        Access::All => 0,
    };
    let mut attributes = GetAttributes { path: name.as_ptr() as u64, bpf_fd: 0, file_flags };
    // SAFETY: the path ends with a zero byte and lives until the call returns.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link, whoever holds it. To drop it is not the same: the kernel lets go of what was pinned at some time after
/// the last holder is gone (`bpf_link_put` from an RCU callback, in kernel/bpf/inode.c).
///
/// # Minimum kernel version
/// 5.9
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = DetachAttributes { link_fd: link.as_raw_fd().cast_unsigned() };
    // SAFETY: they are all that the command asks for, and point to nothing.
    unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }?;
    Ok(())
}
