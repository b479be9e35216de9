//! A line of keepalived.conf on its way to words: comments off, braces apart, quotes resolved.

/// A line without its comment and the blanks around it. A backslash at its end stays, even behind a comment: a
/// definition goes on in the next line.
pub(super) fn without_comment(line: &str) -> String {
    let line = line.trim_start_matches(BLANKS);
    let mut text = String::with_capacity(line.len());
    let (mut is_quoted, mut is_comment, mut goes_on) = (false, false, false);
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if !is_comment => is_quoted = !is_quoted,
            '#' | '!' if !is_quoted => is_comment = true,
            '\\' => match characters.next() {
                None => goes_on = true,
                // The backslash that keeps these two from starting a comment is not needed any more.
                Some(mark @ ('#' | '!')) if !is_quoted && !is_comment => {
                    text.push(mark);
                    continue;
                }
                Some(other) if !is_comment => text.extend(['\\', other]),
                Some(_) => {}
            },
            _ => {}
        }
        if !is_comment && c != '\\' {
            text.push(c);
        }
    }
    text.truncate(text.trim_end_matches(BLANKS).len());
    if goes_on {
        text.push('\\');
    }
    text
}

/// What separates words.
pub(super) const BLANKS: [char; 6] = [' ', '\t', '\u{c}', '\n', '\r', '\u{b}'];

/// Where a line is cut so that a brace stands alone: its first part, and the rest if there is one. Braces in double
/// quotes are text.
pub(super) fn cut_at_brace(line: &str) -> (&str, Option<&str>) {
    let mut is_quoted = false;
    let brace = line.char_indices().find(|(_, c)| {
        is_quoted ^= *c == '"';
        !is_quoted && matches!(c, '{' | '}')
    });
    let (first, rest) = match brace {
        // Both braces are one byte.
        Some((0, _)) => line.split_at(1),
        Some((at, _)) => line.split_at(at),
        None => (line, ""),
    };
    let rest = rest.trim_matches(BLANKS);
    (first.trim_end_matches(BLANKS), (!rest.is_empty()).then_some(rest))
}

/// The words of a line. Only double quotes around a whole word count; a missing one ends the line.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start_matches(BLANKS);
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => match quoted.split_once('"') {
                Some((word, after)) => (word, after),
                None => break,
            },
            None => rest.split_at(rest.find(|c| c == '"' || BLANKS.contains(&c)).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = after.trim_start_matches(BLANKS);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_go() {
        for (line, text) in [
            ("  priority 100  # low", "priority 100"),
            ("priority 100! low", "priority 100"),
            ("# all", ""),
            ("script \"a # b\" # c", "script \"a # b\""),
            ("a \\# b", "a # b"),
            ("a \\\\# b", "a \\\\"),
            ("198.18.0.1 # x \\", "198.18.0.1\\"),
            ("$A= \\", "$A=\\"),
            ("# \"", ""),
        ] {
            assert_eq!(without_comment(line), text, "{line}");
        }
    }

    #[test]
    fn braces_stand_alone() {
        for (line, first, rest) in [
            ("vrrp_instance VI_1 {", "vrrp_instance VI_1", Some("{")),
            ("{ a 1 }", "{", Some("a 1 }")),
            ("a 1 }", "a 1", Some("}")),
            ("}}", "}", Some("}")),
            ("}", "}", None),
            ("script \"{ a }\"", "script \"{ a }\"", None),
            ("a", "a", None),
        ] {
            assert_eq!(cut_at_brace(line), (first, rest), "{line}");
        }
    }

    #[test]
    fn quotes_hold_words_together() {
        for (line, words) in [
            ("auth_pass \"a b\"", vec!["auth_pass", "a b"]),
            // As keepalived 2.2.7 has it: single quotes are text, and a double quote ends the word before.
            ("auth_pass 'a b'", vec!["auth_pass", "'a", "b'"]),
            ("auth_pass ab\"c\"", vec!["auth_pass", "ab", "c"]),
            ("auth_pass \"\"", vec!["auth_pass", ""]),
            ("auth_pass \"a b", vec!["auth_pass"]),
            ("", vec![]),
        ] {
            assert_eq!(split(line), words, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in ".{0,200}") {
            let text = without_comment(&line);
            let (first, rest) = cut_at_brace(&text);
            prop_assert!(first.len() + rest.map_or(0, str::len) <= text.len());
            split(first);
        }
    }
}
