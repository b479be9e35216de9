//! How the programs are to tell what time it is.

use std::time::Duration;

use anyhow::Context as _;
use aya::{Ebpf, TestRun as _, TestRunOptions, programs::Xdp};
use kplb_common::{
    abi,
    clock::{Clock, Reading},
};
use nix::time::{ClockId, clock_getres};

use super::super::object;

/// The program that tells the kernel's time.
pub(super) fn program(ebpf: &Ebpf) -> anyhow::Result<&Xdp> {
    Ok(ebpf.program(abi::CLOCK_PROGRAM).context("the object has no clock")?.try_into()?)
}

/// How often the kernel is asked: a question that is interrupted where it hurts gets a wrong answer, but not each time.
const QUESTIONS: usize = 8;

/// Loads the program that tells the kernel's time, and asks it.
///
/// # Errors
/// If the kernel refuses it.
pub(super) fn read(ebpf: &mut Ebpf) -> anyhow::Result<Clock> {
    object::load_program(ebpf, abi::CLOCK_PROGRAM)?;
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).context("ask how long a tick is")?;
    let tick_ns = u64::try_from(Duration::from(tick).as_nanos()).context("a tick of centuries")?;
    let mut clock = ask(ebpf, tick_ns)?;
    for _ in 1..QUESTIONS {
        clock = clock.later(ask(ebpf, tick_ns)?);
    }
    Ok(clock)
}

fn ask(ebpf: &Ebpf, tick_ns: u64) -> anyhow::Result<Clock> {
    // As short as a frame can be.
    let (question, mut answer) = ([0; 64], [0; 64]);
    let options = TestRunOptions { data_in: Some(&question), data_out: Some(&mut answer), ..TestRunOptions::new() };
    program(ebpf)?.test_run(options).context("ask what time it is")?;
    let reading = Reading::from_packet(&answer).context("a packet shorter than it was")?;
    Ok(Clock::new(tick_ns, reading))
}
