//! Attaching the programs to the interface, where it can do the most, and pinning their links.
//!
//! Invariant: a program takes the place of another without a moment in which there is none.

mod tc;
mod xdp;

use std::{fs, os::fd::AsFd as _, path::Path};

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::links::{FdLink, PinnedLink},
};

pub use self::tc::{ClassicFilter, ClassicFilters, Side, detach_classic, has_tc_links, own_filters, tcx_programs};
use super::{
    mode::{Mode, ModeChoice, NativeXdp},
    predecessor::Predecessor,
    syscall::{self, Access},
};

/// How the programs are attached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attached {
    /// Where the program at ingress runs.
    pub mode: Mode,
    /// Why there, in words.
    pub reason: String,
    /// Its id.
    pub program: u32,
    /// The filters of the TC programs, where the kernel has no links for them.
    pub classic: ClassicFilters,
}

/// Where to attach, and what is there.
pub(super) struct Site<'a> {
    pub(super) interface: &'a str,
    pub(super) index: u32,
    /// Where to pin links.
    pub(super) directory: &'a Path,
    /// Whose place is taken.
    pub(super) before: Option<&'a Predecessor>,
}

impl Site<'_> {
    /// Where links of its programs may be pinned.
    fn directories(&self) -> impl Iterator<Item = &Path> {
        let before = self.before.map(Predecessor::directory).filter(|directory| *directory != self.directory);
        [self.directory].into_iter().chain(before)
    }

    /// The link of a predecessor that `path` tells the place of.
    fn link_before(&self, path: impl Fn(&Path) -> std::path::PathBuf) -> anyhow::Result<Option<FdLink>> {
        match self.before {
            Some(before) => open_link(&path(before.directory())),
            None => Ok(None),
        }
    }

    /// Pins a link that is pinned elsewhere, or here already.
    fn pin_taken_over(&self, link: FdLink, path: &Path) -> anyhow::Result<()> {
        if self.before.is_some_and(|before| before.directory() == self.directory) {
            return Ok(());
        }
        pin(link, path)
    }
}

/// The program at ingress, once it is attached.
#[derive(Clone, Copy)]
struct Entered {
    program: u32,
    classic: Option<ClassicFilter>,
}

/// Attaches the program at egress, then the one at ingress, and pins their links; or replaces those of a predecessor.
///
/// Replies first: a client's packet must not reach a backend on this node before its reply can be reversed.
///
/// # Errors
/// If no mode works, with the kernel's words for each. Then nothing is attached but what was before, or its like.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    site: &Site<'_>,
    choice: ModeChoice,
    native: &NativeXdp,
) -> anyhow::Result<Attached> {
    let egress = tc::attach(ebpf, site, Side::Egress)?;
    let entered = attach_ingress(ebpf, site, choice, native).inspect_err(|_| {
        if site.before.is_none() {
            // The error that matters is the one of attaching.
            let _ = tc::detach(site.directory, site.interface, Side::Egress, egress);
        }
    });
    let (mode, reason, Entered { program, classic: ingress }) = entered?;
    Ok(Attached { mode, reason, program, classic: ClassicFilters { ingress, egress } })
}

fn attach_ingress(
    ebpf: &mut Ebpf,
    site: &Site<'_>,
    choice: ModeChoice,
    native: &NativeXdp,
) -> anyhow::Result<(Mode, String, Entered)> {
    if let Some(mode) = choice.only() {
        return Ok((mode, "asked for".to_owned(), enter(ebpf, site, mode)?));
    }
    let reason = match native {
        NativeXdp::Unfit(reason) => reason.clone(),
        NativeXdp::Promised | NativeXdp::Unknown => match enter(ebpf, site, Mode::Native) {
            Ok(entered) => return Ok((Mode::Native, "the driver supports it".to_owned(), entered)),
            Err(error) => format!("the driver takes no native XDP program: {}", error.root_cause()),
        },
    };
    let entered = enter(ebpf, site, Mode::Tc).with_context(|| reason.clone())?;
    Ok((Mode::Tc, reason, entered))
}

