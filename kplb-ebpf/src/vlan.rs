//! VLAN tags: which frames are of the node's VLAN, and where their IP header begins.
//!
//! A frame that goes out is the one that came in, so its tags stay as they are. A tag may also be kept apart from the
//! frame's bytes, as the kernel does with the outermost one.

use kplb_common::{
    net::{Be16, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN},
    node::{MAX_TAGS, Node, Vlan},
};

use crate::packet::{Ethernet, Packet, TAG_IDENTIFIER, Tag};

const VLAN: u16 = Be16::from_host(ETHERTYPE_VLAN).to_wire();
const SERVICE_VLAN: u16 = Be16::from_host(ETHERTYPE_SERVICE_VLAN).to_wire();

/// Tags that are looked at: those that count, and one that gives a priority only.
const WALKED_TAGS: usize = MAX_TAGS + 1;

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}

/// Whether a frame whose first ethertype is no tag's is one of the node's: all the tags that it is to have are elsewhere.
#[inline(always)]
pub fn is_fast<P: Packet>(packet: &P, node: &Node) -> bool {
    node.vlan == Vlan([packet.tag_apart(), 0])
}

/// In place of what is behind the tags: the frame is of another VLAN than the node's.
pub const FOREIGN: u16 = VLAN;

/// What is behind a frame's tags, in one register.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Entered(u32);

impl Entered {
    #[inline(always)]
    fn new(ethertype: u16, l3: usize) -> Self {
        Self((l3 as u32) << 16 | u32::from(ethertype))
    }

    /// The ethertype, in memory order, or [`FOREIGN`].
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        self.0 as u16
    }

    /// Where what it is of begins in the frame; below 256.
    #[inline(always)]
    pub fn l3(self) -> usize {
        let l3 = (self.0 >> 16) as u8;
        // Volatile, or LLVM, which knows what `enter` can return, leaves out the bound that kernels before 6.8 need: they
        // forget what a function returns.
        // SAFETY: a local variable.
        usize::from(unsafe { (&raw const l3).read_volatile() })
    }
}

/// Walks the tags of a frame, which must be those of the node's VLAN.
#[inline(never)]
pub fn enter<P: Packet>(packet: &P, node: &Node) -> Entered {
    let foreign = Entered::new(FOREIGN, size_of::<Ethernet>());
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return foreign };
    let mut ethertype = ethernet.ethertype.to_wire();
    let mut at = size_of::<Ethernet>();
    let mut vlan = Identifiers::new(packet.tag_apart());
    for _ in 0..WALKED_TAGS {
        if !is_tag(ethertype) {
            break;
        }
        let Some(tag) = packet.header::<Tag>(at) else { return foreign };
        vlan.push(tag.control.to_host() & TAG_IDENTIFIER);
        ethertype = tag.ethertype.to_wire();
        at += size_of::<Tag>();
    }
    if vlan.are(node.vlan) && !is_tag(ethertype) { Entered::new(ethertype, at) } else { foreign }
}

/// Identifiers of tags as they come, in the bits of one number: the outermost one highest.
struct Identifiers(u64);

impl Identifiers {
    #[inline(always)]
    fn new(outermost: u16) -> Self {
        Self(u64::from(outermost))
    }

    #[inline(always)]
    fn push(&mut self, identifier: u16) {
        if identifier != 0 {
            self.0 = self.0 << 16 | u64::from(identifier);
        }
    }

    /// Whether they are those of the VLAN, no more and no less.
    #[inline(always)]
    fn are(&self, Vlan([outer, inner]): Vlan) -> bool {
        let mut expected = Self::new(outer);
        expected.push(inner);
        self.0 == expected.0
    }
}
