//! Table `[metrics]`.

use super::{super::parse, SERVICE, check, socket};

/// Where metrics are served with this table before a valid service.
fn listen(table: &str) -> Option<std::net::SocketAddr> {
    let config = parse(&format!("{table}{SERVICE}"), "metrics").expect("valid");
    config.metrics.map(|metrics| metrics.listen)
}

#[test]
fn off_unless_there_is_a_table() {
    assert_eq!(listen(""), None);
    assert_eq!(listen("[metrics]\n"), Some(socket("127.0.0.1:9643")));
}

#[test]
fn others_can_be_let_in() {
    for address in ["127.0.0.1:1", "[::1]:9643", "0.0.0.0:9643", "[::]:9643", "198.18.0.11:65535"] {
        assert_eq!(listen(&format!("[metrics]\nlisten = \"{address}\"\n")), Some(socket(address)));
    }
}

#[test]
fn what_cannot_be_listened_at() {
    let cases = [
        ("listen = 9643", "`listen` cannot be of type integer: write a string"),
        ("listen = \"9643\"", "`9643` is not an IP address and port: write it as 127.0.0.1:9643"),
        ("listen = \"localhost:9643\"", "`localhost:9643` is not an IP address and port"),
        ("listen = \"127.0.0.1:0\"", "port 0 in `127.0.0.1:0`: ports are 1 to 65535"),
        ("listen = \"224.0.0.18:9643\"", "224.0.0.18 is an address of many hosts"),
        ("listen = \"255.255.255.255:9643\"", "255.255.255.255 is an address of many hosts"),
        ("listens = \"127.0.0.1:9643\"", "unknown key `listens`: did you mean `listen`?"),
    ];
    for (line, expected) in cases {
        check("metrics", &format!("[metrics]\n{line}\n{SERVICE}"), &[&["2:", expected]]);
    }
    check("metrics", &format!("metrics = true\n{SERVICE}"), &[&["1:", "write it as the table [metrics]"]]);
}
