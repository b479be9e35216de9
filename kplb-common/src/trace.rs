//! Packets that are told of one by one, because whatever XDP sends is seen by nobody else on this node.
//!
//! Who asks says until when, and says so again and again: so who is killed is told of no more by itself. An event holds
//! the beginning of a packet as it came and as it went, and leaves it to its reader to make sense of them.

use crate::{
    net::{Address as _, Ip6},
    verdict::Verdict,
};

/// Words of a packet's beginning that are kept: Ethernet, two VLAN tags, IPv6, TCP with options; or an ICMP error with what
/// it quotes of a flow.
pub const SNAPSHOT_WORDS: usize = 16;
/// The same in bytes.
pub const SNAPSHOT_BYTES: usize = SNAPSHOT_WORDS * 8;

/// At which hook a packet was seen.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// It came in by the interface: `kplb_xdp` or `kplb_tc_ingress`.
    Ingress = 0,
    /// It was about to leave: `kplb_tc`.
    Egress = 1,
}

impl Hook {
    /// How many there are.
    pub const COUNT: u32 = 2;

    /// The hook with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Ingress),
            1 => Some(Self::Egress),
            _ => None,
        }
    }
}

/// Which packets are asked for, and for how long; the one value of `TRACE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TraceRequest {
    /// Until when, in nanoseconds of the monotonic clock; zero: no longer.
    pub until_ns: u64,
    /// Only with these verdicts: the bit of each one's index is set.
    pub verdicts: u64,
    /// Only of clients whose address, with [`Self::client_mask`], is this one.
    pub client: Ip6,
    /// The bits of a client's address that count.
    pub client_mask: Ip6,
    /// Only to and from this VIP.
    pub vip: Ip6,
    /// Of them, one in so many, counted by each processor and hook.
    pub sample: u32,
    /// Of those, about so many a second at most.
    pub rate: u32,
    /// IP version of the client; zero: any client will do.
    pub client_version: u8,
    /// IP version of the VIP; zero: any VIP will do.
    pub vip_version: u8,
    /// Always zero.
    pub _pad: [u8; 6],
}

const _: () = assert!(size_of::<TraceRequest>() == 80);
// One bit for each.
const _: () = assert!(Verdict::COUNT <= u64::BITS);

/// The addresses in a packet's IP header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TraceAddresses {
    /// Source; an IPv4 address fills the first four bytes, the rest is zero.
    pub source: Ip6,
    /// Destination; the same.
    pub destination: Ip6,
    /// IP version; zero: it has no IP header.
    pub version: u32,
}

/// A packet that was asked for; a record of the ring `TRACES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceEvent {
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Bytes of the frame, which keeps its length.
    pub length: u32,
    /// Index of the verdict.
    pub verdict: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// Bytes of the frame that follow here.
    pub kept: u8,
    /// Always zero.
    pub _pad: u8,
    /// The beginning of the frame as it came.
    pub before: [u64; SNAPSHOT_WORDS],
    /// The beginning of the frame as it went.
    pub after: [u64; SNAPSHOT_WORDS],
}

const _: () = assert!(size_of::<TraceEvent>() == 16 + 2 * SNAPSHOT_BYTES);

/// What became of packets that were asked for; value of `TRACE_COUNTS`, one copy per processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TraceCounts {
    /// Told of.
    pub told: u64,
    /// Not told of, as there was no room in the ring.
    pub lost: u64,
    /// Not told of, as there were too many in that second.
    pub over_rate: u64,
}

const _: () = assert!(size_of::<TraceCounts>() == 24);

impl TraceCounts {
    /// Adds the counts of another processor.
    pub fn add(&mut self, other: &Self) {
        self.told += other.told;
        self.lost += other.lost;
        self.over_rate += other.over_rate;
    }

    /// What was counted since an earlier count.
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            told: self.told.wrapping_sub(earlier.told),
            lost: self.lost.wrapping_sub(earlier.lost),
            over_rate: self.over_rate.wrapping_sub(earlier.over_rate),
        }
    }
}

impl TraceRequest {
    /// Whether packets with this verdict are asked for.
    #[inline(always)]
    pub const fn takes_verdict(&self, index: u32) -> bool {
        self.verdicts & (1 << (index & (u64::BITS - 1))) != 0
    }

