//! The TC programs: by links (TCX) where the kernel has them, else by filters on a `clsact` queueing discipline.
//!
//! At ingress kplb's comes first: what it sends on, no other TC program sees, as at XDP.
//!
//! # Minimum kernel version
//! 6.6 for TCX.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, Link as _},
        tc::{self, NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError},
    },
    util::KernelVersion,
};
use kplb_common::abi;

use super::{Site, detach_pinned, pin};
use crate::dataplane::{object, pins, predecessor::TcProgram};

/// Which way packets go that a TC program sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// They come in.
    Ingress,
    /// They leave.
    Egress,
}

impl Side {
    const fn program(self) -> &'static str {
        match self {
            Self::Ingress => abi::TC_INGRESS_PROGRAM,
            Self::Egress => abi::TC_PROGRAM,
        }
    }

    const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    /// Where the link is pinned.
    fn pin(self, directory: &Path) -> PathBuf {
        match self {
            Self::Ingress => pins::tc_ingress_link(directory),
            Self::Egress => pins::tc_link(directory),
        }
    }
}

/// What tells one filter on a side of an interface from another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClassicFilter {
    /// Its priority: the lowest comes first.
    pub priority: u16,
    /// Its handle within that.
    pub handle: u32,
}

/// The filters of both sides, where they are no links.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClassicFilters {
    /// That of packets which come in.
    pub ingress: Option<ClassicFilter>,
    /// That of packets which leave.
    pub egress: Option<ClassicFilter>,
}

impl ClassicFilters {
    /// That of this side.
    pub const fn on(self, side: Side) -> Option<ClassicFilter> {
        match side {
            Side::Ingress => self.ingress,
            Side::Egress => self.egress,
        }
    }
}

impl ClassicFilter {
    fn link(self, interface: &str, side: Side) -> anyhow::Result<SchedClassifierLink> {
        let Self { priority, handle } = self;
        SchedClassifierLink::attached(interface, side.attach_type(), priority, handle.into(), None)
            .with_context(|| format!("find {interface}"))
    }
}

/// Attaches the program of a side, and pins its link where there is one; or replaces that of a predecessor. Returns its
/// filter, where it is no link.
pub(super) fn attach(ebpf: &mut Ebpf, site: &Site<'_>, side: Side) -> anyhow::Result<Option<ClassicFilter>> {
    let interface = site.interface;
    let path = side.pin(site.directory);
    let program = program(ebpf, side)?;
    let not_replaced = || format!("{interface}: the kernel does not replace the earlier TC program");
    if let Some(link) = site.link_before(|directory| side.pin(directory))? {
        let id = program.attach_to_link(link.try_into()?).with_context(not_replaced)?;
        site.pin_taken_over(FdLink::try_from(program.take_link(id)?)?, &path)?;
        return Ok(None);
    }
    if let Some(filter) = site.before.and_then(|before| before.classic.on(side)) {
        let id = program.attach_to_link(filter.link(interface, side)?).with_context(not_replaced)?;
        // Dropped, it would detach the filter.
        std::mem::forget(program.take_link(id)?);
        return Ok(Some(filter));
    }
    let id = attach_new(program, interface, side)?;
    let link = program.take_link(id)?;
    if let (Ok(priority), Ok(handle)) = (link.priority(), link.handle()) {
        std::mem::forget(link);
        return Ok(Some(ClassicFilter { priority, handle: handle.into() }));
    }
    pin(FdLink::try_from(link).context("get the TC link")?, &path)?;
    Ok(None)
}

