//! What every contender's clients noticed of an event, side by side.

use comfy_table::{CellAlignment, Table, presets};

use super::{Contender, record::NAMES};
use crate::figure::{Figure, median_and_worst};

/// A row for each figure and a column for each contender, with the median and the worst of all rounds; what no round has is
/// left out.
pub fn table(columns: &[(Contender, Vec<Vec<Figure>>)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let contenders = columns.iter().map(|(contender, _)| format!("{contender}: median (worst)"));
    table.set_header([String::new()].into_iter().chain(contenders));
    for name in NAMES {
        let cells = columns.iter().map(|(_, rounds)| {
            let of_name = |round: &Vec<Figure>| round.iter().find(|figure| figure.name == name).cloned();
            let figures: Vec<Figure> = rounds.iter().filter_map(of_name).collect();
            if figures.is_empty() {
                return String::new();
            }
            let (median, worst) = median_and_worst(&figures);
            if median == worst { median.to_string() } else { format!("{median} ({worst})") }
        });
        let cells: Vec<String> = cells.collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            table.add_row([name.to_owned()].into_iter().chain(cells));
        }
    }
    for column in 1..=columns.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
