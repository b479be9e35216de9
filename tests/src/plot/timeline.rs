//! What became of connections around a moment, one program above the other.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, ensure};
use plotters::{
    chart::ChartBuilder,
    coord::combinators::IntoLogRange as _,
    element::{Circle, PathElement},
    style::{BLACK, BLUE, Color as _, RED, WHITE},
};
use serde::Serialize;

use super::{FONT, draw};

/// Of one program's chart.
const SIZE: (u32, u32) = (900, 300);
/// Seconds that are shown, since the point.
const SHOWN: (f64, f64) = (-1.0, 20.0);
/// Milliseconds that are shown.
const TIMES: (f64, f64) = (0.3, 20_000.0);
/// Seconds of one stroke, in which answered connections are drawn together.
const STROKE: f64 = 0.1;

/// A connection.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// When it was begun, in seconds since the point.
    pub at: f64,
    /// How long it took, in milliseconds.
    pub took: f64,
    /// Whether it was answered.
    pub is_answered: bool,
}

/// Draws them: answered ones as a stroke from the fastest to the slowest of every tenth of a second, each that failed as a dot.
///
/// # Errors
/// If there is nothing to draw, or the file cannot be written.
pub fn timeline(path: &Path, title: &str, programs: &[(String, Vec<Point>)]) -> Result<()> {
    ensure!(!programs.is_empty(), "there is nothing to plot: {title}");
    draw(path, (SIZE.0, SIZE.1 * programs.len() as u32), |area| {
        for (part, (program, points)) in area.split_evenly((programs.len(), 1)).iter().zip(programs) {
            let mut chart = ChartBuilder::on(part)
                .caption(format!("{title}: {program}"), (FONT, 18))
                .margin(10)
                .x_label_area_size(40)
                .y_label_area_size(64)
                .build_cartesian_2d(SHOWN.0..SHOWN.1, (TIMES.0..TIMES.1).log_scale())?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_desc("seconds since it happened, at which a connection was begun")
                .y_desc("ms it took")
                .draw()?;
            let strokes = strokes(points).into_iter();
            let strokes =
                strokes.map(|(at, low, high)| PathElement::new([(at, low), (at, high)], BLUE.stroke_width(3)));
            chart
                .draw_series(strokes)?
                .label("answered")
                .legend(|(x, y)| PathElement::new([(x + 8, y - 5), (x + 8, y + 5)], BLUE.stroke_width(3)));
            let failed = points.iter().filter(|point| !point.is_answered && is_shown(point));
            chart
                .draw_series(failed.map(|point| Circle::new((point.at, point.took), 3, RED.filled())))?
                .label("failed")
                .legend(|(x, y)| Circle::new((x + 8, y), 3, RED.filled()));
            chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        }
        Ok(())
    })
}

fn is_shown(point: &Point) -> bool {
    (SHOWN.0..SHOWN.1).contains(&point.at)
}

/// The middle of each stroke of time in which a connection was begun that was answered, and the times of the fastest and the slowest.
fn strokes(points: &[Point]) -> Vec<(f64, f64, f64)> {
    let mut strokes = BTreeMap::new();
    for point in points.iter().filter(|point| point.is_answered && is_shown(point)) {
        let number = (point.at / STROKE).floor() as i32;
        let (low, high) = strokes.entry(number).or_insert((f64::INFINITY, 0.0_f64));
        *low = low.min(point.took);
        *high = high.max(point.took);
    }
    let middle = |number| (f64::from(number) + 0.5) * STROKE;
    // What would be a point is still to be seen.
    strokes.into_iter().map(|(number, (low, high))| (middle(number), low, high.max(low * 1.15))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_drawn_together() {
        let point = |at, took, is_answered| Point { at, took, is_answered };
        let points = [
            point(0.01, 5.0, true),
            point(0.09, 1.0, true),
            point(0.05, 900.0, false),
            point(-0.05, 2.0, true),
            point(30.0, 1.0, true),
        ];
        let strokes = strokes(&points);
        assert_eq!(strokes.len(), 2);
        assert_eq!((strokes[1].1, strokes[1].2), (1.0, 5.0));
        assert!((strokes[0].0 + 0.05).abs() < 1e-9 && (strokes[1].0 - 0.05).abs() < 1e-9);
    }
}