/// Attaches the program at ingress in this mode, in place of a predecessor's.
fn enter(ebpf: &mut Ebpf, site: &Site<'_>, mode: Mode) -> anyhow::Result<Entered> {
    let before = site.before.map(|before| before.mode);
    if before.is_some_and(|before| before != mode && before.is_xdp() && mode.is_xdp()) {
        return change_xdp(ebpf, site, mode);
    }
    let entered = match mode {
        Mode::Tc => tc::attach(ebpf, site, Side::Ingress)
            .and_then(|classic| Ok(Entered { program: tc::id(ebpf, Side::Ingress)?, classic }))?,
        Mode::Native | Mode::Generic => Entered { program: xdp::attach(ebpf, site, mode)?, classic: None },
    };
    // For a moment both are there. The first one that sees a packet decides: what it passes is nothing of ours to the other.
    for directory in site.directories() {
        if mode.is_xdp() { tc::detach_pinned_ingress(directory)? } else { xdp::detach(directory)? }
    }
    if mode.is_xdp() && site.before.is_some_and(|before| before.classic.ingress.is_some()) {
        tc::detach_filters(site.interface, Side::Ingress)?;
    }
    Ok(entered)
}

/// Attaches in another mode of XDP. The kernel takes no second program of that kind, so that of TC stands in.
fn change_xdp(ebpf: &mut Ebpf, site: &Site<'_>, mode: Mode) -> anyhow::Result<Entered> {
    let stand_in = tc::attach(ebpf, site, Side::Ingress)?;
    site.directories().try_for_each(xdp::detach)?;
    let attached = xdp::attach_new(ebpf, site, mode);
    if attached.is_err()
        && let Some(before) = site.before
    {
        // What forwarded before goes on, by this program.
        xdp::attach_new(ebpf, site, before.mode)?;
    }
    tc::detach(site.directory, site.interface, Side::Ingress, stand_in)?;
    Ok(Entered { program: attached?, classic: None })
}

/// Opens a pinned link, if there is one.
pub(super) fn open_link(path: &Path) -> anyhow::Result<Option<FdLink>> {
    if !path.exists() {
        return Ok(None);
    }
    let link = PinnedLink::from_pin(path).with_context(|| format!("open the pinned link {}", path.display()))?;
    Ok(Some(link.into()))
}

fn pin(link: FdLink, path: &Path) -> anyhow::Result<()> {
    link.pin(path).map(drop).with_context(|| format!("pin the link at {}", path.display()))
}

/// Detaches a pinned link, wherever else it may be pinned, and removes the pin: once it returns, no packet meets its program.
pub(super) fn detach_pinned(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        let link = syscall::open_pinned(path, Access::All)
            .with_context(|| format!("open the pinned link {}", path.display()))?;
        // The pin first: who finds one takes its link for attached.
        fs::remove_file(path).with_context(|| format!("remove the pin {}", path.display()))?;
        syscall::detach_link(link.as_fd()).with_context(|| format!("detach what was pinned at {}", path.display()))?;
    }
    Ok(())
}

/// Detaches what is pinned in `directory`, and the filters: the client's side first, so that no packet is rewritten whose
/// reply would not be.
///
/// # Errors
/// The first; the rest is detached all the same.
pub(super) fn detach(directory: &Path, interface: &str, classic: ClassicFilters) -> anyhow::Result<()> {
    let xdp = xdp::detach(directory);
    let ingress = tc::detach(directory, interface, Side::Ingress, classic.ingress);
    xdp.and(ingress).and(tc::detach(directory, interface, Side::Egress, classic.egress))
}

/// Whether what a predecessor has attached is all there, besides the program at ingress by which it was found.
pub(super) fn is_whole(before: &Predecessor) -> bool {
    before.classic.egress.is_some() || matches!(open_link(&super::pins::tc_link(before.directory())), Ok(Some(_)))
}
