//! A line of haproxy.cfg to its words: quotes, escapes, and variables of the environment (configuration manual,
//! sections 2.2 and 2.3).

use std::fmt;

use crate::import::limits::MAX_LINE;

/// A line's words.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Words {
    pub(super) words: Vec<String>,
    /// Variables in it that are not set, and have no default.
    pub(super) unset: Vec<String>,
    /// How much of the line they are, in bytes; a comment follows.
    pub(super) length: usize,
}

/// Why a line has no words. haproxy refuses it as well, but for its length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Broken {
    Quote(char),
    Hexadecimal,
    Variable,
    /// Only an import takes no longer ones.
    Length,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quote(quote) => write!(f, "a quote ({quote}) is not closed"),
            Self::Hexadecimal => f.write_str("\\x needs two hexadecimal digits"),
            Self::Variable => f.write_str("in double quotes, $ begins the name of a variable"),
            Self::Length => write!(f, "with its variables replaced it has more than {MAX_LINE} bytes"),
        }
    }
}

struct Splitter<'l, V> {
    rest: &'l str,
    variable: V,
    words: Words,
    /// The word that is being read, if one is. Bytes, because `\x` writes them.
    word: Option<Vec<u8>>,
    /// Bytes that variables may still add.
    room: usize,
}

/// Splits a line. `variable` is the environment, with what haproxy itself adds to it.
pub(super) fn split(line: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Words, Broken> {
    let mut splitter = Splitter { rest: line, variable, words: Words::default(), word: None, room: MAX_LINE };
    splitter.run()?;
    splitter.end_word();
    splitter.words.length = line.len() - splitter.rest.len();
    Ok(splitter.words)
}

impl<V: Fn(&str) -> Option<String>> Splitter<'_, V> {
    fn run(&mut self) -> Result<(), Broken> {
        let mut is_quoted = false;
        while let Some(c) = self.rest.chars().next() {
            match c {
                '#' if !is_quoted => return Ok(()),
                ' ' | '\t' | '\r' | '\n' if !is_quoted => {
                    self.skip(c);
                    self.end_word();
                }
                '"' => {
                    self.skip(c);
                    is_quoted = !is_quoted;
                    self.word.get_or_insert_default();
                }
                '\'' if !is_quoted => {
                    let (inner, rest) = self.rest[1..].split_once('\'').ok_or(Broken::Quote('\''))?;
                    self.word.get_or_insert_default().extend(inner.bytes());
                    self.rest = rest;
                }
                '\\' => self.escape()?,
                '$' if is_quoted => self.variable()?,
                _ => {
                    self.skip(c);
                    self.push(c);
                }
            }
        }
        if is_quoted { Err(Broken::Quote('"')) } else { Ok(()) }
    }

    fn skip(&mut self, c: char) {
        self.rest = &self.rest[c.len_utf8()..];
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().extend(c.encode_utf8(&mut [0; 4]).bytes());
    }

    fn end_word(&mut self) {
        // A byte that is no text has no place in anything that is imported.
        self.words.words.extend(self.word.take().map(|word| String::from_utf8_lossy(&word).into_owned()));
    }

    fn escape(&mut self) -> Result<(), Broken> {
        let mut characters = self.rest.chars();
        characters.next();
        let c = match characters.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('x') => {
                let digits = self.rest.get(2..4).ok_or(Broken::Hexadecimal)?;
                let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hexadecimal);
                self.word.get_or_insert_default().push(byte.ok_or(Broken::Hexadecimal)?);
                self.rest = &self.rest[4..];
                return Ok(());
            }
            Some(c @ (' ' | '\t' | '#' | '\\' | '\'' | '"' | '$')) => {
                self.rest = &self.rest[2..];
                self.push(c);
                return Ok(());
            }
            // Any other backslash is one.
            _ => {
                self.skip('\\');
                self.push('\\');
                return Ok(());
            }
        };
        self.rest = &self.rest[2..];
        self.push(c);
        Ok(())
    }

    fn variable(&mut self) -> Result<(), Broken> {
        let reference = Reference::read(&self.rest[1..]).ok_or(Broken::Variable)?;
        self.rest = &self.rest[1 + reference.length..];
        let value = (self.variable)(reference.name);
        if value.is_none() && reference.default.is_none() {
            self.words.unset.push(reference.name.to_owned());
        }
        let value = value.or_else(|| reference.default.map(str::to_owned)).unwrap_or_default();
        self.room = self.room.checked_sub(value.len()).ok_or(Broken::Length)?;
        if reference.is_list {
            let mut items = value.split(' ').filter(|item| !item.is_empty()).peekable();
            while let Some(item) = items.next() {
                self.word.get_or_insert_default().extend(item.bytes());
                if items.peek().is_some() {
                    self.end_word();
                }
            }
        } else {
            self.word.get_or_insert_default().extend(value.bytes());
        }
        Ok(())
    }
}

/// What follows a dollar sign.
struct Reference<'l> {
    name: &'l str,
    default: Option<&'l str>,
    /// Whether its value is several words.
    is_list: bool,
    /// In bytes, braces included.
    length: usize,
}

