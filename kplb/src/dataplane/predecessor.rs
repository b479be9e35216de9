//! What an earlier agent has left attached: its programs forward until somebody takes them over.
//!
//! Maps of this build's layout go on as they are, with all flows. Those of another layout are never read: the new programs
//! take the place of the old ones with maps of their own, and what came of the old flows is reset like any unknown.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::programs::links::{FdLink, PinnedLink};
use tracing::warn;

use super::pins;

/// Attached programs, and the directory of their pins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Predecessor {
    pub(super) directory: PathBuf,
    layout: Layout,
    build: Option<u64>,
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
    /// removed. `build`: that of its programs, by [`super::build`], as far as it is known.
    ///
    /// # Errors
    /// If pins cannot be listed or removed.
    pub fn find(
        root: &Path,
        interface: &str,
        on_interface: &[u32],
        build: Option<u64>,
    ) -> anyhow::Result<Option<Self>> {
        let own = pins::pin_directory(root, interface);
        let mut found = None;
        for directory in pins::directories(root, interface)? {
            let is_attached = program(&directory).is_some_and(|program| on_interface.contains(&program));
            if is_attached && found.is_none() {
                let layout = if directory == own { Layout::Same } else { Layout::Other };
                found = Some(Self { directory, layout, build });
            } else if pins::remove_pins(&directory)? {
                warn!("removed pins of programs that are attached no longer, in {}", directory.display());
            }
        }
        Ok(found)
    }

    /// Whether its programs are of this build, so that nothing would be won by exchanging them.
    pub(super) fn is_of(&self, build: u64) -> bool {
        self.layout == Layout::Same && self.build == Some(build)
    }

    /// Of which layout its maps are.
    pub const fn layout(&self) -> Layout {
        self.layout
    }
}

/// The program that the pinned link of `kplb_xdp` leads to.
fn program(directory: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(pins::xdp_link(directory)).ok()?);
    Some(link.info().ok()?.program_id())
}

/// Opens a pinned link, if there is one.
pub(super) fn link(path: &Path) -> anyhow::Result<Option<FdLink>> {
    if !path.exists() {
        return Ok(None);
    }
    let link = PinnedLink::from_pin(path).with_context(|| format!("open the pinned link {}", path.display()))?;
    Ok(Some(link.into()))
}
