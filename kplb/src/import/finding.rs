//! What an import cannot say in `kplb.toml`, or says in other words: which directive, where, why, and what to do.

use std::{collections::HashSet, fmt, sync::Arc};

/// What to do about most findings.
pub(super) const NOTHING_TO_DO: &str = "nothing to do";

/// Longer directives are cut where they are shown.
const SHOWN_LENGTH: usize = 72;
/// Longer directives are cut.
const MAX_DIRECTIVE: usize = 400;
/// No more findings than these are kept: nobody would read them.
const MAX_FINDINGS: usize = 20_000;

/// A line of a file. Places are ordered as the lines were met.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// How many files were opened before this one.
    rank: usize,
    file: Arc<str>,
    line: usize,
}

impl Place {
    pub(super) fn new(rank: usize, file: &Arc<str>, line: usize) -> Self {
        Self { rank, file: Arc::clone(file), line }
    }

    /// The file, as it was named.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from one.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Words of a file and where they stand.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Written {
    pub(super) text: Arc<str>,
    pub(super) place: Place,
}

impl Written {
    pub(super) fn new(text: impl Into<Arc<str>>, place: &Place) -> Self {
        Self { text: text.into(), place: place.clone() }
    }

    /// Other words of the same line.
    pub(super) fn part(&self, text: impl Into<Arc<str>>) -> Self {
        Self::new(text, &self.place)
    }
}

/// A value and the words that give it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) written: Written,
}

impl<T> At<T> {
    pub(super) fn new(value: T, written: &Written) -> Self {
        Self { value, written: written.clone() }
    }
}

/// What became of a directive.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Effect {
    /// It is in the configuration that was printed, and means something else there.
    Changed,
    /// It is not in it.
    LeftOut,
}

/// A directive that has no equivalent, or changes its meaning.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Finding {
    /// Where it stands.
    pub place: Place,
    /// Its words, comments and blanks aside.
    pub directive: String,
    /// What became of it.
    pub effect: Effect,
    /// Why.
    pub why: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, directive, effect, why, advice } = self;
        let effect = match effect {
            Effect::Changed => "changes",
            Effect::LeftOut => "is left out",
        };
        write!(f, "{place}: {} {effect}: {why}: {advice}", shown(directive))
    }
}

/// Text of a file as messages show it: quoted, on one line, not too long.
pub(super) fn shown(text: &str) -> String {
    format!("`{}`", brief(text))
}

/// The same without the quotes.
pub(super) fn brief(text: &str) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(SHOWN_LENGTH).collect();
    let dots = if characters.next().is_some() { "…" } else { "" };
    format!("{}{dots}", plain(&start))
}

/// Text on one line, without anything that a terminal or TOML would take for a command.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

/// The findings so far, each one once.
#[derive(Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    seen: HashSet<Finding>,
}

impl Findings {
    /// The directive is kept, and means something else now.
    pub(super) fn changed(&mut self, written: &Written, why: impl Into<String>, advice: impl Into<String>) {
        self.add(written, Effect::Changed, why.into(), advice.into());
    }

    /// The directive is not kept.
    pub(super) fn left_out(&mut self, written: &Written, why: impl Into<String>, advice: impl Into<String>) {
        self.add(written, Effect::LeftOut, why.into(), advice.into());
    }

    fn add(&mut self, written: &Written, effect: Effect, why: String, advice: String) {
        let Written { text, place } = written;
        let directive = if text.len() > MAX_DIRECTIVE { brief(text) } else { text.to_string() };
        // It may quote the file, or what the system says of one.
        let why = plain(&why);
        self.push(Finding { place: place.clone(), directive, effect, why, advice });
    }

    fn push(&mut self, mut finding: Finding) {
        match self.list.len() {
            0..MAX_FINDINGS => {}
            MAX_FINDINGS => {
                finding.why = format!("there are more than {MAX_FINDINGS} findings, and the others are not listed");
                finding.advice = "import less at a time".to_owned();
            }
            _ => return,
        }
        if self.seen.insert(finding.clone()) {
            self.list.push(finding);
        }
    }

    /// Takes over what was found elsewhere.
    pub(super) fn append(&mut self, other: Self) {
        other.list.into_iter().for_each(|finding| self.push(finding));
    }

    /// All of them, as the lines follow each other.
    pub(super) fn sorted(mut self) -> Vec<Finding> {
        self.list.sort_by(|a, b| a.place.cmp(&b.place));
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, line: usize) -> Written {
        Written::new(text, &Place::new(0, &"a.cfg".into(), line))
    }

    #[test]
    fn findings_follow_the_lines_and_are_not_repeated() {
        let mut findings = Findings::default();
        findings.left_out(&written("log global", 7), "why", "what");
        findings.changed(&written("mode http", 3), "why", "what");
        findings.left_out(&written("log global", 7), "why", "what");
        let mut more = Findings::default();
        more.left_out(&written("log global", 7), "why", "what");
        more.left_out(&written("log global", 7), "another reason", "what");
        findings.append(more);
        let lines: Vec<_> = findings.sorted().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "a.cfg:3: `mode http` changes: why: what",
                "a.cfg:7: `log global` is left out: why: what",
                "a.cfg:7: `log global` is left out: another reason: what",
            ]
        );
    }

    #[test]
    fn what_a_file_says_cannot_leave_its_line() {
        assert_eq!(shown("a\u{1b}[1m\nb\u{7f}"), "`a\\u{1b}[1m\\nb\\u{7f}`");
        assert_eq!(shown(&"x".repeat(100)), format!("`{}…`", "x".repeat(SHOWN_LENGTH)));
    }
}
