//! The conditions of `.if` and `.elif` (configuration manual, section 2.4).

use crate::import::limits::MAX_DEPTH;

/// What an import takes haproxy's version for where a file asks: the files of older ones are right for it as well.
pub(super) const ASSUMED_VERSION: [u32; 2] = [3, 0];

/// What a condition comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Outcome {
    pub(super) is_met: bool,
    /// Whether it asks what haproxy itself is like, which was assumed.
    pub(super) is_assumed: bool,
}

/// It is no condition, or too deep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Wrong;

struct Parser<'t, V> {
    rest: &'t str,
    variable: V,
    is_assumed: bool,
}

/// Decides a condition. `variable` is the environment.
pub(super) fn decide(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Outcome, Wrong> {
    let mut parser = Parser { rest: text.trim(), variable, is_assumed: false };
    if parser.rest.is_empty() {
        return Ok(Outcome { is_met: false, is_assumed: false });
    }
    let is_met = parser.any(0)?;
    if parser.rest.is_empty() { Ok(Outcome { is_met, is_assumed: parser.is_assumed }) } else { Err(Wrong) }
}

impl<V: Fn(&str) -> Option<String>> Parser<'_, V> {
    /// Takes this from the start, if it is there, with the blanks after it.
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.map_or(self.rest, str::trim_start);
        rest.is_some()
    }

    fn any(&mut self, depth: usize) -> Result<bool, Wrong> {
        let mut is_met = self.all(depth)?;
        while self.take("||") {
            is_met |= self.all(depth)?;
        }
        Ok(is_met)
    }

    fn all(&mut self, depth: usize) -> Result<bool, Wrong> {
        let mut is_met = self.one(depth)?;
        while self.take("&&") {
            is_met &= self.one(depth)?;
        }
        Ok(is_met)
    }

    fn one(&mut self, depth: usize) -> Result<bool, Wrong> {
        if depth > MAX_DEPTH {
            return Err(Wrong);
        }
        let mut is_negated = false;
        while self.take("!") {
            is_negated = !is_negated;
        }
        let is_met = if self.take("(") {
            let is_met = self.any(depth + 1)?;
            if self.take(")") { is_met } else { return Err(Wrong) }
        } else {
            self.word()?
        };
        Ok(is_met != is_negated)
    }

    fn word(&mut self) -> Result<bool, Wrong> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let Some(inner) = rest.strip_prefix('(') else {
            self.rest = rest.trim_start();
            let number: i64 = word.parse().map_err(|_| Wrong)?;
            return Ok(number != 0);
        };
        let (arguments, rest) = inner.split_once(')').ok_or(Wrong)?;
        self.rest = rest.trim_start();
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        self.predicate(word, &arguments)
    }

    fn predicate(&mut self, word: &str, arguments: &[&str]) -> Result<bool, Wrong> {
        let is_assumed = match (word, arguments) {
            ("defined", [name]) => return Ok((self.variable)(name).is_some()),
            ("streq", [a, b]) => return Ok(a == b),
            ("strneq", [a, b]) => return Ok(a != b),
            ("strstr", [a, b]) => return Ok(a.contains(b)),
            ("version_atleast", [version]) => is_at_least(version),
            ("version_before", [version]) => !is_at_least(version),
            // Libraries are new, and everything is built in.
            ("openssl_version_atleast" | "feature" | "enabled" | "ssllib_name_startswith", _) => true,
            ("openssl_version_before" | "awslc_api_atleast" | "awslc_api_before", _) => false,
            _ => return Err(Wrong),
        };
        self.is_assumed = true;
        Ok(is_assumed)
    }
}

fn is_at_least(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let asked = [parts.next().unwrap_or(0), parts.next().unwrap_or(0)];
    ASSUMED_VERSION >= asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_met(text: &str) -> Result<bool, Wrong> {
        decide(text, |name| (name == "A").then(String::new)).map(|outcome| outcome.is_met)
    }

    #[test]
    fn conditions_are_decided() {
        for (text, expected) in [
            ("", false),
            ("0", false),
            ("7", true),
            ("!0", true),
            ("!!0", false),
            ("defined(A)", true),
            ("defined(B)", false),
            ("streq(a,a) && strneq(a,b)", true),
            ("0 && 0 || 1 && 1", true),
            ("1 && (0 || 0)", false),
            ("!(0 || 1)||1", true),
            ("version_atleast(2.4-dev19)", true),
            ("version_before(2.0)", false),
            ("feature(OPENSSL) && ! defined(B)", true),
        ] {
            assert_eq!(is_met(text), Ok(expected), "{text}");
        }
        assert_eq!(decide("feature(X)", |_| None), Ok(Outcome { is_met: true, is_assumed: true }));
    }

    #[test]
    fn what_is_no_condition() {
        let deep = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
        for text in ["foo(", "foo(1)", "a", "(1", "1)", "1 &&", "&& 1", "defined(A", "1 1", deep.as_str()] {
            assert_eq!(is_met(text), Err(Wrong), "{text}");
        }
    }
}
