//! Attaching the programs to the interface, natively where the driver can, and pinning their links.

use std::{fmt, path::Path};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType, Xdp,
        links::{FdLink, Link as _, LinkError, PinnedLink},
        tc::{self, SchedClassifierLink},
        xdp::{XdpLinkId, XdpMode as AyaMode},
    },
};
use kplb_common::abi;
use serde::{Deserialize, Serialize};

use super::{pins, predecessor};

/// Where in the receive path the XDP program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, after the kernel has copied the packet into one piece.
    Generic,
}

impl XdpMode {
    /// The mode that users see as this.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Native, Self::Generic].into_iter().find(|mode| mode.name() == name)
    }

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

impl ModeChoice {
    /// Whether a program that runs in this mode may go on so.
    pub(super) const fn allows(self, mode: XdpMode) -> bool {
        matches!((self, mode), (Self::Auto, _) | (Self::Native, XdpMode::Native) | (Self::Generic, XdpMode::Generic))
    }
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
    /// The TC program's filter, where the kernel has no links for it.
    pub classic: Option<ClassicFilter>,
}

/// What tells one filter at the egress of an interface from another.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClassicFilter {
    /// Its priority.
    pub priority: u16,
    /// Its handle within that.
    pub handle: u32,
}

/// The TC link.
pub(super) enum TcLink {
    /// Pinned with the rest.
    Pinned,
    /// Of a kernel without TCX: it cannot be pinned, and stays attached by itself.
    Classic(ClassicFilter),
}

impl TcLink {
    /// The filter, if it is none that is pinned.
    pub(super) const fn filter(&self) -> Option<ClassicFilter> {
        match self {
            Self::Pinned => None,
            Self::Classic(filter) => Some(*filter),
        }
    }
}

/// Where to attach, and what is there.
pub(super) struct Site<'a> {
    pub(super) interface: &'a str,
    pub(super) index: u32,
    /// Where to pin links.
    pub(super) directory: &'a Path,
    /// Where those of a predecessor are pinned, whose place is taken.
    pub(super) before: Option<&'a Path>,
}

/// Attaches and pins the XDP program, or replaces that of a predecessor, which runs in the mode `current`.
///
/// # Errors
/// If neither mode works, with the kernel's words for each.
pub(super) fn attach_xdp(
    ebpf: &mut Ebpf,
    site: &Site<'_>,
    choice: ModeChoice,
    current: Option<XdpMode>,
) -> anyhow::Result<Attached> {
    let program: &mut Xdp = ebpf.program_mut(abi::XDP_PROGRAM).context("the object has no XDP program")?.try_into()?;
    let path = pins::xdp_link(site.directory);
    let before = match site.before {
        Some(before) => predecessor::link(&pins::xdp_link(before))?,
        None => None,
    };
    if let Some((before, mode)) = before.zip(current.filter(|current| choice.allows(*current))) {
        let id = program
            .attach_to_link(before.try_into()?)
            .with_context(|| format!("{}: the kernel does not replace the earlier XDP program", site.interface))?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        pin_taken_over(link, &path, site)?;
        let program = program.info().context("read the XDP program's id")?.id();
        return Ok(Attached { mode, reason: "taken over from an earlier agent".to_owned(), program, classic: None });
    }
    if let Some(before) = site.before {
        tracing::warn!(
            "{}: the interface changes its XDP mode, as it was asked to: what comes in this moment, the kernel refuses",
            site.interface
        );
        detach_pinned(&pins::xdp_link(before))?;
    }
    let (link, mode, reason) = match (attach_new_xdp(program, site, choice), current) {
        (Err(error), Some(current)) if site.before.is_some() => {
            // What forwarded before goes on, by this program.
            let mode = if current == XdpMode::Native { AyaMode::Driver } else { AyaMode::Skb };
            let link = program.attach_to_if_index(site.index, mode)?;
            pin_new_xdp(program, link, site)?;
            return Err(error);
        }
        (attached, _) => attached?,
    };
    let id = program.info().context("read the XDP program's id")?.id();
    pin_new_xdp(program, link, site)?;
    Ok(Attached { mode, reason, program: id, classic: None })
}

fn pin_new_xdp(program: &mut Xdp, link: XdpLinkId, site: &Site<'_>) -> anyhow::Result<()> {
    let link = program.take_link(link)?;
    let link = match FdLink::try_from(link) {
        Ok(link) => link,
        // aya falls back to the netlink interface, whose attachment cannot be pinned or taken over.
        Err(LinkError::InvalidLink) => {
            bail!("{}: the kernel offers no BPF link for XDP (5.9 or newer does)", site.interface)
        }
        Err(error) => return Err(error).context("get the XDP link"),
    };
    let path = pins::xdp_link(site.directory);
    link.pin(&path).map(drop).with_context(|| format!("pin the XDP link at {}", path.display()))
}

