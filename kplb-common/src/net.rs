//! Network-order numbers and addresses as types.
//!
//! Invariant: the bytes of every type here are the bytes on the wire, whatever the processor's byte order, so they can
//! be copied into and compared with packets as they are.

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// EtherType of IPv4, host order.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP, host order.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6, host order.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a customer's VLAN tag (IEEE 802.1Q), host order.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a service provider's VLAN tag (IEEE 802.1ad), host order.
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// A 16-bit number in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Be16(u16);

impl Be16 {
    /// From a number in host order.
    pub const fn from_host(value: u16) -> Self {
        Self(value.to_be())
    }

    /// The number in host order.
    pub const fn to_host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// From the memory word that holds the bytes of the wire.
    pub const fn from_wire(word: u16) -> Self {
        Self(word)
    }

    /// The memory word that holds the bytes of the wire; what checksums add up.
    pub const fn to_wire(self) -> u16 {
        self.0
    }
}

/// A 32-bit number in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Be32(u32);

impl Be32 {
    /// From a number in host order.
    pub const fn from_host(value: u32) -> Self {
        Self(value.to_be())
    }

    /// The number in host order.
    pub const fn to_host(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The memory word that holds the bytes of the wire; what checksums add up.
    pub const fn to_wire(self) -> u32 {
        self.0
    }
}

/// An Ethernet address.
///
/// Three 16-bit words, the alignment that it has in every frame: comparing and copying it takes three loads, not six.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Mac([u16; 3]);

impl Mac {
    /// The address of no one: a next hop that is not resolved.
    pub const UNRESOLVED: Self = Self([0; 3]);

    /// The address with these bytes.
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self([u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])])
    }

    /// Whether it is one interface's, and not that of a group or of all.
    #[inline(always)]
    pub const fn is_unicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 == 0
    }

    /// The bytes as they are on the wire.
    pub const fn octets(self) -> [u8; 6] {
        let [[a, b], [c, d], [e, f]] = [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes()];
        [a, b, c, d, e, f]
    }

    /// The same address, word by word. Where LLVM cannot know that a copy does not overlap what it is a copy of, it calls a
    /// function on BPF that goes from byte to byte.
    #[inline(always)]
    pub const fn by_words(self) -> Self {
        let [first, second, third] = self.0;
        Self([first, second, third])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.octets();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An IP address of either family as the memory words that hold its wire bytes: one for IPv4, four for IPv6.
///
/// What the data path needs to be written once for both families.
pub trait Address: Copy + Eq + Default + 'static {
    /// Folds the words, first to last. Not a slice: the verifier wants the loop unrolled.
    fn fold<T>(&self, start: T, step: impl Fn(T, u32) -> T) -> T;

    /// IP version.
    const VERSION: u8;

    /// The address in sixteen bytes, whatever its family.
    fn from_wide(wide: &Ip6) -> Self;

    /// This address in the first of sixteen bytes, the rest zero.
    fn widen(&self) -> Ip6;

    /// This address as an IPv6 socket shows it: an IPv4 address mapped (RFC 4291, section 2.5.5.2).
    fn mapped(&self) -> Ip6;

    /// The sum of the words, for checksums.
    #[inline(always)]
    fn sum(&self) -> u64 {
        self.fold(0, |sum, word| sum + u64::from(word))
    }
}

/// An IPv4 address in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ip4(u32);

/// The third word of a mapped IPv4 address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Ip4 {
    /// From the memory word that holds the bytes of the wire.
    #[inline(always)]
    pub const fn from_wire(word: u32) -> Self {
        Self(word)
    }

    /// The memory word that holds the bytes of the wire.
    #[inline(always)]
    pub const fn to_wire(self) -> u32 {
        self.0
    }
}

impl Address for Ip4 {
    const VERSION: u8 = 4;

    #[inline(always)]
    fn fold<T>(&self, start: T, step: impl Fn(T, u32) -> T) -> T {
        step(start, self.0)
    }

    #[inline(always)]
    fn from_wide(wide: &Ip6) -> Self {
        Self(wide.0[0])
    }

    #[inline(always)]
    fn widen(&self) -> Ip6 {
        Ip6([self.0, 0, 0, 0])
    }

