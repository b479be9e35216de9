//! What kind of machine tests run on: an emulated one is too slow for some of what they do on a usual one.

use std::env;

/// The environment variable that is there in an emulated machine (`cargo xtask vm`).
const VARIABLE: &str = "KPLB_EMULATED";

/// The kind of a machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Machine {
    /// A computer.
    Usual,
    /// One that QEMU emulates, with one slow processor.
    Emulated,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        if env::var_os(VARIABLE).is_some() { Self::Emulated } else { Self::Usual }
    }
}
