//! An advert, and its bytes after the IP header.
//!
//! ```text
//! version 3 (RFC 9568, section 5.2)              version 2 (RFC 3768, section 5.1)
//!  0        1         2          3                0        1         2           3
//! +--------+---------+----------+---------+      +--------+---------+-----------+----------+
//! | 3 | 1  |router id| priority | count   |      | 2 | 1  |router id| priority  | count    |
//! +----+---+---------+----------+---------+      +--------+---------+-----------+----------+
//! | 0  | interval    | checksum           |      |auth    |interval | checksum             |
//! +----+-------------+--------------------+      +--------+---------+----------------------+
//! | count addresses of 4 or 16 bytes      |      | count addresses of 4 bytes              |
//! +---------------------------------------+      +-----------------------------------------+
//!                                                | 8 bytes: the password, or zeros         |
//!                                                +-----------------------------------------+
//! ```

use std::{net::IpAddr, time::Duration};

use super::{
    checksum::{PseudoHeader, checksum},
    settings::{Coverage, Password, Settings, Version},
};

/// The only type of message (RFC 9568, section 5.2.2).
pub(super) const TYPE_ADVERT: u8 = 1;
/// Where the checksum stands.
const CHECKSUM_OFFSET: usize = 6;
/// No authentication (RFC 3768, section 5.3.6).
pub(super) const AUTH_NONE: u8 = 0;
/// "Simple Text Password" (RFC 2338, section 5.3.6.2).
pub(super) const AUTH_PASS: u8 = 1;

/// What a master says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Advert {
    /// Of the protocol.
    pub version: Version,
    /// Of the virtual router.
    pub router_id: u8,
    /// Of the sender; 0: it gives up.
    pub priority: u8,
    /// Time between its adverts.
    pub interval: Duration,
    /// The VIPs, all of the family of the IP header.
    pub addresses: Vec<IpAddr>,
    /// Version 2 only.
    pub password: Option<Password>,
}

impl Advert {
    /// The advert of a virtual router; its own priority, or 0 when it gives up.
    pub fn new(settings: &Settings, priority: u8) -> Self {
        let Settings { version, router_id, interval, addresses, password, .. } = settings;
        Self {
            version: *version,
            router_id: *router_id,
            priority,
            interval: *interval,
            addresses: addresses.clone(),
            password: *password,
        }
    }

    /// The bytes after an IP header with these addresses; with unicast the destination is the peer's.
    ///
    /// An interval that the version cannot say is sent as the next shorter one that it can, and addresses of another
    /// family than the source's are left out: [`Settings::check`] lets neither through.
    pub fn encode(&self, source: IpAddr, destination: IpAddr, coverage: Coverage) -> Vec<u8> {
        let addresses = || self.addresses.iter().filter(|address| address.is_ipv4() == source.is_ipv4());
        let count = u8::try_from(addresses().count()).unwrap_or(u8::MAX);
        let [interval_high, interval_low] = self.interval_units().to_be_bytes();
        let fifth = match (self.version, self.password) {
            (Version::V2, None) => AUTH_NONE,
            (Version::V2, Some(_)) => AUTH_PASS,
            (Version::V3, _) => interval_high,
        };

        let mut message = vec![
            self.version.number() << 4 | TYPE_ADVERT,
            self.router_id,
            self.priority,
            count,
            fifth,
            interval_low,
            0,
            0,
        ];
        for address in addresses().take(usize::from(count)) {
            match address {
                IpAddr::V4(address) => message.extend(address.octets()),
                IpAddr::V6(address) => message.extend(address.octets()),
            }
        }
        if self.version == Version::V2 {
            message.extend(self.password.map_or([0; Password::LENGTH], |password| *password.bytes()));
        }

        let pseudo_header = match (self.version, source, coverage) {
            (Version::V2, ..) | (Version::V3, IpAddr::V4(_), Coverage::Message) => None,
            (Version::V3, ..) => Some(PseudoHeader { source, destination }),
        };
        let checksum = checksum(&message, pseudo_header).to_be_bytes();
        message.iter_mut().skip(CHECKSUM_OFFSET).zip(checksum).for_each(|(to, from)| *to = from);
        message
    }

    fn interval_units(&self) -> u16 {
        let units = self.interval.as_nanos() / self.version.interval_unit().as_nanos();
        u16::try_from(units).unwrap_or(u16::MAX).clamp(1, self.version.max_interval_units())
    }
}

