//! Every check, by one packet that fails it alone; and any bytes at all, against an oracle that knows no Rust types.

use proptest::prelude::*;

use super::{
    super::settings::{INTERVAL_DEFAULT, Transport},
    *,
};

const OWN: IpAddr = v4(1);
const PEER: IpAddr = v4(2);
const GROUP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(224, 0, 0, 18));
const VIP: IpAddr = v4(100);

const fn v4(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last))
}

fn v6(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn settings(version: Version) -> Settings {
    let mut settings = Settings::new(51, OWN, vec![VIP, v4(101)]);
    settings.version = version;
    if version == Version::V2 {
        settings.interval = Duration::from_secs(1);
    }
    settings
}

fn settings_v6() -> Settings {
    Settings::new(51, v6("fe80::1"), vec![v6("fe80::64"), v6("2001:db8::64")])
}

fn with_password(text: &str) -> Settings {
    Settings { password: Some(Password::from_text(text)), ..settings(Version::V2) }
}

/// From the peer of the settings' node.
fn header(settings: &Settings) -> Header {
    match settings.address {
        IpAddr::V4(_) => Header { source: PEER, destination: GROUP, hop_limit: 255 },
        IpAddr::V6(_) => Header { source: v6("fe80::2"), destination: v6("ff02::12"), hop_limit: 255 },
    }
}

/// A peer's that is configured the same.
fn message(settings: &Settings) -> Vec<u8> {
    message_of(&Advert::new(settings, 150), settings)
}

fn message_of(advert: &Advert, settings: &Settings) -> Vec<u8> {
    let Header { source, destination, .. } = header(settings);
    advert.encode(source, destination, settings.coverage)
}

/// Over an even number of bytes, bit by bit as RFC 1071 has it in words: carries go round at once.
fn slow_sum(bytes: &[u8]) -> u16 {
    let add = |sum: u16, word: u16| match sum.overflowing_add(word) {
        (sum, true) => sum + 1,
        (sum, false) => sum,
    };
    let even = bytes.iter().step_by(2).map(|byte| u16::from(*byte) * 256);
    let odd = bytes.iter().skip(1).step_by(2).map(|byte| u16::from(*byte));
    even.chain(odd).fold(0, add)
}

fn pseudo_header(header: &Header, length: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(length).expect("a short message").to_be_bytes();
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            [&source.octets()[..], &destination.octets(), &[0, 112, high, low]].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            [&source.octets()[..], &destination.octets(), &[0, 0, high, low, 0, 0, 0, 112]].concat()
        }
        _ => panic!("mixed families"),
    }
}

fn is_undamaged(message: &[u8], header: &Header, version: Version) -> bool {
    let alone = slow_sum(message) == 0xffff;
    let with = slow_sum(&[&pseudo_header(header, message.len())[..], message].concat()) == 0xffff;
    match (version, header.source) {
        (Version::V2, _) => alone,
        (Version::V3, IpAddr::V4(_)) => alone || with,
        (Version::V3, IpAddr::V6(_)) => with,
    }
}

/// The checksum made right after a change, so that it is the changed byte alone that fails.
fn repair(message: &mut [u8], settings: &Settings) {
    message[6..8].fill(0);
    let header = header(settings);
    let pseudo_header = match settings.version {
        Version::V2 => Vec::new(),
        Version::V3 => pseudo_header(&header, message.len()),
    };
    let sum = slow_sum(&[&pseudo_header[..], message].concat());
    message[6..8].copy_from_slice(&(!sum).to_be_bytes());
    assert!(is_undamaged(message, &header, settings.version));
}

#[track_caller]
fn refused(settings: &Settings, change: impl FnOnce(&mut Vec<u8>), why: Invalid) {
    let mut message = message(settings);
    change(&mut message);
    repair(&mut message, settings);
    assert_eq!(decode(&message, &header(settings), settings), Err(why));
}

#[track_caller]
fn refused_from(settings: &Settings, change: impl FnOnce(&mut Header), why: Invalid) {
    let mut header = header(settings);
    change(&mut header);
    let message = Advert::new(settings, 150).encode(header.source, header.destination, settings.coverage);
    assert_eq!(decode(&message, &header, settings), Err(why));
}

fn every_kind() -> [Settings; 5] {
    let message_only = Settings { coverage: Coverage::Message, ..settings(Version::V3) };
    [settings(Version::V3), message_only, settings_v6(), settings(Version::V2), with_password("secret")]
}

