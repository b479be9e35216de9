//! A report for people: a line for each finding, and one for what to do about it.

use std::fmt::{self, Write as _};

use super::{Finding, Level, Report};
use crate::terminal::{Colour, Tone};

/// The report as text, with a line feed at the end.
pub fn text(report: &Report, colour: Colour) -> String {
    let mut out = String::new();
    write(&mut out, report, colour).expect("a string takes every write");
    out
}

fn write(out: &mut String, report: &Report, colour: Colour) -> fmt::Result {
    let width =
        |name: fn(&Finding) -> &str| report.findings.iter().map(|finding| name(finding).len()).max().unwrap_or(0);
    let (level_width, topic_width) = (width(|finding| finding.level.name()), width(|finding| finding.topic));
    for Finding { level, topic, what, advice } in &report.findings {
        let level = colour.paint(tone(*level), &format!("{:level_width$}", level.name()));
        let indent = level_width + topic_width + 4;
        let mut lines = what.lines();
        writeln!(out, "{level}  {topic:topic_width$}  {}", lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| writeln!(out, "{:indent$}{line}", ""))?;
        if let Some(advice) = advice {
            writeln!(out, "{:indent$}-> {advice}", "")?;
        }
    }
    let count = |level, name| match report.count(level) {
        1 => format!("1 {name}"),
        n => format!("{n} {name}s"),
    };
    let subject = report.interface.as_deref().unwrap_or("this node");
    let verdict = if report.is_fit { "is fit for kplb" } else { "is not fit for kplb" };
    let counts =
        [(Level::Error, "error"), (Level::Warning, "warning"), (Level::Note, "note")].map(|(l, n)| count(l, n));
    writeln!(out, "\n{subject} {verdict}: {}", counts.join(", "))
}

const fn tone(level: Level) -> Tone {
    match level {
        Level::Ok => Tone::Good,
        Level::Note => Tone::Plain,
        Level::Warning => Tone::Doubtful,
        Level::Error => Tone::Bad,
    }
}
