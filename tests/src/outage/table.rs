//! What every contender's clients noticed of an event, side by side.

use comfy_table::Table;

use super::{Contender, record::NAMES};
use crate::figure::{Figure, median_and_worst, sheet};

/// A row for each figure and a column for each contender, with the median and the worst of all rounds; what no round has is
/// left out.
pub fn table(columns: &[(Contender, Vec<Vec<Figure>>)]) -> Table {
    let contenders = columns.iter().map(|(contender, _)| format!("{contender}: median (worst)"));
    let header: Vec<String> = [String::new()].into_iter().chain(contenders).collect();
    let rows = NAMES.into_iter().filter_map(|name| {
        let cells: Vec<String> = columns.iter().map(|(_, rounds)| cell(name, rounds)).collect();
        let is_empty = cells.iter().all(String::is_empty);
        (!is_empty).then(|| [name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>())
    });
    sheet(header, rows)
}

/// What all rounds have of a figure; empty, if none has it.
fn cell(name: &str, rounds: &[Vec<Figure>]) -> String {
    let of_name = |round: &Vec<Figure>| round.iter().find(|figure| figure.name == name).cloned();
    let figures: Vec<Figure> = rounds.iter().filter_map(of_name).collect();
    if figures.is_empty() {
        return String::new();
    }
    let (median, worst) = median_and_worst(figures.iter().map(|figure| figure.value));
    if median == worst { median.to_string() } else { format!("{median} ({worst})") }
}
