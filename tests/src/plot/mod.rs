//! Pictures of what was measured (SVG).

mod curves;
mod timeline;

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea as _},
    style::WHITE,
};

pub use self::{
    curves::{Axes, Line, curves},
    timeline::{Point, timeline},
};

/// What the pictures' letters are like.
const FONT: &str = "sans-serif";

/// Draws to a file of this size.
fn draw<'p>(
    path: &'p Path,
    size: (u32, u32),
    picture: impl FnOnce(&DrawingArea<SVGBackend<'p>, Shift>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<()> {
    let draw = || {
        let area = SVGBackend::new(path, size).into_drawing_area();
        area.fill(&WHITE)?;
        picture(&area)?;
        area.present()?;
        Ok(())
    };
    draw().map_err(|error: Box<dyn std::error::Error>| anyhow!("draw {}: {error}", path.display()))
}
