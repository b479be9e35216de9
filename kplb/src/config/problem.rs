//! What can be wrong in a configuration, where, and what to do about it.

use std::fmt;

/// Where a value stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In the text; both count from one, columns in characters.
    Text {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// In a flag, quoted as it was given.
    Flag(String),
}

impl Place {
    /// The start of the text.
    pub(super) const START: Self = Self::Text { line: 1, column: 1 };

    /// Orders places of a text as they follow each other, and leaves flags as they are.
    const fn order(&self) -> (usize, usize) {
        match self {
            Self::Text { line, column } => (*line, *column),
            Self::Flag(_) => (0, 0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { line, .. } => write!(f, "line {line}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Everything that is wrong, in the order of the text; shown one problem a line.
#[derive(Debug, Eq, PartialEq)]
pub struct Problems {
    file: Option<String>,
    list: Vec<Problem>,
}

impl Problems {
    pub(super) const fn new(file: Option<String>) -> Self {
        Self { file, list: Vec::new() }
    }

    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>, hint: impl Into<String>) {
        self.list.push(Problem { place: place.clone(), message: message.into(), hint: hint.into() });
    }

    /// The value, unless something was wrong.
    pub(super) fn or<T>(mut self, value: Option<T>) -> Result<T, Self> {
        self.list.sort_by_key(|problem| problem.place.order());
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// The problems, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Problem { place, message, hint }) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match (place, &self.file) {
                (Place::Text { line, column }, Some(file)) => write!(f, "{file}:{line}:{column}: ")?,
                _ => write!(f, "{place}: ")?,
            }
            write!(f, "{message}: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
