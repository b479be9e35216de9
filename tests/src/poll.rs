//! Waiting for something to become true, with a deadline: the one place where the lab sleeps.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Looks until `condition` holds; fails, naming `what`, when it does not within `deadline`.
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    until_some(what, deadline, || condition().then_some(()))
}

/// Lets time pass: for this long, or until it `is_over`. On a busy machine it may be longer.
pub fn pass(period: Duration, mut is_over: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < period && !is_over() {
        thread::sleep(INTERVAL);
    }
}

/// Looks until there is a value, and returns it.
pub fn until_some<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("not within {deadline:?}: {what}");
        }
        thread::sleep(INTERVAL);
    }
}

/// Tries until it succeeds; the last error is part of the failure.
pub fn until_ok<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > deadline => {
                return Err(error.context(format!("not within {deadline:?}: {what}")));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}
