//! Whatever is read, an import ends without a panic, and what it prints is a configuration.

use proptest::{prelude::*, sample::Index};

use super::*;

/// Files that people have, in pairs.
const FILES: [(&str, &str); 7] = [
    (include_str!("cases/minimal/keepalived.conf"), include_str!("cases/minimal/haproxy.cfg")),
    (include_str!("cases/kubeadm-old/keepalived.conf"), include_str!("cases/kubeadm-old/haproxy.cfg")),
    (include_str!("cases/kubeadm-new/keepalived.conf"), include_str!("cases/kubeadm-new/haproxy.cfg")),
    (include_str!("cases/openshift/keepalived.conf"), include_str!("cases/openshift/haproxy.cfg")),
    (include_str!("cases/ipvs/keepalived.conf"), ""),
    (include_str!("cases/dual-stack/keepalived.conf"), include_str!("cases/dual-stack/haproxy.cfg")),
    (include_str!("cases/words/keepalived.conf"), include_str!("cases/words/haproxy.cfg")),
];

/// What a word can be replaced by: what readers take a special interest in.
const WORDS: [&str; 70] = [
    "{",
    "}",
    "\"",
    "'",
    "\\",
    "#",
    "!",
    "$",
    "${",
    "~SEQ(A,1,3)",
    "~LST(A,1,2)",
    "@node1",
    "@^node1",
    "$A=1",
    "$A",
    "${A}",
    "include",
    "vrrp_instance",
    "virtual_server",
    "real_server",
    "virtual_ipaddress",
    "unicast_peer",
    "authentication",
    "vrrp_sync_group",
    "TCP_CHECK",
    "SSL_GET",
    "version",
    "3",
    "0",
    "-1",
    "255",
    "256",
    "65536",
    "1e9",
    "0.001",
    "99999999999999999999",
    "198.18.0.100",
    "198.18.0.11:6443",
    "::",
    "2001:2::100",
    "fe80::1",
    "0.0.0.0",
    "127.0.0.1",
    "*:6443",
    ":::1-9",
    ".if",
    ".else",
    ".endif",
    "defined(A)",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "from",
    "bind",
    "server",
    "server-template",
    "dispatch",
    "option httpchk",
    "http-check expect",
    "ssl",
    "check",
    "backup",
    "disabled",
    "slowstart 1ms",
    "port",
    "track",
    "check-sni",
    "verify required ca-file",
    "é\u{0}\u{7f}",
];

#[derive(Clone, Debug)]
enum Change {
    DeleteLine(Index),
    RepeatLine(Index, Index),
    SwapLines(Index, Index),
    ReplaceWord(Index, Index, Index),
    InsertWord(Index, Index),
    CutOff(Index),
    SetByte(Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        2 => index().prop_map(Change::DeleteLine),
        2 => (index(), index()).prop_map(|(from, to)| Change::RepeatLine(from, to)),
        1 => (index(), index()).prop_map(|(a, b)| Change::SwapLines(a, b)),
        4 => (index(), index(), index()).prop_map(|(line, word, with)| Change::ReplaceWord(line, word, with)),
        3 => (index(), index()).prop_map(|(at, word)| Change::InsertWord(at, word)),
        1 => index().prop_map(Change::CutOff),
        1 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::SetByte(at, byte)),
    ]
}

fn apply(text: Vec<u8>, change: &Change) -> Vec<u8> {
    let string = String::from_utf8_lossy(&text).into_owned();
    let mut lines: Vec<String> = string.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return text;
    }
    match change {
        Change::DeleteLine(at) => drop(lines.remove(at.index(lines.len()))),
        Change::RepeatLine(from, to) => lines.insert(to.index(lines.len()), lines[from.index(lines.len())].clone()),
        Change::SwapLines(a, b) => {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        Change::ReplaceWord(line, word, with) => {
            let line = line.index(lines.len());
            let mut words: Vec<&str> = lines[line].split(' ').collect();
            let at = word.index(words.len());
            words[at] = WORDS[with.index(WORDS.len())];
            lines[line] = words.join(" ");
        }
        Change::InsertWord(at, word) => {
            let line = at.index(lines.len());
            lines[line] += &format!(" {}", WORDS[word.index(WORDS.len())]);
        }
        Change::CutOff(at) => {
            let mut text = text;
            text.truncate(at.index(text.len()));
            return text;
        }
        Change::SetByte(at, byte) => {
            let mut text = text;
            let at = at.index(text.len());
            text[at] = *byte;
            return text;
        }
    }
    (lines.join("\n") + "\n").into_bytes()
}

/// Imports both, and each alone. The pure part proves itself that what it prints is right; here it is read again.
fn check(keepalived: &[u8], haproxy: &[u8]) -> Result<(), TestCaseError> {
    let base = Scene::new()
        .file("instances/api.conf", include_str!("cases/words/instances/api.conf"))
        .host("localhost", &["127.0.0.1"])
        .variable("A", "198.18.0.11")
        .config_id("node1");
    let scenes = [
        base.clone().keepalived(keepalived).haproxy(haproxy),
        base.clone().keepalived(keepalived),
        base.clone().haproxy(haproxy).vip("198.18.0.100"),
        // Each for the other.
        base.keepalived(haproxy).haproxy(keepalived),
    ];
    for scene in scenes {
        let Imported { text, findings } = scene.import();
        match text {
            Ok(text) => {
                let config = config::parse(&text, "kplb.toml");
                prop_assert!(config.is_ok(), "{:?}\n{}", config, text);
            }
            Err(error) => {
                let is_mistake = matches!(error, ImportError::Unfit(_) | ImportError::Unlike);
                prop_assert!(!is_mistake, "{}", error);
            }
        }
        for finding in findings {
            let line = finding.to_string();
            prop_assert!(!line.contains('\n') && !line.chars().any(char::is_control), "{line:?}");
            prop_assert!(!finding.why.is_empty() && !finding.advice.is_empty(), "{line:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes(keepalived: Vec<u8>, haproxy: Vec<u8>) {
        check(&keepalived, &haproxy)?;
    }

    #[test]
    fn words_in_any_order(
        keepalived in proptest::collection::vec((0..WORDS.len(), any::<bool>()), 0..60),
        haproxy in proptest::collection::vec((0..WORDS.len(), any::<bool>()), 0..60),
    ) {
        let text = |words: Vec<(usize, bool)>| -> String {
            words.into_iter().map(|(word, ends)| format!("{}{}", WORDS[word], if ends { "\n" } else { " " })).collect()
        };
        check(text(keepalived).as_bytes(), text(haproxy).as_bytes())?;
    }

    #[test]
    fn changed_files(
        file in 0..FILES.len(),
        keepalived in proptest::collection::vec(change(), 0..8),
        haproxy in proptest::collection::vec(change(), 0..8),
    ) {
        let (keepalived_text, haproxy_text) = FILES[file];
        let keepalived = keepalived.iter().fold(keepalived_text.into(), apply);
        let haproxy = haproxy.iter().fold(haproxy_text.into(), apply);
        check(&keepalived, &haproxy)?;
    }
}
