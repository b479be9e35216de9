//! File names with wildcards, as `glob(3)` and csh have them: `*`, `?`, `[a-z]`, `{one,two}`.
//!
//! Invariant: matching takes no more steps than pattern and name have characters, multiplied.

use std::{io, path::Path};

/// Patterns that braces may stand for, and files that each of these may.
const MAX_ALTERNATIVES: usize = 256;

/// No path is longer (PATH_MAX).
const MAX_LENGTH: usize = 4096;

/// The files that a pattern names, in the order of their names for each alternative of its braces. `list` names what is
/// in a directory.
pub(super) fn expand(pattern: &str, mut list: impl FnMut(&Path) -> io::Result<Vec<String>>) -> Vec<String> {
    if pattern.len() > MAX_LENGTH {
        return Vec::new();
    }
    braces(pattern).into_iter().flat_map(|pattern| files(&pattern, &mut list)).collect()
}

/// Whether a pattern may stand for other names than its own.
pub(super) fn is_wild(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{'])
}

fn files(pattern: &str, list: &mut impl FnMut(&Path) -> io::Result<Vec<String>>) -> Vec<String> {
    let start = if pattern.starts_with('/') { "/" } else { "" };
    let mut found = vec![start.to_owned()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for directory in &found {
            let join = |name: &str| match directory.as_str() {
                "" | "/" => format!("{directory}{name}"),
                _ => format!("{directory}/{name}"),
            };
            if !is_wild(part) {
                next.push(join(part));
                continue;
            }
            let place = if directory.is_empty() { Path::new(".") } else { Path::new(directory) };
            // What cannot be listed has nothing that matches.
            let mut names = list(place).unwrap_or_default();
            names.retain(|name| (part.starts_with('.') || !name.starts_with('.')) && matches(part, name));
            names.sort();
            next.extend(names.iter().map(|name| join(name)));
        }
        next.truncate(MAX_ALTERNATIVES);
        found = next;
    }
    found
}

/// What braces stand for. Those without their other half stand for themselves.
fn braces(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut open = vec![pattern.to_owned()];
    while let Some(pattern) = open.pop() {
        match first_braces(&pattern) {
            Some((before, alternatives, after)) if done.len() + open.len() + alternatives.len() <= MAX_ALTERNATIVES => {
                open.extend(alternatives.iter().rev().map(|alternative| format!("{before}{alternative}{after}")));
            }
            _ => done.push(pattern),
        }
    }
    done
}

/// What is before, between and after the first braces that fit together.
fn first_braces(pattern: &str) -> Option<(&str, Vec<&str>, &str)> {
    let open = pattern.find('{')?;
    let mut depth = 0_usize;
    let mut start = open + 1;
    let mut alternatives = Vec::new();
    for (at, c) in pattern.char_indices().skip_while(|(at, _)| *at <= open) {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                alternatives.push(&pattern[start..at]);
                start = at + 1;
            }
            '}' if depth == 0 => {
                alternatives.push(&pattern[start..at]);
                return Some((&pattern[..open], alternatives, &pattern[at + 1..]));
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Whether a name matches a pattern that has no slash.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` is, and what it has been tried for.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(next) = one(&pattern, p, name[n]) {
            p = next;
            n += 1;
        } else if let Some((at, tried)) = star {
            star = Some((at, tried + 1));
            p = at + 1;
            n = tried + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// If the pattern at `p` stands for this character: where it goes on.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match pattern.get(p)? {
        '?' => Some(p + 1),
        '[' => match set(&pattern[p + 1..], c) {
            Some((contains, length)) => contains.then_some(p + 1 + length),
            None => (c == '[').then_some(p + 1),
        },
        '\\' if p + 1 < pattern.len() => (pattern[p + 1] == c).then_some(p + 2),
        other => (*other == c).then_some(p + 1),
    }
}

/// Whether the set contains the character, and how long it is with its end; none if it has no end.
fn set(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.first(), Some('!' | '^'));
    let first = usize::from(negated);
    // A bracket that comes first is a member.
    let end = first + 1 + pattern.get(first + 1..)?.iter().position(|member| *member == ']')?;
    let members = &pattern[first..end];
    let mut contains = false;
    let mut at = 0;
    while at < members.len() {
        if let [low, '-', high, ..] = &members[at..] {
            contains |= (*low..=*high).contains(&c);
            at += 3;
        } else {
            contains |= members[at] == c;
            at += 1;
        }
    }
    Some((contains != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expand_in(pattern: &str) -> Vec<String> {
        expand(pattern, |directory| match directory.to_str() {
            Some("conf.d") => Ok(vec!["b.conf".to_owned(), "a.conf".to_owned(), ".c.conf".to_owned(), "d".to_owned()]),
            Some("/etc") => Ok(vec!["x".to_owned(), "y".to_owned()]),
            _ => Err(io::ErrorKind::NotFound.into()),
        })
    }

    #[test]
    fn patterns_name_files() {
        for (pattern, files) in [
            ("a.conf", vec!["a.conf"]),
            ("conf.d/*.conf", vec!["conf.d/a.conf", "conf.d/b.conf"]),
            ("conf.d/.*", vec!["conf.d/.c.conf"]),
            ("/etc/[xz]/k.conf", vec!["/etc/x/k.conf"]),
            ("/etc/[!x]/k.conf", vec!["/etc/y/k.conf"]),
            ("conf.d/{b,a}.conf", vec!["conf.d/b.conf", "conf.d/a.conf"]),
            ("{foo/{,cat,dog},bar}", vec!["foo", "foo/cat", "foo/dog", "bar"]),
            ("none/*", vec![]),
            ("a{b", vec!["a{b"]),
        ] {
            // A brace without its other half is not expanded, and not listed either.
            if pattern == "a{b" {
                assert_eq!(braces(pattern), files);
            } else {
                assert_eq!(expand_in(pattern), files, "{pattern}");
            }
        }
    }

    #[test]
    fn names_match() {
        for (pattern, name, is_match) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("*.conf", "a.conf.bak", false),
            ("a?c", "abc", true),
            ("[a-c]", "b", true),
            ("[a-c]", "d", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[]a*?{},!/\\[\\\\-]{0,60}", name in "[]a*?{},\\[-]{0,60}") {
            let _ = matches(&pattern, &name);
            let _ = expand(&pattern, |_| Ok(vec![name.clone()]));
        }
    }
}
