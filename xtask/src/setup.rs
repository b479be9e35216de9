//! `cargo xtask setup`: from a fresh Debian or Ubuntu with rustup to where everything builds and every test runs.
//!
//! [`Facts`] is what there is, [`plan`] says what to do about what there is not, [`run`] does it.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{Command, cargo_home, exists},
    root::Privilege,
};

/// Programs of Debian packages, and what they are for.
const PROGRAMS: [(&str, &str, &str); 10] = [
    ("cc", "build-essential", "links Rust programs and compiles the C in crates"),
    ("ip", "iproute2", "builds the lab"),
    ("ethtool", "ethtool", "switches the lab's checksum offload off"),
    ("curl", "curl", "is the demo's client"),
    ("setpriv", "util-linux", "runs kplb without privileges in a test"),
    ("nft", "nftables", "filters what a node of the lab sends; its service is not started"),
    ("keepalived", "keepalived", "is the other VRRP router in tests; its service is not started"),
    ("haproxy", "haproxy", "checks in tests that what it takes is imported; its service is not started"),
    ("promtool", "prometheus", "judges metrics and alert rules in tests; its service is not started"),
    ("tshark", "tshark", "decodes what tests have captured"),
];

/// The same for making packages.
const PACKAGING_PROGRAMS: [(&str, &str, &str); 5] = [
    ("clang", "clang", "compiles the C in crates for other architectures"),
    ("debootstrap", "debootstrap", "makes the Debian that packages are tried on"),
    ("systemd-nspawn", "systemd-container", "boots it"),
    ("dpkg-deb", "dpkg", "looks into packages"),
    ("lintian", "lintian", "judges packages"),
];

/// The same for what is compared by benchmarks.
const PEERS: [(&str, &str, &str); 1] =
    [("nginx", "nginx-full", "is a proxy that benchmarks compare with; its service is not started")];

/// The same for other machines, emulated. What is no command has its path.
const EMULATION_PROGRAMS: [(&str, &str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86", "emulates PCs"),
    ("qemu-system-aarch64", "qemu-system-arm", "emulates the processors of Raspberry Pis"),
    ("depmod", "kmod", "tells which modules of a kernel need which"),
    ("xz", "xz-utils", "unpacks modules of kernels"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring", "tells that they are Debian's"),
    ("clang", "clang", "compiles the C in crates for other architectures"),
];

/// Installs packages and neither starts nor enables a service of theirs, as `apt-get install` would.
const INSTALL_PACKAGES: &str = "sh xtask/install-packages.sh";

/// Components of the toolchain that builds the BPF programs, with the folder or program that shows each.
const NIGHTLY_COMPONENTS: [&str; 3] = ["rust-src", "rustfmt", "clippy"];

/// What there is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Facts {
    /// Whether `apt-get` may be used.
    apt: Apt,
    has_rustup: bool,
    /// LLVM's major version in the nightly compiler, if there is one.
    nightly_llvm: Option<u32>,
    /// Installed components of the nightly toolchain, without the target in their names.
    nightly_components: Vec<String>,
    /// Whether stable has clippy.
    has_clippy: bool,
    linker: Linker,
    /// Whether LLVM's libraries of the nightly compiler's version are there.
    has_llvm: bool,
    has_nextest: bool,
    /// Packages of [`PROGRAMS`], and of those for packaging or emulation or [`PEERS`] if they are needed, that are missing.
    missing_packages: Vec<&'static str>,
    /// Targets that are to be built for, and that stable lacks.
    missing_targets: Vec<&'static str>,
    /// Whether cargo-deb is needed and not there.
    lacks_cargo_deb: bool,
}

/// What is to be done with what is installed.
#[derive(Clone, Copy, Debug)]
enum Purpose<'a> {
    /// Building and testing.
    Development,
    /// Comparing with others, too.
    Comparison,
    /// Making packages, too, for these targets.
    Packaging(&'a [&'static str]),
    /// Testing in emulated machines, too, with programs for these targets.
    Emulation(&'a [&'static str]),
}

/// Which bpf-linker is installed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Linker {
    #[default]
    None,
    /// Built by cargo with this major version of LLVM. Newer or older than the compiler's, it fails or, worse, links
    /// broken type information.
    Llvm(u32),
    /// Installed in another way, for whoever did that to know.
    Other,
}

/// Whether Debian packages can be installed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Apt {
    /// Here and now.
    #[default]
    Usable,
    /// Not without root.
    NoRoot,
    /// This is another distribution.
    Absent,
}

