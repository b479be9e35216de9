//! What every contender's clients noticed of an event, side by side, as the page has it.

use comfy_table::Table;

use super::{
    Contender, Manner,
    figures::{End, Fates, Figures},
};
use crate::figure::{Value, median_and_worst, page};

/// A figure of new connections.
type Of = fn(&Figures) -> Value;

const OF_NEW: [(&str, Of); 4] = [
    ("no new connection succeeds for", |figures| figures.without_success),
    ("some new connections fail or take more than 500 ms for", |figures| figures.trouble),
    ("the longest took", |figures| figures.longest),
    ("new connections that failed", |figures| Value::Count(figures.n_failed)),
];

/// A row for each figure and a column for each contender: the median of all rounds, and the worst in brackets where it is another;
/// of kept connections how many there were in all rounds together, and when the last one was told in the median round.
pub fn table(columns: &[(Contender, Vec<Figures>)]) -> Table {
    let contenders = columns.iter().map(|(contender, _)| contender.to_string());
    let header: Vec<String> = [String::new()].into_iter().chain(contenders).collect();
    let row = |title: String, cell: &dyn Fn(&[Figures]) -> String| -> Vec<String> {
        [title].into_iter().chain(columns.iter().map(|(_, rounds)| cell(rounds))).collect()
    };
    let mut rows: Vec<_> =
        OF_NEW.iter().map(|(name, of)| row((*name).to_owned(), &|rounds| times(rounds.iter().map(of)))).collect();
    for (to, name) in [(End::Dead, "the dead apiserver"), (End::Living, "other apiservers")] {
        for manner in [None].into_iter().chain(Manner::ALL.map(Some)) {
            let title = format!("kept connections to {name}, {}", manner.map_or("all", Manner::name));
            rows.push(row(title, &|rounds| fates(rounds, to, manner)));
        }
    }
    page(header, rows)
}

/// The median, and the worst where it is another; empty, if there is no round.
fn times(values: impl ExactSizeIterator<Item = Value>) -> String {
    if values.len() == 0 {
        return String::new();
    }
    let (median, worst) = median_and_worst(values);
    if median == worst { median.to_string() } else { format!("{median} ({worst})") }
}

/// What became of the connections of a manner.
fn fates(rounds: &[Figures], to: End, manner: Option<Manner>) -> String {
    let is_of = |fates: &&Fates| fates.to == to && fates.manner == manner;
    let fates: Vec<&Fates> = rounds.iter().filter_map(|figures| figures.kept.iter().find(is_of)).collect();
    let sum = |of: fn(&Fates) -> usize| fates.iter().map(|fates| of(fates)).sum::<usize>();
    let (n, n_told, n_hanging) = (sum(|fates| fates.n), sum(|fates| fates.n_told), sum(|fates| fates.n_hanging));
    // In a round in which none has ended, there is no time of that: those of the others are told to be some of them.
    let time = |of: fn(&Fates) -> Option<Value>| {
        let values: Vec<Value> = fates.iter().filter_map(|fates| of(fates)).collect();
        let n_rounds = if values.len() < fates.len() { format!(" in {} rounds", values.len()) } else { String::new() };
        format!("{}{n_rounds}", times(values.into_iter()))
    };
    if n == 0 {
        return "there were none".to_owned();
    }
    let mut parts = Vec::new();
    if n_told > 0 || n_hanging > 0 {
        parts.push(format!("{n_told} of {n} told, the last after {}", time(|fates| fates.last_told)));
    }
    if n_hanging > 0 {
        parts.push(format!("{n_hanging} hang"));
    }
    let n_going_on = n - n_told - n_hanging;
    if n_going_on > 0 {
        parts.push(format!("{n_going_on} of {n} go on, silent for up to {}", time(|fates| fates.silence)));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn round(without_success: Value, n_told: usize, last_told: Option<Value>) -> Figures {
        let n_hanging = usize::from(matches!(last_told, Some(Value::AtLeast(_))));
        let silence = Some(Value::Time(SECOND));
        let fates = |to, manner| Fates { to, manner, n: 9, n_told, n_hanging, last_told, silence };
        let time = Value::Time(SECOND);
        let kept = vec![fates(End::Dead, None), fates(End::Dead, Some(Manner::Asks))];
        Figures { trouble: time, n_failed: 1, longest: time, without_success, kept }
    }

    #[test]
    fn the_worst_is_there_whether_it_ended_or_not() {
        let time = |n| Value::Time(n * SECOND);
        let rounds = vec![
            round(Value::AtLeast(20 * SECOND), 8, Some(Value::AtLeast(20 * SECOND))),
            round(time(3), 9, Some(time(2))),
            round(time(2), 0, None),
        ];
        let text = table(&[(Contender::Kplb, rounds)]).to_string();
        let cell = |title: &str| {
            let line = text.lines().find(|line| line.contains(title)).unwrap_or_else(|| panic!("no {title}: {text}"));
            line.split('|').nth(2).map(|cell| cell.trim().to_owned()).unwrap_or_default()
        };
        assert_eq!(cell("no new connection succeeds"), "3.00 s (>= 20.00 s)");
        assert_eq!(cell("new connections that failed"), "1");
        assert_eq!(
            cell("the dead apiserver, asking"),
            "17 of 27 told, the last after >= 20.00 s in 2 rounds; 1 hang; 9 of 27 go on, silent for up to 1.00 s"
        );
        assert_eq!(cell("other apiservers, idle"), "there were none");
    }
}
