//! Walking the headers of an IP packet, within bounds, to where TCP, UDP or ICMP begins.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_loop;
use kplb_common::{
    fragment::UNIT,
    net::{ICMP, ICMPV6, TCP, UDP},
    verdict::DropReason,
};

use crate::{
    family,
    layout::{Part, Walked},
    packet::{Extension, Fragment, Ipv4, Ipv4Option, Ipv6, Packet, Rest},
    parse::{Refusal, Shape},
};

/// Bytes that the options of a packet can have: as the length of the header is given in four bits of four bytes.
const MAX_OPTIONS_LENGTH: u8 = 40;

/// IPv4 options (IANA "IP Option Numbers").
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const LOOSE_SOURCE_ROUTE: u8 = 131;
    pub(super) const STRICT_SOURCE_ROUTE: u8 = 137;
}

/// Bits of the fragment word of IPv4.
const IPV4_MORE: u16 = 0x2000;
const IPV4_OFFSET: u16 = 0x1fff;

/// Walks IPv4 (RFC 791); fills in layout and shape, of which only the beginning is known.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P, layout: &mut Walked, shape: &mut Shape) -> Result<(), Refusal> {
    let l3 = usize::from(layout.l3);
    layout.part = Part::WHOLE;
    packet.gather(l3 + size_of::<Ipv4>());
    let Some(ip) = packet.header::<Ipv4>(l3) else { return Err(Refusal::NOT_OURS) };
    let header_length = usize::from(ip.version_ihl & 0xf) * 4;
    if ip.version_ihl >> 4 != 4 || header_length < size_of::<Ipv4>() {
        return Err(Refusal::MALFORMED);
    }
    let (protocol, ip_length) = (ip.protocol, packet.claimed_length(ip.total_length.to_host()));
    *shape = Shape { protocol, flags: 0, ip_length };
    let fragment = ip.fragment.to_host();
    layout.id = u32::from(ip.id.to_wire());
    layout.id_at = (l3 + core::mem::offset_of!(Ipv4, id)) as u8;
    layout.l4 = (l3 + header_length) as u8;
    let is_fragment = fragment & (IPV4_MORE | IPV4_OFFSET) != 0;
    // The kernel answers echo requests of any size, and puts them together first.
    if !matches!(protocol, TCP | UDP) && (protocol != ICMP || is_fragment) {
        return Err(Refusal::NOT_OURS);
    }
    if usize::from(ip_length) < header_length || !family::holds(packet, l3 + usize::from(ip_length)) {
        return Err(if protocol == ICMP { Refusal::NOT_OURS } else { Refusal::MALFORMED });
    }
    if header_length > size_of::<Ipv4>() {
        packet.gather(l3 + header_length);
        check_options(packet, l3 + size_of::<Ipv4>(), l3 + header_length)
            .map_err(|refusal| if protocol == ICMP { Refusal::NOT_OURS } else { refusal })?;
    }
    if is_fragment {
        let length = ip_length - header_length as u16;
        let rest = if fragment & IPV4_MORE != 0 { Rest::More } else { Rest::None };
        fragment_of(layout, fragment & IPV4_OFFSET, rest, length)?;
    }
    Ok(())
}

/// Notes in the layout that the packet is a fragment, which brings `length` bytes from `offset`, in units, on. All but the
/// last one bring whole units (RFC 791, section 2.3; RFC 8200, section 4.5), and none reaches beyond the longest datagram.
#[inline(always)]
fn fragment_of(layout: &mut Walked, offset: u16, rest: Rest, length: u16) -> Result<(), Refusal> {
    let is_whole_units = usize::from(length).is_multiple_of(UNIT);
    let end = usize::from(offset) * UNIT + usize::from(length);
    if length == 0 || end > usize::from(u16::MAX) || matches!(rest, Rest::More) && !is_whole_units {
        return Err(Refusal::MALFORMED);
    }
    layout.part = if offset == 0 { Part::FIRST } else { Part::LATER };
    layout.offset = offset;
    layout.length = length;
    Ok(())
}

/// A walk through the options of IPv4.
struct Options<'p, P> {
    packet: &'p P,
    /// Where the next one begins in the frame. A byte, whose bound the verifier knows.
    at: u8,
    /// Where the header ends.
    end: u8,
    found: Found,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Found {
    Nothing,
    SourceRoute,
    Nonsense,
}

