//! Running in time, whatever else the machine does.
//!
//! An election that is starved by other processes takes its node for master when it is not, or the other way round: the
//! most frequent cause of needless failovers on small boards.

use nix::{
    libc,
    sys::mman::{MlockAllFlags, mlockall},
};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Above ordinary processes and below the kernel's own threads (sched(7)).
pub(crate) const PRIORITY: u8 = 10;

/// What of it was granted; otherwise why not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Realtime {
    /// The thread is scheduled by `SCHED_RR`.
    pub scheduling: Result<(), String>,
    /// Its memory is never swapped out.
    pub memory: Result<(), String>,
}

impl Realtime {
    /// Asks for it, for the calling thread and the memory of the whole process.
    pub(super) fn take() -> Self {
        let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
        let scheduling =
            ThreadPriorityValue::try_from(PRIORITY).map_err(|error| error.to_string()).and_then(|priority| {
                set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(priority), policy)
                    .map_err(|error| error.to_string())
            });
        // Only what is in use: most of a thread's stack never is. nix has no name for it.
        let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
        let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
        Self { scheduling, memory: mlockall(flags).map_err(|error| error.desc().to_lowercase()) }
    }
}