#[test]
fn what_is_encoded_is_decoded() {
    for settings in every_kind() {
        for priority in [0, 1, 100, 255] {
            let advert = Advert::new(&settings, priority);
            let received = decode(&message_of(&advert, &settings), &header(&settings), &settings).expect("valid");
            assert_eq!((received.advert, received.remarks), (advert, vec![]));
        }
    }
}

#[test]
fn bytes_by_hand() {
    #[rustfmt::skip]
    let message = [
                                // c000 + 0202 + e000 + 0012 + 0070 + 000c 1a290
        0x31, 51, 150, 1,       // 3133 + 9601                             269c4
        0xf0, 25, 0xe3, 0xba,   // f019, of which f000 is reserved         359dd
        192, 0, 2, 100,         // c000 + 0264                             41c41 -> 1c45 -> e3ba
    ];
    let settings = Settings { addresses: vec![VIP], ..settings(Version::V3) };
    let received = decode(&message, &header(&settings), &settings).expect("valid");
    assert_eq!(received.advert.interval, Duration::from_millis(250));
    assert_eq!((received.advert.priority, received.advert.addresses), (150, vec![VIP]));
    assert_eq!((received.coverage, received.remarks), (Coverage::PseudoHeader, vec![]));
}

#[test]
fn too_short() {
    let settings = settings(Version::V3);
    let message = message(&settings);
    for length in 0..8 {
        assert_eq!(decode(&message[..length], &header(&settings), &settings), Err(Invalid::TooShort));
    }
}

#[test]
fn another_router_id_counts_as_nothing_else() {
    refused(&settings(Version::V3), |message| message[1] = 52, Invalid::RouterId);
    // Whatever else is wrong with it.
    assert_eq!(decode(&[0; 8], &header(&settings_v6()), &settings(Version::V3)), Err(Invalid::RouterId));
}

#[test]
fn the_other_family() {
    let v6 = header(&settings_v6());
    let settings = settings(Version::V3);
    assert_eq!(decode(&message(&settings), &v6, &settings), Err(Invalid::Family));
    let mixed = Header { destination: v6.destination, ..header(&settings) };
    assert_eq!(decode(&message(&settings), &mixed, &settings), Err(Invalid::Family));
}

#[test]
fn from_its_own_address() {
    refused_from(&settings(Version::V3), |header| header.source = OWN, Invalid::OwnAddress);
}

#[test]
fn from_a_stranger() {
    let settings = Settings { transport: Transport::Unicast(vec![PEER, v4(3)]), ..settings(Version::V3) };
    refused_from(&settings, |header| header.source = v4(4), Invalid::NotAPeer);
    assert!(decode(&message(&settings), &header(&settings), &settings).is_ok());
}

#[test]
fn from_beyond_the_segment() {
    for settings in every_kind() {
        for hop_limit in [0, 1, 64, 254] {
            refused_from(&settings, |header| header.hop_limit = hop_limit, Invalid::HopLimit);
        }
    }
}

#[test]
fn another_version() {
    for version in [0, 1, 2, 4, 15] {
        refused(&settings(Version::V3), |message| message[0] = version << 4 | 1, Invalid::Version);
    }
    refused(&settings(Version::V2), |message| message[0] = 0x31, Invalid::Version);
}

#[test]
fn another_type() {
    for kind in (0..16).filter(|kind| *kind != 1) {
        refused(&settings(Version::V3), |message| message[0] = 0x30 | kind, Invalid::Type);
        refused(&settings(Version::V2), |message| message[0] = 0x20 | kind, Invalid::Type);
    }
}

#[test]
fn another_length_than_its_count() {
    for settings in every_kind() {
        refused(&settings, |message| message[3] = 1, Invalid::Length);
        refused(&settings, |message| message[3] = 3, Invalid::Length);
        refused(&settings, |message| message[3] = 255, Invalid::Length);
        refused(&settings, |message| message.extend([0; 2]), Invalid::Length);
        refused(&settings, |message| message.truncate(message.len() - 2), Invalid::Length);
        refused(&settings, |message| message.truncate(8), Invalid::Length);
    }
}

