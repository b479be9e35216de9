//! What an earlier agent has left attached: its programs forward until somebody takes them over.
//!
//! Maps of this build's layout go on as they are, with all flows. Those of another layout are never read: the new programs
//! take the place of the old ones with maps of their own, and what came of the old flows is reset like any unknown.

use std::path::{Path, PathBuf};

use aya::{maps::MapInfo, programs::loaded_programs};
use kplb_common::abi::map;
use tracing::warn;

use super::{
    attach::{self, Attached, ClassicFilter, ClassicFilters, Side, own_filters},
    local,
    mode::{Mode, ModeChoice},
    pins,
};

/// What is at the ingress of an interface, whosever it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Present {
    /// Ids of XDP programs.
    pub xdp: Vec<u32>,
    /// The mode in which those run, if it is one of kplb's.
    pub xdp_mode: Option<Mode>,
    /// TC programs.
    pub tc: Vec<TcProgram>,
}

/// A TC program on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TcProgram {
    /// Its id.
    pub id: u32,
    /// Its filter, and the name of that, if it is there by one and not by a link.
    pub filter: Option<(ClassicFilter, String)>,
}

impl Present {
    /// Whether the program with this id is there.
    pub fn has(&self, program: u32) -> bool {
        self.xdp.contains(&program) || self.tc.iter().any(|tc| tc.id == program)
    }
}

/// What an agent has written down of what it attached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Traces {
    /// Of which build the programs are, by [`super::build`].
    pub build: Option<u64>,
    /// Which mode it was asked for, and why it took the one that it took.
    pub mode: Option<(ModeChoice, String)>,
}

/// Attached programs, and the directory of their pins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Predecessor {
    directory: PathBuf,
    layout: Layout,
    build: Option<u64>,
    choice: Option<ModeChoice>,
    /// Where its program at ingress runs.
    pub(super) mode: Mode,
    /// Why there.
    reason: Option<String>,
    /// Id of that program.
    program: u32,
    pub(super) classic: ClassicFilters,
}

/// Of which layout its maps are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// This build's.
    Same,
    /// Another one.
    Other,
}

impl Predecessor {
    /// The one whose program is among those on the interface; what is pinned for it and attached nowhere any more is
    /// removed. `at_egress` are programs that are there by filters. `traces`: as far as they are known.
    ///
    /// # Errors
    /// If pins cannot be listed or removed.
    pub fn find(
        root: &Path,
        interface: &str,
        present: &Present,
        at_egress: &[TcProgram],
        traces: Traces,
    ) -> anyhow::Result<Option<Self>> {
        let own = pins::pin_directory(root, interface);
        let mut found = None;
        let Traces { build, mode } = traces;
        let (choice, reason) = mode.unzip();
        for directory in pins::directories(root, interface)? {
            let ingress = if found.is_none() { ingress(&directory, present) } else { None };
            if let Some((program, mode, filter)) = ingress {
                let layout = if directory == own { Layout::Same } else { Layout::Other };
                let egress = own_filters(Side::Egress, at_egress).map(|(_, filter)| filter).next();
                let classic = ClassicFilters { ingress: filter, egress };
                found = Some(Self { directory, layout, build, choice, mode, reason: reason.clone(), program, classic });
            } else if pins::remove_pins(&directory)? {
                warn!("removed pins of programs that are attached no longer, in {}", directory.display());
            }
        }
        Ok(found)
    }

    /// Whether its programs are of this build, and where this choice would have them, so that nothing would be won by
    /// exchanging them.
    pub(super) fn is_like(&self, build: u64, choice: ModeChoice) -> bool {
        let is_in_place = self.choice == Some(choice) || choice.only() == Some(self.mode);
        self.layout == Layout::Same && self.build == Some(build) && is_in_place
    }

    /// Of which layout its maps are.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// How its programs are attached.
    pub(super) fn attached(&self) -> Attached {
        let reason = self.reason.clone().unwrap_or_else(|| "as an earlier agent has left it".to_owned());
        Attached { mode: self.mode, reason, program: self.program, classic: self.classic }
    }

    /// Where its pins are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Where the program at ingress runs that is pinned for an interface; none if it is not among those that are there.
///
/// # Errors
/// If pins cannot be listed.
pub fn attached_mode(root: &Path, interface: &str, present: &Present) -> anyhow::Result<Option<Mode>> {
    let directories = pins::directories(root, interface)?;
    Ok(directories.iter().find_map(|directory| ingress(directory, present)).map(|(_, mode, _)| mode))
}

/// Id, mode and filter of the program at ingress whose pins are in a directory.
fn ingress(directory: &Path, present: &Present) -> Option<(u32, Mode, Option<ClassicFilter>)> {
    if let (Some(id), Some(mode)) = (program(&pins::xdp_link(directory)), present.xdp_mode)
        && present.xdp.contains(&id)
    {
        return Some((id, mode, None));
    }
    if let Some(id) = program(&pins::tc_ingress_link(directory))
        && present.tc.iter().any(|tc| tc.id == id)
    {
        return Some((id, Mode::Tc, None));
    }
    own_filters(Side::Ingress, &present.tc)
        .find(|(id, _)| uses_maps_in(directory, *id))
        .map(|(id, filter)| (id, Mode::Tc, Some(filter)))
}

/// Whether a program uses the maps in a directory, which may be of another layout than its own after an agent was killed in
/// the middle of taking over.
fn uses_maps_in(directory: &Path, program: u32) -> bool {
    let Ok(node) = MapInfo::from_pin(pins::maps(directory).join(map::NODE)) else { return false };
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program);
    info.and_then(|info| info.map_ids().ok()?).is_some_and(|maps| maps.contains(&node.id()))
}

/// Detaches what is pinned for an interface, of every layout, and removes the pins. Returns whether there was anything.
///
/// # Errors
/// If something cannot be detached or removed; what could be is gone then.
pub fn take_away(root: &Path, interface: &str) -> anyhow::Result<bool> {
    let mut found = false;
    for directory in pins::directories(root, interface)? {
        let detached = local::detach(&directory);
        let detached = detached.and(attach::detach(&directory, interface, ClassicFilters::default()));
        found |= pins::remove_pins(&directory)?;
        detached?;
    }
    Ok(found)
}

/// The program that a pinned link leads to.
fn program(path: &Path) -> Option<u32> {
    Some(attach::open_link(path).ok()??.info().ok()?.program_id())
}
