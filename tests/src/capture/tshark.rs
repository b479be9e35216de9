//! Frames as an independent decoder reads them: a capture file, and `tshark` over it.

use std::{io::Write as _, path::Path, process::Command, time::SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::packet_socket::Frame;

/// Fields of one frame, by the names that `tshark -G fields` lists.
#[derive(Clone, Debug)]
pub struct Decoded(Value);

impl Decoded {
    /// The value of a field; None if the frame has none, or it was not asked for. Of several it is the first.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.all(field).into_iter().next()
    }

    /// Every value of a field, in the order of the frame.
    pub fn all(&self, field: &str) -> Vec<&str> {
        self.0[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// Decodes these fields of all frames. Checksums are verified: `ip.checksum.status` and `vrrp.checksum.status` are `1`
/// if they are good.
///
/// # Errors
/// If `tshark` fails, or does not know a field.
pub fn decode(frames: &[Frame], fields: &[&str]) -> Result<Vec<Decoded>> {
    let file = tempfile::Builder::new().prefix("kplb").suffix(".pcap").tempfile()?;
    write_pcap(file.path(), frames)?;
    let mut command = Command::new("tshark");
    command.args(["-n", "-o", "ip.check_checksum:TRUE", "-T", "json", "-r"]).arg(file.path());
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().context("run tshark (`cargo xtask setup` installs it)")?;
    ensure!(output.status.success(), "tshark: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    let packets: Vec<Value> = serde_json::from_slice(&output.stdout).context("tshark wrote no JSON")?;
    ensure!(packets.len() == frames.len(), "tshark has read {} frames of {}", packets.len(), frames.len());
    Ok(packets.into_iter().map(|mut packet| Decoded(packet["_source"]["layers"].take())).collect())
}

/// Writes a capture file that `tshark`, `tcpdump` and the like read.
///
/// # Errors
/// If it cannot be written.
pub fn write_pcap(path: &Path, frames: &[Frame]) -> Result<()> {
    // https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html: version 2.4, nanoseconds, Ethernet.
    const MAGIC: u32 = 0xa1b2_3c4d;
    const VERSION: [u16; 2] = [2, 4];
    const SNAP_LENGTH: u32 = 0xffff;
    const ETHERNET: u32 = 1;
    let mut file = Vec::new();
    file.extend(MAGIC.to_ne_bytes());
    file.extend(VERSION.into_iter().flat_map(u16::to_ne_bytes));
    file.extend([0, 0, SNAP_LENGTH, ETHERNET].into_iter().flat_map(u32::to_ne_bytes));
    for frame in frames {
        let since = frame.time.duration_since(SystemTime::UNIX_EPOCH)?;
        let length = u32::try_from(frame.bytes.len())?;
        let header = [u32::try_from(since.as_secs())?, since.subsec_nanos(), length, length];
        file.extend(header.into_iter().flat_map(u32::to_ne_bytes));
        file.extend(&frame.bytes);
    }
    let write = || std::fs::File::create(path)?.write_all(&file);
    write().with_context(|| format!("write {}", path.display()))
}
