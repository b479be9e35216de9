//! `http-check expect`: which answers are good.

use regex_lite::Regex;

use super::lines::Line;
use crate::{
    config::Statuses,
    import::finding::{Findings, shown},
};

/// Statuses that an answer can have.
const ALL: std::ops::RangeInclusive<u16> = 100..=599;

/// What a status is that matches the pattern of a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Match {
    Good,
    Bad,
}

/// The statuses that the rule takes for good; none if it says nothing about statuses.
pub(super) fn statuses(rule: &Line, findings: &mut Findings) -> Option<Statuses> {
    let mut words = rule.words.iter().skip(2).map(String::as_str);
    let mut is_negated = false;
    loop {
        match words.next()? {
            "comment" | "min-recv" | "ok-status" | "error-status" | "tout-status" | "on-success" | "on-error"
            | "status-code" => drop(words.next()),
            "!" => is_negated = !is_negated,
            word => {
                let glued = word.strip_prefix('!');
                let word = glued.unwrap_or(word);
                let wanted = if is_negated == glued.is_some() { Match::Good } else { Match::Bad };
                let pattern = words.next().unwrap_or_default();
                let found = match word {
                    "status" => listed(pattern, wanted),
                    "rstatus" => matched(pattern, wanted),
                    _ => {
                        let why = "kplb goes by the status (2xx and 3xx), and looks at nothing else in an answer";
                        findings.changed(&rule.written, why, "have the server tell its state by the status");
                        return None;
                    }
                };
                if found.is_none() {
                    let why = format!(
                        "{} is no pattern of statuses that kplb can express; 2xx and 3xx are good",
                        shown(pattern)
                    );
                    findings.changed(&rule.written, why, "set `expect` in [service.check]");
                }
                return found;
            }
        }
    }
}

/// A list of statuses and ranges.
fn listed(pattern: &str, wanted: Match) -> Option<Statuses> {
    let statuses = Statuses::parse(pattern).ok()?;
    match wanted {
        Match::Good => Some(statuses),
        Match::Bad => ranges(|status| !statuses.contains(status)),
    }
}

/// A regular expression on the status.
fn matched(pattern: &str, wanted: Match) -> Option<Statuses> {
    let pattern = Regex::new(pattern).ok()?;
    ranges(|status| pattern.is_match(&status.to_string()) == (wanted == Match::Good))
}

/// The statuses that are good; none if no status is.
fn ranges(is_good: impl Fn(u16) -> bool) -> Option<Statuses> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for status in ALL.filter(|status| is_good(*status)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == status => *last = status,
            _ => ranges.push((status, status)),
        }
    }
    let text = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    Statuses::parse(&ranges.iter().map(text).collect::<Vec<_>>().join(",")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::finding::{Place, Written};

    #[test]
    fn statuses_that_are_good() {
        for (rule, expected, n_findings) in [
            ("status 200", Some("200"), 0),
            ("status 200,201,300-310", Some("200,201,300-310"), 0),
            ("! status 500", Some("100-499,501-599"), 0),
            ("!status 500-599", Some("100-499"), 0),
            ("rstatus ^2", Some("200-299"), 0),
            ("rstatus (2|3)[0-9][0-9]", Some("200-399"), 0),
            ("! rstatus ^5", Some("100-499"), 0),
            ("comment x status 204", Some("204"), 0),
            ("rstatus (", None, 1),
            ("rstatus ^9", None, 1),
            ("status foo", None, 1),
            ("string ok", None, 1),
            ("", None, 0),
        ] {
            let text = format!("http-check expect {rule}");
            let words = text.split_whitespace().map(str::to_owned).collect();
            let line = Line { words, written: Written::new(text.as_str(), &Place::new(0, &"a".into(), 1)) };
            let mut findings = Findings::default();
            let statuses = statuses(&line, &mut findings).map(|statuses| statuses.to_string());
            assert_eq!(statuses.as_deref(), expected, "{rule}");
            assert_eq!(findings.sorted().len(), n_findings, "{rule}");
        }
    }
}