fn attach_new_xdp(
    program: &mut Xdp,
    site: &Site<'_>,
    choice: ModeChoice,
) -> anyhow::Result<(XdpLinkId, XdpMode, String)> {
    let interface = site.interface;
    match choice {
        ModeChoice::Native => {
            let link = program.attach_to_if_index(site.index, AyaMode::Driver).with_context(|| {
                format!(
                    "{interface}: the driver does not take a native XDP program; `--mode auto` falls back to generic"
                )
            })?;
            Ok((link, XdpMode::Native, "asked for".to_owned()))
        }
        ModeChoice::Generic => Ok((attach_generic(program, site)?, XdpMode::Generic, "asked for".to_owned())),
        ModeChoice::Auto => match program.attach_to_if_index(site.index, AyaMode::Driver) {
            Ok(link) => Ok((link, XdpMode::Native, "the driver supports it".to_owned())),
            Err(error) => {
                let error = anyhow::Error::from(error);
                let link = attach_generic(program, site)?;
                Ok((link, XdpMode::Generic, format!("the driver does not take a native program ({error:#})")))
            }
        },
    }
}

fn attach_generic(program: &mut Xdp, site: &Site<'_>) -> anyhow::Result<XdpLinkId> {
    program
        .attach_to_if_index(site.index, AyaMode::Skb)
        .with_context(|| format!("{}: the kernel does not take the XDP program", site.interface))
}

/// A link that is pinned elsewhere, or here already, is pinned here.
fn pin_taken_over(link: FdLink, path: &Path, site: &Site<'_>) -> anyhow::Result<()> {
    if site.before == Some(site.directory) {
        return Ok(());
    }
    link.pin(path).map(drop).with_context(|| format!("pin the link at {}", path.display()))
}

impl ClassicFilter {
    fn link(self, interface: &str) -> anyhow::Result<SchedClassifierLink> {
        let Self { priority, handle } = self;
        SchedClassifierLink::attached(interface, TcAttachType::Egress, priority, handle.into(), None)
            .with_context(|| format!("find {interface}"))
    }
}

/// Attaches the TC program to the egress of the interface, and pins its link where there is one; or replaces that of a
/// predecessor, which may be the filter `classic`.
///
/// # Minimum kernel version
/// 6.6 for a link (TCX); before that a classic filter on a `clsact` queueing discipline.
///
/// # Errors
/// If the kernel does not take the program.
pub(super) fn attach_tc(ebpf: &mut Ebpf, site: &Site<'_>, classic: Option<ClassicFilter>) -> anyhow::Result<TcLink> {
    let interface = site.interface;
    let program: &mut SchedClassifier =
        ebpf.program_mut(abi::TC_PROGRAM).context("the object has no TC program")?.try_into()?;
    let path = pins::tc_link(site.directory);
    let not_replaced = || format!("{interface}: the kernel does not replace the earlier TC program");
    if let Some(before) = site.before {
        if let Some(link) = predecessor::link(&pins::tc_link(before))? {
            let id = program.attach_to_link(link.try_into()?).with_context(not_replaced)?;
            pin_taken_over(FdLink::try_from(program.take_link(id)?)?, &path, site)?;
            return Ok(TcLink::Pinned);
        }
        if let Some(filter) = classic {
            let id = program.attach_to_link(filter.link(interface)?).with_context(not_replaced)?;
            std::mem::forget(program.take_link(id)?);
            return Ok(TcLink::Classic(filter));
        }
    }
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
    if let (Ok(priority), Ok(handle)) = (link.priority(), link.handle()) {
        // Dropped, it would detach the filter.
        std::mem::forget(link);
        return Ok(TcLink::Classic(ClassicFilter { priority, handle: handle.into() }));
    }
    let link = FdLink::try_from(link).context("get the TC link")?;
    link.pin(&path).with_context(|| format!("pin the TC link at {}", path.display()))?;
    Ok(TcLink::Pinned)
}

/// Detaches a pinned link, if nobody else holds it.
pub(super) fn detach_pinned(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        let link = PinnedLink::from_pin(path).with_context(|| format!("open the pinned link {}", path.display()))?;
        link.unpin().with_context(|| format!("unpin the link {}", path.display()))?;
    }
    Ok(())
}

/// Detaches a filter that is pinned nowhere.
///
/// # Errors
/// If the interface has no such filter, or the kernel refuses.
pub fn detach_classic(interface: &str, filter: ClassicFilter) -> anyhow::Result<()> {
    filter.link(interface)?.detach().context("detach the TC program")
}

/// What a predecessor of the same build has attached, and goes on with; nothing, if it is not all there.
pub(super) fn kept(site: &Site<'_>, mode: XdpMode, classic: Option<ClassicFilter>) -> Option<(Attached, TcLink)> {
    let before = site.before?;
    let program = predecessor::link(&pins::xdp_link(before)).ok()??.info().ok()?.program_id();
    let tc = match classic {
        Some(filter) => TcLink::Classic(filter),
        None => predecessor::link(&pins::tc_link(before)).ok()?.map(|_| TcLink::Pinned)?,
    };
    let reason = "as an earlier agent has left it".to_owned();
    Some((Attached { mode, reason, program, classic }, tc))
}