/// The router id of an advert, by which it finds its virtual router among several, before anything is checked.
pub fn router_id(message: &[u8]) -> Option<u8> {
    message.get(1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4_SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const V4_GROUP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(224, 0, 0, 18));

    fn advert(version: Version) -> Advert {
        Advert {
            version,
            router_id: 51,
            priority: 100,
            interval: Duration::from_secs(1),
            addresses: vec![[192, 0, 2, 100].into(), [192, 0, 2, 101].into()],
            password: None,
        }
    }

    fn v6(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    // The sums are of the 16-bit words, by hand; carries are added at the end.

    #[test]
    fn version_3_over_ipv4_without_pseudo_header() {
        #[rustfmt::skip]
        let expected = [
            0x31, 51, 100, 2,       // 3133 + 6402      9535
            0, 100, 0xe5, 0x9b,     // 0064             9599
            192, 0, 2, 100,         // c000 + 0264     157fd
            192, 0, 2, 101,         // c000 + 0265     21a62 -> 1a64 -> e59b
        ];
        assert_eq!(advert(Version::V3).encode(V4_SOURCE, V4_GROUP, Coverage::Message), expected);
    }

    #[test]
    fn version_3_over_ipv4_with_pseudo_header() {
        #[rustfmt::skip]
        let expected = [
            // c000 + 0201 + e000 + 0012 + 0070 + 0010 1a293
            0x31, 51, 100, 2,       // 3133 + 6402     237c8
            0, 100, 0x43, 0x07,     // 0064            2382c
            192, 0, 2, 100,         // c000 + 0264     2fa90
            192, 0, 2, 101,         // c000 + 0265     3bcf5 -> bcf8 -> 4307
        ];
        assert_eq!(advert(Version::V3).encode(V4_SOURCE, V4_GROUP, Coverage::PseudoHeader), expected);
    }

    #[test]
    fn the_pseudo_header_has_the_peer_with_unicast() {
        // Instead of e000 + 0012: c000 + 0202, so 39ee5 -> 9ee8 -> 6117.
        let message = advert(Version::V3).encode(V4_SOURCE, [192, 0, 2, 2].into(), Coverage::PseudoHeader);
        assert_eq!(message[6..8], [0x61, 0x17]);
    }

    #[test]
    fn version_3_over_ipv6() {
        let advert = Advert {
            interval: Duration::from_millis(250),
            addresses: vec![v6("fe80::64"), v6("2001:db8::64")],
            ..advert(Version::V3)
        };
        #[rustfmt::skip]
        let expected = [
            // fe80 + 0001 + ff02 + 0012 + 0028 + 0070         1fe2d
            0x31, 51, 100, 2,                               // 29362
            0, 25, 0x3f, 0x80,                              // 2937b
            0xfe, 0x80, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0x64,                      // 3925f
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0x64,                      // 3c07c -> c07f -> 3f80
        ];
        // There is no other checksum over IPv6.
        for coverage in [Coverage::Message, Coverage::PseudoHeader] {
            assert_eq!(advert.encode(v6("fe80::1"), v6("ff02::12"), coverage), expected);
        }
    }

    #[test]
    fn version_2_without_authentication() {
        #[rustfmt::skip]
        let expected = [
            0x21, 51, 100, 2,       // 2133 + 6402      8535
            0, 1, 0xf5, 0xfe,       // 0001             8536
            192, 0, 2, 100,         // c000 + 0264     1479a
            192, 0, 2, 101,         // c000 + 0265     209ff -> 0a01 -> f5fe
            0, 0, 0, 0,
            0, 0, 0, 0,
        ];
        for coverage in [Coverage::Message, Coverage::PseudoHeader] {
            assert_eq!(advert(Version::V2).encode(V4_SOURCE, V4_GROUP, coverage), expected);
        }
    }

    #[test]
    fn version_2_with_password() {
        let advert = Advert { password: Some(Password::from_text("pass")), ..advert(Version::V2) };
        #[rustfmt::skip]
        let expected = [
            0x21, 51, 100, 2,       // 2133 + 6402      8535
            1, 1, 0x11, 0x2a,       // 0101             8636
            192, 0, 2, 100,         // c000 + 0264     1489a
            192, 0, 2, 101,         // c000 + 0265     20aff
            b'p', b'a', b's', b's', // 7061 + 7373     2eed3 -> eed5 -> 112a
            0, 0, 0, 0,
        ];
        assert_eq!(advert.encode(V4_SOURCE, V4_GROUP, Coverage::PseudoHeader), expected);
    }

    #[test]
    fn what_cannot_be_said_is_cut() {
        let units = |version, interval| {
            let message = Advert { interval, ..advert(version) }.encode(V4_SOURCE, V4_GROUP, Coverage::Message);
            u16::from_be_bytes([message[4], message[5]])
        };
        assert_eq!(units(Version::V3, Duration::ZERO), 1);
        assert_eq!(units(Version::V3, Duration::from_millis(259)), 25);
        assert_eq!(units(Version::V3, Duration::MAX), 4095);
        assert_eq!(units(Version::V2, Duration::from_millis(1999)), 1);
        assert_eq!(units(Version::V2, Duration::from_secs(1000)), 255);

        let many = vec![IpAddr::from([192, 0, 2, 100]); 300];
        let message = Advert { addresses: many, ..advert(Version::V3) }.encode(V4_SOURCE, V4_GROUP, Coverage::Message);
        assert_eq!((message[3], message.len()), (255, 8 + 255 * 4));
        let mixed = vec![v6("2001:db8::64"), [192, 0, 2, 100].into()];
        let message = Advert { addresses: mixed, ..advert(Version::V3) }.encode(V4_SOURCE, V4_GROUP, Coverage::Message);
        assert_eq!((message[3], message.len()), (1, 8 + 4));
    }

    #[test]
    fn the_router_id_is_found_before_anything_else() {
        assert_eq!(router_id(&[0x31, 51]), Some(51));
        assert_eq!(router_id(&[0x31]), None);
    }

    #[test]
    fn an_advert_has_what_is_configured() {
        let mut settings = Settings::new(7, V4_SOURCE, vec![[192, 0, 2, 100].into()]);
        settings.version = Version::V2;
        settings.password = Some(Password::from_text("pass"));
        let advert = Advert::new(&settings, 0);
        assert_eq!((advert.version, advert.router_id, advert.priority), (Version::V2, 7, 0));
        assert_eq!((advert.interval, advert.addresses), (settings.interval, settings.addresses));
        assert_eq!(advert.password, settings.password);
    }
}
