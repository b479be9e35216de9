//! Where the headers of a packet lie in its frame.
//!
//! Nearly all packets have one layout, [`Plain`]: what is done with them is compiled for it, and costs no look at a
//! packet's options or tags. All others are [`Walked`], header by header.

use crate::{family::Family, packet::Ethernet};

/// A layout.
pub trait Layout {
    /// Where the IP header begins in the frame.
    fn l3(&self) -> usize;

    /// Where TCP, UDP or ICMP begins in the frame. Of no meaning in a fragment that is not the first.
    fn l4<F: Family>(&self) -> usize;

    /// Which part of a datagram it is.
    fn part(&self) -> Part;

    /// Where, in a fragment, the lower half of the identification lies in the frame.
    fn id_at(&self) -> usize;
}

/// Which part of a datagram a packet is. A number and no `enum`, as it comes out of a map.
#[repr(transparent)]
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Part(u8);

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self(0);
    /// The first fragment, which has the header of TCP or UDP.
    pub const FIRST: Self = Self(1);
    /// Another fragment.
    pub const LATER: Self = Self(2);
}

/// Neither VLAN tags nor IPv4 options nor IPv6 extension headers.
pub struct Plain;

impl Layout for Plain {
    #[inline(always)]
    fn l3(&self) -> usize {
        size_of::<Ethernet>()
    }

    #[inline(always)]
    fn l4<F: Family>(&self) -> usize {
        F::L4_OFFSET
    }

    #[inline(always)]
    fn part(&self) -> Part {
        Part::WHOLE
    }

    #[inline(always)]
    fn id_at(&self) -> usize {
        0
    }
}

/// As the headers say. In bytes, so that the verifier knows a bound of what is added to a packet's address.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walked {
    /// See [`Layout::l3`].
    pub l3: u8,
    /// See [`Layout::l4`].
    pub l4: u8,
    /// See [`Layout::part`].
    pub part: Part,
    /// See [`Layout::id_at`].
    pub id_at: u8,
    /// Of a fragment: its identification, as [`kplb_common::fragment::FragmentKey`] has it.
    pub id: u32,
    /// Of a fragment: where it begins in the datagram, in units of eight bytes.
    pub offset: u16,
    /// Of a fragment: bytes that it brings.
    pub length: u16,
}

/// Where the headers of a packet lie that an ICMP error quotes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Quoted {
    pub protocol: u8,
    /// Where TCP or UDP begins in the frame.
    pub l4: u8,
    /// Where, if it is a fragment of IPv6, the lower half of its identification lies in the frame; zero if it is none.
    pub id_at: u8,
}

impl Layout for Walked {
    #[inline(always)]
    fn l3(&self) -> usize {
        usize::from(self.l3)
    }

    #[inline(always)]
    fn l4<F: Family>(&self) -> usize {
        usize::from(self.l4)
    }

    #[inline(always)]
    fn part(&self) -> Part {
        self.part
    }

    #[inline(always)]
    fn id_at(&self) -> usize {
        usize::from(self.id_at)
    }
}
