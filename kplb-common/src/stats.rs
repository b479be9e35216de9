//! Counters of the data path, one copy per processor.

use crate::flow::Direction;

/// Traffic of a backend; value of `BACKEND_STATS`, indexed by backend id.
///
/// A backend belongs to one service, so a service's counters are the sums of its backends'.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BackendStats {
    /// Packets forwarded, by [`Direction`].
    pub packets: [u64; 2],
    /// Bytes of IP packets (header included) forwarded, by [`Direction`].
    pub bytes: [u64; 2],
    /// Flows opened.
    pub flows: u64,
}

const _: () = assert!(size_of::<BackendStats>() == 40);

impl BackendStats {
    /// Counts a forwarded packet of `bytes` bytes.
    #[inline(always)]
    pub fn count(&mut self, direction: Direction, bytes: u16) {
        let direction = direction as usize;
        self.packets[direction] += 1;
        self.bytes[direction] += u64::from(bytes);
    }

    /// Adds the counters of another processor.
    pub fn add(&mut self, other: &Self) {
        for direction in 0..2 {
            self.packets[direction] += other.packets[direction];
            self.bytes[direction] += other.bytes[direction];
        }
        self.flows += other.flows;
    }
}
