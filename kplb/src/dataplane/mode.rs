//! Where in the receive path the program at ingress runs, and which place is chosen.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where in the receive path the program at ingress runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As XDP in the driver.
    Native,
    /// At TC ingress, in the network stack.
    Tc,
    /// As XDP in the network stack, after the kernel has copied the packet into one piece.
    Generic,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Native, Self::Tc, Self::Generic];

    /// The mode that users see as this.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The mode as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tc => "tc",
            Self::Generic => "generic",
        }
    }

    /// The program's place in words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Native => "native XDP",
            Self::Tc => "TC ingress",
            Self::Generic => "generic XDP",
        }
    }

    /// What it costs, in a sentence without an end.
    pub const fn cost(self) -> &'static str {
        match self {
            Self::Native => "the least: packets are sent on before the kernel makes anything of them",
            Self::Tc => "little: the kernel receives each packet, but many segments as one (GRO), and none is copied",
            Self::Generic => {
                "much: the kernel copies every packet that comes in by the interface into one piece, and takes each \
                 segment for itself (no GRO)"
            }
        }
    }

    /// Whether the program is one of XDP.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::Native | Self::Generic)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which mode the user asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeChoice {
    /// Native where the driver has it, else TC.
    Auto,
    /// Native or nothing.
    Native,
    /// TC.
    Tc,
    /// Generic.
    Generic,
}

impl ModeChoice {
    /// The mode, if there is nothing to choose.
    pub const fn only(self) -> Option<Mode> {
        match self {
            Self::Auto => None,
            Self::Native => Some(Mode::Native),
            Self::Tc => Some(Mode::Tc),
            Self::Generic => Some(Mode::Generic),
        }
    }

    /// The mode to try first.
    pub(super) const fn first(self, native: &NativeXdp) -> Mode {
        match (self.only(), native) {
            (Some(mode), _) => mode,
            (None, NativeXdp::Promised | NativeXdp::Unknown) => Mode::Native,
            (None, NativeXdp::Unfit(_)) => Mode::Tc,
        }
    }
}

/// What is known of native XDP on an interface before a program is attached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NativeXdp {
    /// The driver says that it has it.
    Promised,
    /// Nothing: only the attempt tells.
    Unknown,
    /// There is none, or none worth having, for this reason.
    Unfit(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for mode in Mode::ALL {
            assert_eq!(Mode::from_name(mode.name()), Some(mode));
        }
        assert_eq!(Mode::from_name("offloaded"), None);
    }

    #[test]
    fn generic_only_on_request() {
        let unfit = NativeXdp::Unfit("no driver".to_owned());
        let first =
            |choice: ModeChoice| [NativeXdp::Promised, NativeXdp::Unknown, unfit.clone()].map(|x| choice.first(&x));
        assert_eq!(first(ModeChoice::Auto), [Mode::Native, Mode::Native, Mode::Tc]);
        assert_eq!(first(ModeChoice::Native), [Mode::Native; 3]);
        assert_eq!(first(ModeChoice::Tc), [Mode::Tc; 3]);
        assert_eq!(first(ModeChoice::Generic), [Mode::Generic; 3]);
    }
}