    #[inline(always)]
    fn mapped(&self) -> Ip6 {
        Ip6([0, 0, MAPPED, self.0])
    }
}

impl From<Ipv4Addr> for Ip4 {
    fn from(address: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Ip4> for Ipv4Addr {
    fn from(address: Ip4) -> Self {
        Self::from(address.0.to_ne_bytes())
    }
}

/// An IPv6 address in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ip6([u32; 4]);

impl Ip6 {
    /// From the memory words that hold the bytes of the wire.
    #[inline(always)]
    pub const fn from_wire(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The memory words that hold the bytes of the wire.
    #[inline(always)]
    pub const fn to_wire(self) -> [u32; 4] {
        self.0
    }

    /// The IPv4 address that is mapped into this one, if one is.
    #[inline(always)]
    pub const fn to_ip4(self) -> Option<Ip4> {
        match self.0 {
            [0, 0, MAPPED, v4] => Some(Ip4(v4)),
            _ => None,
        }
    }
}

impl Address for Ip6 {
    const VERSION: u8 = 6;

    #[inline(always)]
    fn fold<T>(&self, start: T, step: impl Fn(T, u32) -> T) -> T {
        let [a, b, c, d] = self.0;
        step(step(step(step(start, a), b), c), d)
    }

    #[inline(always)]
    fn from_wide(wide: &Ip6) -> Self {
        *wide
    }

    #[inline(always)]
    fn widen(&self) -> Ip6 {
        *self
    }

    #[inline(always)]
    fn mapped(&self) -> Ip6 {
        *self
    }
}

impl From<Ipv6Addr> for Ip6 {
    fn from(address: Ipv6Addr) -> Self {
        let octets = address.octets();
        let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Ip6> for Ipv6Addr {
    fn from(address: Ip6) -> Self {
        let mut octets = [0; 16];
        for (octets, word) in octets.chunks_exact_mut(4).zip(address.0) {
            octets.copy_from_slice(&word.to_ne_bytes());
        }
        Self::from(octets)
    }
}

#[cfg(test)]
mod tests {
    use core::mem::transmute_copy;

    use super::*;

    #[test]
    fn ipv4_addresses_are_mapped_and_found_again() {
        let v4 = Ipv4Addr::new(198, 18, 0, 1);
        let mapped = Ip4::from(v4).mapped();
        assert_eq!(Ipv6Addr::from(mapped), v4.to_ipv6_mapped());
        assert_eq!(mapped.to_ip4(), Some(Ip4::from(v4)));
        let v6 = Ip6::from("2001:2::1".parse::<Ipv6Addr>().expect("a valid address"));
        assert_eq!((v6.mapped(), v6.to_ip4()), (v6, None));
        assert_eq!(Ip4::from(v4).widen().to_ip4(), None);
    }

    #[test]
    fn bytes_are_wire_bytes() {
        assert_eq!(Be16::from_host(0x1234).to_wire().to_ne_bytes(), [0x12, 0x34]);
        assert_eq!(Be16::from_host(0x1234).to_host(), 0x1234);
        assert_eq!(Be32::from_host(0x1234_5678).to_host(), 0x1234_5678);
        assert_eq!(Mac::new([1, 2, 3, 4, 5, 6]).octets(), [1, 2, 3, 4, 5, 6]);
        let v4 = Ipv4Addr::new(198, 18, 0, 1);
        // SAFETY: Ip4 is a transparent wrapper of four bytes.
        assert_eq!(unsafe { transmute_copy::<Ip4, [u8; 4]>(&Ip4::from(v4)) }, v4.octets());
        assert_eq!(Ipv4Addr::from(Ip4::from_wide(&Ip4::from(v4).widen())), v4);
        let v6: Ipv6Addr = "2001:2::1:2".parse().expect("a valid address");
        // SAFETY: Ip6 is a transparent wrapper of sixteen bytes.
        assert_eq!(unsafe { transmute_copy::<Ip6, [u8; 16]>(&Ip6::from(v6)) }, v6.octets());
        assert_eq!(Ipv6Addr::from(Ip6::from(v6)), v6);
    }
}
