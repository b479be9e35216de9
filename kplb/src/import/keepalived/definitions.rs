//! `$NAME=value`, and what becomes of `$NAME` and `${NAME}`.
//!
//! Invariant: a line is replaced in a bounded number of steps, and stays bounded. keepalived itself hangs where a name
//! stands for itself.

use std::collections::HashMap;

use crate::import::limits::{MAX_LINE, MAX_REPLACEMENTS};

/// Lines that a line may stand for.
const MAX_DEFINITION: usize = 10_000;

/// What names stand for.
#[derive(Debug)]
pub(super) struct Definitions {
    values: HashMap<String, Value>,
}

#[derive(Clone, Debug)]
struct Value {
    /// Its first line.
    first: String,
    /// The lines after it; none: it is of one line.
    others: Option<Vec<String>>,
}

/// A definition whose next lines are still to come.
#[derive(Debug)]
pub(super) struct Open {
    name: String,
    lines: Vec<String>,
}

/// A line with everything in it replaced.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Replaced {
    pub(super) text: String,
    /// Lines that come next: the last name stood for several.
    pub(super) next: Vec<String>,
    /// How many names stood for something.
    pub(super) n_replaced: usize,
    /// A random number was asked for.
    pub(super) is_random: bool,
}

/// Why a line cannot be replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Endless {
    /// There is always something left to replace.
    Steps,
    /// It grows without end.
    Length,
}

/// What a line is that starts with `$`.
#[derive(Debug)]
pub(super) enum Definition {
    /// None.
    None,
    /// One, which is known now.
    Done,
    /// One that goes on in the next line.
    Open(Open),
}