impl<'l> Reference<'l> {
    fn read(text: &'l str) -> Option<Self> {
        let Some(inner) = text.strip_prefix('{') else {
            let (name, _) = name(text)?;
            return Some(Self { name, default: None, is_list: false, length: name.len() });
        };
        let (inner, _) = inner.split_once('}')?;
        let length = inner.len() + 2;
        let (name, rest) = name(inner)?;
        let (rest, is_list) = rest.strip_suffix("[*]").map_or((rest, false), |rest| (rest, true));
        match rest.strip_prefix('-') {
            default @ Some(_) => Some(Self { name, default, is_list, length }),
            None => rest.is_empty().then_some(Self { name, default: None, is_list, length }),
        }
    }
}

/// The name of a variable, and what follows it. Those that haproxy makes up begin with a dot.
fn name(text: &str) -> Option<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let start = usize::from(text.starts_with('.'));
    let end = text[start..].find(|c| !is_part(c)).map_or(text.len(), |end| start + end);
    let first = text[start..end].chars().next()?;
    (!first.is_ascii_digit()).then(|| text.split_at(end))
}

/// Replaces variables in an address, where haproxy does so without quotes, too.
pub(super) fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    // A longer one is no address, whatever follows.
    while let Some((before, after)) = rest.split_once('$').filter(|_| expanded.len() <= MAX_LINE) {
        expanded.push_str(before);
        match Reference::read(after) {
            Some(reference) => {
                let default = || reference.default.map(str::to_owned);
                expanded.push_str(&variable(reference.name).or_else(default).unwrap_or_default());
                rest = &after[reference.length..];
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "A" => Some("198.18.0.11".to_owned()),
            "LIST" => Some("check  inter 3s".to_owned()),
            "EMPTY" => Some(String::new()),
            ".LINE" => Some("7".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn words_as_haproxy_has_them() {
        for (line, words) in [
            ("  server a 198.18.0.11:6443 check # x", vec!["server", "a", "198.18.0.11:6443", "check"]),
            ("global#c", vec!["global"]),
            // The manual's own examples: all the same.
            ("log-format %{+Q}o\\ %t\\ %s\\ %{-Q}r", vec!["log-format", "%{+Q}o %t %s %{-Q}r"]),
            ("log-format \"%{+Q}o %t %s %{-Q}r\"", vec!["log-format", "%{+Q}o %t %s %{-Q}r"]),
            ("log-format '%{+Q}o %t %s %{-Q}r'", vec!["log-format", "%{+Q}o %t %s %{-Q}r"]),
            ("log-format \"%{+Q}o %t\"' %s'\\ %{-Q}r", vec!["log-format", "%{+Q}o %t %s %{-Q}r"]),
            ("a \"\" b", vec!["a", "", "b"]),
            ("a\\#b '#' \"#\"", vec!["a#b", "#", "#"]),
            ("\\x41\\n\\q \\", vec!["A\n\\q", "\\"]),
            ("\"$A\":1 '$A' $A", vec!["198.18.0.11:1", "$A", "$A"]),
            ("\"${A}:${NONE-6443}\" \"${EMPTY-x}\" \"${NONE}\"", vec!["198.18.0.11:6443", "", ""]),
            ("\"${LIST[*]}\" \"$.LINE\" \"\\$A\"", vec!["check", "inter", "3s", "7", "$A"]),
            ("", vec![]),
            ("# all", vec![]),
        ] {
            assert_eq!(
                split(line, variable).map(|words| words.words),
                Ok(words.into_iter().map(str::to_owned).collect()),
                "{line}"
            );
        }
    }

    #[test]
    fn what_haproxy_refuses() {
        for (line, broken) in [
            ("a \"b", Broken::Quote('"')),
            ("a 'b", Broken::Quote('\'')),
            ("\\xzz", Broken::Hexadecimal),
            ("\\x+1", Broken::Hexadecimal),
            ("\\x1", Broken::Hexadecimal),
            ("\"$ \"", Broken::Variable),
            ("\"${A\"", Broken::Variable),
            ("\"${A:-b}\"", Broken::Variable),
            ("\"$1\"", Broken::Variable),
        ] {
            assert_eq!(split(line, variable), Err(broken), "{line}");
        }
    }

    #[test]
    fn what_is_not_set_is_told() {
        let words = split("\"$NONE\" \"${NONE-1}\" \"$EMPTY\" # c", variable).expect("it is right");
        assert_eq!(words.unset, ["NONE"]);
        assert_eq!(words.length, "\"$NONE\" \"${NONE-1}\" \"$EMPTY\" ".len());
    }

    #[test]
    fn addresses_need_no_quotes() {
        for (text, expanded) in [("${A}:6443", "198.18.0.11:6443"), ("$NONE:1", ":1"), ("$:1", "$:1"), ("a", "a")] {
            assert_eq!(expand(text, variable), expanded, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_line_has_words_or_none(line in "[ab \\\\x\"'$\\{\\}#\\[\\]*.é-]{0,60}") {
            let _ = split(&line, variable);
            let _ = expand(&line, variable);
        }
    }
}