    /// Whether a packet with these addresses is asked for. A client is the source of what came, or the destination of what
    /// went; a VIP the other way round.
    ///
    /// That is all that the data path can tell of any packet; a backend may be taken for a client, and a reader knows
    /// better.
    #[inline(always)]
    pub fn takes_addresses(&self, before: &TraceAddresses, after: &TraceAddresses) -> bool {
        self.takes_client(before.version, &before.source, &after.destination)
            && self.takes_vip(before.version, &before.destination, &after.source)
    }

    #[inline(always)]
    fn takes_client(&self, version: u32, one: &Ip6, other: &Ip6) -> bool {
        let is_it = |address: &Ip6| masked(address, &self.client_mask) == self.client.to_wire();
        self.client_version == 0 || u32::from(self.client_version) == version && (is_it(one) || is_it(other))
    }

    #[inline(always)]
    fn takes_vip(&self, version: u32, one: &Ip6, other: &Ip6) -> bool {
        self.vip_version == 0
            || u32::from(self.vip_version) == version && (one.widen() == self.vip || other.widen() == self.vip)
    }
}

#[inline(always)]
fn masked(address: &Ip6, mask: &Ip6) -> [u32; 4] {
    let ([a, b, c, d], [e, f, g, h]) = (address.to_wire(), mask.to_wire());
    [a & e, b & f, c & g, d & h]
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::{
        net::Ip4,
        verdict::{DropReason, ForwardReason},
    };

    fn v4(last: u8) -> Ip6 {
        Ip4::from(Ipv4Addr::new(198, 18, 0, last)).widen()
    }

    fn addresses(source: Ip6, destination: Ip6) -> TraceAddresses {
        TraceAddresses { source, destination, version: 4 }
    }

    #[test]
    fn clients_and_vips_are_known_in_both_directions() {
        const CLIENT: u8 = 101;
        const VIP: u8 = 100;
        let forward = (addresses(v4(CLIENT), v4(VIP)), addresses(v4(11), v4(12)));
        let reply = (addresses(v4(12), v4(11)), addresses(v4(VIP), v4(CLIENT)));
        let mask = Ip4::from(Ipv4Addr::BROADCAST).widen();
        let client =
            |last| TraceRequest { client: v4(last), client_mask: mask, client_version: 4, ..Default::default() };
        let vip = |last| TraceRequest { vip: v4(last), vip_version: 4, ..Default::default() };
        for (before, after) in [forward, reply] {
            for (request, expected) in [
                (TraceRequest::default(), true),
                (client(CLIENT), true),
                (client(102), false),
                (vip(VIP), true),
                (vip(99), false),
                (TraceRequest { vip: v4(VIP), vip_version: 4, ..client(CLIENT) }, true),
                (TraceRequest { vip: v4(99), vip_version: 4, ..client(CLIENT) }, false),
                (TraceRequest { client_version: 6, ..TraceRequest::default() }, false),
            ] {
                assert_eq!(request.takes_addresses(&before, &after), expected, "{request:?} {before:?}");
            }
        }
    }

    #[test]
    fn prefixes_of_ipv6() {
        let wide = |text: &str| Ip6::from(text.parse::<Ipv6Addr>().expect("an address"));
        let request = TraceRequest {
            client: wide("2001:2::"),
            client_mask: wide("ffff:ffff:ffff::"),
            client_version: 6,
            ..TraceRequest::default()
        };
        let from = |text| TraceAddresses { source: wide(text), destination: wide("2001:db8::1"), version: 6 };
        assert!(request.takes_addresses(&from("2001:2:0:1::5"), &from("2001:db8::2")));
        assert!(!request.takes_addresses(&from("2001:2:1::5"), &from("2001:db8::2")));
    }

    #[test]
    fn each_verdict_has_a_bit() {
        let dropped = Verdict::Drop(DropReason::TtlExpired).index();
        let request = TraceRequest { verdicts: 1 << dropped, ..TraceRequest::default() };
        assert!(request.takes_verdict(dropped));
        assert!(!request.takes_verdict(Verdict::Forward(ForwardReason::ToBackend).index()));
        assert_eq!(Verdict::all().filter(|verdict| request.takes_verdict(verdict.index())).count(), 1);
    }
}