fn attach_new(program: &mut SchedClassifier, interface: &str, side: Side) -> anyhow::Result<SchedClassifierLinkId> {
    let failed = || format!("{interface}: attach the TC program to its {side:?}").to_lowercase();
    if has_tc_links() {
        let order = match side {
            Side::Ingress => LinkOrder::first(),
            Side::Egress => LinkOrder::default(),
        };
        let options = TcAttachOptions::TcxOrder(order);
        return program.attach_with_options(interface, side.attach_type(), options).with_context(failed);
    }
    // If it is there already, that is as good: an agent does not start next to another queueing discipline.
    let _ = tc::qdisc_add_clsact(interface);
    let mut attach = |priority| {
        let options = TcAttachOptions::Netlink(NlOptions { priority, ..NlOptions::default() });
        program.attach_with_options(interface, side.attach_type(), options)
    };
    // Zero leaves the priority to the kernel, which puts the filter before those whose priority it has chosen.
    match side {
        Side::Ingress => attach(1).or_else(|_| attach(0)),
        Side::Egress => attach(0),
    }
    .with_context(failed)
}

/// The id of the program of a side, which is loaded.
pub(super) fn id(ebpf: &mut Ebpf, side: Side) -> anyhow::Result<u32> {
    Ok(program(ebpf, side)?.info().context("read the TC program's id")?.id())
}

fn program(ebpf: &mut Ebpf, side: Side) -> anyhow::Result<&mut SchedClassifier> {
    let name = side.program();
    object::load_program(ebpf, name)?;
    Ok(ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?.try_into()?)
}

/// Detaches the program at ingress that is pinned in `directory`.
pub(super) fn detach_pinned_ingress(directory: &Path) -> anyhow::Result<()> {
    detach_pinned(&Side::Ingress.pin(directory))
}

/// Detaches the program of a side that is pinned in `directory`, or is there by a filter.
pub(super) fn detach(
    directory: &Path,
    interface: &str,
    side: Side,
    classic: Option<ClassicFilter>,
) -> anyhow::Result<()> {
    detach_pinned(&side.pin(directory))?;
    classic.map_or(Ok(()), |_| detach_filters(interface, side))
}

/// Detaches kplb's filters of a side, by their names: where there was one, another may be by now. None is as good.
pub(super) fn detach_filters(interface: &str, side: Side) -> anyhow::Result<()> {
    match tc::qdisc_detach_program(interface, side.attach_type(), side.program()) {
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("{interface}: detach the filter of {}", side.program())),
    }
}

/// Detaches a filter that is pinned nowhere.
///
/// # Errors
/// If the interface has no such filter, or the kernel refuses.
pub fn detach_classic(interface: &str, side: Side, filter: ClassicFilter) -> anyhow::Result<()> {
    filter.link(interface, side)?.detach().context("detach the TC program")
}

/// Whether the kernel has links for TC programs (TCX).
pub fn has_tc_links() -> bool {
    KernelVersion::current().is_ok_and(|current| current >= KernelVersion::new(6, 6, 0))
}

/// Those of kplb among the programs that are on a side of an interface: ids and filters. A filter is pinned nowhere. It is
/// known by the name that it was given.
pub fn own_filters(side: Side, programs: &[TcProgram]) -> impl Iterator<Item = (u32, ClassicFilter)> {
    let own = side.program();
    programs
        .iter()
        .filter_map(move |tc| tc.filter.as_ref().filter(|(_, name)| name == own).map(|(place, _)| (tc.id, *place)))
}

/// How often the kernel is asked for programs.
const QUESTIONS: usize = 3;

/// The ids of the programs on a side of an interface that are there by links, the first one first; none where the kernel
/// knows no such links.
///
/// # Errors
/// If the kernel does not tell.
pub fn tcx_programs(interface: &str, side: Side) -> anyhow::Result<Vec<u32>> {
    if !has_tc_links() {
        return Ok(Vec::new());
    }
    // Each is opened by its number: there is no answer if one goes meanwhile, whosever it is.
    let ask = || SchedClassifier::query_tcx(interface, side.attach_type());
    let answer = (1..QUESTIONS).fold(ask(), |answer, _| answer.or_else(|_| ask()));
    let (_, programs) = answer.with_context(|| format!("{interface}: list the TC programs"))?;
    Ok(programs.iter().map(|program| program.id()).collect())
}
