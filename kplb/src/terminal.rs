//! What is written to a terminal, and what to anything else: colour only where somebody looks, and no complaint if whoever
//! reads has seen enough.

use std::{
    env,
    io::{self, ErrorKind, IsTerminal as _, Write as _},
};

/// What colour says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Not quite.
    Doubtful,
    /// Not at all.
    Bad,
    /// Nothing.
    Plain,
}

/// Whether to use colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Colour {
    /// By escape sequences of ECMA-48.
    Used,
    /// Not at all.
    Unused,
}

impl Colour {
    /// On a terminal, unless the environment says otherwise (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        if io::stdout().is_terminal() && !is_unwanted && !is_dumb { Self::Used } else { Self::Unused }
    }

    /// The text with its colour.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Doubtful => 33,
            Tone::Bad => 31,
            Tone::Plain => return text.to_owned(),
        };
        match self {
            Self::Used => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Unused => text.to_owned(),
        }
    }
}

/// Whether whoever reads still does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// It does.
    There,
    /// It has seen enough: `| head`.
    Gone,
}

/// Prints to standard output, at once.
///
/// # Errors
/// What the system says, unless it is that nobody reads.
pub fn print(text: &str) -> io::Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_only_where_it_is_used() {
        assert_eq!(Colour::Used.paint(Tone::Bad, "down"), "\x1b[31mdown\x1b[0m");
        assert_eq!(Colour::Used.paint(Tone::Plain, "down"), "down");
        assert_eq!(Colour::Unused.paint(Tone::Bad, "down"), "down");
    }
}
