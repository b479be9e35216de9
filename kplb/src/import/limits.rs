//! How much an import reads: files of people end long before, and others must end as well.

use super::{error::ImportError, finding::Place};

/// Files that are read, included ones among them.
const MAX_FILES: usize = 1_000;
/// Bytes in all of them together.
pub const MAX_BYTES: usize = 8 << 20;
/// Lines in all of them together, and replacements in them; those that a file has repeated count each time.
const MAX_LINES: usize = 200_000;
/// Bytes in these lines.
const MAX_TEXT: usize = 32 << 20;
/// Bytes of a line once everything in it is replaced.
pub(super) const MAX_LINE: usize = 64 << 10;
/// Replacements in a line, and rounds of them.
pub(super) const MAX_REPLACEMENTS: usize = 1_000;
/// Files that include each other.
pub(super) const MAX_INCLUDES: usize = 16;
/// Servers that are looked at, for each service anew; kplb has room for far fewer backends.
pub(super) const MAX_SERVERS: usize = 16_384;
/// Blocks within blocks, conditions within conditions.
pub(super) const MAX_DEPTH: usize = 32;

/// What is left to be read.
#[derive(Debug)]
pub(super) struct Budget {
    files: usize,
    bytes: usize,
    lines: usize,
    text: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { files: MAX_FILES, bytes: MAX_BYTES, lines: MAX_LINES, text: MAX_TEXT }
    }
}

impl Budget {
    /// A file more, of so many bytes; returns how many there were before.
    pub(super) fn file(&mut self, bytes: usize, place: &Place) -> Result<usize, ImportError> {
        let before = MAX_FILES - self.files;
        self.files =
            self.files.checked_sub(1).ok_or_else(|| ImportError::too_much(place, "too many files", MAX_FILES))?;
        self.bytes =
            self.bytes.checked_sub(bytes).ok_or_else(|| ImportError::too_much(place, "too many bytes", MAX_BYTES))?;
        Ok(before)
    }

    /// Lines more, or replacements, of so many bytes in all.
    pub(super) fn lines(&mut self, n: usize, bytes: usize, place: &Place) -> Result<(), ImportError> {
        self.lines =
            self.lines.checked_sub(n).ok_or_else(|| ImportError::too_much(place, "too many lines", MAX_LINES))?;
        self.text =
            self.text.checked_sub(bytes).ok_or_else(|| ImportError::too_much(place, "too much text", MAX_TEXT))?;
        Ok(())
    }
}
