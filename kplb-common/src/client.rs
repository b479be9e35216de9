//! Clients that said nothing any more, were looked for, and found.

use core::net::IpAddr;

use crate::net::{Address, Ip4, Ip6, Mac};

/// A client's address; key of `CLIENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Client {
    /// The address; an IPv4 address fills the first four bytes, the rest is zero.
    pub address: Ip6,
    /// IP version: 4 or 6; as wide as a word so that the key has no padding.
    pub version: u32,
}

const _: () = assert!(size_of::<Client>() == 20);

impl Client {
    /// The client with this address.
    #[inline(always)]
    pub fn new<A: Address>(address: &A) -> Self {
        Self { address: address.widen(), version: u32::from(A::VERSION) }
    }

    /// The address, if there is a client.
    pub fn address(&self) -> Option<IpAddr> {
        match self.version {
            4 => Some(IpAddr::V4(Ip4::from_wide(&self.address).into())),
            6 => Some(IpAddr::V6(self.address.into())),
            _ => None,
        }
    }
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::new(&Ip4::from(v4)),
            IpAddr::V6(v6) => Self::new(&Ip6::from(v6)),
        }
    }
}

/// Where a client was found; value of `CLIENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Whereabouts {
    /// When: nanoseconds of the monotonic clock.
    pub found_ns: u64,
    /// The MAC address of the client or of the router to it.
    pub mac: Mac,
    /// Always zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<Whereabouts>() == 16);

impl Whereabouts {
    /// Whether this is newer than what the client's own frames say, the last of which came at `heard_ns`.
    #[inline(always)]
    pub const fn is_newer_than(&self, heard_ns: u64) -> bool {
        self.found_ns > heard_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_keep_their_family() {
        for text in ["198.18.0.101", "2001:2::101", "c612:65::"] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(Client::from(address).address(), Some(address));
        }
        // The same bytes.
        let [v4, v6] = ["198.18.0.101", "c612:65::"].map(|text| text.parse::<IpAddr>().expect("an address"));
        assert_ne!(Client::from(v4), Client::from(v6));
        assert_eq!(Client::default().address(), None);
    }

    #[test]
    fn newer_is_what_came_later() {
        let found = Whereabouts { found_ns: 1000, ..Whereabouts::default() };
        assert!(found.is_newer_than(999));
        assert!(!found.is_newer_than(1000));
    }
}