impl Definitions {
    /// With the names that keepalived knows itself. `_PWD` is where the file is.
    pub(super) fn new(config_id: &str) -> Self {
        let mut definitions = Self { values: HashMap::new() };
        definitions.set("_INSTANCE", config_id);
        definitions.set("_HASH", "#");
        definitions.set("_BANG", "!");
        definitions
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), Value { first: value.to_owned(), others: None });
    }

    /// Takes a definition.
    pub(super) fn define(&mut self, line: &str) -> Definition {
        let Some((name, value)) = line.strip_prefix('$').and_then(|rest| rest.split_once('=')) else {
            return Definition::None;
        };
        if !is_name(name) {
            return Definition::None;
        }
        let value = value.trim_start_matches([' ', '\t']);
        match value.strip_suffix('\\') {
            Some(first) => {
                let first = first.trim_end_matches([' ', '\t']);
                Definition::Open(Open { name: name.to_owned(), lines: non_empty(first).into_iter().collect() })
            }
            None => {
                self.set(name, value);
                Definition::Done
            }
        }
    }

    /// Adds the next line of a definition; returns the definition if it still goes on. A line without anything ends it.
    pub(super) fn define_more(&mut self, mut open: Open, line: &str) -> Option<Open> {
        let (line, goes_on) = match line.strip_suffix('\\') {
            Some(line) => (line.trim_end_matches([' ', '\t']), true),
            None => (line, false),
        };
        open.lines.extend(non_empty(line));
        if goes_on {
            return Some(open);
        }
        let mut lines = open.lines.into_iter();
        let first = lines.next().unwrap_or_default();
        self.values.insert(open.name, Value { first, others: Some(lines.collect()) });
        None
    }

    /// Replaces every name that is known, from the left, and what it is replaced by, too.
    ///
    /// `variable` is the environment. A line that turns out to be a sequence is left as it is from there on: its names
    /// are replaced for each of its values.
    pub(super) fn replace(
        &self,
        line: &str,
        directory: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Replaced>, Endless> {
        let mut text = line.to_owned();
        let mut next = Vec::new();
        let mut is_random = false;
        let mut at = 0;
        let mut n_replaced = 0;
        while let Some(dollar) = text.get(at..).and_then(|rest| rest.find('$')).map(|offset| at + offset) {
            at = dollar;
            let Some(reference) = Reference::read(&text[dollar + 1..]) else {
                at += 1;
                continue;
            };
            let is_last = dollar + 1 + reference.length == text.len();
            let (value, others) = match self.values.get(reference.name) {
                Some(Value { first, others: None }) if reference.parameter.is_empty() => (first.clone(), None),
                Some(Value { first, others: Some(others) }) if is_last && reference.parameter.is_empty() => {
                    (first.clone(), Some(others))
                }
                None if reference.name == "_PWD" => (directory.to_owned(), None),
                None if reference.name == "_ENV" => match variable(reference.parameter) {
                    Some(value) => (value, None),
                    None => (String::new(), None),
                },
                None if reference.name == "_RANDOM" => {
                    is_random = true;
                    let lowest = reference.parameter.split(' ').find(|word| !word.is_empty());
                    (lowest.unwrap_or("0").to_owned(), None)
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            n_replaced += 1;
            if n_replaced > MAX_REPLACEMENTS {
                return Err(Endless::Steps);
            }
            text.replace_range(dollar..dollar + 1 + reference.length, &value);
            if text.len() > MAX_LINE {
                return Err(Endless::Length);
            }
            if let Some(others) = others {
                // The lines of the inner one come before what is left of the outer one.
                next.splice(0..0, others.iter().cloned());
                if next.len() > MAX_DEFINITION {
                    return Err(Endless::Length);
                }
            }
            if value.trim_start_matches([' ', '\t']).starts_with('~') {
                break;
            }
        }
        Ok((n_replaced > 0).then_some(Replaced { text, next, n_replaced, is_random }))
    }
}

/// What follows a dollar sign.
struct Reference<'t> {
    name: &'t str,
    /// Between name and brace.
    parameter: &'t str,
    /// In bytes, braces included.
    length: usize,
}

impl<'t> Reference<'t> {
    fn read(text: &'t str) -> Option<Self> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if let Some(inner) = text.strip_prefix('{') {
            let (inner, _) = inner.split_once('}')?;
            let end = inner.find(|c| !is_part(c)).unwrap_or(inner.len());
            let (name, parameter) = inner.split_at(end);
            let is_fine = is_name(name) && (parameter.is_empty() || parameter.starts_with(' '));
            return is_fine.then_some(Self { name, parameter: parameter.trim_matches(' '), length: inner.len() + 2 });
        }
        let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
        let (name, after) = text.split_at(end);
        let is_fine = is_name(name) && (after.is_empty() || after.starts_with([' ', '\t']));
        is_fine.then_some(Self { name, parameter: "", length: end })
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(is_part)
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions(lines: &[&str]) -> Definitions {
        let mut definitions = Definitions::new("node1");
        let mut open = None;
        for line in lines {
            open = match open.take() {
                Some(open) => definitions.define_more(open, line),
                None => match definitions.define(line) {
                    Definition::Open(open) => Some(open),
                    Definition::Done => None,
                    Definition::None => panic!("{line}"),
                },
            };
        }
        definitions
    }

    fn replace(definitions: &Definitions, line: &str) -> String {
        let variable = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let replaced = definitions.replace(line, "/etc/keepalived", variable).expect("it ends");
        replaced.map_or_else(|| line.to_owned(), |replaced| [vec![replaced.text], replaced.next].concat().join("|"))
    }

    #[test]
    fn names_are_replaced() {
        let definitions = definitions(&["$A=10.2.${B}", "$B=0", "$E="]);
        for (line, text) in [
            ("${A}.100/32", "10.2.0.100/32"),
            ("x $A y", "x 10.2.0 y"),
            // Without braces, a blank or the end must follow.
            ("$A.100", "$A.100"),
            ("${NONE} $NONE", "${NONE} $NONE"),
            ("a${E}b $", "ab $"),
            ("${_PWD}/x ${_INSTANCE}", "/etc/keepalived/x node1"),
            ("${_ENV HOME}${_ENV NONE}", "/root"),
            ("${_HASH}${_RANDOM 5 9}", "#5"),
        ] {
            assert_eq!(replace(&definitions, line), text, "{line}");
        }
    }

    #[test]
    fn a_definition_may_have_several_lines() {
        let definitions = definitions(&[
            "$VIP= \\",
            "virtual_ipaddress { \\",
            "${IP} \\",
            "}",
            "$BOTH= one \\",
            "$VIP \\",
            "",
            "$ONE= \\",
            "",
        ]);
        assert_eq!(replace(&definitions, "$VIP"), "virtual_ipaddress {|${IP}|}");
        assert_eq!(replace(&definitions, "a ${VIP}"), "a virtual_ipaddress {|${IP}|}");
        // Only at the end of a line.
        assert_eq!(replace(&definitions, "$VIP b"), "$VIP b");
        assert_eq!(replace(&definitions, "$BOTH"), "one|$VIP");
        assert_eq!(replace(&definitions, "a $ONE"), "a ");
    }

    #[test]
    fn nothing_stands_for_itself_for_ever() {
        let definitions = definitions(&["$A=$A", "$B=${C}", "$C=${B}", "$D=${D}${D}x", "$E=${E}x${E}"]);
        for line in ["$A", "${B}", "${D}", "${E}"] {
            assert!(definitions.replace(line, "", |_| None).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_no_definition() {
        let mut definitions = Definitions::new("");
        for line in ["$A = 1", "$1=1", "$=1", "A=1", "$A"] {
            assert!(matches!(definitions.define(line), Definition::None), "{line}");
        }
    }
}
