//! The kernels and processors that kplb is tried on, all of them Debian's.

use crate::package::Architecture;

/// One kernel on one processor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kernel {
    /// What it is called on the command line and in tables.
    pub name: &'static str,
    /// What it was built for.
    pub architecture: Architecture,
    /// The package of Debian 12 that depends on the newest build of it.
    pub package: &'static str,
    /// The processor, as QEMU names it.
    pub processor: &'static str,
}

/// All of them, the oldest first.
pub const ALL: [Kernel; 4] = [
    Kernel { name: "amd64-6.1", architecture: Architecture::Amd64, package: "linux-image-amd64", processor: "max" },
    // A Raspberry Pi 4's.
    Kernel {
        name: "arm64-6.1",
        architecture: Architecture::Arm64,
        package: "linux-image-arm64",
        processor: "cortex-a72",
    },
    Kernel {
        name: "amd64-6.12",
        architecture: Architecture::Amd64,
        package: "linux-image-6.12-amd64",
        processor: "max",
    },
    // A Raspberry Pi 5's.
    Kernel {
        name: "arm64-6.12",
        architecture: Architecture::Arm64,
        package: "linux-image-6.12-arm64",
        processor: "cortex-a76",
    },
];

/// The kernel of this name.
///
/// # Errors
/// Which names there are.
pub fn find(name: &str) -> Result<Kernel, String> {
    ALL.into_iter().find(|kernel| kernel.name == name).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|kernel| kernel.name).collect();
        format!("there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_is_found_by_its_own_name() {
        for kernel in ALL {
            assert_eq!(find(kernel.name), Ok(kernel));
        }
        assert!(find("amd64-2.4").is_err_and(|error| error.contains("amd64-6.1, ")));
    }
}
