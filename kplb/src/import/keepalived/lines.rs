//! keepalived.conf to the lines that keepalived acts on: includes read, conditions decided, names replaced, sequences
//! run through, every brace on a line of its own.
//!
//! ```text
//!   file --- comment off ---+--> goes on a definition? ---> condition --> definition --> sequence --> names replaced
//!                           |                                    ^                          |              |
//!   lines put in between ---+                                    +--------- again, if something was -------+
//!   (include, sequence, several-line name, rest after a brace)                                             |
//!                           ^----------------------------------------------------- include, cut at brace --+--> line
//! ```
//!
//! Read from keepalived's manual (keepalived.conf(5)) and checked against keepalived 2.2.7.

use std::path::{Path, PathBuf};

use super::{
    definitions::{Definition, Definitions, Endless, Open},
    sequence::Sequence,
    words::{cut_at_brace, split, without_comment},
};
use crate::import::{
    error::ImportError,
    finding::{Place, Written},
    glob,
    limits::{MAX_INCLUDES, MAX_LINE, MAX_REPLACEMENTS},
    reading::{File, OpenError, Reading},
};

/// A line of words, or a brace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Line {
    /// At least one.
    pub(super) words: Vec<String>,
    pub(super) written: Written,
}

/// Lines that wait for their turn.
enum Waiting {
    /// The rest of a file.
    File { file: File, lines: std::vec::IntoIter<String>, n_read: usize },
    /// Lines that a line stands for.
    Lines { lines: std::vec::IntoIter<String>, place: Place },
    /// A line for each of some values.
    Sequence { sequence: Sequence, place: Place },
}

struct Reader<'r, 's> {
    reading: &'r mut Reading<'s>,
    config_id: &'r str,
    definitions: Definitions,
    /// The innermost last.
    waiting: Vec<Waiting>,
    /// Where the files are that wait, the innermost last.
    directories: Vec<PathBuf>,
    open: Option<Open>,
    lines: Vec<Line>,
}

/// The lines of a file and of all that it includes. `config_id` decides its conditions.
pub(super) fn read(path: &Path, config_id: &str, reading: &mut Reading<'_>) -> Result<Vec<Line>, ImportError> {
    let (file, text) = reading.open_named(path)?;
    let definitions = Definitions::new(config_id);
    let mut reader = Reader {
        reading,
        config_id,
        definitions,
        waiting: Vec::new(),
        directories: Vec::new(),
        open: None,
        lines: Vec::new(),
    };
    reader.put_file(path, file, &text);
    while let Some((text, place)) = reader.next() {
        reader.reading.budget.lines(1, text.len(), &place)?;
        reader.line(text, &place)?;
    }
    Ok(reader.lines)
}

impl Reader<'_, '_> {
    fn put_file(&mut self, path: &Path, file: File, text: &str) {
        self.directories.push(path.parent().unwrap_or(Path::new("")).to_owned());
        let lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        self.waiting.push(Waiting::File { file, lines: lines.into_iter(), n_read: 0 });
    }

    fn put(&mut self, lines: Vec<String>, place: &Place) {
        self.waiting.push(Waiting::Lines { lines: lines.into_iter(), place: place.clone() });
    }

    /// The next line, its comment off.
    fn next(&mut self) -> Option<(String, Place)> {
        loop {
            match self.waiting.last_mut()? {
                Waiting::File { file, lines, n_read } => {
                    if let Some(line) = lines.next() {
                        *n_read += 1;
                        return Some((without_comment(line.trim_end_matches(['\r', '\n'])), file.place(*n_read)));
                    }
                    self.directories.pop();
                }
                Waiting::Lines { lines, place } => {
                    if let Some(line) = lines.next() {
                        return Some((line, place.clone()));
                    }
                }
                Waiting::Sequence { sequence, place } => {
                    if let Some((names, line)) = sequence.next() {
                        names.iter().for_each(|(name, value)| self.definitions.set(name, value));
                        return Some((line, place.clone()));
                    }
                }
            }
            self.waiting.pop();
        }
    }

    fn line(&mut self, mut text: String, place: &Place) -> Result<(), ImportError> {
        if text.len() > MAX_LINE {
            return Err(ImportError::too_much(place, "too long a line", MAX_LINE));
        }
        if let Some(open) = self.open.take() {
            self.open = self.definitions.define_more(open, &text);
            return Ok(());
        }
        // Each round replaces something, or is the last.
        for _ in 0..MAX_REPLACEMENTS {
            match self.condition(&text) {
                Some(rest) => text = rest,
                None => return Ok(()),
            }
            match self.definitions.define(&text) {
                Definition::None => {}
                Definition::Done => return Ok(()),
                Definition::Open(open) => {
                    self.open = Some(open);
                    return Ok(());
                }
            }
            if text.starts_with('~') {
                self.sequence(&text, place);
                return Ok(());
            }
            if !self.replace(&mut text, place)? {
                return self.words(&text, place);
            }
        }
        Err(endless(Endless::Steps, place))
    }