#[test]
fn no_addresses() {
    let without = |message: &mut Vec<u8>| {
        message[3] = 0;
        message.truncate(8);
    };
    refused(&settings(Version::V3), without, Invalid::NoAddresses);
    refused(&settings_v6(), without, Invalid::NoAddresses);
    let without = |message: &mut Vec<u8>| {
        message[3] = 0;
        message.truncate(16);
    };
    refused(&settings(Version::V2), without, Invalid::NoAddresses);
}

#[test]
fn damaged() {
    for settings in every_kind() {
        let message = message(&settings);
        for i in 2..message.len() {
            for bit in 0..8 {
                let mut message = message.clone();
                message[i] ^= 1 << bit;
                let expected = if i == 3 { Invalid::Length } else { Invalid::Checksum };
                assert_eq!(decode(&message, &header(&settings), &settings), Err(expected));
            }
        }
    }
}

#[test]
fn over_ipv4_version_3_has_two_checksums() {
    for (sent, own) in [
        (Coverage::Message, Coverage::Message),
        (Coverage::Message, Coverage::PseudoHeader),
        (Coverage::PseudoHeader, Coverage::Message),
        (Coverage::PseudoHeader, Coverage::PseudoHeader),
    ] {
        let settings = Settings { coverage: own, ..settings(Version::V3) };
        let message = Advert::new(&settings, 150).encode(PEER, OWN, sent);
        let header = Header { source: PEER, destination: OWN, hop_limit: 255 };
        let received = decode(&message, &header, &settings).expect("valid");
        assert_eq!(received.coverage, sent);
        assert_eq!(received.remarks.contains(&Remark::Coverage), sent != own);
        // With unicast the destination is the peer's own address, not the group.
        let elsewhere = Header { destination: GROUP, ..header };
        assert_eq!(decode(&message, &elsewhere, &settings).is_ok(), sent == Coverage::Message);
    }
}

#[test]
fn over_ipv6_there_is_no_other_checksum() {
    let settings = settings_v6();
    let mut message = message(&settings);
    message[6..8].fill(0);
    let sum = !slow_sum(&message);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(decode(&message, &header(&settings), &settings), Err(Invalid::Checksum));
}

#[test]
fn another_auth_type() {
    for kind in 1..=255 {
        refused(&settings(Version::V2), |message| message[4] = kind, Invalid::AuthType);
    }
    for kind in (0..=255).filter(|kind| *kind != 1) {
        refused(&with_password("secret"), |message| message[4] = kind, Invalid::AuthType);
    }
}

#[test]
fn another_password() {
    let settings = with_password("secret");
    for i in 16..24 {
        refused(&settings, |message| message[i] ^= 1, Invalid::Password);
    }
}

#[test]
fn without_a_password_the_field_is_ignored() {
    let settings = settings(Version::V2);
    let mut message = message(&settings);
    message[16..24].fill(0xa5);
    repair(&mut message, &settings);
    assert!(decode(&message, &header(&settings), &settings).is_ok());
}

#[test]
fn an_interval_of_zero() {
    let zero = |message: &mut Vec<u8>| message[4..6].copy_from_slice(&[0xf0, 0]);
    refused(&settings(Version::V3), zero, Invalid::IntervalZero);
    refused(&settings_v6(), zero, Invalid::IntervalZero);
}

#[test]
fn another_interval_is_refused_in_version_2_only() {
    for seconds in [0, 2, 255] {
        refused(&settings(Version::V2), |message| message[5] = seconds, Invalid::Interval);
    }
    let settings = settings(Version::V3);
    let advert = Advert { interval: 2 * INTERVAL_DEFAULT, ..Advert::new(&settings, 150) };
    let received = decode(&message_of(&advert, &settings), &header(&settings), &settings).expect("valid");
    assert_eq!(received.advert.interval, 2 * INTERVAL_DEFAULT);
    assert_eq!(received.remarks, [Remark::Interval]);
}

#[test]
fn the_first_ipv6_address_is_link_local_if_ones_own_is() {
    let global = v6("2001:db8::64");
    let settings = settings_v6();
    let advert = Advert { addresses: vec![global, v6("fe80::64")], ..Advert::new(&settings, 150) };
    let message = message_of(&advert, &settings);
    assert_eq!(decode(&message, &header(&settings), &settings), Err(Invalid::LinkLocal));
    let settings = Settings { addresses: vec![global], ..settings };
    let received = decode(&message, &header(&settings), &settings).expect("valid");
    assert_eq!(received.remarks, [Remark::Addresses]);
}

