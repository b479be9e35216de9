//! Backends that fail: each failure once, and what must be true of it. How fast it is, the benchmark shows.

use anyhow::Result;
use kplb_tests::failure::{Figure, cases};

/// Plays a failure; what must never happen has not happened.
fn play(case: fn() -> Result<Vec<Figure>>) -> Result<()> {
    for figure in case()? {
        println!("{}: {}", figure.name, figure.value);
        figure.check()?;
    }
    Ok(())
}

#[test]
fn a_backend_is_killed() -> Result<()> {
    play(cases::killed)
}

#[test]
fn a_backend_is_cut_off() -> Result<()> {
    play(cases::cut_off)
}

#[test]
fn a_backend_is_not_ready() -> Result<()> {
    play(cases::not_ready)
}

#[test]
fn a_backend_hangs_behind_the_wire() -> Result<()> {
    play(|| cases::hung(2))
}

#[test]
fn a_backend_hangs_on_the_balancer() -> Result<()> {
    play(|| cases::hung(1))
}

#[test]
fn a_backend_flaps() -> Result<()> {
    play(cases::flapping)
}

#[test]
fn all_backends_go_and_come_back() -> Result<()> {
    play(cases::all_gone)
}

#[test]
fn a_backend_must_not_tell() -> Result<()> {
    play(cases::unauthorized)
}

#[test]
fn a_backend_with_many_flows_is_cut_off() -> Result<()> {
    play(|| cases::crowded(5000))
}