    /// The line without its condition, if that is met.
    fn condition(&self, text: &str) -> Option<String> {
        let Some(rest) = text.strip_prefix('@') else { return Some(text.to_owned()) };
        let (rest, is_wanted) = rest.strip_prefix('^').map_or((rest, true), |rest| (rest, false));
        // With nothing after it there is no line.
        let (id, line) = rest.split_once([' ', '\t'])?;
        ((id == self.config_id) == is_wanted).then(|| line.trim_start_matches([' ', '\t']).to_owned())
    }

    fn sequence(&mut self, text: &str, place: &Place) {
        match Sequence::read(text) {
            Some(sequence) => self.waiting.push(Waiting::Sequence { sequence, place: place.clone() }),
            None => {
                let hint = "write ~SEQ(name, first, step, last) or ~LST(name, value, value), then a line";
                self.reading.findings.left_out(&Written::new(text, place), "it is no sequence of lines", hint);
            }
        }
    }

    /// Replaces names; whether there were any.
    fn replace(&mut self, text: &mut String, place: &Place) -> Result<bool, ImportError> {
        let directory = self.directory().display().to_string();
        let replaced = {
            let surroundings = &*self.reading.surroundings;
            self.definitions.replace(text, &directory, |name| surroundings.variable(name))
        };
        let Some(replaced) = replaced.map_err(|endless_by| endless(endless_by, place))? else { return Ok(false) };
        self.reading.budget.lines(replaced.n_replaced, replaced.text.len(), place)?;
        if replaced.is_random {
            let why = "keepalived takes another number at each start; the lowest was taken";
            self.reading.findings.changed(&Written::new(text.as_str(), place), why, "write the number");
        }
        if !replaced.next.is_empty() {
            // They take room until it is their turn.
            self.reading.budget.lines(replaced.next.len(), replaced.next.iter().map(String::len).sum(), place)?;
            self.put(replaced.next, place);
        }
        *text = replaced.text;
        Ok(true)
    }

    /// Where the file is that is being read.
    fn directory(&self) -> &Path {
        self.directories.last().map_or(Path::new(""), PathBuf::as_path)
    }

    /// A line in which nothing is left to decide.
    fn words(&mut self, text: &str, place: &Place) -> Result<(), ImportError> {
        if self.include(text, place)? {
            return Ok(());
        }
        let (first, rest) = cut_at_brace(text);
        if let Some(rest) = rest {
            self.put(vec![rest.to_owned()], place);
        }
        let words = split(first);
        if !words.is_empty() {
            let text: Vec<&str> = first.split_whitespace().collect();
            self.lines.push(Line { words, written: Written::new(text.join(" "), place) });
        }
        Ok(())
    }

    /// Puts the files of an `include` in its place; whether it is one.
    fn include(&mut self, text: &str, place: &Place) -> Result<bool, ImportError> {
        const FORMS: [&str; 6] = ["include", "includer", "includem", "includew", "includeb", "includea"];
        let words = split(text);
        let [keyword, pattern] = words.as_slice() else { return Ok(false) };
        if !FORMS.contains(&keyword.as_str()) {
            return Ok(false);
        }
        if self.directories.len() > MAX_INCLUDES {
            return Err(ImportError::too_much(place, "files include each other too deeply", MAX_INCLUDES));
        }
        let pattern = self.directory().join(pattern);
        let surroundings = &mut *self.reading.surroundings;
        let files = glob::expand(&pattern.to_string_lossy(), |directory| surroundings.list(directory));
        let mut opened = Vec::new();
        let mut last_error = "no file has this name".to_owned();
        for path in files.iter().map(Path::new) {
            match self.reading.open(path) {
                Ok((file, text)) => opened.push((path, file, text)),
                Err(OpenError::Read(error)) => last_error = format!("{} cannot be read: {error}", path.display()),
                Err(OpenError::Other(error)) => return Err(error),
            }
        }
        if opened.len() < files.len().max(1) {
            let hint = "check the name; what it would say is missing";
            self.reading.findings.left_out(&Written::new(text, place), last_error, hint);
        }
        // The first is to be read first.
        for (path, file, text) in opened.into_iter().rev() {
            self.put_file(path, file, &text);
        }
        Ok(true)
    }
}

fn endless(endless: Endless, place: &Place) -> ImportError {
    match endless {
        Endless::Steps => ImportError::syntax(
            place,
            "there is always a name left to be replaced",
            "look for a name that stands for itself",
        ),
        Endless::Length => ImportError::too_much(place, "too long a line, with its names replaced", MAX_LINE),
    }
}
