//! The floor programs, and running any program many times on a packet that is put back each time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod, TestRun as _, TestRunOptions,
    maps::{Array, ProgramArray},
    programs::{Program as AnyProgram, SchedClassifier, Xdp},
};

use crate::testbed::Ingress;

/// Bytes of a frame that are put back; as in the BPF object.
const FRAME: usize = 128;

/// As the BPF object has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Template {
    frame: [u8; FRAME],
    length: u32,
    vary_at: u32,
    n_variants: u32,
    run: u32,
    checksum_at: u32,
}

impl Template {
    /// A frame to put back, whose two bytes at `vary_at` count up from run to run, `n_variants` of them.
    pub(super) fn new(frame: &[u8], vary_at: u32, n_variants: u32) -> Self {
        // Whole words; what is beyond them no program changes.
        let length = (frame.len() / 8 * 8).min(FRAME);
        let mut bytes = [0; FRAME];
        bytes[..length].copy_from_slice(&frame[..length]);
        Self { frame: bytes, length: length as u32, vary_at, n_variants, run: 0, checksum_at: 0 }
    }

    /// The same, with a TCP checksum there that follows.
    pub(super) fn with_checksum(self, checksum_at: u32) -> Self {
        Self { checksum_at, ..self }
    }
}

// SAFETY: `repr(C)` of integers without padding, valid for every bit pattern.
unsafe impl Pod for Template {}

/// A program that is measured.
#[derive(Clone, Copy)]
pub enum Measured<'a> {
    /// Of XDP.
    Xdp(&'a Xdp),
    /// Of TC.
    Tc(&'a SchedClassifier),
}

/// A floor program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Program {
    /// Passes at once.
    Pass,
    /// Parses Ethernet, IPv4 and TCP, swaps the MAC addresses and sends back.
    Swap,
}

impl Program {
    const fn name(self, ingress: Ingress) -> &'static str {
        match (self, ingress) {
            (Self::Pass, Ingress::Xdp) => "floor_pass",
            (Self::Swap, Ingress::Xdp) => "floor_swap",
            (Self::Pass, Ingress::Tc) => "floor_pass_tc",
            (Self::Swap, Ingress::Tc) => "floor_swap_tc",
        }
    }
}

/// The loaded floor programs, and those of one hook to measure with.
pub struct Floor {
    ebpf: Ebpf,
    ingress: Ingress,
}

impl Floor {
    /// Loads the programs.
    ///
    /// # Errors
    /// If the kernel refuses them.
    pub fn load(ingress: Ingress) -> Result<Self> {
        let mut ebpf = Ebpf::load(kplb::dataplane::FLOOR_OBJECT).context("load the floor programs")?;
        for (_, program) in ebpf.programs_mut() {
            match program {
                AnyProgram::SchedClassifier(program) => program.load()?,
                AnyProgram::Xdp(program) => program.load()?,
                _ => {}
            }
        }
        Ok(Self { ebpf, ingress })
    }

    fn program(&self, name: &str) -> Result<Measured<'_>> {
        let program = self.ebpf.program(name).with_context(|| format!("the object has no program {name}"))?;
        Ok(match self.ingress {
            Ingress::Xdp => Measured::Xdp(program.try_into()?),
            Ingress::Tc => Measured::Tc(program.try_into()?),
        })
    }

    /// Time of one run of a floor program.
    ///
    /// # Errors
    /// If the kernel refuses to run it.
    pub fn time(&self, program: Program, frame: &[u8], n_runs: u32) -> Result<Duration> {
        time(self.program(program.name(self.ingress))?, frame, n_runs)
    }

    /// Time of one run of putting the frame back and, if there is one, of the program that sees it then. The two bytes at
    /// `vary_at` count up from run to run, `n_variants` of them; one: always the same frame.
    ///
    /// # Errors
    /// If the kernel refuses to run it.
    pub fn time_restored(
        &mut self,
        measured: Option<Measured<'_>>,
        frame: &[u8],
        vary_at: u32,
        n_variants: u32,
        n_runs: u32,
    ) -> Result<Duration> {
        let template = Template::new(frame, vary_at, n_variants);
        let mut templates: Array<_, Template> = self.ebpf.map_mut("TEMPLATE").context("no TEMPLATE")?.try_into()?;
        templates.set(0, template, 0)?;
        let (restore, slots) = match self.ingress {
            Ingress::Xdp => ("floor_restore", "MEASURED"),
            Ingress::Tc => ("floor_restore_tc", "MEASURED_TC"),
        };
        let mut slots: ProgramArray<_> = self.ebpf.map_mut(slots).context("no slots")?.try_into()?;
        match measured {
            Some(Measured::Xdp(program)) => slots.set(0, program.fd()?, 0)?,
            Some(Measured::Tc(program)) => slots.set(0, program.fd()?, 0)?,
            // An empty slot is no error here: that is what is wanted.
            None => drop(slots.clear_index(&0)),
        }
        time(self.program(restore)?, frame, n_runs)
    }
}

/// Time of one run, by the kernel's clock, in whole nanoseconds: without what setting the runs up costs.
///
/// # Errors
/// If the kernel refuses to run it.
pub fn time(program: Measured<'_>, frame: &[u8], n_runs: u32) -> Result<Duration> {
    let options = TestRunOptions { data_in: Some(frame), repeat: n_runs, ..TestRunOptions::new() };
    let result = match program {
        Measured::Xdp(program) => program.test_run(options)?,
        Measured::Tc(program) => program.test_run(options)?,
    };
    Ok(result.duration)
}
