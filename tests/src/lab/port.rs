//! The switch's end of a node's cable: an XDP program that passes everything, there to make the interface poll.
//!
//! What XDP transmits on a virtual interface is queued at its peer, and delivered when the peer polls its queue (NAPI).
//! GRO on the peer makes it poll as well, but nothing wakes it: `veth_xdp_flush` in drivers/net/veth.c does so only for
//! a peer with a native XDP program, so that each frame waits for the next one.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
};

use anyhow::{Context as _, Result};
use nix::{
    libc::{self, SYS_bpf, c_long, c_uint},
    net::if_::if_nametoindex,
};

// include/uapi/linux/bpf.h and if_link.h
const BPF_PROG_LOAD: c_long = 5;
const BPF_LINK_CREATE: c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `r0 = XDP_PASS; exit`
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    n_instructions: u32,
    instructions: *const u64,
    license: *const libc::c_char,
    log_level: u32,
    log_size: u32,
    log: *mut u8,
    kernel_version: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: c_uint,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches the program to an interface of the calling thread's namespace. It stays until the descriptor is closed.
///
/// # Minimum kernel version
///
/// 5.18, for programs that take packets in fragments (any MTU).
pub(super) fn poll_for_xdp(interface: &str) -> Result<OwnedFd> {
    let load = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        n_instructions: 2,
        instructions: PASS.as_ptr(),
        license: c"GPL".as_ptr(),
        log_level: 0,
        log_size: 0,
        log: ptr::null_mut(),
        kernel_version: 0,
        flags: BPF_F_XDP_HAS_FRAGS,
    };
    // SAFETY: the attribute is what the command takes, and what it points to lives until the end of this function.
    let program = unsafe { bpf(BPF_PROG_LOAD, &load) }.context("load an XDP program that passes everything")?;
    attach_xdp(program.as_fd(), interface)
}

/// Attaches an XDP program to an interface of the calling thread's namespace, in the driver. It stays until the descriptor is
/// closed.
///
/// # Errors
/// If there is no such interface, or the kernel refuses.
pub fn attach_xdp(program: BorrowedFd<'_>, interface: &str) -> Result<OwnedFd> {
    let index = if_nametoindex(interface).with_context(|| format!("find {interface}"))?;
    let create = LinkCreate {
        program: c_uint::try_from(program.as_raw_fd())?,
        interface: index,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the attribute is what the command takes, and holds no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &create) }.with_context(|| format!("attach an XDP program to {interface}"))
}

/// bpf(2) for the commands that return a new descriptor.
///
/// # Safety
///
/// `attribute` is the start of `union bpf_attr` as `command` takes it, and its pointers are valid.
unsafe fn bpf<T>(command: c_long, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for the attribute, and the kernel takes all beyond its size as zeros.
    let result = unsafe { libc::syscall(SYS_bpf, command, ptr::from_ref(attribute), size_of::<T>()) };
    let descriptor = i32::try_from(result).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
