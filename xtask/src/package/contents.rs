//! What must be in a package, as `dpkg-deb --contents` lists it; pure.

/// A file, and its permissions.
const FILES: [(&str, &str); 18] = [
    ("/usr/bin/kplb", "-rwxr-xr-x"),
    ("/usr/lib/systemd/system/kplb@.service", "-rw-r--r--"),
    ("/etc/kplb/kplb.toml.example", "-rw-r--r--"),
    ("/usr/share/man/man1/kplb.1.gz", "-rw-r--r--"),
    ("/usr/share/man/man1/kplb-attach.1.gz", "-rw-r--r--"),
    ("/usr/share/man/man1/kplb-status.1.gz", "-rw-r--r--"),
    ("/usr/share/man/man1/kplb-detach.1.gz", "-rw-r--r--"),
    ("/usr/share/man/man1/kplb-check.1.gz", "-rw-r--r--"),
    ("/usr/share/man/man1/kplb-import.1.gz", "-rw-r--r--"),
    ("/usr/share/man/man1/kplb-backend.1.gz", "-rw-r--r--"),
    ("/usr/share/bash-completion/completions/kplb", "-rw-r--r--"),
    ("/usr/share/zsh/vendor-completions/_kplb", "-rw-r--r--"),
    ("/usr/share/fish/vendor_completions.d/kplb.fish", "-rw-r--r--"),
    ("/usr/share/doc/kplb/copyright", "-rw-r--r--"),
    ("/usr/share/doc/kplb/kplb.rules.yml", "-rw-r--r--"),
    ("/usr/share/doc/kplb/grafana-dashboard.json", "-rw-r--r--"),
    ("/usr/share/doc/kplb/static-pod.yaml", "-rw-r--r--"),
    ("/usr/share/doc/kplb/daemonset.yaml", "-rw-r--r--"),
];

/// What is wrong with the list.
pub fn check(list: &str) -> Vec<String> {
    // `-rwxr-xr-x root/root 5000000 2026-01-01 00:00 ./usr/bin/kplb`
    let entries: Vec<(&str, &str, &str)> = (list.lines())
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (mode, owner) = (words.next()?, words.next()?);
            Some((mode, owner, words.nth(3)?.trim_start_matches('.')))
        })
        .collect();
    let mut complaints = Vec::new();
    for (path, mode) in FILES {
        match entries.iter().find(|(_, _, other)| *other == path) {
            None => complaints.push(format!("{path} is missing")),
            Some((other, ..)) if *other != mode => complaints.push(format!("{path} is {other} instead of {mode}")),
            Some(_) => {}
        }
    }
    for (mode, owner, path) in &entries {
        if !matches!(*owner, "root/root" | "0/0") {
            complaints.push(format!("{path} belongs to {owner}"));
        }
        // A package starts nothing by what it brings.
        if *path == "/etc/kplb/kplb.toml" || path.contains(".wants/") {
            complaints.push(format!("{path} would start something"));
        }
        if path.contains("/man1/kplb-help") {
            complaints.push(format!("{path} says what others say"));
        }
        if mode.contains('s') || mode.contains('t') {
            complaints.push(format!("{path} has the mode {mode}"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(mode: &str, path: &str) -> String {
        format!("{mode} root/root       100 2026-01-01 00:00 .{path}\n")
    }

    fn whole() -> String {
        FILES.iter().map(|(path, mode)| line(mode, path)).collect()
    }

    #[test]
    fn what_should_be_there_is() {
        assert_eq!(check(&whole()), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (whole().replace("kplb@.service", "kplb.service"), "kplb@.service is missing"),
            (whole().replace("-rwxr-xr-x", "-rw-r--r--"), "/usr/bin/kplb is -rw-r--r-- instead of -rwxr-xr-x"),
            (whole() + &line("-rw-r--r--", "/etc/kplb/kplb.toml"), "would start something"),
            (whole() + &line("-rwsr-xr-x", "/usr/bin/other"), "has the mode -rwsr-xr-x"),
            (whole() + &line("-rw-r--r--", "/a").replace("root/root", "a/a"), "/a belongs to a/a"),
            (whole() + &line("-rw-r--r--", "/usr/share/man/man1/kplb-help.1.gz"), "says what others say"),
        ];
        for (list, expected) in cases {
            let complaints = check(&list);
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert!(complaints[0].contains(expected), "{complaints:?}");
        }
        assert_eq!(check("").len(), FILES.len());
    }
}
