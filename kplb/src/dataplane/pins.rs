//! Where the maps and links live in bpffs, so that they outlive the agent.
//!
//! ```text
//! <root>/v<LAYOUT_VERSION>/<interface>/maps/<MAP>
//!                                     /xdp       link of kplb_xdp
//!                                     /tc        link of kplb_tc
//!                                     /sockets/<PROGRAM>
//!                                                links of the programs at the sockets of this node
//! ```

use std::{
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
    root.join(format!("v{LAYOUT_VERSION}")).join(interface.replace('.', ":"))
}

/// Where the maps are pinned.
pub(super) fn maps(directory: &Path) -> PathBuf {
    directory.join("maps")
}

/// Where the link of the XDP program is pinned.
pub(super) fn xdp_link(directory: &Path) -> PathBuf {
    directory.join("xdp")
}

/// Where the link of the TC program is pinned.
pub(super) fn tc_link(directory: &Path) -> PathBuf {
    directory.join("tc")
}

/// Where the links of the programs at sockets are pinned.
pub(super) fn sockets(directory: &Path) -> PathBuf {
    directory.join("sockets")
}

/// Creates the directory and its parents.
pub(super) fn create(directory: &Path) -> anyhow::Result<()> {
    let maps = maps(directory);
    fs::create_dir_all(&maps).with_context(|| format!("create the pin directory {}", maps.display()))
}

/// Removes all pins of an interface, links first: programs go before the maps they use. What is pinned there is freed
/// by the kernel when nothing else holds it. Returns whether there was anything.
///
/// # Errors
/// If something cannot be removed; what could be is gone then.
pub fn remove_pins(directory: &Path) -> anyhow::Result<bool> {
    let mut found = false;
    found |= remove_all(&sockets(directory))?;
    for link in [xdp_link(directory), tc_link(directory)] {
        found |= remove_file(&link)?;
    }
    found |= remove_all(&maps(directory))?;
    remove_directory(directory)?;
    // The directory of the layout version goes with the last interface, as far as it is ours alone.
    if let Some(version) = directory.parent() {
        let _ = fs::remove_dir(version);
    }
    Ok(found)
}

/// Removes a directory of pins.
pub(super) fn remove_all(directory: &Path) -> anyhow::Result<bool> {
    let mut found = false;
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
                found |= remove_file(&path)?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("list {}", directory.display())),
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
    }

    #[test]
    fn nothing_there_is_no_error() {
        assert!(!remove_pins(Path::new("/nonexistent/kplb/v0/eth0")).expect("nothing to remove"));
    }
}
