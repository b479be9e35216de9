//! Attaching the programs to the interface, natively where the driver can, and pinning their links.

use std::{fmt, path::Path};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType, Xdp,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, SchedClassifierLinkId},
        xdp::XdpMode as AyaMode,
    },
};
use kplb_common::abi;

use super::pins;

/// Where in the receive path the XDP program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, after the kernel has copied the packet into one piece.
    Generic,
}

impl XdpMode {
    /// The mode as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which mode the user asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ModeChoice {
    /// Native if the driver can, else generic.
    Auto,
    /// Native or nothing.
    Native,
    /// Generic.
    Generic,
}

/// How the programs are attached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attached {
    /// Where the XDP program runs.
    pub mode: XdpMode,
    /// Why there, in words.
    pub reason: String,
    /// Id of the XDP program.
    pub program: u32,
}

/// The TC link of a kernel without TCX: it cannot be pinned, and stays attached by itself.
pub(super) enum TcLink {
    /// Pinned with the rest.
    Pinned,
    /// A classic filter; the id keeps aya from detaching it before [`detach_classic`].
    Classic(SchedClassifierLinkId),
}

/// Attaches and pins the XDP program.
///
/// # Errors
/// If neither mode works, with the kernel's words for each.
pub(super) fn attach_xdp(
    ebpf: &mut Ebpf,
    interface: &str,
    interface_index: u32,
    choice: ModeChoice,
    directory: &Path,
) -> anyhow::Result<Attached> {
    let program: &mut Xdp = ebpf.program_mut(abi::XDP_PROGRAM).context("the object has no XDP program")?.try_into()?;
    let attached = match choice {
        ModeChoice::Native => {
            let link = program.attach_to_if_index(interface_index, AyaMode::Driver).with_context(|| {
                format!(
                    "{interface}: the driver does not take a native XDP program; `--mode auto` falls back to generic"
                )
            })?;
            (link, XdpMode::Native, "asked for".to_owned())
        }
        ModeChoice::Generic => {
            let link = attach_generic(program, interface, interface_index)?;
            (link, XdpMode::Generic, "asked for".to_owned())
        }
        ModeChoice::Auto => match program.attach_to_if_index(interface_index, AyaMode::Driver) {
            Ok(link) => (link, XdpMode::Native, "the driver supports it".to_owned()),
            Err(error) => {
                let error = anyhow::Error::from(error);
                let link = attach_generic(program, interface, interface_index)?;
                (link, XdpMode::Generic, format!("the driver does not take a native program ({error:#})"))
            }
        },
    };
    let (link, mode, reason) = attached;
    let id = program.info().context("read the XDP program's id")?.id();
    let link = program.take_link(link)?;
    let link = match FdLink::try_from(link) {
        Ok(link) => link,
        // aya falls back to the netlink interface, whose attachment cannot be pinned or taken over.
        Err(LinkError::InvalidLink) => bail!("{interface}: the kernel offers no BPF link for XDP (5.9 or newer does)"),
        Err(error) => return Err(error).context("get the XDP link"),
    };
    let path = pins::xdp_link(directory);
    link.pin(&path).with_context(|| format!("pin the XDP link at {}", path.display()))?;
    Ok(Attached { mode, reason, program: id })
}

fn attach_generic(program: &mut Xdp, interface: &str, index: u32) -> anyhow::Result<aya::programs::xdp::XdpLinkId> {
    program
        .attach_to_if_index(index, AyaMode::Skb)
        .with_context(|| format!("{interface}: the kernel does not take the XDP program"))
}

/// Attaches the TC program to the egress of the interface, and pins its link where there is one.
///
/// # Minimum kernel version
/// 6.6 for a link (TCX); before that a classic filter on a `clsact` queueing discipline.
///
/// # Errors
/// If the kernel does not take the program.
pub(super) fn attach_tc(ebpf: &mut Ebpf, interface: &str, directory: &Path) -> anyhow::Result<TcLink> {
    let program: &mut SchedClassifier =
        ebpf.program_mut(abi::TC_PROGRAM).context("the object has no TC program")?.try_into()?;
    let attach = |program: &mut SchedClassifier| program.attach(interface, TcAttachType::Egress);
    let id = match attach(program) {
        Ok(id) => id,
        Err(_) => {
            // Without TCX a classic filter needs the queueing discipline; if it was there already, that is as good.
            let _ = tc::qdisc_add_clsact(interface);
            attach(program).with_context(|| format!("{interface}: attach the TC program to egress"))?
        }
    };
    let link = program.take_link(id)?;
    match FdLink::try_from(link) {
        Ok(link) => {
            let path = pins::tc_link(directory);
            link.pin(&path).with_context(|| format!("pin the TC link at {}", path.display()))?;
            Ok(TcLink::Pinned)
        }
        Err(LinkError::InvalidLink) => {
            // The conversion has consumed, and so detached, the classic filter: attach it again and keep it.
            let id = attach(program).with_context(|| format!("{interface}: attach the TC program to egress"))?;
            Ok(TcLink::Classic(id))
        }
        Err(error) => Err(error).context("get the TC link"),
    }
}

/// Detaches a pinned link at once, whoever else still holds it.
pub(super) fn detach_pinned(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        let link = PinnedLink::from_pin(path).with_context(|| format!("open the pinned link {}", path.display()))?;
        link.unpin().with_context(|| format!("unpin the link {}", path.display()))?;
    }
    Ok(())
}

/// Detaches a classic filter.
pub(super) fn detach_classic(ebpf: &mut Ebpf, id: SchedClassifierLinkId) -> anyhow::Result<()> {
    let program: &mut SchedClassifier =
        ebpf.program_mut(abi::TC_PROGRAM).context("the object has no TC program")?.try_into()?;
    program.detach(id).context("detach the TC program")
}
