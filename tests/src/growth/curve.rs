//! A cost at each of several sizes, and how it grows.

use comfy_table::Table;
use serde::Serialize;

use crate::figure::{grouped, page};

/// What something costs, by how much there is of something else.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// What is measured, with its unit.
    pub what: String,
    /// What there is more and more of.
    pub of: &'static str,
    /// How much of it, and the cost then.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// Measures at each size.
    ///
    /// # Errors
    /// The first of measuring.
    pub fn measure(
        what: impl Into<String>,
        of: &'static str,
        sizes: &[u32],
        mut cost: impl FnMut(u32) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Self> {
        let what = what.into();
        let mut points = Vec::new();
        for &size in sizes {
            eprintln!("{what}: {size} {of}");
            points.push((f64::from(size), cost(size)?));
        }
        Ok(Self { what, of, points })
    }

    /// The power of the size by which the cost grows, by least squares of the logarithms: 0 is not at all, 1 is in proportion.
    /// What a small size costs hides how a large one grows, so only the upper half of the sizes counts.
    pub fn power(&self) -> f64 {
        let upper = &self.points[self.points.len() / 2..];
        let logarithms: Vec<(f64, f64)> =
            upper.iter().filter(|(size, cost)| *size > 0.0 && *cost > 0.0).map(|(x, y)| (x.ln(), y.ln())).collect();
        let n = logarithms.len() as f64;
        let (mean_x, mean_y) =
            (logarithms.iter().map(|(x, _)| x).sum::<f64>() / n, logarithms.iter().map(|(_, y)| y).sum::<f64>() / n);
        let covariance: f64 = logarithms.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let variance: f64 = logarithms.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if variance == 0.0 { 0.0 } else { covariance / variance }
    }
}

/// A row for each curve: the cost at each size, and how it grows.
pub fn table(curves: &[Curve]) -> Table {
    let rows = curves.iter().map(|curve| {
        let points: Vec<String> =
            curve.points.iter().map(|(size, cost)| format!("{}: {}", grouped(*size as u64), short(*cost))).collect();
        [curve.what.clone(), curve.of.to_owned(), points.join(", "), format!("n^{:.2}", curve.power())]
    });
    page(["", "of", "at", "grows as"], rows)
}

fn short(cost: f64) -> String {
    match cost {
        1000.0.. => grouped(cost.round() as u64),
        100.0.. => format!("{cost:.0}"),
        1.0.. => format!("{cost:.1}"),
        _ => format!("{cost:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(cost: impl Fn(f64) -> f64) -> Curve {
        let points = [1.0, 10.0, 100.0, 1000.0].map(|size| (size, cost(size))).to_vec();
        Curve { what: "time".into(), of: "things", points }
    }

    #[test]
    fn powers_are_found() {
        for (power, expected) in [(curve(|_| 5.0), 0.0), (curve(|n| 3.0 * n), 1.0), (curve(|n| n * n), 2.0)] {
            assert!((power.power() - expected).abs() < 1e-9, "{power:?}");
        }
        // What is there in any case does not hide it.
        assert!((curve(|n| 0.001 + n).power() - 1.0).abs() < 0.01);
    }

    #[test]
    fn numbers_have_as_many_digits_as_they_need() {
        assert_eq!([0.125, 4.25, 123.4, 1234.4].map(short), ["0.12", "4.2", "123", "1,234"]);
    }
}