/// Something to do.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    /// These Debian packages.
    Packages(Vec<String>),
    /// The nightly toolchain.
    Nightly,
    /// Components of it.
    NightlyComponents(Vec<&'static str>),
    /// Clippy of the stable toolchain.
    Clippy,
    /// bpf-linker for this major version of LLVM.
    Linker(u32),
    /// cargo-nextest.
    Nextest,
    /// Targets of the stable toolchain.
    Targets(Vec<&'static str>),
    /// cargo-deb.
    CargoDeb,
}

/// Installs what is missing.
///
/// Looks again after each step: which LLVM is needed is known only once there is a compiler.
pub fn run() -> Result<()> {
    install(Purpose::Development)
}

/// The same, and what it takes to compare with others.
pub fn run_for_comparison() -> Result<()> {
    install(Purpose::Comparison)
}

/// The same, and what it takes to make packages for these targets.
pub fn run_for_packages(targets: &[&'static str]) -> Result<()> {
    install(Purpose::Packaging(targets))
}

/// The same, and what it takes to run tests for these targets in emulated machines.
pub fn run_for_emulation(targets: &[&'static str]) -> Result<()> {
    install(Purpose::Emulation(targets))
}

fn install(purpose: Purpose<'_>) -> Result<()> {
    let mut done: Vec<Step> = Vec::new();
    loop {
        let facts = gather(purpose);
        if !facts.has_rustup {
            bail!("rustup is missing: install it as https://rustup.rs says, then run `cargo xtask setup` again");
        }
        let Some(step) = plan(&facts).into_iter().next() else { break };
        if done.contains(&step) {
            bail!("setup: {} was done, and what it installs is still not found", describe(&step));
        }
        println!("setup: {}", describe(&step));
        carry_out(&step, facts.apt)?;
        done.push(step);
    }
    println!("setup: everything is there");
    Ok(())
}

/// What to do, in order. What cannot be known yet is left for the plan after the first step.
fn plan(facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut packages: Vec<String> = facts.missing_packages.iter().map(ToString::to_string).collect();
    let relink = facts.nightly_llvm.filter(|llvm| facts.linker != Linker::Other && facts.linker != Linker::Llvm(*llvm));
    if let Some(llvm) = relink
        && !facts.has_llvm
    {
        packages.push(format!("llvm-{llvm}-dev"));
    }
    if !packages.is_empty() {
        steps.push(Step::Packages(packages));
    }
    match facts.nightly_llvm {
        None => steps.push(Step::Nightly),
        Some(_) => {
            let missing: Vec<_> = NIGHTLY_COMPONENTS
                .into_iter()
                .filter(|component| !facts.nightly_components.iter().any(|installed| installed == component))
                .collect();
            if !missing.is_empty() {
                steps.push(Step::NightlyComponents(missing));
            }
        }
    }
    if !facts.has_clippy {
        steps.push(Step::Clippy);
    }
    steps.extend(relink.map(Step::Linker));
    if !facts.has_nextest {
        steps.push(Step::Nextest);
    }
    if !facts.missing_targets.is_empty() {
        steps.push(Step::Targets(facts.missing_targets.clone()));
    }
    if facts.lacks_cargo_deb {
        steps.push(Step::CargoDeb);
    }
    steps
}

fn describe(step: &Step) -> String {
    match step {
        Step::Packages(packages) => {
            let reason = |package: &String| {
                let mut programs = PROGRAMS.iter().chain(&PACKAGING_PROGRAMS).chain(&PEERS).chain(&EMULATION_PROGRAMS);
                let program = programs.find(|(_, name, _)| name == package);
                program.map_or("bpf-linker is built with it", |(_, _, reason)| reason)
            };
            let packages: Vec<_> = packages.iter().map(|package| format!("{package} ({})", reason(package))).collect();
            format!("installing the packages {}", packages.join(", "))
        }
        Step::Nightly => "installing the nightly toolchain, which builds the BPF programs".to_owned(),
        Step::NightlyComponents(components) => format!("adding {} to the nightly toolchain", components.join(", ")),
        Step::Clippy => "adding clippy to the stable toolchain".to_owned(),
        Step::Linker(llvm) => format!("building bpf-linker with LLVM {llvm}, that of the nightly compiler (minutes)"),
        Step::Nextest => "building cargo-nextest, which runs the tests (minutes)".to_owned(),
        Step::Targets(targets) => format!("adding {} to the stable toolchain", targets.join(", ")),
        Step::CargoDeb => "building cargo-deb, which puts packages together (minutes)".to_owned(),
    }
}

/// The commands of a step.
fn commands(step: &Step) -> Vec<Command> {
    match step {
        Step::Packages(packages) => vec![Command::new(INSTALL_PACKAGES).args(packages)],
        Step::Nightly => vec![Command::new("rustup toolchain install nightly --profile minimal")],
        Step::NightlyComponents(components) => {
            vec![Command::new("rustup component add --toolchain nightly").args(components.iter().copied())]
        }
        Step::Clippy => vec![Command::new("rustup component add clippy")],
        Step::Linker(llvm) => vec![
            Command::new("cargo install bpf-linker --locked --force --no-default-features --features")
                .arg(format!("llvm-{llvm}"))
                .env("LLVM_PREFIX", llvm_prefix(*llvm)),
        ],
        Step::Nextest => vec![Command::new("cargo install cargo-nextest --locked")],
        Step::Targets(targets) => vec![Command::new("rustup target add").args(targets.iter().copied())],
        Step::CargoDeb => {
            vec![Command::new("cargo install cargo-deb --locked --no-default-features --features lzma")]
        }
    }
}

fn carry_out(step: &Step, apt: Apt) -> Result<()> {
    let mut commands = commands(step);
    if matches!(step, Step::Packages(_)) {
        let hint = match apt {
            Apt::Usable => None,
            Apt::NoRoot => Some("this takes root; run"),
            Apt::Absent => Some("this is not Debian or Ubuntu; install what corresponds to"),
        };
        if let Some(hint) = hint {
            let lines: Vec<_> = commands.iter().map(|command| format!("  {command}")).collect();
            bail!("{hint}\n{}\nthen run `cargo xtask setup` again", lines.join("\n"));
        }
        let privilege = Privilege::find();
        commands = commands.into_iter().map(|command| privilege.raise(command)).collect();
    }
    commands.iter().try_for_each(|command| command.run().with_context(|| hint(step)))
}

/// What to try when a step fails.
fn hint(step: &Step) -> String {
    match step {
        Step::Packages(packages) if packages.iter().any(|package| package.starts_with("llvm-")) => {
            "the packages were not installed; if this release has no LLVM that new, add the archive of \
             https://apt.llvm.org and run `cargo xtask setup` again"
                .to_owned()
        }
        _ => "the step failed; `cargo xtask setup` can be run again".to_owned(),
    }
}

fn llvm_prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

fn gather(purpose: Purpose<'_>) -> Facts {
    let output = |line: &str| Command::new(line).output().ok();
    let nightly = output("rustup run nightly rustc -vV");
    let nightly_llvm = nightly.as_deref().and_then(llvm_major);
    let components = output("rustup component list --installed --toolchain nightly");
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let (programs, targets): (&[_], &[_]) = match purpose {
        Purpose::Development => (&[], &[]),
        Purpose::Comparison => (&PEERS, &[]),
        Purpose::Packaging(targets) => (&PACKAGING_PROGRAMS, targets),
        Purpose::Emulation(targets) => (&EMULATION_PROGRAMS, targets),
    };
    let installed = output("rustup target list --installed").unwrap_or_default();
    let apt = match (is_debian(&release) && exists("apt-get"), Privilege::find() != Privilege::None) {
        (false, _) => Apt::Absent,
        (true, false) => Apt::NoRoot,
        (true, true) => Apt::Usable,
    };
    Facts {
        apt,
        has_rustup: exists("rustup"),
        nightly_llvm,
        nightly_components: components.as_deref().map(component_names).unwrap_or_default(),
        has_clippy: output("cargo clippy --version").is_some(),
        linker: linker(),
        has_llvm: nightly_llvm
            .is_some_and(|llvm| fs::exists(format!("{}/include/llvm", llvm_prefix(llvm))).unwrap_or(false)),
        has_nextest: exists("cargo-nextest"),
        missing_packages: (PROGRAMS.iter().chain(programs))
            .filter(|(program, _, _)| !exists(program))
            .map(|(_, package, _)| *package)
            .collect(),
        missing_targets: (targets.iter().copied())
            .filter(|target| !installed.lines().any(|line| line.trim() == *target))
            .collect(),
        lacks_cargo_deb: matches!(purpose, Purpose::Packaging(_)) && !exists("cargo-deb"),
    }
}

fn linker() -> Linker {
    if !exists("bpf-linker") {
        return Linker::None;
    }
    let record = cargo_home().and_then(|home| fs::read_to_string(home.join(".crates2.json")).ok()).unwrap_or_default();
    linker_llvm(&record).map_or(Linker::Other, Linker::Llvm)
}

/// The feature of cargo's record of what it has installed that says which LLVM bpf-linker was built with.
fn linker_llvm(record: &str) -> Option<u32> {
    let record: serde_json::Value = serde_json::from_str(record).ok()?;
    let (_, install) = record["installs"].as_object()?.iter().find(|(name, _)| name.starts_with("bpf-linker "))?;
    let features = install["features"].as_array()?.iter().filter_map(serde_json::Value::as_str);
    features.filter_map(|feature| feature.strip_prefix("llvm-")?.parse().ok()).next()
}

/// The major version in `LLVM version: 22.1.4`.
fn llvm_major(text: &str) -> Option<u32> {
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

/// `clippy` of `clippy-x86_64-unknown-linux-gnu`; `rust-src`, which has no target, as it is.
fn component_names(list: &str) -> Vec<String> {
    let name = |line: &str| {
        let targets = ["-x86_64-", "-aarch64-", "-armv7-", "-riscv64gc-"];
        let end = targets.iter().filter_map(|target| line.find(target)).min().unwrap_or(line.len());
        line[..end].to_owned()
    };
    list.lines().map(str::trim).filter(|line| !line.is_empty()).map(name).collect()
}

fn is_debian(os_release: &str) -> bool {
    let field = |line: &str| {
        let (key, value) = line.split_once('=')?;
        matches!(key, "ID" | "ID_LIKE").then(|| value.trim_matches('"').to_owned())
    };
    os_release.lines().filter_map(field).any(|ids| ids.split(' ').any(|id| id == "debian" || id == "ubuntu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Facts {
        Facts {
            has_rustup: true,
            nightly_llvm: Some(22),
            nightly_components: NIGHTLY_COMPONENTS.map(str::to_owned).to_vec(),
            has_clippy: true,
            linker: Linker::Llvm(22),
            has_nextest: true,
            ..Facts::default()
        }
    }

    #[test]
    fn nothing_is_done_when_nothing_is_missing() {
        assert_eq!(plan(&complete()), []);
    }

    #[test]
    fn each_lack_has_its_step() {
        let cases = [
            (Facts { has_nextest: false, ..complete() }, vec![Step::Nextest]),
            (Facts { has_clippy: false, ..complete() }, vec![Step::Clippy]),
            (
                Facts { nightly_components: vec!["rustfmt".to_owned()], ..complete() },
                vec![Step::NightlyComponents(vec!["rust-src", "clippy"])],
            ),
            (Facts { missing_packages: vec!["curl"], ..complete() }, vec![Step::Packages(vec!["curl".to_owned()])]),
            (
                Facts { linker: Linker::None, ..complete() },
                vec![Step::Packages(vec!["llvm-22-dev".to_owned()]), Step::Linker(22)],
            ),
            (Facts { linker: Linker::Llvm(21), has_llvm: true, ..complete() }, vec![Step::Linker(22)]),
            (Facts { missing_targets: vec!["a"], ..complete() }, vec![Step::Targets(vec!["a"])]),
            (Facts { lacks_cargo_deb: true, ..complete() }, vec![Step::CargoDeb]),
            // Which LLVM is needed is not known before the compiler is there.
            (Facts { nightly_llvm: None, linker: Linker::None, ..complete() }, vec![Step::Nightly]),
        ];
        for (facts, steps) in cases {
            assert_eq!(plan(&facts), steps, "{facts:?}");
        }
    }

    #[test]
    fn where_it_may_not_act_it_says_the_commands() {
        let step = Step::Packages(vec!["curl".to_owned()]);
        for (apt, words) in [(Apt::NoRoot, "takes root"), (Apt::Absent, "not Debian or Ubuntu")] {
            let error = carry_out(&step, apt).expect_err("nothing was installed").to_string();
            assert!(error.contains(words), "{error}");
            assert!(error.contains(&format!("{INSTALL_PACKAGES} curl")), "{error}");
        }
    }

    #[test]
    fn versions_components_and_releases_are_read() {
        assert_eq!(llvm_major("rustc 1.97.0\nrelease: 1.97.0\nLLVM version: 22.1.4\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.97.0"), None);
        let record = r#"{"installs":{"bpf-linker 0.13.0 (registry+x)":{"features":["llvm-22"]}}}"#;
        assert_eq!(linker_llvm(record), Some(22));
        assert_eq!(linker_llvm("{}"), None);
        assert_eq!(linker_llvm("not JSON"), None);
        assert_eq!(component_names("clippy-x86_64-unknown-linux-gnu\nrust-src\n"), ["clippy", "rust-src"]);
        assert!(is_debian("NAME=x\nID=debian\n"));
        assert!(is_debian("ID=raspbian\nID_LIKE=debian\n"));
        assert!(is_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\n"));
    }
}
