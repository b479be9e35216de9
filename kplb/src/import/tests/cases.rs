//! Whole files, each with what it means in kplb and every finding: by file, line and directive.

use super::*;

/// A case is a folder: the files, `kplb.toml` written by hand, and `findings`.
struct Case {
    keepalived: &'static str,
    haproxy: Option<&'static str>,
    /// Files that these include.
    others: &'static [(&'static str, &'static str)],
    config_id: &'static str,
    toml: &'static str,
    findings: &'static str,
}

macro_rules! file {
    ($case:literal, $name:literal) => {
        include_str!(concat!("cases/", $case, "/", $name))
    };
}

#[track_caller]
fn play(case: &Case) {
    let mut scene = Scene::new().keepalived(case.keepalived).config_id(case.config_id);
    if let Some(haproxy) = case.haproxy {
        scene = scene.haproxy(haproxy);
    }
    for (path, text) in case.others {
        scene = scene.file(path, text);
    }
    let (config, findings) = scene.imported();
    let expected = config::parse(case.toml, "kplb.toml").unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config, expected, "{}", scene.import().text.unwrap_or_default());
    let found: Vec<_> =
        findings.iter().map(|Finding { place, directive, .. }| format!("{place} {directive}")).collect();
    assert_eq!(found.join("\n"), case.findings.trim_end(), "{}", shown(&findings));
}

#[test]
fn minimal() {
    play(&Case {
        keepalived: file!("minimal", "keepalived.conf"),
        haproxy: Some(file!("minimal", "haproxy.cfg")),
        others: &[],
        config_id: "",
        toml: file!("minimal", "kplb.toml"),
        findings: file!("minimal", "findings"),
    });
}

#[test]
fn kubeadm_as_it_was() {
    play(&Case {
        keepalived: file!("kubeadm-old", "keepalived.conf"),
        haproxy: Some(file!("kubeadm-old", "haproxy.cfg")),
        others: &[],
        config_id: "",
        toml: file!("kubeadm-old", "kplb.toml"),
        findings: file!("kubeadm-old", "findings"),
    });
}

#[test]
fn kubeadm_as_it_is() {
    play(&Case {
        keepalived: file!("kubeadm-new", "keepalived.conf"),
        haproxy: Some(file!("kubeadm-new", "haproxy.cfg")),
        others: &[],
        config_id: "",
        toml: file!("kubeadm-new", "kplb.toml"),
        findings: file!("kubeadm-new", "findings"),
    });
}

#[test]
fn openshift() {
    play(&Case {
        keepalived: file!("openshift", "keepalived.conf"),
        haproxy: Some(file!("openshift", "haproxy.cfg")),
        others: &[],
        config_id: "",
        toml: file!("openshift", "kplb.toml"),
        findings: file!("openshift", "findings"),
    });
}

#[test]
fn ipvs_without_haproxy() {
    play(&Case {
        keepalived: file!("ipvs", "keepalived.conf"),
        haproxy: None,
        others: &[],
        config_id: "",
        toml: file!("ipvs", "kplb.toml"),
        findings: file!("ipvs", "findings"),
    });
}

#[test]
fn two_address_families() {
    play(&Case {
        keepalived: file!("dual-stack", "keepalived.conf"),
        haproxy: Some(file!("dual-stack", "haproxy.cfg")),
        others: &[],
        config_id: "",
        toml: file!("dual-stack", "kplb.toml"),
        findings: file!("dual-stack", "findings"),
    });
}

#[test]
fn all_of_the_grammars() {
    play(&Case {
        keepalived: file!("words", "keepalived.conf"),
        haproxy: Some(file!("words", "haproxy.cfg")),
        others: &[("instances/api.conf", file!("words", "instances/api.conf"))],
        config_id: "node1",
        toml: file!("words", "kplb.toml"),
        findings: file!("words", "findings"),
    });
}

/// The README shows the smallest case, word for word.
#[test]
fn the_readme_shows_what_is_printed() {
    let readme = include_str!("../../../../README.md");
    let scene = Scene::new().keepalived(file!("minimal", "keepalived.conf")).haproxy(file!("minimal", "haproxy.cfg"));
    let Imported { text, findings } = scene.import();
    let indented = |text: &str| -> String {
        let indented = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") };
        text.lines().map(indented).collect()
    };
    for shown in [text.expect("it is printed"), shown(&findings)] {
        assert!(readme.contains(&indented(&shown)), "the README shows another text than:\n{}", indented(&shown));
    }
}
