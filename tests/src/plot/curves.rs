//! Curves over one another.

use std::path::Path;

use anyhow::{Result, ensure};
use plotters::{
    chart::ChartBuilder,
    coord::combinators::IntoLogRange as _,
    element::Circle,
    series::LineSeries,
    style::{BLACK, Color as _, Palette as _, Palette99, WHITE},
};

use super::{FONT, draw};

const SIZE: (u32, u32) = (900, 540);

/// What the axes are, both of them logarithmic.
pub struct Axes<'a> {
    /// What goes to the right, and how its numbers are written.
    pub x: (&'a str, fn(&f64) -> String),
    /// What goes up.
    pub y: &'a str,
}

/// A curve.
pub struct Line<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its points, from left to right.
    pub points: &'a [(f64, f64)],
}

/// Draws them.
///
/// # Errors
/// If there is nothing to draw, or the file cannot be written.
pub fn curves(path: &Path, title: &str, axes: &Axes<'_>, lines: &[Line<'_>]) -> Result<()> {
    let points = || lines.iter().flat_map(|line| line.points);
    ensure!(points().next().is_some(), "there is nothing to plot: {title}");
    let bounds = |value: fn(&(f64, f64)) -> f64| {
        let low = points().map(value).fold(f64::INFINITY, f64::min);
        let high = points().map(value).fold(0.0, f64::max);
        (low.max(f64::MIN_POSITIVE), high)
    };
    let ((left, right), (bottom, top)) = (bounds(|point| point.0), bounds(|point| point.1));
    draw(path, SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 22))
            .margin(12)
            // Half of the longest number.
            .margin_right(36)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((left..right.max(left * 1.1)).log_scale(), (bottom / 2.0..top * 2.0).log_scale())?;
        chart.configure_mesh().x_desc(axes.x.0).x_label_formatter(&axes.x.1).y_desc(axes.y).draw()?;
        for (number, line) in lines.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        Ok(())
    })
}
