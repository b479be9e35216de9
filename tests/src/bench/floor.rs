//! The floor programs, and running any program many times on a packet that is put back each time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod, TestRun as _, TestRunOptions,
    maps::{Array, ProgramArray},
    programs::Xdp,
};

/// Bytes of a frame that are put back; as in the BPF object.
const FRAME: usize = 128;

/// As the BPF object has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Template {
    frame: [u8; FRAME],
    length: u32,
    vary_at: u32,
    n_variants: u32,
    run: u32,
}

// SAFETY: `repr(C)` of integers without padding, valid for every bit pattern.
unsafe impl Pod for Template {}

/// A floor program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Program {
    /// Returns `XDP_PASS` at once.
    Pass,
    /// Parses Ethernet, IPv4 and TCP, swaps the MAC addresses and returns `XDP_TX`.
    Swap,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Pass => "floor_pass",
            Self::Swap => "floor_swap",
        }
    }
}

/// The loaded floor programs.
pub struct Floor(Ebpf);

impl Floor {
    /// Loads the programs.
    ///
    /// # Errors
    /// If the kernel refuses them.
    pub fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(kplb::dataplane::FLOOR_OBJECT).context("load the floor programs")?;
        for (_, program) in ebpf.programs_mut() {
            if let Ok(program) = <&mut Xdp>::try_from(program) {
                program.load()?;
            }
        }
        Ok(Self(ebpf))
    }

    fn xdp(&self, name: &str) -> Result<&Xdp> {
        Ok(self.0.program(name).with_context(|| format!("the object has no program {name}"))?.try_into()?)
    }

    /// Time of one run of a floor program.
    ///
    /// # Errors
    /// If the kernel refuses to run it.
    pub fn time(&self, program: Program, frame: &[u8], n_runs: u32) -> Result<Duration> {
        time(self.xdp(program.name())?, frame, n_runs)
    }

    /// Time of one run of putting the frame back and, if there is one, of the program that sees it then. The two bytes at
    /// `vary_at` count up from run to run, `n_variants` of them; one: always the same frame.
    ///
    /// # Errors
    /// If the kernel refuses to run it.
    pub fn time_restored(
        &mut self,
        measured: Option<&Xdp>,
        frame: &[u8],
        vary_at: u32,
        n_variants: u32,
        n_runs: u32,
    ) -> Result<Duration> {
        let mut template = Template { frame: [0; FRAME], length: 0, vary_at, n_variants, run: 0 };
        // Whole words; what is beyond them no program changes.
        let length = (frame.len() / 8 * 8).min(FRAME);
        template.frame[..length].copy_from_slice(&frame[..length]);
        template.length = u32::try_from(length)?;
        let mut templates: Array<_, Template> = self.0.map_mut("TEMPLATE").context("no TEMPLATE")?.try_into()?;
        templates.set(0, template, 0)?;
        let mut slots: ProgramArray<_> = self.0.map_mut("MEASURED").context("no MEASURED")?.try_into()?;
        match measured {
            Some(program) => slots.set(0, program.fd()?, 0)?,
            // An empty slot is no error here: that is what is wanted.
            None => drop(slots.clear_index(&0)),
        }
        time(self.xdp("floor_restore")?, frame, n_runs)
    }
}

/// Time of one run, by the kernel's clock, in whole nanoseconds: without what setting the runs up costs.
///
/// # Errors
/// If the kernel refuses to run it.
pub fn time(program: &Xdp, frame: &[u8], n_runs: u32) -> Result<Duration> {
    let options = TestRunOptions { data_in: Some(frame), repeat: n_runs, ..TestRunOptions::new() };
    Ok(program.test_run(options)?.duration)
}
