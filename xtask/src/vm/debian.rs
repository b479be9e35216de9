//! Packages of Debian 12 for any architecture, unpacked and not installed.
//!
//! Invariant: nothing of this machine's own package management is changed, and nothing takes root: apt is told of another
//! state, of its own, below the target directory. What is unpacked stays there; who wants newer packages removes it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{command::Command, package::Architecture};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const SOURCES: [&str; 2] =
    ["http://deb.debian.org/debian bookworm main", "http://deb.debian.org/debian-security bookworm-security main"];

/// Debian's archive, seen from a machine of one architecture that has no package installed.
#[derive(Debug)]
pub struct Archive {
    directory: PathBuf,
    architecture: Architecture,
}

impl Archive {
    /// Below this directory.
    pub fn new(directory: &Path, architecture: Architecture) -> Self {
        Self { directory: directory.join(format!("debian-{}", architecture.name())), architecture }
    }

    /// The files of the package that this one depends on first: a kernel's, whose name has its version.
    pub fn unpack_first_dependency(&self, package: &str) -> Result<PathBuf> {
        self.unpack_once(package, || {
            let list = self.apt("apt-cache depends").arg(package).output()?;
            let dependency = first_dependency(&list).with_context(|| format!("{package} depends on nothing"))?;
            let into = self.directory.join("downloads").join(package);
            fs::create_dir_all(&into).with_context(|| format!("create {}", into.display()))?;
            self.apt("env -C").arg(text(&into)).args(["apt-get", "--quiet", "download", dependency]).run()?;
            packages_in(&into)
        })
    }

    /// The files of these packages and of all that they need, as one root directory.
    pub fn unpack_with_dependencies(&self, name: &str, packages: &[&str]) -> Result<PathBuf> {
        let unpacked = self.directory.join("unpacked");
        let list = unpacked.join(format!("{name}.packages"));
        let wanted = packages.join(" ");
        if fs::read_to_string(&list).ok().as_ref() != Some(&wanted) {
            // There is none, or it is of other packages.
            remove(&unpacked.join(name))?;
        }
        let whole = self.unpack_once(name, || {
            let cache = self.directory.join("archives");
            let install = self.apt("apt-get --quiet --yes --download-only install");
            install.args(packages.iter().copied()).run()?;
            packages_in(&cache)
        })?;
        fs::write(&list, wanted).with_context(|| format!("write {}", list.display()))?;
        Ok(whole)
    }

    fn unpack_once(&self, name: &str, download: impl FnOnce() -> Result<Vec<PathBuf>>) -> Result<PathBuf> {
        let whole = self.directory.join("unpacked").join(name);
        if whole.exists() {
            return Ok(whole);
        }
        self.update()?;
        let part = self.directory.join("unpacking").join(name);
        remove(&part)?;
        fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        for package in download()? {
            let unpack = Command::new("dpkg-deb --extract");
            unpack.arg(text(&package)).arg(text(&part)).output()?;
            fs::remove_file(&package).with_context(|| format!("remove {}", package.display()))?;
        }
        fs::create_dir_all(self.directory.join("unpacked"))?;
        fs::rename(&part, &whole).with_context(|| format!("rename {}", part.display()))?;
        Ok(whole)
    }

    /// Writes what tells apt where to live, and has it learn what there is.
    fn update(&self) -> Result<()> {
        for name in ["lists/partial", "archives/partial"] {
            let path = self.directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let sources = SOURCES.map(|source| format!("deb [signed-by={KEYRING}] {source}\n")).concat();
        let files = [("sources", sources), ("status", String::new()), ("apt.conf", self.configuration())];
        for (name, content) in files {
            let path = self.directory.join(name);
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
        let update = self.apt("apt-get --quiet update").run();
        update.context(
            "learn of Debian's packages: kernels are downloaded from deb.debian.org, by the proxy of the environment \
             variable http_proxy where there is one",
        )
    }

    fn configuration(&self) -> String {
        let (directory, architecture) = (self.directory.display(), self.architecture.name());
        // https://manpages.debian.org/bookworm/apt/apt.conf.5.en.html
        format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
             APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Dir::State \"{directory}\";\nDir::State::status \"{directory}/status\";\nDir::Cache \"{directory}\";\n\
             Dir::Etc::sourcelist \"{directory}/sources\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::parts \"/dev/null\";\nAPT::Update::Error-Mode \"any\";\nAcquire::http::Timeout \"20\";\n"
        )
    }

    fn apt(&self, line: &str) -> Command {
        Command::new(line).env("APT_CONFIG", text(&self.directory.join("apt.conf")))
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Removes a directory with all in it, if it is there.
pub fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    packages.sort();
    Ok(packages)
}

fn first_dependency(list: &str) -> Option<&str> {
    list.lines().find_map(|line| line.trim().strip_prefix("Depends: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_what_its_package_depends_on() {
        let list = "linux-image-arm64\n  Depends: linux-image-6.1.0-56-arm64\n  Suggests: other\n";
        assert_eq!(first_dependency(list), Some("linux-image-6.1.0-56-arm64"));
        assert_eq!(first_dependency("linux-image-arm64\n"), None);
    }

    #[test]
    fn apt_is_told_of_nothing_but_its_own_directory() {
        let archive = Archive::new(Path::new("/a/vm"), Architecture::Arm64);
        let configuration = archive.configuration();
        let directories: Vec<_> = configuration.lines().filter(|line| line.starts_with("Dir::")).collect();
        assert_eq!(directories.len(), 6, "{configuration}");
        for line in directories {
            assert!(line.contains("\"/a/vm/debian-arm64") || line.contains("\"/dev/null\""), "{line}");
        }
    }
}
