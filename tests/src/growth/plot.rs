//! Curves as pictures (SVG).

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::{
    backend::SVGBackend,
    chart::ChartBuilder,
    coord::combinators::IntoLogRange as _,
    drawing::IntoDrawingArea as _,
    element::Circle,
    series::LineSeries,
    style::{BLACK, Color as _, Palette as _, Palette99, WHITE},
};

use super::Curve;

const SIZE: (u32, u32) = (900, 540);

/// Draws curves of the same things over one another, both axes logarithmic.
///
/// # Errors
/// If there is nothing to draw, or the file cannot be written.
pub fn plot(path: &Path, title: &str, unit: &str, curves: &[&Curve]) -> Result<()> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let bounds = |value: fn(&(f64, f64)) -> f64| {
        let low = points().map(value).fold(f64::INFINITY, f64::min);
        let high = points().map(value).fold(0.0, f64::max);
        (low.max(f64::MIN_POSITIVE), high)
    };
    let ((left, right), (bottom, top)) = (bounds(|point| point.0), bounds(|point| point.1));
    let of = curves.first().context("there is nothing to plot")?.of;
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 22))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((left..right.max(left * 1.1)).log_scale(), (bottom / 2.0..top * 2.0).log_scale())?;
        chart.configure_mesh().x_desc(of).y_desc(unit).draw()?;
        for (number, curve) in curves.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)))?
                .label(&curve.what)
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
            chart.draw_series(curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| anyhow::anyhow!("draw {}: {error}", path.display()))
}
