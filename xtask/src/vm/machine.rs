//! An emulated machine: QEMU's, without hardware help, and with a clock of its own.
//!
//! The clock advances with what the processor does, not with the host's (`icount`): to itself the machine is a fast one
//! that does nothing else. So what is too late is too late by the tested program's own doing, and no deadline has to be
//! longer than on a real machine, however slow the emulation is and whatever else the host does. It has one processor: with
//! such a clock QEMU lets several run in turn, and while one waits for another, both lose much time.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{debian::text, kernels::Kernel};
use crate::{command::Command, package::Architecture};

/// Seconds of the host without a word, after which a machine is taken for dead. A test may take its time.
const SILENCE: Duration = Duration::from_secs(30 * 60);

/// What a machine is made of.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The processor.
    pub kernel: Kernel,
    /// The kernel's image.
    pub image: &'a Path,
    /// What it boots into.
    pub initramfs: &'a Path,
    /// What it shares with its host.
    pub shares: &'a [Share],
    /// Where all that it writes on its console is kept.
    pub console: &'a Path,
}

/// A directory of the host.
#[derive(Clone, Debug)]
pub struct Share {
    /// What the machine knows it by.
    pub tag: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Whether the machine may write there.
    pub access: Access,
}

/// What a machine may do with a directory of its host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Look at it.
    Read,
    /// Change it.
    Write,
}

impl Machine<'_> {
    /// Runs it until it ends by itself, and gives each line of its console to `listen`.
    pub fn run(&self, mut listen: impl FnMut(&str)) -> Result<()> {
        let mut log = File::create(self.console).with_context(|| format!("create {}", self.console.display()))?;
        let mut process = self.command().spawn_piped()?;
        let output = process.stdout.take().context("a machine without a console")?;
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let end = loop {
            match lines.recv_timeout(SILENCE) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    listen(&line);
                }
                Err(end) => break end,
            }
        };
        if end == mpsc::RecvTimeoutError::Timeout {
            process.kill().context("end a machine")?;
        }
        let status = process.wait().context("wait for a machine")?;
        // It has read to the end, since the machine that wrote has ended.
        let _ = reader.join();
        let console = self.console.display();
        if end == mpsc::RecvTimeoutError::Timeout {
            bail!("not a word for {SILENCE:?}; see {console}");
        }
        if !status.success() {
            bail!("QEMU ended with {status}; see {console}");
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let (program, model, console) = match self.kernel.architecture {
            Architecture::Amd64 => ("qemu-system-x86_64", "q35", "ttyS0"),
            Architecture::Arm64 => ("qemu-system-aarch64", "virt", "ttyAMA0"),
        };
        // It ends with the thread that runs it, in whatever way that ends. Two nanoseconds for each instruction, and the
        // host's time while there is nothing to do.
        let command = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(["-machine", model, "-cpu", self.kernel.processor, "-smp", "1", "-m", "3072"])
            .args(["-accel", "tcg", "-icount", "shift=1,sleep=on", "-no-reboot", "-nic", "none"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(["-kernel".to_owned(), text(self.image), "-initrd".to_owned(), text(self.initramfs)])
            .arg("-append")
            .arg(format!("console={console} quiet panic=1"));
        self.shares.iter().fold(command, |command, Share { tag, path, access }| {
            let read_only = if *access == Access::Read { "on" } else { "off" };
            let path = text(path).replace(',', ",,");
            command.arg("-virtfs").arg(format!(
                "local,path={path},mount_tag={tag},security_model=none,readonly={read_only},multidevs=remap"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernels;

    #[test]
    fn only_what_is_meant_to_be_written_can_be() {
        let share = |tag, access| Share { tag, path: PathBuf::from("/a,b"), access };
        let machine = Machine {
            kernel: kernels::ALL[0],
            image: Path::new("/k"),
            initramfs: Path::new("/i"),
            shares: &[share("root", Access::Read), share("work", Access::Write)],
            console: Path::new("/c"),
        };
        let line = machine.command().to_string();
        assert!(line.contains("path=/a,,b,mount_tag=root,security_model=none,readonly=on,"), "{line}");
        assert!(line.contains("mount_tag=work,security_model=none,readonly=off,"), "{line}");
        assert!(line.contains("-nic none"), "{line}");
    }
}
