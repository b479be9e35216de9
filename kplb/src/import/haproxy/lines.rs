//! Files of haproxy to the lines that haproxy acts on: conditions decided, variables replaced.
//!
//! Read from haproxy's configuration manual and checked against haproxy 2.6.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    condition::{self, ASSUMED_VERSION},
    words::{self, Words},
};
use crate::import::{
    error::ImportError,
    finding::{Findings, Place, Written, brief},
    limits::{MAX_DEPTH, MAX_LINE},
    reading::{Reading, Surroundings},
};

/// A line of words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Line {
    /// At least one.
    pub(super) words: Vec<String>,
    pub(super) written: Written,
}

impl Line {
    pub(super) fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words after the keyword.
    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// A word after the keyword, counted from 1.
    pub(super) fn argument(&self, number: usize) -> Option<&str> {
        self.words.get(number).map(String::as_str)
    }
}

/// Words that begin a section.
pub(super) const SECTIONS: [&str; 20] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "ring",
    "log-forward",
    "log-profile",
    "http-errors",
    "fcgi-app",
    "crt-store",
    "traces",
    "acme",
    "namespace_list",
];

/// A condition that is open.
struct Condition {
    written: Written,
    /// Whether one of its branches has had its turn.
    is_done: bool,
    /// Whether the lines that come are acted on.
    is_active: bool,
}

/// What names stand for: the environment, and what the file makes of it.
#[derive(Default)]
struct Variables {
    /// None: taken away.
    own: HashMap<String, Option<String>>,
    /// Whether the environment itself is gone.
    is_reset: bool,
    file: String,
    line: usize,
    section: String,
}

struct Reader {
    variables: Variables,
    conditions: Vec<Condition>,
    lines: Vec<Line>,
}

/// The lines of files, or of the `.cfg` files of a directory, one after the other.
pub(super) fn read(paths: &[PathBuf], reading: &mut Reading<'_>) -> Result<Vec<Line>, ImportError> {
    let mut reader = Reader { variables: Variables::default(), conditions: Vec::new(), lines: Vec::new() };
    for path in paths {
        for path in files(path, reading)? {
            reader.file(&path, reading)?;
        }
    }
    Ok(reader.lines)
}

/// The files that haproxy would read for this name.
fn files(path: &Path, reading: &mut Reading<'_>) -> Result<Vec<PathBuf>, ImportError> {
    // A file cannot be listed.
    let Ok(mut names) = reading.surroundings.list(path) else { return Ok(vec![path.to_owned()]) };
    names.retain(|name| name.ends_with(".cfg") && !name.starts_with('.'));
    names.sort();
    if names.is_empty() {
        let source = io::Error::new(io::ErrorKind::NotFound, "the directory has no file whose name ends in .cfg");
        return Err(ImportError::Read { path: path.to_owned(), source });
    }
    Ok(names.iter().map(|name| path.join(name)).collect())
}

impl Reader {
    fn file(&mut self, path: &Path, reading: &mut Reading<'_>) -> Result<(), ImportError> {
        let (file, text) = reading.open_named(path)?;
        self.variables.file = file.name().to_owned();
        self.variables.section = String::new();
        for (line, number) in text.lines().zip(1..) {
            let place = file.place(number);
            self.variables.line = number;
            if line.len() > MAX_LINE {
                return Err(ImportError::too_much(&place, "too long a line", MAX_LINE));
            }
            self.line(line, &place, reading)?;
        }
        // A file ends its conditions.
        if let Some(Condition { written, .. }) = self.conditions.pop() {
            let (message, hint) = ("this .if has no .endif", "add it");
            return Err(ImportError::syntax(&written.place, message, hint));
        }
        Ok(())
    }

    fn line(&mut self, text: &str, place: &Place, reading: &mut Reading<'_>) -> Result<(), ImportError> {
        let is_active = self.conditions.iter().all(|condition| condition.is_active);
        let surroundings = &*reading.surroundings;
        let words = words::split(text, |name| self.variables.get(name, surroundings));
        let Words { words, unset, length } = match words {
            Ok(words) => words,
            Err(_) if !is_active => return Ok(()),
            Err(broken) => {
                return Err(ImportError::syntax(place, broken.to_string(), "haproxy refuses it as well: correct it"));
            }
        };
        let used: Vec<&str> = text.get(..length).unwrap_or(text).split_whitespace().collect();
        let line = Line { words, written: Written::new(used.join(" "), place) };
        reading.budget.lines(1, line.words.iter().map(String::len).sum(), place)?;
        if line.words.is_empty() {
            return Ok(());
        }
        if line.keyword().starts_with('.') {
            return self.directive(line, is_active, reading);
        }
        if is_active {
            for name in unset {
                let why = format!("the variable {} is not set here, and stands for nothing", brief(&name));
                let advice = "set it as haproxy's service does, and import again";
                reading.findings.changed(&line.written, why, advice);
            }
            self.take(line, reading);
        }
        Ok(())
    }

