//! A table of text: columns as wide as their widest cell, and colour that takes no room.

use std::fmt::{self, Write as _};

use crate::terminal::{Colour, Tone};

/// Between two columns.
const GAP: &str = "  ";

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// Its cells begin under each other.
    Left,
    /// Its cells end under each other.
    Right,
}

/// A table.
pub(crate) struct Table {
    sides: Vec<Side>,
    /// The first is the header.
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    /// A table with this header and no rows; the columns with these places have numbers.
    pub(crate) fn new(header: &[&str], right_aligned: &[usize]) -> Self {
        let side = |i| if right_aligned.contains(&i) { Side::Right } else { Side::Left };
        let mut table = Self { sides: (0..header.len()).map(side).collect(), rows: Vec::new() };
        table.add_row(header.iter().map(ToString::to_string));
        table
    }

    /// Adds a row.
    pub(crate) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) -> &mut Self {
        self.rows.push(cells.into_iter().map(|cell| (cell, Tone::Plain)).collect());
        self
    }

    /// Colours a cell of the row that was added last.
    pub(crate) fn tint(&mut self, column: usize, tone: Tone) -> &mut Self {
        if let Some((_, cell_tone)) = self.rows.last_mut().and_then(|row| row.get_mut(column)) {
            *cell_tone = tone;
        }
        self
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    /// Writes it, indented.
    pub(crate) fn write(&self, out: &mut String, colour: Colour) -> fmt::Result {
        let n_characters = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..self.sides.len())
            .map(|i| {
                self.rows.iter().filter_map(|row| row.get(i)).map(|(cell, _)| n_characters(cell)).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            // What fills up a cell waits until there is something behind it.
            let mut blank = 0;
            for (((cell, tone), side), width) in row.iter().zip(&self.sides).zip(&widths) {
                let missing = width - n_characters(cell);
                let (before, after) = match side {
                    Side::Left => (0, missing),
                    Side::Right => (missing, 0),
                };
                blank += before;
                if !cell.is_empty() {
                    write!(line, "{:blank$}{}", "", colour.paint(*tone, cell))?;
                    blank = 0;
                }
                blank += after + GAP.len();
            }
            writeln!(out, "{GAP}{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "N", "WORDS"], &[1]);
        table.add_row(["a".to_owned(), "100".to_owned(), "one".to_owned()]).tint(0, Tone::Bad);
        table.add_row(["\u{b5}s".to_owned(), "2".to_owned(), String::new()]);
        table
    }

    fn written(colour: Colour) -> String {
        let mut out = String::new();
        table().write(&mut out, colour).expect("a string takes every write");
        out
    }

    #[test]
    fn cells_are_under_each_other() {
        assert_eq!(written(Colour::Unused), "  NAME    N  WORDS\n  a     100  one\n  \u{b5}s      2\n");
    }

    #[test]
    fn colour_takes_no_room() {
        let expected = "  NAME    N  WORDS\n  \x1b[31ma\x1b[0m     100  one\n  \u{b5}s      2\n";
        assert_eq!(written(Colour::Used), expected);
    }

    #[test]
    fn a_table_with_nothing_but_a_header_is_empty() {
        assert!(Table::new(&["A"], &[]).is_empty());
        assert!(!table().is_empty());
    }
}
