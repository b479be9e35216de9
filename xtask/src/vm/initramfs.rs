//! What an emulated machine boots into: busybox, the modules that reach the shared directories, and a script.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::debian::text;
use crate::command::Command;

/// What becomes the first process.
const INIT: &str = include_str!("init.sh");

/// The modules that it takes to mount the shared directories. Those that a kernel has built in are no files.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// Types and permissions of files, as in `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// The archive for a kernel with this directory of modules.
///
/// `settings` are assignments of a shell.
pub fn build(modules: &Path, busybox: &Path, settings: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "proc", "sys"] {
        archive.add(directory, DIRECTORY, &[]);
    }
    archive.add("init", PROGRAM, INIT.as_bytes());
    archive.add("settings", FILE, settings.as_bytes());
    archive.add("bin/busybox", PROGRAM, &read(busybox)?);
    let dependencies = modules.join("modules.dep");
    let dependencies = fs::read_to_string(&dependencies).with_context(|| format!("read {}", dependencies.display()))?;
    let mut order = String::new();
    for path in load_order(&dependencies, &MODULES) {
        let name = format!("{}.ko", module_name(path));
        archive.add(&format!("modules/{name}"), FILE, &read_module(&modules.join(path))?);
        order.push_str(&name);
        order.push('\n');
    }
    ensure!(order.contains("9p.ko"), "{} has no module 9p", modules.display());
    archive.add("modules/order", FILE, order.as_bytes());
    Ok(archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// A module as the kernel takes it.
fn read_module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let plain = PathBuf::from(text(path).trim_end_matches(".xz"));
        if !plain.exists() {
            Command::new("xz --decompress --keep").arg(text(path)).output()?;
        }
        return read(&plain);
    }
    read(path)
}

/// `overlay` of `kernel/fs/overlayfs/overlay.ko.xz`.
fn module_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}

/// The files of these modules and of those that they need, each after those that it needs; from `modules.dep`, which has
/// a module's needs in the opposite order (modules.dep(5)).
fn load_order<'a>(dependencies: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut order: Vec<&str> = Vec::new();
    for name in wanted {
        let line = dependencies.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| {
            let is = module_name(path).replace('-', "_");
            is == name.replace('-', "_")
        });
        let Some((module, needs)) = line else { continue };
        for path in needs.split_whitespace().rev().chain([module]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    order
}

/// A cpio archive in the form that kernels take: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    n_files: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.n_files += 1;
        // Number, mode, user, group, links, time, size, device and device of a special file (two numbers each), length of
        // the name with its end, checksum.
        let length = |bytes: usize| u32::try_from(bytes).expect("a file of an initramfs is far from 4 GiB");
        let fields = [self.n_files, mode, 0, 0, 1, 0, length(content.len()), 0, 0, 0, 0, length(name.len() + 1), 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_those_that_it_needs() {
        let dependencies = "kernel/net/9p/9pnet.ko.xz:\n\
                            kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
                            kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n";
        let names: Vec<_> =
            load_order(dependencies, &["virtio_pci", "9pnet_virtio", "9p"]).into_iter().map(module_name).collect();
        assert_eq!(names, ["9pnet", "9pnet_virtio", "netfs", "9p"]);
    }

    #[test]
    fn an_archive_has_headers_of_fixed_length_and_aligned_contents() {
        let mut archive = Archive::default();
        archive.add("init", PROGRAM, b"12345");
        let bytes = archive.finish();
        assert_eq!(&bytes[..22], b"07070100000001000081ED");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000005");
        assert_eq!(&bytes[110..116], b"init\0\0");
        assert_eq!(&bytes[116..124], b"12345\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }
}
