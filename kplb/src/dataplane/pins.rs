//! Where the maps and links live in bpffs, so that they outlive the agent.
//!
//! ```text
//! <root>/v<LAYOUT_VERSION>/<interface>/maps/<MAP>
//!                                     /xdp       link of kplb_xdp
//!                                     /tc-ingress
//!                                                link of kplb_tc_ingress, in place of the former
//!                                     /tc        link of kplb_tc
//!                                     /sockets/<PROGRAM>
//!                                                links of the programs at the sockets of this node
//!                                     /sockets-old/<PROGRAM>
//!                                                the same of an earlier agent, until they are replaced
//! ```

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use kplb_common::abi::LAYOUT_VERSION;

/// Directory of the pins of an interface, below the pin root.
///
/// A BPF file system takes no names with a point (`bpf_lookup` in the kernel's kernel/bpf/inode.c), as those of VLANs have
/// them; and no interface's name has a colon (`dev_valid_name` in net/core/dev.c).
pub fn pin_directory(root: &Path, interface: &str) -> PathBuf {
    version_directory(root).join(interface.replace('.', ":"))
}

/// Directory of the pins of this layout version, below the pin root.
pub(super) fn version_directory(root: &Path) -> PathBuf {
    root.join(format!("v{LAYOUT_VERSION}"))
}

/// The interface that a directory of [`pin_directory`] is of, by its name.
pub(super) fn interface_of(name: &str) -> String {
    name.replace(':', ".")
}

/// Where the maps are pinned.
pub(super) fn maps(directory: &Path) -> PathBuf {
    directory.join("maps")
}

/// Where the link of the XDP program is pinned.
pub(super) fn xdp_link(directory: &Path) -> PathBuf {
    directory.join("xdp")
}

/// Where the link of the TC program at ingress is pinned.
pub(super) fn tc_ingress_link(directory: &Path) -> PathBuf {
    directory.join("tc-ingress")
}

/// Where the link of the TC program at egress is pinned.
pub(super) fn tc_link(directory: &Path) -> PathBuf {
    directory.join("tc")
}

/// Where the links of the programs on the interface are pinned, the client's side first.
fn links(directory: &Path) -> [PathBuf; 3] {
    [xdp_link(directory), tc_ingress_link(directory), tc_link(directory)]
}

/// Where the links of the programs at sockets are pinned.
pub(super) fn sockets(directory: &Path) -> PathBuf {
    directory.join("sockets")
}

/// Where they are while others take their place.
pub(super) fn old_sockets(directory: &Path) -> PathBuf {
    directory.join("sockets-old")
}

/// The directories of an interface's pins, of every layout that there are some of.
pub(super) fn directories(root: &Path, interface: &str) -> anyhow::Result<Vec<PathBuf>> {
    let own = pin_directory(root, interface);
    let Some(name) = own.file_name() else { return Ok(Vec::new()) };
    let versions =
        list(root)?.into_iter().filter(|path| path.file_name().and_then(OsStr::to_str).is_some_and(is_version));
    Ok(versions.map(|version| version.join(name)).filter(|directory| directory.is_dir()).collect())
}

/// What is in a directory; nothing if there is none.
pub(super) fn list(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = || format!("list {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(listed),
    };
    entries.map(|entry| Ok(entry.with_context(listed)?.path())).collect()
}

fn is_version(name: &str) -> bool {
    name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Creates the directory and its parents.
pub(super) fn create(directory: &Path) -> anyhow::Result<()> {
    let maps = maps(directory);
    fs::create_dir_all(&maps).with_context(|| format!("create the pin directory {}", maps.display()))
}

/// Removes all pins in a directory, links first: programs go before the maps they use. What is pinned there is freed
/// by the kernel when nothing else holds it, and at some time after. Returns whether there was anything.
///
/// # Errors
/// If something cannot be removed; what could be is gone then.
pub(super) fn remove_pins(directory: &Path) -> anyhow::Result<bool> {
    let mut found = false;
    for sockets in [sockets(directory), old_sockets(directory)] {
        found |= remove_all(&sockets)?;
    }
    for link in links(directory) {
        found |= remove_file(&link)?;
    }
    // The maps, and whatever else another layout has.
    found |= remove_all(directory)?;
    // The directory of the layout version goes with the last interface, as far as it is ours alone.
    if let Some(version) = directory.parent() {
        let _ = fs::remove_dir(version);
    }
    Ok(found)
}

/// Removes the pins of the links of the interface's programs.
pub(super) fn remove_links(directory: &Path) -> anyhow::Result<()> {
    links(directory).iter().try_for_each(|link| remove_file(link).map(drop))
}

/// Removes a directory of pins and all below it.
pub(super) fn remove_all(directory: &Path) -> anyhow::Result<bool> {
    let mut found = false;
    for path in list(directory)? {
        found |= if path.is_dir() { remove_all(&path)? } else { remove_file(&path)? };
    }
    remove_directory(directory)?;
    Ok(found)
}

fn remove_file(path: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove the pin {}", path.display())),
    }
}

fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove the pin directory {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_version_is_part_of_the_path() {
        let path = pin_directory(Path::new("/sys/fs/bpf/kplb"), "eth0");
        assert_eq!(path, Path::new(&format!("/sys/fs/bpf/kplb/v{LAYOUT_VERSION}/eth0")));
    }

    #[test]
    fn no_two_interfaces_share_a_directory() {
        let path = |interface| pin_directory(Path::new("/sys/fs/bpf/kplb"), interface);
        assert!(path("eth0.42").ends_with("eth0:42"));
        assert_ne!(path("eth0.42"), path("eth0_42"));
        assert_eq!(interface_of("eth0:42"), "eth0.42");
    }

    #[test]
    fn layouts_are_told_by_their_numbers() {
        assert!(is_version("v1") && is_version("v11"));
        for other in ["", "v", "1", "vx", "v1x", "w1"] {
            assert!(!is_version(other), "{other}");
        }
    }

    #[test]
    fn nothing_there_is_no_error() {
        assert!(!remove_pins(Path::new("/nonexistent/kplb/v0/eth0")).expect("nothing to remove"));
    }
}
