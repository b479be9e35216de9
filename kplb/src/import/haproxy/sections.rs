//! Lines of haproxy to sections, each `defaults` found that a proxy goes by.

use std::collections::HashMap;

use super::lines::{Line, SECTIONS};
use crate::import::finding::{Findings, Written, brief};

/// A section.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// Its first word.
    pub(super) kind: String,
    pub(super) name: Option<String>,
    pub(super) written: Written,
    /// Without the first one.
    pub(super) lines: Vec<Line>,
    /// Which of the sections before has its defaults.
    pub(super) defaults: Option<usize>,
}

/// Splits lines into sections.
pub(super) fn split(lines: Vec<Line>, findings: &mut Findings) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    // The last `defaults`, and those with names.
    let mut last = None;
    let mut named: HashMap<String, usize> = HashMap::new();
    for line in lines {
        if !SECTIONS.contains(&line.keyword()) {
            match sections.last_mut() {
                Some(section) => section.lines.push(line),
                None => findings.left_out(&line.written, "it belongs to no section", "write it into one"),
            }
            continue;
        }
        let (name, from) = header(&line);
        let is_defaults = line.keyword() == "defaults";
        let defaults = match &from {
            Some(from) => {
                let found = named.get(from).copied();
                if found.is_none() {
                    let why = format!("there is no `defaults {}` before it", brief(from));
                    findings.left_out(&line.written, why, "add it");
                }
                found
            }
            // A `defaults` starts anew unless it says otherwise.
            None if is_defaults => None,
            None => last,
        };
        if is_defaults {
            last = Some(sections.len());
            named.extend(name.clone().map(|name| (name, sections.len())));
        }
        let kind = line.keyword().to_owned();
        sections.push(Section { kind, name, written: line.written, lines: Vec::new(), defaults });
    }
    sections
}

/// The name of a section, and that of its defaults.
fn header(line: &Line) -> (Option<String>, Option<String>) {
    match line.arguments() {
        [from, defaults, ..] if from == "from" => (None, Some(defaults.clone())),
        [name, from, defaults, ..] if from == "from" => (Some(name.clone()), Some(defaults.clone())),
        [name, ..] => (Some(name.clone()), None),
        [] => (None, None),
    }
}