    /// A line of the configuration itself.
    fn take(&mut self, mut line: Line, reading: &mut Reading<'_>) {
        if SECTIONS.contains(&line.keyword()) {
            self.variables.section = line.argument(1).unwrap_or(line.keyword()).to_owned();
        }
        if self.variables.section == "global" && self.variables.change(&line, &*reading.surroundings) {
            return;
        }
        // haproxy replaces variables in addresses even outside of quotes.
        let address = match line.keyword() {
            "bind" | "dispatch" | "source" => line.words.get_mut(1),
            "server" => line.words.get_mut(2),
            _ => None,
        };
        if let Some(address) = address.filter(|address| address.contains('$')) {
            *address = words::expand(address, |name| self.variables.get(name, &*reading.surroundings));
        }
        self.lines.push(line);
    }

    /// A line about lines.
    fn directive(&mut self, line: Line, is_active: bool, reading: &mut Reading<'_>) -> Result<(), ImportError> {
        let place = &line.written.place;
        let wrong = |message: &str| Err(ImportError::syntax(place, message, "haproxy refuses it as well: correct it"));
        match line.keyword() {
            ".if" => {
                if self.conditions.len() >= MAX_DEPTH {
                    return Err(ImportError::too_much(place, "conditions in conditions", MAX_DEPTH));
                }
                let is_met = is_active && self.decide(&line, reading)?;
                // Within what is left out, no branch has a turn.
                let (is_done, written) = (is_met || !is_active, line.written);
                self.conditions.push(Condition { written, is_done, is_active: is_met });
            }
            ".elif" | ".else" => {
                let Some(condition) = self.conditions.pop() else { return wrong("there is no .if before it") };
                let is_else = line.keyword() == ".else";
                let is_met = !condition.is_done && (is_else || self.decide(&line, reading)?);
                let is_done = condition.is_done || is_met;
                self.conditions.push(Condition { is_done, is_active: is_met, ..condition });
            }
            ".endif" if self.conditions.pop().is_none() => return wrong("there is no .if before it"),
            ".endif" => {}
            ".notice" | ".warning" | ".alert" | ".diag" if is_active => {
                let why = "haproxy says it when it starts";
                reading.findings.left_out(&line.written, why, "read it");
            }
            ".notice" | ".warning" | ".alert" | ".diag" => {}
            _ if is_active => return wrong("haproxy has no such word"),
            _ => {}
        }
        Ok(())
    }

    fn decide(&self, line: &Line, reading: &mut Reading<'_>) -> Result<bool, ImportError> {
        let text = line.arguments().join(" ");
        let surroundings = &*reading.surroundings;
        let outcome = condition::decide(&text, |name| self.variables.get(name, surroundings));
        let Ok(outcome) = outcome else {
            let (message, hint) = ("it is no condition", "haproxy refuses it as well: correct it");
            return Err(ImportError::syntax(&line.written.place, message, hint));
        };
        if outcome.is_assumed {
            report_assumption(line, outcome.is_met, &mut reading.findings);
        }
        Ok(outcome.is_met)
    }
}

fn report_assumption(line: &Line, is_met: bool, findings: &mut Findings) {
    let [major, minor] = ASSUMED_VERSION;
    let outcome = if is_met { "met" } else { "not met" };
    let why = format!("it is taken as haproxy {major}.{minor} with every feature would take it: {outcome}");
    findings.changed(&line.written, why, "if it was otherwise, import the file without the condition");
}

impl Variables {
    fn get(&self, name: &str, surroundings: &dyn Surroundings) -> Option<String> {
        match name {
            ".FILE" => Some(self.file.clone()),
            ".LINE" => Some(self.line.to_string()),
            ".SECTION" => Some(self.section.clone()),
            _ => match self.own.get(name) {
                Some(own) => own.clone(),
                None if self.is_reset => None,
                None => surroundings.variable(name),
            },
        }
    }

    /// Takes a line of the section `global` that changes the environment; whether it is one.
    fn change(&mut self, line: &Line, surroundings: &dyn Surroundings) -> bool {
        let names = line.arguments();
        match (line.keyword(), names) {
            ("setenv", [name, value, ..]) => {
                self.own.insert(name.clone(), Some(value.clone()));
            }
            ("presetenv", [name, value, ..]) => {
                if self.get(name, surroundings).is_none() {
                    self.own.insert(name.clone(), Some(value.clone()));
                }
            }
            ("unsetenv", _) => self.own.extend(names.iter().map(|name| (name.clone(), None))),
            ("resetenv", _) => {
                let kept: Vec<_> = names.iter().map(|name| (name.clone(), self.get(name, surroundings))).collect();
                self.own = kept.into_iter().collect();
                self.is_reset = true;
            }
            _ => return false,
        }
        true
    }
}
