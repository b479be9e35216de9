//! `cargo xtask`: what developing kplb takes beyond cargo's own commands.
//!
//! Invariant: this crate depends on no other crate of the workspace, since `setup` installs what those need to build.

mod setup;

mod bench;
mod demo;
mod lint;
mod package;
mod soak;
mod test;
mod tidy;
mod vm;

mod built;
mod command;
mod root;

use std::{env, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;

/// kplb's development commands.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", version, arg_required_else_help = true)]
enum Arguments {
    /// Install what building and testing need, as far as it is missing.
    Setup,
    /// Show the main job on three nodes in network namespaces (as root).
    Demo,
    /// Run every test (as root).
    Test {
        /// Passed on to `cargo nextest run`: filters such as a part of a test's name.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Check the format, run clippy and `tidy`, build the documentation.
    Lint,
    /// Check the house rules that no other tool knows.
    Tidy {
        /// Record the layout of the shared types; only after `LAYOUT_VERSION` was raised.
        #[arg(long)]
        bless: bool,
    },
    /// Build the Debian packages, and check them.
    Package {
        /// For these architectures; for all there are without any.
        #[arg(value_enum)]
        architectures: Vec<package::Architecture>,
    },
    /// Install, start, upgrade, remove and purge the package on a Debian in a container (as root).
    PackageTest,
    /// Run tests on other kernels and processors, emulated.
    Vm {
        /// On these kernels, such as `arm64-6.1`; on all there are without any.
        #[arg(value_parser = vm::find)]
        kernels: Vec<vm::Kernel>,
        /// Only what takes minutes.
        #[arg(long)]
        short: bool,
        /// Only these groups of tests, such as `cables`, or some tests of one, such as `takeover:another_layout`.
        #[arg(last = true)]
        groups: Vec<String>,
    },
    /// Measure (as root).
    Bench {
        /// What to measure.
        #[arg(value_enum)]
        subject: bench::Subject,
        /// Passed on to the benchmark.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Put mixed load on three nodes, have faults happen at random, and tell whether every invariant held (as root).
    #[command(disable_help_flag = true)]
    Soak {
        /// Passed on: `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let workspace = command::workspace();
    env::set_current_dir(workspace).with_context(|| format!("enter {}", workspace.display()))?;
    match arguments {
        Arguments::Setup => setup::run(),
        Arguments::Demo => demo::run(),
        Arguments::Test { arguments } => test::run(&arguments),
        Arguments::Lint => lint::run(),
        Arguments::Tidy { bless: false } => tidy::run(tidy::Lock::Check),
        Arguments::Tidy { bless: true } => tidy::run(tidy::Lock::Bless),
        Arguments::Package { architectures } => package::run(&architectures),
        Arguments::PackageTest => package::trial::run(),
        Arguments::Vm { kernels, short, groups } => {
            vm::run(&kernels, if short { vm::Extent::Short } else { vm::Extent::Full }, &groups)
        }
        Arguments::Bench { subject, arguments } => bench::run(subject, &arguments),
        Arguments::Soak { arguments } => soak::run(&arguments),
    }
}
