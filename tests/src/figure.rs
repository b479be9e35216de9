//! What benchmarks measure, and the table of it.

use std::{
    cmp::Ordering,
    fmt::{self, Write as _},
    time::Duration,
};

use anyhow::{Result, ensure};
use comfy_table::{CellAlignment, Row, Table, presets};
use serde::{Serialize, Serializer};

/// Something that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub value: Value,
    /// What it should not exceed, if anything.
    pub reach: Option<Value>,
}

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Value {
    /// A time.
    Time(Duration),
    /// A time that had not ended when nobody looked any longer: worse than any that had.
    AtLeast(Duration),
    /// A number of things.
    Count(usize),
}

impl Figure {
    pub(crate) fn time(name: &'static str, value: Duration) -> Self {
        Self { name, value: Value::Time(value), reach: None }
    }

    pub(crate) fn count(name: &'static str, value: usize) -> Self {
        Self { name, value: Value::Count(value), reach: None }
    }

    /// Makes sure that what must never happen has not happened: a number is not a matter of the machine's speed.
    ///
    /// # Errors
    /// If it has.
    pub fn check(&self) -> Result<()> {
        let Self { name, value, reach } = self;
        if let (Value::Count(n), Some(Value::Count(reach))) = (value, reach) {
            ensure!(n <= reach, "{name}: {n}, and not at most {reach}");
        }
        Ok(())
    }

    pub(crate) fn within(self, reach: Duration) -> Self {
        Self { reach: Some(Value::Time(reach)), ..self }
    }

    pub(crate) fn at_most(self, reach: usize) -> Self {
        Self { reach: Some(Value::Count(reach)), ..self }
    }
}

impl Serialize for Value {
    /// A time in seconds, or a number; a time that had not ended has a name for that.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Time(time) => serializer.serialize_f64(time.as_secs_f64()),
            Self::AtLeast(time) => serializer.collect_map([("at_least", time.as_secs_f64())]),
            Self::Count(n) => serializer.serialize_u64(*n as u64),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::AtLeast(time) => write!(f, ">= {}", Self::Time(*time)),
            Self::Time(time) if *time < Duration::from_secs(1) => write!(f, "{:.1} ms", time.as_secs_f64() * 1000.0),
            Self::Time(time) => write!(f, "{:.2} s", time.as_secs_f64()),
        }
    }
}

/// The one in the middle, or zero of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A table: what each row is of to the left, and numbers to the right.
pub(crate) fn sheet<R: Into<Row>>(header: impl Into<Row>, rows: impl IntoIterator<Item = R>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The same in Markdown, as pages have it.
pub(crate) fn page<R: Into<Row>>(header: impl Into<Row>, rows: impl IntoIterator<Item = R>) -> Table {
    let mut table = sheet(header, rows);
    table.load_preset(presets::ASCII_MARKDOWN);
    table
}

/// With a comma before every three digits.
pub(crate) fn grouped(n: u64) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", grouped(n / 1000), n % 1000) }
}

/// The median and the highest of what was measured in every round.
///
/// # Panics
/// If there was no round.
pub fn median_and_worst(rounds: impl IntoIterator<Item = Value>) -> (Value, Value) {
    let mut values: Vec<Value> = rounds.into_iter().collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    (values[values.len() / 2], values[values.len() - 1])
}

/// A row for each name, with the median and the worst of what was measured in every round.
///
/// # Panics
/// If there was no round.
pub fn table<'a>(rows: impl IntoIterator<Item = (String, &'a [Figure])>) -> Table {
    let rows: Vec<_> = rows.into_iter().collect();
    let mut header = vec!["", "median", "worst"];
    if rows.iter().any(|(_, rounds)| rounds[0].reach.is_some()) {
        header.push("to reach");
    }
    let n_columns = header.len();
    let rows = rows.into_iter().map(|(name, rounds)| {
        let (median, worst) = median_and_worst(rounds.iter().map(|figure| figure.value));
        let mut reach = String::new();
        if let Some(value) = rounds[0].reach {
            let _ = write!(reach, "<= {value}");
            if worst > value {
                reach += if median > value { " (missed)" } else { " (worst missed)" };
            }
        }
        [name, median.to_string(), worst.to_string(), reach].into_iter().take(n_columns).collect::<Vec<_>>()
    });
    sheet(header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([]).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn three_digits_are_a_group() {
        assert_eq!([7, 1000, 1_000_042].map(grouped), ["7", "1,000", "1,000,042"]);
    }

    #[test]
    fn what_never_ended_is_the_worst() {
        let [short, long, endless] = [
            Value::Time(Duration::from_secs(1)),
            Value::Time(Duration::from_secs(3)),
            Value::AtLeast(Duration::from_secs(2)),
        ];
        assert_eq!(median_and_worst([endless, short, long]), (long, endless));
        assert_eq!(median_and_worst([endless, endless, long]), (endless, endless));
        assert_eq!(endless.to_string(), ">= 2.00 s");
        assert_eq!(serde_json::to_string(&[short, endless]).expect("numbers"), r#"[1.0,{"at_least":2.0}]"#);
    }
}
