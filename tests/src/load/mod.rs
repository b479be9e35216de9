//! Load on a balancer, and what it costs: requests on connections that stay, new connections, bulk transfer.
//!
//! A client and a server in one process, of one thread each, which the kernel keeps on processors of their own. Both do as
//! little as they can: what is measured is the way between them.

mod bare;
mod client;
mod comparison;
mod cpu;
mod distribution;
mod figures;
mod goals;
mod peer;
mod server;
mod table;

pub(crate) use self::peer::masquerade;
pub use self::{
    client::{Client, Outcome, Task},
    comparison::Comparison,
    cpu::Cpu,
    distribution::{distribution, percent_below},
    figures::{Figures, Measure},
    goals::goals,
    peer::{PORT, Peer, Running},
    server::Server,
    table::{costs, rates},
};

/// Bytes of a request.
const REQUEST: usize = 128;
/// Bytes of an answer.
const ANSWER: usize = 512;
/// The first byte of a request for one answer.
const ASK_ANSWER: u8 = b'a';
/// The first byte of a request for bytes without end.
const ASK_BULK: u8 = b'b';
/// Bytes that bulk is written and read by.
const CHUNK: usize = 256 * 1024;

/// Keeps the calling thread on one processor.
///
/// # Errors
/// If there is no such processor.
pub(crate) fn pin(processor: usize) -> nix::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(processor)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
}
