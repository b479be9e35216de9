//! The programs at the sockets of this node's clients: loading, attaching to a control group, and what they remember.
//!
//! Invariant: all of them are attached or none, so that no socket is led to a backend whose name nobody turns back.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::HashMap,
    programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, ProgramType, links::FdLink},
    sys::{BpfHelper, is_helper_supported},
};
use kplb_common::{abi, abi::map, local::Diversion};

use super::{attach, pins};

/// Whether a program at sockets can choose the error of a system call that it refuses.
pub(super) fn chooses_errors() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}

/// Loads the programs.
pub(super) fn load(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    for name in abi::SOCKET_PROGRAMS {
        at_addresses(ebpf, name)?.load().with_context(|| format!("the kernel does not accept the program {name}"))?;
    }
    let name = abi::RELEASE_PROGRAM;
    at_release(ebpf)?.load().with_context(|| format!("the kernel does not accept the program {name}"))
}

fn at_addresses<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut CgroupSockAddr> {
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn at_release(ebpf: &mut Ebpf) -> anyhow::Result<&mut CgroupSock> {
    let name = abi::RELEASE_PROGRAM;
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}

/// Attaches the loaded programs to a control group and all below it, and then detaches those that were there: for a
/// moment both are, and the second one finds nothing left to do.
pub(super) fn attach(ebpf: &mut Ebpf, cgroup: &Path, directory: &Path) -> anyhow::Result<()> {
    let (pins, old) = (pins::sockets(directory), pins::old_sockets(directory));
    // An agent that was killed between the two steps left more.
    detach_all(&old)?;
    if pins.exists() {
        fs::rename(&pins, &old).with_context(|| format!("rename {}", pins.display()))?;
    }
    let attached = attach_each(ebpf, cgroup, directory);
    if attached.is_err() {
        // The error that matters is the one of attaching.
        let _ = detach(directory);
    }
    attached.and(detach_all(&old))
}

fn attach_each(ebpf: &mut Ebpf, cgroup: &Path, directory: &Path) -> anyhow::Result<()> {
    let group = File::open(cgroup).with_context(|| format!("open the control group {}", cgroup.display()))?;
    let pins = pins::sockets(directory);
    fs::create_dir_all(&pins).with_context(|| format!("create the pin directory {}", pins.display()))?;
    let pin = |name: &str, link: FdLink| {
        let path = pins.join(name);
        link.pin(&path).map(drop).with_context(|| format!("pin a link at {}", path.display()))
    };
    let refused = |name: &str| format!("the control group {} does not take the program {name}", cgroup.display());
    // Other users' programs run as well: links to a control group always add to what is there, whatever the mode is.
    let program = at_release(ebpf)?;
    let id = program.attach(&group, CgroupAttachMode::Single).with_context(|| refused(abi::RELEASE_PROGRAM))?;
    pin(abi::RELEASE_PROGRAM, program.take_link(id)?.try_into()?)?;
    for name in abi::SOCKET_PROGRAMS {
        let program = at_addresses(ebpf, name)?;
        let id = program.attach(&group, CgroupAttachMode::Single).with_context(|| refused(name))?;
        pin(name, program.take_link(id)?.try_into()?)?;
    }
    Ok(())
}

/// Whether all of them are attached by a predecessor.
pub(super) fn are_attached(directory: &Path) -> bool {
    let pins = pins::sockets(directory);
    abi::SOCKET_PROGRAMS.iter().chain([&abi::RELEASE_PROGRAM]).all(|name| pins.join(name).exists())
}

/// Detaches the programs at once, in the opposite order.
pub(super) fn detach(directory: &Path) -> anyhow::Result<()> {
    let pins = pins::sockets(directory);
    for name in abi::SOCKET_PROGRAMS.iter().rev().chain([&abi::RELEASE_PROGRAM]) {
        attach::detach_pinned(&pins.join(name))?;
    }
    pins::remove_all(&pins).map(drop)?;
    detach_all(&pins::old_sockets(directory))
}

/// Detaches what is pinned in a directory of such programs, and removes that.
fn detach_all(sockets: &Path) -> anyhow::Result<()> {
    for path in pins::list(sockets)? {
        attach::detach_pinned(&path)?;
    }
    pins::remove_all(sockets).map(drop)
}

/// The connected sockets that this is true of, by their cookies.
pub(super) fn orphans(ebpf: &Ebpf, is_orphan: impl Fn(&Diversion) -> bool) -> anyhow::Result<Vec<(u64, Diversion)>> {
    let name = map::LOCAL_SOCKETS;
    let map = ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
    let sockets: HashMap<_, u64, Diversion> =
        map.try_into().with_context(|| format!("the map {name} is of another type"))?;
    // A socket that is closed meanwhile is not to be found any more, and needs nothing.
    Ok(sockets.iter().filter_map(Result::ok).filter(|(_, diversion)| is_orphan(diversion)).collect())
}
