//! Interleaved rounds, medians, and the table.

use std::time::Duration;

use anyhow::Result;
use comfy_table::Table;

use super::{
    floor::{Floor, Program, time},
    scene::{Scene, Traffic},
};
use crate::{
    figure::{median, sheet},
    testbed::Ingress,
};

/// Something to measure.
pub struct Case<'a> {
    /// What it is, for the table.
    pub name: &'static str,
    /// The program and its flows.
    pub scene: &'a Scene,
    /// The packets.
    pub traffic: Traffic,
    /// How many flows the packets are of; a power of two.
    pub n_flows: u32,
    /// The multiple of the second floor to reach, if there is one.
    pub reach: Option<f64>,
}

/// What was measured of a case.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The case's name.
    pub name: &'static str,
    /// Median time of a packet, in nanoseconds.
    pub ns: f64,
    /// As a multiple of the second floor. The kernel's own time for each run, about the first floor, is in both.
    pub multiple: f64,
    /// The multiple to reach, if there is one.
    pub reach: Option<f64>,
}

/// Measures all cases in `n_rounds` interleaved rounds of `n_runs` packets each, with both floors.
///
/// # Errors
/// If the kernel refuses to run a program.
pub fn measure(ingress: Ingress, cases: &[Case<'_>], n_rounds: usize, n_runs: u32) -> Result<Vec<Measurement>> {
    let mut floor = Floor::load(ingress)?;
    let frames = cases.iter().map(|case| case.scene.frame(case.traffic)).collect::<Result<Vec<_>>>()?;
    let (floor_frame, _) = cases[0].scene.frame(Traffic::ToBackend)?;
    let mut floors = [Vec::new(), Vec::new()];
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..n_rounds {
        for (times, program) in floors.iter_mut().zip([Program::Pass, Program::Swap]) {
            times.push(nanoseconds(floor.time(program, &floor_frame, n_runs)?));
        }
        for ((case, (frame, vary_at)), times) in cases.iter().zip(&frames).zip(&mut times) {
            let program = case.scene.program()?;
            let time = if case.traffic == Traffic::NotOurs {
                // Leaves its packet as it is, so nothing needs to be put back.
                nanoseconds(time(program, frame, n_runs)?)
            } else {
                let restored = floor.time_restored(Some(program), frame, *vary_at, case.n_flows, n_runs)?;
                let alone = floor.time_restored(None, frame, *vary_at, case.n_flows, n_runs)?;
                let harness = floors[0].last().copied().unwrap_or_default();
                nanoseconds(restored) - nanoseconds(alone) + harness
            };
            times.push(time);
        }
    }
    let [pass, swap] = floors.map(median);
    let measurement = |name, ns: f64, reach| Measurement { name, ns, multiple: ns / swap, reach };
    let mut measurements = vec![
        measurement("floor 1: passes at once", pass, None),
        measurement("floor 2: parse, swap MACs, send back", swap, None),
    ];
    measurements.extend(cases.iter().zip(times).map(|(case, times)| measurement(case.name, median(times), case.reach)));
    Ok(measurements)
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// The table of what was measured.
pub fn table(measurements: &[Measurement]) -> Table {
    let rows = measurements.iter().map(|measurement| {
        let reach = match measurement.reach {
            Some(reach) if measurement.multiple <= reach => format!("<= {reach:.1}"),
            Some(reach) => format!("<= {reach:.1} (missed)"),
            None => String::new(),
        };
        [measurement.name.to_owned(), format!("{:.1}", measurement.ns), format!("{:.2}", measurement.multiple), reach]
    });
    sheet(["", "ns/packet", "x floor 2", "to reach"], rows)
}