#[test]
fn addresses_of_another_cluster_are_foreign_and_a_change_of_ones_own_is_not() {
    for settings in [settings(Version::V3), settings(Version::V2)] {
        for (addresses, expected) in [
            (vec![v4(200)], Err(Invalid::Addresses)),
            (vec![v4(200), v4(201)], Err(Invalid::Addresses)),
            (vec![VIP], Ok(vec![Remark::Addresses])),
            (vec![VIP, v4(200)], Ok(vec![Remark::Addresses])),
            (vec![VIP, v4(101), v4(200)], Ok(vec![Remark::Addresses])),
            (vec![v4(101), VIP], Ok(vec![])),
        ] {
            let advert = Advert { addresses, ..Advert::new(&settings, 150) };
            let received = decode(&message_of(&advert, &settings), &header(&settings), &settings);
            assert_eq!(received.map(|received| received.remarks), expected, "{advert:?}");
        }
    }
    assert!(Invalid::Addresses.is_foreign() && Invalid::NotAPeer.is_foreign() && !Invalid::RouterId.is_foreign());
}

#[test]
fn two_owners() {
    for (own, heard, remarks) in [(255, 255, vec![Remark::Owner]), (255, 254, vec![]), (254, 255, vec![])] {
        let settings = Settings { priority: own, ..settings(Version::V3) };
        let message = message_of(&Advert::new(&settings, heard), &settings);
        assert_eq!(decode(&message, &header(&settings), &settings).expect("valid").remarks, remarks);
    }
}

#[test]
fn names_are_different_and_for_counters() {
    let names: Vec<_> = Invalid::ALL.map(Invalid::name).into_iter().chain(Remark::ALL.map(Remark::name)).collect();
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
    assert_eq!(Invalid::ALL.iter().map(ToString::to_string).collect::<std::collections::BTreeSet<_>>().len(), 17);
}

/// What must hold of bytes that were accepted, by offsets alone.
fn oracle(message: &[u8], header: &Header, settings: &Settings) -> bool {
    let (version, trailer) = match settings.version {
        Version::V2 => (2, 8),
        Version::V3 => (3, 0),
    };
    let width = if header.source.is_ipv4() { 4 } else { 16 };
    message.len() >= 8
        && message[0] == version * 16 + 1
        && message[1] == settings.router_id
        && message[3] > 0
        && message.len() == 8 + width * usize::from(message[3]) + trailer
        && header.hop_limit == 255
        && header.source != settings.address
        && is_undamaged(message, header, settings.version)
        && (version == 3 || u64::from(message[5]) == settings.interval.as_secs())
        && (version == 2 || message[4] & 0x0f != 0 || message[5] != 0)
        && (version == 3 || message[4] == u8::from(settings.password.is_some()))
        && settings.password.is_none_or(|password| message.ends_with(password.bytes()))
        && (width == 4 || message[8] == 0xfe && message[9] & 0xc0 == 0x80)
        && message[8..message.len() - trailer].chunks(width).any(|bytes| {
            settings.addresses.iter().any(|own| match own {
                IpAddr::V4(own) => own.octets() == *bytes,
                IpAddr::V6(own) => own.octets() == *bytes,
            })
        })
}

fn kind() -> impl Strategy<Value = Settings> {
    prop::sample::select(every_kind().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_at_all(settings in kind(), message in prop::collection::vec(any::<u8>(), 0..200), hop_limit: u8) {
        let header = Header { hop_limit, ..header(&settings) };
        prop_assert_eq!(decode(&message, &header, &settings).is_ok(), oracle(&message, &header, &settings));
    }

    /// Some bytes of a valid advert are others, its end is cut or longer, and its checksum may be right all the same.
    #[test]
    fn mutated_adverts(
        settings in kind(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in prop::option::weighted(0.2, 0_usize..64),
        is_repaired: bool,
        hop_limit in prop_oneof![9 => Just(255_u8), 1 => any::<u8>()],
    ) {
        let mut message = message(&settings);
        if let Some(length) = length {
            message.resize(length, 0xa5);
        }
        for (index, byte) in changes {
            if !message.is_empty() {
                let index = index.index(message.len());
                message[index] = byte;
            }
        }
        if is_repaired && message.len() >= 8 {
            repair(&mut message, &settings);
        }
        let header = Header { hop_limit, ..header(&settings) };
        prop_assert_eq!(decode(&message, &header, &settings).is_ok(), oracle(&message, &header, &settings));
    }
}
