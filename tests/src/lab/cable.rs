//! Bad cables: what the kernel is to do to all that hosts of a lab receive.

use std::{env, process::Command};

use anyhow::{Context as _, Result};

use crate::netns::Namespace;

/// The environment variable with arguments of `tc qdisc … netem` (tc-netem(8)), such as `loss 1% delay 5ms`. Without it
/// cables are as good as the kernel has them.
pub const VARIABLE: &str = "KPLB_CABLES";

/// Makes the cable at a port of the switch as bad as the variable says. What a host sends to another goes through the
/// other one's port, so no packet is spared.
pub(super) fn worsen(switch: &Namespace, port: &str) -> Result<()> {
    let Some(arguments) = env::var_os(VARIABLE) else { return Ok(()) };
    let arguments = arguments.into_string().ok().with_context(|| format!("{VARIABLE} is no text"))?;
    let mut command = Command::new("tc");
    command.args(["qdisc", "add", "dev", port, "root", "netem"]).args(arguments.split_whitespace());
    switch.check_output(command).map(drop).with_context(|| format!("{VARIABLE} is {arguments:?}"))
}
