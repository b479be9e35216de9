//! An address, port and protocol: what a service listens on and a backend answers at.

use crate::net::Be16;

/// Key of the service and backend id tables.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Endpoint<A> {
    /// IP address.
    pub address: A,
    /// TCP or UDP port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub _pad: u8,
}

const _: () = assert!(size_of::<Endpoint<crate::net::Ip4>>() == 8);
const _: () = assert!(size_of::<Endpoint<crate::net::Ip6>>() == 20);

impl<A> Endpoint<A> {
    /// An endpoint.
    #[inline(always)]
    pub const fn new(address: A, port: Be16, protocol: u8) -> Self {
        Self { address, port, protocol, _pad: 0 }
    }
}
