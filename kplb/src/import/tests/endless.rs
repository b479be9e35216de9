//! Files that would never end, or take all memory: each ends soon, with a reason or without harm.

use super::*;

#[track_caller]
fn too_much(scene: &Scene, words: &str) {
    let error = scene.refused();
    assert!(matches!(error, ImportError::TooMuch { .. }), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn files_that_include_themselves() {
    too_much(&Scene::new().keepalived("include keepalived.conf\n"), "include each other too deeply");
    too_much(&Scene::new().keepalived("include *.conf\ninclude *.conf\n"), "include each other too deeply");
    let two = Scene::new().keepalived("include b\n").file("b", "include keepalived.conf\n");
    too_much(&two, "include each other too deeply");
    // Not deep, and many.
    let many = Scene::new().keepalived("include b\n".repeat(2_000)).file("b", "");
    too_much(&many, "too many files");
}

#[test]
fn names_that_stand_for_themselves() {
    for text in ["$A=$A\n$A\n", "$A=${B}\n$B=${A}\nx ${A}\n", "$A=${A}${A}\n${A}\n"] {
        let error = Scene::new().keepalived(text).refused();
        assert!(matches!(&error, ImportError::Syntax { place, .. } if place.line() > 1), "{text}: {error}");
    }
    // Doubled fifty times.
    let names: String = (1..50).map(|n| format!("$A{n}=${{A{}}}${{A{}}}\n", n - 1, n - 1)).collect();
    assert!(matches!(
        Scene::new().keepalived(format!("$A0=xx\n{names}${{A49}}\n")).refused(),
        ImportError::Syntax { .. }
    ));
    let long = format!("$A={}\n$A $A\n", "x".repeat(60_000));
    too_much(&Scene::new().keepalived(long), "too long a line, with its names replaced");
    // A name of several lines that ends in itself.
    too_much(&Scene::new().keepalived("$A= \\\nx \\\n$A\n\n$A\n"), "too many lines");
}

#[test]
fn sequences_without_end() {
    too_much(&Scene::new().keepalived("~SEQ(A, 1, 1, 1000000000000) x $A\n"), "too many lines");
    let nested = "~SEQ(A,1,1000) ~SEQ(B,1,1000) ~SEQ(C,1,1000) x\n";
    too_much(&Scene::new().keepalived(nested), "too many lines");
    too_much(&Scene::new().keepalived("$L= \\\n~SEQ(A,1,10) $L\n\n$L\n"), "too many lines");
}

#[test]
fn blocks_in_blocks() {
    too_much(&Scene::new().keepalived("a {\n".repeat(1_000)), "blocks in blocks");
    too_much(&Scene::new().keepalived("{\n".repeat(1_000)), "blocks in blocks");
    let (config, _) =
        Scene::new().keepalived(format!("{}{}", "}".repeat(1_000), router(""))).haproxy(HAPROXY).imported();
    assert_eq!(config.services.len(), 1);
}

#[test]
fn huge_files() {
    too_much(&Scene::new().keepalived(vec![b'\n'; 9 << 20]), "too many bytes");
    too_much(&Scene::new().haproxy(vec![b'#'; 9 << 20]), "too many bytes");
    too_much(&Scene::new().haproxy("a\n".repeat(300_000)), "too many lines");
    too_much(&Scene::new().haproxy("x".repeat(1 << 20)), "too long a line");
    too_much(&Scene::new().keepalived("x".repeat(1 << 20)), "too long a line");
}

#[test]
fn conditions_in_conditions() {
    too_much(&Scene::new().haproxy(".if 1\n".repeat(1_000)), "conditions in conditions");
    let deep = format!(".if {}1{}\n.endif\n", "(".repeat(10_000), ")".repeat(10_000));
    assert!(matches!(Scene::new().haproxy(deep).refused(), ImportError::Syntax { .. }));
}

#[test]
fn variables_that_grow() {
    let doubled: String = (1..60).map(|n| format!("setenv A{n} \"$A{}$A{}\"\n", n - 1, n - 1)).collect();
    let error = Scene::new().haproxy(format!("global\nsetenv A0 xx\n{doubled}")).refused().to_string();
    assert!(error.contains("bytes"), "{error}");
    let long = "x".repeat(60_000);
    let often = format!("global\nsetenv A {long}\n{}", " log \"$A\"\n".repeat(1_000));
    too_much(&Scene::new().haproxy(often), "too much text");
}

/// More than kplb has room for is not printed, and is nobody's mistake.
#[test]
fn more_than_there_is_room_for() {
    let servers = |n: usize| -> String {
        (0..n).map(|n| format!(" server s{n} 198.19.{}.{}:1\n", n / 250, n % 250 + 1)).collect()
    };
    too_much(&Scene::new().haproxy(format!("listen a\n bind 198.18.0.100:1\n{}", servers(5_000))), "too many backends");
    let listeners: String = (1..20).map(|n| format!(" bind 198.18.0.100:{}-{}\n", n * 1000, n * 1000 + 63)).collect();
    too_much(&Scene::new().haproxy(format!("listen a\n{listeners}{}", servers(1))), "too many services");
    let vips: String = (1..=100).map(|n| format!("    198.18.1.{n}\n")).collect();
    let text = router("").replace("    198.18.0.100\n", &vips);
    too_much(&Scene::new().keepalived(text).haproxy(HAPROXY), "too many VIPs");
    let (config, _) = Scene::new().haproxy(format!("listen a\n bind 198.18.0.100:1\n{}", servers(4_000))).imported();
    assert_eq!(config.services[0].backends.len(), 4_000);
}
