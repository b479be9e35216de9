//! Addresses that begin alike: what filters of clients are.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PrefixError {
    /// Neither an IPv4 nor an IPv6 address.
    #[error("`{0}` is not an IP address: write ADDRESS or ADDRESS/BITS, as 198.18.0.0/24 or 2001:2::/64")]
    Address(String),
    /// No number, or more bits than the address has.
    #[error("`{length}` is not a number of bits of {address}: from 0 to {most}")]
    Length {
        /// The address.
        address: IpAddr,
        /// What is behind the slash.
        length: String,
        /// How many bits the address has.
        most: u8,
    },
}

/// How many bits an address has.
const fn bits(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl Prefix {
    /// The mask as an address: the bits that count are set.
    pub fn mask(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                Ipv4Addr::from(mask).into()
            }
            IpAddr::V6(_) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                Ipv6Addr::from(mask).into()
            }
        }
    }

    /// The address; bits that do not count are as they were written.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether an address begins so.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other, self.mask()) {
            (IpAddr::V4(own), IpAddr::V4(other), IpAddr::V4(mask)) => own & mask == other & mask,
            (IpAddr::V6(own), IpAddr::V6(other), IpAddr::V6(mask)) => own & mask == other & mask,
            _ => false,
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address(text.to_owned()))?;
        let most = bits(&address);
        let Some(length) = length else { return Ok(Self { address, length: most }) };
        // Digits alone: `parse` would take a sign as well.
        let number = length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse().ok()).flatten();
        match number {
            Some(number) if number <= most => Ok(Self { address, length: number }),
            _ => Err(PrefixError::Length { address, length: length.to_owned(), most }),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_what_begins_alike() {
        for (prefix, address, expected) in [
            ("198.18.0.101", "198.18.0.101", true),
            ("198.18.0.101", "198.18.0.100", false),
            ("198.18.0.0/15", "198.19.255.255", true),
            ("198.18.0.0/15", "198.20.0.0", false),
            ("198.18.0.7/24", "198.18.0.200", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:2::1", false),
            ("2001:2::/48", "2001:2:0:ffff::1", true),
            ("2001:2::/48", "2001:2:1::1", false),
            ("::/0", "2001:2::1", true),
            ("::/0", "198.18.0.1", false),
            ("2001:2::1", "2001:2::1", true),
            ("2001:2::1/127", "2001:2::0", true),
        ] {
            let parsed: Prefix = prefix.parse().expect("a prefix");
            assert_eq!(parsed.contains(address.parse().expect("an address")), expected, "{prefix} {address}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_a_reason() {
        for (text, words) in [
            ("", "not an IP address"),
            ("198.18.0", "not an IP address"),
            ("eth0/8", "not an IP address"),
            ("198.18.0.0/33", "from 0 to 32"),
            ("198.18.0.0/", "from 0 to 32"),
            ("198.18.0.0/+8", "from 0 to 32"),
            ("2001:2::/129", "from 0 to 128"),
            ("2001:2::/999999999999", "from 0 to 128"),
        ] {
            let error = text.parse::<Prefix>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
