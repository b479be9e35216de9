//! The command line: one module a command.

mod attach;
mod backend;
mod check;
mod detach;
mod doctor;
mod flows;
mod import;
mod logging;
mod reading;
mod reload;
mod status;
mod top;
mod trace;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  kplb attach eth0 --vip 198.18.0.100:6443 --backend 198.18.0.11:6443 --backend 198.18.0.12:6443
  kplb status
  kplb flows --client 198.18.0.0/24
  kplb trace --client 198.18.0.101
  kplb detach eth0

Environment:
  KPLB_RUN_DIR   sockets and records of running agents [default: /run/kplb]
  KPLB_PIN_ROOT  pinned programs and maps, on a BPF file system [default: /sys/fs/bpf/kplb]";

/// A load balancer for the Kubernetes control plane, inside the kernel.
#[derive(Debug, Parser)]
#[command(name = "kplb", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Attach(attach::Arguments),
    Status(status::Arguments),
    Flows(flows::Arguments),
    Trace(trace::Arguments),
    Top(top::Arguments),
    Detach(detach::Arguments),
    Reload(reload::Arguments),
    Check(check::Arguments),
    Doctor(doctor::Arguments),
    Import(import::Arguments),
    Backend(backend::Arguments),
}

/// The command line, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and does what it says. An error is told on standard error, with exit code 1; what cannot be
/// parsed with exit code 2.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Attach(arguments) => attach::run(arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Flows(arguments) => flows::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Detach(arguments) => detach::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Backend(arguments) => backend::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprintln!("error: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("kplb {}", command.get_name())), "{}", command.get_name());
        }
    }

    #[test]
    fn flags_and_file_exclude_each_other() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("kplb attach eth0"));
        assert!(parse("kplb attach eth0 --config a.toml --mode native --log-level debug"));
        assert!(parse("kplb attach eth0 --vip 198.18.0.100:1 --backend 198.18.0.1:1 --backend 198.18.0.2:1"));
        assert!(!parse("kplb attach eth0 --config a.toml --vip 198.18.0.100:1 --backend 198.18.0.1:1"));
        assert!(!parse("kplb attach eth0 --vip 198.18.0.100:1"));
        assert!(!parse("kplb attach eth0 --backend 198.18.0.1:1"));
        assert!(!parse("kplb attach"));
        assert!(!parse("kplb attach eth0 --mode fast"));
    }

    #[test]
    fn flows_are_filtered_listed_or_counted() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("kplb flows"));
        assert!(parse(
            "kplb flows eth0 --client 198.18.0.0/24 --backend cp1 --service api --state half-open --limit 5"
        ));
        assert!(parse("kplb flows --count --json"));
        assert!(!parse("kplb flows --client 198.18.0.0/33"));
        assert!(!parse("kplb flows --state open"));
        assert!(!parse("kplb flows --limit -1"));
        assert!(!parse("kplb flows --count --limit 5"));
    }

    #[test]
    fn a_trace_is_of_something() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("kplb trace"));
        assert!(parse("kplb trace eth0 --client 2001:2::/64 --service api --count 5 --sample 10 --rate 50 --json"));
        assert!(parse("kplb trace --verdict drop --verdict to-backend -v"));
        assert!(!parse("kplb trace --verdict dropped"));
        assert!(!parse("kplb trace --sample 0"));
        assert!(!parse("kplb trace --count 0"));
        assert!(!parse("kplb trace --rate 0"));
        assert!(!parse("kplb trace -v --json"));
    }

    #[test]
    fn an_import_needs_something_to_read() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("kplb import --keepalived k --haproxy a --haproxy b --config-id x --interface eth0"));
        assert!(parse("kplb import --haproxy a --vip 198.18.0.100"));
        assert!(!parse("kplb import"));
        assert!(!parse("kplb import --vip 198.18.0.100"));
        assert!(!parse("kplb import --haproxy a --vip 198.18.0.100:6443"));
        assert!(!parse("kplb import --keepalived k --vip 198.18.0.100"));
        assert!(!parse("kplb import --haproxy a --config-id x"));
    }
}