/// Goes through the options that lie from `at` to `end` in the frame.
///
/// A source route makes the destination address one of a hop on the way (RFC 791, section 3.1), and hosts refuse it, as
/// RFC 7126, section 4.3, advises.
///
/// By `bpf_loop`, whose body the verifier goes through once and not for each option.
///
/// # Minimum kernel version
/// 5.17
#[inline(always)]
fn check_options<P: Packet>(packet: &P, at: usize, end: usize) -> Result<(), Refusal> {
    let mut options = Options { packet, at: at as u8, end: end as u8, found: Found::Nothing };
    // SAFETY: the callback takes what it is given here, and the helper calls it only while this function runs.
    unsafe {
        bpf_loop(u32::from(MAX_OPTIONS_LENGTH), next_option::<P> as *mut c_void, ptr::from_mut(&mut options).cast(), 0)
    };
    match options.found {
        Found::Nothing if options.at > options.end => Err(Refusal::MALFORMED),
        Found::Nothing => Ok(()),
        Found::SourceRoute => Err(Refusal::if_for_vip(DropReason::IpOptions)),
        Found::Nonsense => Err(Refusal::MALFORMED),
    }
}

/// Looks at one option; 1 ends the walk.
unsafe extern "C" fn next_option<P: Packet>(_n: u32, options: *mut c_void) -> i64 {
    const END: i64 = 1;
    const GO_ON: i64 = 0;

    // SAFETY: `check_options` passes `Options`.
    let options = unsafe { &mut *options.cast::<Options<'_, P>>() };
    if options.at >= options.end {
        return END;
    }
    let at = usize::from(options.at);
    // Two bytes, as something follows the header: of one byte the verifier does not see that it is in the packet.
    let length = match options.packet.header::<Ipv4Option>(at) {
        Some(Ipv4Option { kind: option::END, .. }) => return END,
        Some(Ipv4Option { kind: option::NO_OPERATION, .. }) => 1,
        Some(Ipv4Option { kind: option::LOOSE_SOURCE_ROUTE | option::STRICT_SOURCE_ROUTE, .. }) => {
            options.found = Found::SourceRoute;
            return END;
        }
        Some(Ipv4Option { length: length @ 2..=MAX_OPTIONS_LENGTH, .. }) => *length,
        _ => 0,
    };
    if length == 0 {
        options.found = Found::Nonsense;
        return END;
    }
    options.at += length;
    GO_ON
}

/// Next header numbers (RFC 8200, section 4; IANA "IPv6 Extension Header Types").
mod next_header {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// IPv6 extension headers that are walked: each of those that RFC 8200, section 4.1, lets a packet have, destination
/// options twice.
const MAX_HEADERS: usize = 5;
/// Where a header must begin at the latest, in bytes from the beginning of the frame.
const LAST_HEADER_AT: usize = 200;

/// A chain of IPv6 headers, to its end or to where it goes on in another fragment.
#[derive(Clone, Copy)]
pub struct Chain {
    /// Number of the next header.
    pub protocol: u8,
    /// Where it begins in the frame.
    pub at: usize,
    /// Where the fragment header begins in the frame; zero if there is none.
    pub fragment_at: usize,
}

/// Why a chain cannot be walked.
#[derive(Clone, Copy)]
pub enum Broken {
    /// The frame ends within it.
    Cut,
    /// Such headers, or so many, are not walked.
    Unwalkable,
    /// It ends in another protocol than those that concern us.
    Other,
}

/// Walks the chain that begins `at` bytes into the frame with the header `protocol`. Stops behind the fragment header of
/// what is not a first fragment.
#[inline(always)]
pub fn chain<P: Packet>(packet: &P, protocol: u8, at: usize) -> Result<Chain, (Broken, Chain)> {
    use next_header::{AUTHENTICATION, DESTINATION, FRAGMENT, HIP, HOP_BY_HOP, MOBILITY, ROUTING, SHIM6};

    let mut chain = Chain { protocol, at, fragment_at: 0 };
    for _ in 0..=MAX_HEADERS {
        match chain.protocol {
            TCP | UDP | ICMPV6 => return Ok(chain),
            HOP_BY_HOP | DESTINATION | ROUTING => {
                packet.gather(chain.at + size_of::<Extension>());
                let Some(header) = packet.header::<Extension>(chain.at) else { return Err((Broken::Cut, chain)) };
                // With segments left, the destination address is one of a hop on the way (RFC 8200, section 4.4).
                if chain.protocol == ROUTING && header.segments_left != 0 {
                    return Err((Broken::Unwalkable, chain));
                }
                chain.protocol = header.next;
                chain.at += (usize::from(header.length) + 1) * 8;
            }
            FRAGMENT if chain.fragment_at == 0 => {
                packet.gather(chain.at + size_of::<Fragment>());
                let Some(header) = packet.header::<Fragment>(chain.at) else { return Err((Broken::Cut, chain)) };
                chain.protocol = header.next;
                chain.fragment_at = chain.at;
                chain.at += size_of::<Fragment>();
                if header.offset() != 0 {
                    return Ok(chain);
                }
            }
            // What is authenticated includes the addresses (RFC 4302, section 3.3.3.1.2).
            FRAGMENT | AUTHENTICATION | MOBILITY | HIP | SHIM6 => return Err((Broken::Unwalkable, chain)),
            _ => return Err((Broken::Other, chain)),
        }
        if chain.at > LAST_HEADER_AT {
            break;
        }
    }
    Err((Broken::Unwalkable, chain))
}

/// Walks IPv6 (RFC 8200); fills in layout and shape, of which only the beginning is known.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &P, layout: &mut Walked, shape: &mut Shape) -> Result<(), Refusal> {
    let l3 = usize::from(layout.l3);
    layout.part = Part::WHOLE;
    packet.gather(l3 + size_of::<Ipv6>());
    let Some(ip) = packet.header::<Ipv6>(l3) else { return Err(Refusal::NOT_OURS) };
    if ip.version_class_label.to_host() >> 28 != 6 {
        return Err(Refusal::MALFORMED);
    }
    let (next_header, payload_length) =
        (ip.next_header, usize::from(packet.claimed_length(ip.payload_length.to_host())));
    let first = l3 + size_of::<Ipv6>();
    let chain = chain(packet, next_header, first).map_err(|(broken, chain)| match broken {
        Broken::Cut if chain.fragment_at != 0 => Refusal::if_for_vip(DropReason::FragmentTiny),
        Broken::Cut => Refusal::MALFORMED,
        Broken::Unwalkable => Refusal::if_for_vip(DropReason::ExtensionHeader),
        Broken::Other => Refusal::NOT_OURS,
    })?;
    let end = first + payload_length;
    let ip_length = size_of::<Ipv6>() + payload_length;
    layout.l4 = chain.at as u8;
    if ip_length > usize::from(u16::MAX) || !family::holds(packet, end) {
        // A question for a VIP is one even if its end is missing.
        return Err(if chain.protocol == ICMPV6 { Refusal::ICMPV6 } else { Refusal::MALFORMED });
    }
    if chain.fragment_at != 0 {
        let Some(fragment) = packet.header::<Fragment>(chain.fragment_at) else { return Err(Refusal::MALFORMED) };
        let (offset, rest) = (fragment.offset(), fragment.rest());
        layout.id = fragment.id.to_wire();
        layout.id_at = (chain.fragment_at + Fragment::LOWER_ID) as u8;
        // A fragment that is all of its datagram is none (RFC 6946).
        if offset != 0 || matches!(rest, Rest::More) {
            // Of what is fragmented, the kernel puts together all but TCP and UDP, and those behind a header of their own.
            if !matches!(chain.protocol, TCP | UDP | next_header::DESTINATION) {
                return Err(Refusal::NOT_OURS);
            }
            let begin = chain.fragment_at + size_of::<Fragment>();
            fragment_of(layout, offset, rest, end.saturating_sub(begin) as u16)?;
        }
    }
    if layout.part != Part::LATER && chain.at > end {
        let is_first = layout.part == Part::FIRST;
        return Err(if is_first { Refusal::if_for_vip(DropReason::FragmentTiny) } else { Refusal::MALFORMED });
    }
    *shape = Shape { protocol: chain.protocol, flags: 0, ip_length: ip_length as u16 };
    Ok(())
}
