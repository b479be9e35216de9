//! `cargo xtask vm`: tests of the data path, and from end to end, on other kernels and processors.
//!
//! ```text
//!   Debian's packages --> kernel, modules --> initramfs --+
//!   cargo build --------> the tests' programs ------------+--> QEMU: each test in its turn --> console --> table
//!   this machine's root directory, or one of packages ----+
//! ```
//!
//! A machine of this computer's architecture has its root directory, read-only, and keeps in memory what is written; one of
//! another architecture has a root directory of Debian's packages, and static programs.

mod kernels;
mod suite;

mod debian;
mod initramfs;
mod machine;
mod programs;

mod outcome;

use std::{
    collections::BTreeMap,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use self::{
    debian::{Archive, text},
    machine::{Access, Machine, Share},
    outcome::{Outcome, Said},
    suite::Group,
};
pub use self::{
    kernels::{Kernel, find},
    suite::Extent,
};
use crate::{built, command::Command, package::Architecture, setup};

/// What a test finds in a root directory that is not this computer's.
const PACKAGES: [&str; 14] = [
    "base-passwd",
    "coreutils",
    "dash",
    "ethtool",
    "findutils",
    "grep",
    "iproute2",
    "kmod",
    "mount",
    "nftables",
    "perl-base",
    "procps",
    "sed",
    "util-linux",
];

/// What a machine runs once it has mounted everything.
const RUN: &str = include_str!("run.sh");

/// Runs groups of tests on kernels, all of them where none is named, and fails if one of the tests does.
pub fn run(kernels: &[Kernel], extent: Extent, groups: &[String]) -> Result<()> {
    let kernels = if kernels.is_empty() { &kernels::ALL } else { kernels };
    let groups = suite::choose(groups, extent)?;
    let mut foreign: Vec<&'static str> = Vec::new();
    for kernel in kernels {
        let target = kernel.architecture.target();
        if Some(kernel.architecture) != Architecture::native() && !foreign.contains(&target) {
            foreign.push(target);
        }
    }
    setup::run_for_emulation(&foreign)?;
    let directory = built::target_directory()?.join("vm");
    let mut programs = BTreeMap::new();
    for kernel in kernels {
        let architecture = kernel.architecture;
        if !programs.contains_key(architecture.name()) {
            programs.insert(architecture.name(), programs::build(architecture, extent, &groups)?);
        }
    }
    let prepare = |kernel: &Kernel| Prepared::new(*kernel, &directory, &groups, &programs[kernel.architecture.name()]);
    let prepared = kernels.iter().map(prepare).collect::<Result<Vec<_>>>()?;

    let results = run_all(&prepared);
    let names: Vec<_> = groups.iter().map(|group| group.name).collect();
    let mut complaints = Vec::new();
    let mut columns = Vec::new();
    for (prepared, result) in prepared.iter().zip(results) {
        let result = result.with_context(|| prepared.kernel.name)?;
        let of_kernel = |complaint| format!("{}: {complaint}", prepared.kernel.name);
        complaints.extend(result.complaints(&names).into_iter().map(of_kernel));
        columns.push((format!("{}, {}", prepared.kernel.name, prepared.kernel.processor), result));
    }
    println!("\n{}", outcome::table(&names, &columns));
    if !complaints.is_empty() {
        bail!("{}\nwhat each test has said is below {}", complaints.join("\n"), directory.display());
    }
    Ok(())
}

/// Runs each machine, as many at a time as there are processors: emulated, a machine keeps one busy.
fn run_all(prepared: &[Prepared]) -> Vec<Result<outcome::Result>> {
    let n_threads = thread::available_parallelism().map_or(1, NonZero::get).min(prepared.len());
    let waiting = Mutex::new(prepared.iter().enumerate());
    let results = Mutex::new(BTreeMap::new());
    let work = || {
        let next = || waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
        while let Some((number, prepared)) = next() {
            let result = prepared.run();
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(number, result);
        }
    };
    thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(work);
        }
    });
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect()
}

/// A machine with everything that it needs.
#[derive(Debug)]
struct Prepared {
    kernel: Kernel,
    image: PathBuf,
    initramfs: PathBuf,
    shares: Vec<Share>,
    console: PathBuf,
}

impl Prepared {
    fn new(
        kernel: Kernel,
        directory: &Path,
        groups: &[Group<'_>],
        programs: &BTreeMap<String, PathBuf>,
    ) -> Result<Self> {
        let archive = Archive::new(directory, kernel.architecture);
        let unpacked = archive.unpack_first_dependency(kernel.package)?;
        let image = only_one(&unpacked.join("boot"), "vmlinuz-")?;
        let modules = only_one(&unpacked.join("lib/modules"), "")?;
        if !modules.join("modules.dep").exists() {
            let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Command::new("depmod --basedir").arg(text(&unpacked)).arg(release).run()?;
        }
        let busybox = archive.unpack_with_dependencies("busybox", &["busybox-static"])?;
        let is_native = Some(kernel.architecture) == Architecture::native();
        let root = if is_native { "/".into() } else { archive.unpack_with_dependencies("root", &PACKAGES)? };

        let work = directory.join(kernel.name);
        debian::remove(&work)?;
        fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
        let write = |name: &str, content: &[u8]| -> Result<PathBuf> {
            let path = work.join(name);
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
            Ok(path)
        };
        let mut tests = String::new();
        for group in groups {
            let program = programs.get(group.program).with_context(|| format!("there is no test {}", group.program))?;
            tests.push_str(&suite::line(group, &text(program)));
        }
        write("tests", tests.as_bytes())?;
        write("run.sh", RUN.as_bytes())?;
        let target = built::target_directory()?;
        let settings = format!("target='{}'\n", text(&target));
        let initramfs = write("initramfs", &initramfs::build(&modules, &busybox.join("bin/busybox"), &settings)?)?;
        let share = |tag, path, access| Share { tag, path, access };
        let shares = vec![
            share("root", root, Access::Read),
            share("modules", modules, Access::Read),
            share("work", work.clone(), Access::Write),
            share("target", target, Access::Read),
        ];
        Ok(Self { kernel, image, initramfs, shares, console: work.join("console.log") })
    }

    /// Runs it, and says how each test ends.
    fn run(&self) -> Result<outcome::Result> {
        let Self { kernel, image, initramfs, shares, console } = self;
        let mut result = outcome::Result::default();
        let start = Instant::now();
        let machine = Machine { kernel: *kernel, image, initramfs, shares, console };
        machine.run(|line| {
            let Some(said) = Said::parse(line) else { return };
            let (name, elapsed) = (kernel.name, start.elapsed().as_secs());
            match &said {
                Said::Kernel(release) => println!("{name} {elapsed:4} s: Linux {release}"),
                Said::Test { group, name: test, outcome, seconds } => {
                    let outcome = if *outcome == Outcome::Passed { "passed" } else { "FAILED" };
                    println!("{name} {elapsed:4} s: {outcome} {group} {test} ({seconds:.1} s)");
                }
                Said::End => println!("{name} {elapsed:4} s: end"),
            }
            result.add(said);
        })?;
        Ok(result)
    }
}

/// The only entry of a directory with a name that begins so.
fn only_one(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut entries =
        entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry.path()),
        _ => bail!("{} has not exactly one {prefix}…", directory.display()),
    }
}
