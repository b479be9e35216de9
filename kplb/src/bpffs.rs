//! The file system that holds pins, mounted where it is missing.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use tracing::info;

/// Where everybody expects the file system.
const STANDARD_MOUNT: &str = "/sys/fs/bpf";
/// Environment variable that sets the pin root.
const PIN_ROOT_VARIABLE: &str = "KPLB_PIN_ROOT";

/// The directory below which every agent of this mount namespace pins: `$KPLB_PIN_ROOT`, else `/sys/fs/bpf/kplb`.
pub fn pin_root() -> PathBuf {
    env::var_os(PIN_ROOT_VARIABLE).map_or_else(|| Path::new(STANDARD_MOUNT).join("kplb"), PathBuf::from)
}

/// Whether `pin_root` is on a BPF file system, or would be if it existed.
///
/// # Errors
/// If the kernel does not say.
pub fn is_there(pin_root: &Path) -> Result<bool> {
    is_bpffs(nearest_existing(pin_root))
}

/// Makes sure that `pin_root` exists and is on a BPF file system; mounts one at the standard place when the root is
/// below that, else at the root itself. The mount stays: other tools find it where they expect it.
pub fn ensure(pin_root: &Path) -> Result<()> {
    if !is_there(pin_root)? {
        let target = mount_point(pin_root);
        fs::create_dir_all(target).with_context(|| {
            format!("create {} to mount a BPF file system there; is sysfs mounted at /sys?", target.display())
        })?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("bpf"), target, Some("bpf"), flags, Some("mode=0700")).with_context(|| {
            format!("mount a BPF file system at {0}; try `mount -t bpf bpf {0}` as root", target.display())
        })?;
        info!("mounted a BPF file system at {}", target.display());
    }
    fs::create_dir_all(pin_root).with_context(|| format!("create the pin root {}", pin_root.display()))
}

fn mount_point(pin_root: &Path) -> &Path {
    let standard = Path::new(STANDARD_MOUNT);
    if pin_root.starts_with(standard) { standard } else { pin_root }
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn is_bpffs(path: &Path) -> Result<bool> {
    let file_system = statfs(path).with_context(|| format!("find the file system of {}", path.display()))?;
    Ok(file_system.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_at_the_standard_place_or_the_root() {
        assert_eq!(mount_point(Path::new("/sys/fs/bpf/kplb")), Path::new("/sys/fs/bpf"));
        assert_eq!(mount_point(Path::new("/sys/fs/bpf")), Path::new("/sys/fs/bpf"));
        assert_eq!(mount_point(Path::new("/run/pins")), Path::new("/run/pins"));
        assert_eq!(mount_point(Path::new("/sys/fs/bpffs/kplb")), Path::new("/sys/fs/bpffs/kplb"));
    }

    #[test]
    fn a_missing_directory_is_judged_by_its_parent() {
        assert_eq!(nearest_existing(Path::new("/proc/no/such/directory")), Path::new("/proc"));
        assert!(!is_bpffs(Path::new("/proc")).expect("/proc has a file system"));
    }
}
