//! Lines of keepalived.conf to directives and their blocks.

use super::lines::Line;
use crate::import::{
    error::ImportError,
    finding::{Findings, Written},
    limits::MAX_DEPTH,
};

/// A directive with what is in its braces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Directive {
    /// At least one.
    words: Vec<String>,
    pub(super) written: Written,
    /// Empty where there are no braces.
    pub(super) block: Vec<Self>,
}

impl Directive {
    pub(super) fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words after the keyword.
    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The first word after the keyword.
    pub(super) fn argument(&self) -> Option<&str> {
        self.arguments().first().map(String::as_str)
    }

    /// All words, as a list has them.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }
}

/// A block that is open: its directive, and what is in it so far.
struct Level {
    directive: Option<Directive>,
    block: Vec<Directive>,
}

/// Builds blocks. Braces that are too many or too few are found out, and made the best of.
pub(super) fn build(lines: Vec<Line>, findings: &mut Findings) -> Result<Vec<Directive>, ImportError> {
    let mut levels: Vec<Level> = Vec::new();
    let mut block: Vec<Directive> = Vec::new();
    // Whether the last directive may still get a block.
    let mut is_open = false;
    for Line { words, written } in lines {
        match words.first().map_or("", String::as_str) {
            "{" => {
                if levels.len() >= MAX_DEPTH {
                    return Err(ImportError::too_much(&written.place, "blocks in blocks", MAX_DEPTH));
                }
                let directive = if is_open { block.pop() } else { None };
                if directive.is_none() {
                    findings.left_out(&written, "it belongs to no directive", "take it away, with all up to its `}`");
                }
                levels.push(Level { directive, block: std::mem::take(&mut block) });
                is_open = false;
            }
            "}" => {
                match levels.pop() {
                    Some(level) => block = level.close(block),
                    None => findings.left_out(&written, "no block is open", "take it away"),
                }
                is_open = false;
            }
            _ => {
                block.push(Directive { words, written, block: Vec::new() });
                is_open = true;
            }
        }
    }
    while let Some(level) = levels.pop() {
        if let Some(directive) = &level.directive {
            findings.changed(&directive.written, "its block is not closed", "add the `}`");
        }
        block = level.close(block);
    }
    Ok(block)
}

impl Level {
    /// The block around this one, with this one in it.
    fn close(self, inner: Vec<Directive>) -> Vec<Directive> {
        let mut outer = self.block;
        outer.extend(self.directive.map(|directive| Directive { block: inner, ..directive }));
        outer
    }
}
