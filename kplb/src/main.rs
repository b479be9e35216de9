//! The `kplb` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    kplb::cli::run()
}
