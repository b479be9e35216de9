//! What was to be reached, and what was.

use std::fmt;

use comfy_table::Table;
use serde::Serialize;

use crate::figure::page;

/// What a number is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

/// A goal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// Of what.
    pub what: String,
    /// What it is to be.
    pub bound: Bound,
    /// What it is; none, if that was not measured.
    pub reached: Option<f64>,
}

impl Goal {
    /// Whether it is reached; none, if that was not measured.
    pub fn is_met(&self) -> Option<bool> {
        self.reached.map(|reached| match self.bound {
            Bound::AtLeast(bound) => reached >= bound,
            Bound::AtMost(bound) => reached <= bound,
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound:.2}"),
            Self::AtMost(bound) => write!(f, "<= {bound:.2}"),
        }
    }
}

/// A row for each goal. What misses its goal by less than two digits show gets a third one.
pub fn table(goals: &[Goal]) -> Table {
    let rows = goals.iter().map(|goal| {
        let (Bound::AtLeast(bound) | Bound::AtMost(bound)) = goal.bound;
        let reached = goal.reached.map_or_else(String::new, |reached| {
            let rounded = (reached * 100.0).round() / 100.0;
            let hides = goal.is_met() == Some(false) && (rounded - bound).abs() < 1e-9;
            if hides { format!("{reached:.3}") } else { format!("{reached:.2}") }
        });
        let is_met = match goal.is_met() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not measured",
        };
        [goal.what.clone(), goal.bound.to_string(), reached, is_met.to_owned()]
    });
    page(["", "goal", "reached", "met"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(bound: Bound, reached: Option<f64>) -> Goal {
        Goal { what: "rate".to_owned(), bound, reached }
    }

    #[test]
    fn a_bound_itself_is_enough() {
        let met = |bound, reached| goal(bound, Some(reached)).is_met();
        assert_eq!([0.84, 0.85, 0.86].map(|n| met(Bound::AtLeast(0.85), n)), [Some(false), Some(true), Some(true)]);
        assert_eq!([1.19, 1.2, 1.21].map(|n| met(Bound::AtMost(1.2), n)), [Some(true), Some(true), Some(false)]);
        assert_eq!(goal(Bound::AtLeast(0.85), None).is_met(), None);
    }

    #[test]
    fn rows_say_what_was_reached() {
        let goals = [
            goal(Bound::AtLeast(0.85), Some(0.9)),
            goal(Bound::AtLeast(0.85), Some(0.8461)),
            goal(Bound::AtLeast(0.85), Some(0.84996)),
            goal(Bound::AtMost(1.2), None),
        ];
        let text = table(&goals).to_string();
        let rows: Vec<Vec<&str>> =
            text.lines().skip(2).map(|line| line.split('|').map(str::trim).skip(1).collect()).collect();
        assert_eq!(rows[0], ["rate", ">= 0.85", "0.90", "yes", ""]);
        // Rounded, it would seem to be met.
        assert_eq!(rows[1], ["rate", ">= 0.85", "0.846", "no", ""]);
        assert_eq!(rows[2], ["rate", ">= 0.85", "0.850", "no", ""]);
        assert_eq!(rows[3], ["rate", "<= 1.20", "", "not measured", ""]);
    }
}
